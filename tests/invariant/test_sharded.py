"""Models cut over two and four processes train, save, resume and export as a whole one does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sharded_ranks as ranks
import torch
from sharded_ranks import MODELS, ON_FOUR, SAVED, trained, trainer_of
from transformers import AutoModelForCausalLM

from launching import MARKS, launch
from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints.keep import keep_weights_only
from lmtrain.engine.checkpoints.manifest import read_manifest
from lmtrain.engine.checkpoints.read import checkpoints, has_optimizer_state, newest, problem
from tiny import llama

pytestmark = MARKS
NEAR = 1e-6  # relative, in fp32: sums in another order


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    llama().save_pretrained(folder / "base")
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """What one plain process sees."""
    return {kind: trained(trainer_of(kind, folder)) for kind in MODELS}


@pytest.fixture(scope="module")
def seen(folder: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """What each of two processes saw, then each of four."""
    for processes in (2, 4):
        launch(Path(ranks.__file__), folder, processes=processes, timeout=500)
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert set(found) == {f"{world}-{rank}" for world in (2, 4) for rank in range(world)}
    for name, values in found.items():
        assert values == found[f"{name[0]}-0"], "all processes say the same"
    return found


def same(ours: dict[str, Any], right: dict[str, Any], steps: slice = slice(None)) -> None:
    assert ours["losses"] == pytest.approx(right["losses"][steps], rel=NEAR)
    assert ours["norms"] == pytest.approx(right["norms"][steps], rel=10 * NEAR)
    assert ours["after"] == pytest.approx(right["after"], rel=5 * NEAR)  # a perplexity differs by more than its loss


@pytest.mark.parametrize("kind", MODELS)
def test_two_and_four_make_the_steps_of_one(kind: str, seen: dict[str, Any], whole: dict[str, Any]) -> None:
    for world in (2, 4) if kind in ON_FOUR else (2,):
        ours = seen[f"{world}-0"][kind]
        assert len(ours["losses"]) == 10
        assert ours["packed"] and whole[kind]["packed"]
        same(ours, whole[kind])
        assert ours["before"] == pytest.approx(whole[kind]["before"], rel=NEAR)
        assert ours["head"] == "predicted positions" and ours["wrapped"].startswith("FSDP")


def test_by_the_flags_of_the_trainer_accelerate_does_the_same(
    folder: Path, seen: dict[str, Any], whole: dict[str, Any]
) -> None:
    """With the configuration of examples/distributed, whose units are others than ours."""
    straight, again = (seen["2-0"]["accelerate"][name] for name in ("straight", "again"))
    same(straight, whole["gpt2"])
    assert straight["before"] == pytest.approx(whole["gpt2"]["before"], rel=NEAR)
    assert straight["wrapped"].startswith("FSDP")
    assert again["losses"] == straight["losses"] and again["after"] == straight["after"]
    assert json.loads((folder / "export" / "fsdp2.json").read_text())["logits"] > 1000
    place = folder / "fsdp2-2" / f"checkpoint-{SAVED}"
    assert len([name for name in read_manifest(place)["files"] if name.startswith("shards/")]) == 4


@pytest.mark.parametrize("kind", ["llama", "gpt2", "lora", "muon"])
def test_resumed_by_as_many_it_is_the_same_to_the_bit(kind: str, seen: dict[str, Any]) -> None:
    again, straight = seen["2-0"][f"{kind} again"], seen["2-0"][kind]
    assert again["losses"] == straight["losses"] and again["norms"] == straight["norms"]
    assert again["after"] == straight["after"]


def test_resumed_by_others_it_goes_on(folder: Path, seen: dict[str, Any], whole: dict[str, Any]) -> None:
    """What two saved: one plain process, two in DDP, four sharded; what one saved: four sharded."""
    for kind in ("llama", "gpt2", "lora"):
        alone = trained(trainer_of(kind, folder, "again"), folder / f"{kind}-2" / f"checkpoint-{SAVED}")
        same(alone, seen["2-0"][kind])
    same(seen["2-0"]["whole"], whole["llama"])
    assert seen["2-0"]["whole"]["wrapped"] == "DistributedDataParallel"
    same(seen["4-0"]["from two"], whole["gpt2"])
    same(seen["4-0"]["from one"], whole["gpt2"])
    with pytest.raises(UserError, match="another model's tensors: no transformer"):
        trainer_of("gpt2", folder, "again", saving=ranks.Saving(accept_changes=True)).train(
            resume_from_checkpoint=str(folder / "llama-2" / f"checkpoint-{SAVED}")
        )


def test_a_checkpoint_is_every_process_part_and_one_manifest(folder: Path, seen: dict[str, Any]) -> None:
    place = folder / "llama-4" / f"checkpoint-{SAVED}"
    manifest = read_manifest(place)
    parts = [name for name in manifest["files"] if name.startswith("shards/")]
    assert manifest["processes"] == 4 and len(parts) == 8 and problem(place) is None
    assert {Path(name).suffix for name in manifest["files"]} == {".json", ".safetensors", ".pt"}
    assert [name for name in manifest["files"] if name.endswith(".pt")] == ["scheduler.pt"]  # read as weights only
    sizes = [manifest["files"][name]["size"] for name in parts if "optimizer" in name]
    assert max(sizes) < 1.2 * min(sizes)
    assert json.loads((place / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_a_damaged_or_missing_part_is_passed_over(folder: Path, seen: dict[str, Any]) -> None:
    place = folder / "llama-4"
    steps = [step for step, _ in checkpoints(place)]
    assert steps == [4, 8, 10]
    last, before = place / "checkpoint-10", place / "checkpoint-8"
    part = sorted((last / "shards" / "optimizer").iterdir())[2]
    bytes_of = bytearray(part.read_bytes())
    bytes_of[-3] ^= 1
    part.write_bytes(bytes_of)
    sorted((before / "shards" / "weights").iterdir())[0].unlink()
    found = newest(place)
    assert found.step == 4
    assert "is damaged" in found.passed_over[0] and part.name in found.passed_over[0]
    assert "is missing" in found.passed_over[1]
    keep_weights_only(place / "checkpoint-4")
    assert problem(place / "checkpoint-4") is None and not has_optimizer_state(place / "checkpoint-4")
    assert not list((place / "checkpoint-4" / "shards" / "optimizer").iterdir())


def test_a_save_that_fails_on_one_fails_on_all_and_harms_nothing(folder: Path, seen: dict[str, Any]) -> None:
    failing = seen["2-0"]["failing"]
    assert failing["steps"] == [2, 4, 6, 8]
    assert ["No space left" in said for said in failing["failed"]] == [False, True, True, False]
    place = folder / "failing-2"
    assert [step for step, _ in checkpoints(place)] == [2, 8]
    assert all(problem(path) is None for _, path in checkpoints(place))
    assert not [path.name for path in place.iterdir() if path.name.startswith(".")]


def test_it_ends_with_the_best(seen: dict[str, Any]) -> None:
    best = seen["2-0"]["best"]
    assert best["chosen"] == "best" and best["step"] < 10
    assert best["after"] == pytest.approx(best["score"], rel=NEAR)


def test_evaluation_of_a_stream_counts_all_and_nobody_waits(seen: dict[str, Any], whole: dict[str, Any]) -> None:
    assert seen["2-0"]["stream"]["tokens"] == whole["llama"]["after"]["tokens"]


def test_a_weight_outside_is_refused(seen: dict[str, Any]) -> None:
    assert "1 trained weights of a sharded model are not sharded (extra)" in seen["2-0"]["refused"]["said"]


def test_the_export_is_one_plain_folder_and_computes_the_same(folder: Path, seen: dict[str, Any]) -> None:
    for kind, files in {
        "gpt2": {"config.json", "generation_config.json", "model.safetensors"},
        "bert": {"config.json", "model.safetensors"},
        "lora": {"adapter_config.json", "adapter_model.safetensors"},
    }.items():
        found = json.loads((folder / "export" / f"{kind}.json").read_text())
        assert found["logits"] > 1000 and found["difference"] <= 1e-5 and found["tensors"] > 20
        assert files <= {path.name for path in (folder / "export" / kind).iterdir()} <= files | {"README.md"}
    again = AutoModelForCausalLM.from_pretrained(folder / "export" / "gpt2")
    assert type(again).__name__ == "GPT2LMHeadModel"
    assert again.lm_head.weight is again.transformer.wte.weight
    assert torch.isfinite(again(torch.tensor([[5, 6, 7]])).logits).all()
