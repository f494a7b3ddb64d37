"""How runs end: the model compared, uploaded if asked to, and what a failure of either leaves."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from world import World

from hub_stand_in import TOKEN, Hub, Repository, serving
from lmtrain.api import clm
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.core.runlog import read_events


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as served:
        served.take_the_place(monkeypatch, tmp_path)
        yield served


def command(world: World, out: Path, more: str = "") -> list[str]:
    return (
        f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --output_dir {out} --block_size 32 "
        f"--max_steps 3 --per_device_train_batch_size 4 --logging_steps 1 --do_train {more}"
    ).split()


def read(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / name).read_text())
    return found


def told(folder: Path, secret: str) -> list[str]:
    """The files that hold ``secret``."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.parametrize("more", ["", "--use_peft", "--use_peft --merge_lora"])
def test_every_run_compares_what_it_leaves(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    if more:
        pytest.importorskip("peft")
    out = tmp_path / "out"
    assert main(command(world, out, more)) == 0
    assert "reloaded and compared" in capsys.readouterr().err
    export = read(out, "export.json")
    assert export["compared"]["difference"] <= export["compared"]["allowed"] <= 1e-4 and export["step"] == 3
    assert export["compared"]["kind"] == {"": "model", "--use_peft": "adapter"}.get(more, "merged")
    for name, about in export["files"].items():
        assert (out / name).stat().st_size == about["bytes"]


def test_a_wrong_export_fails_the_run_and_the_same_command_goes_on_from_its_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    save = PreTrainedModel.save_pretrained

    def saved_wrong(self: Any, place: Any, *args: Any, **kwargs: Any) -> None:
        save(self, place, *args, **kwargs)
        if ".model." in str(place):  # the export, and no checkpoint
            tensors = load_file(Path(place) / "model.safetensors")
            tensors["transformer.h.0.ln_1.weight"] += 1
            save_file(tensors, Path(place) / "model.safetensors", metadata={"format": "pt"})

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", saved_wrong)
        assert main(command(world, out)) == ExitCode.WRONG_INPUT, "the rehearsal sees it"
        assert main(command(world, out, "--skip_check")) == ExitCode.OUR_FAULT
    said = capsys.readouterr().err
    assert "Traceback" not in said and "transformer.h.0.ln_1.weight has other values" in said
    status = read(out, "status.json")
    assert status["state"] == "failed" and "not the one that was trained" in status["reason"]
    assert not (out / "config.json").exists() and (out / "checkpoint-3").is_dir()
    assert (out / "export-rejected" / "model.safetensors").is_file()
    assert main(["push", str(out), "--hub_token", TOKEN]) == ExitCode.WRONG_INPUT
    assert "holds no exported model" in capsys.readouterr().err
    assert main(command(world, out)) == 0
    assert "goes on from step 3" in capsys.readouterr().err
    steps = [event["step"] for event in read_events(out / "metrics.jsonl") if event["event"] == "train"]
    assert steps.count(3) == 1, "nothing is trained again"
    assert read(out, "status.json")["state"] == "finished" and not (out / "export-rejected").exists()


def test_a_run_uploads_what_it_exported(
    world: World,
    hub: Hub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "book"
    line = command(world, out, f"--push_to_hub --hub_token {TOKEN} --hub_private_repo --do_eval --save_steps 2")
    monkeypatch.setattr(sys, "argv", ["lmtrain", *line])
    assert main(line) == 0
    said = capsys.readouterr()
    there = hub.repositories["me/book"]
    assert there.private and there.commits == 1, "checkpoints are not uploaded, and the repository is not made early"
    files = dict(there.branches["main"])
    card = files.pop("README.md").decode()
    assert files == {name: (out / name).read_bytes() for name in read(out, "export.json")["files"]}
    key = read(out, "data.json")["stores"]["train"]["key"]
    assert "validation loss" in card and key in card and "--hub_token ..." in card and "step 3" in card
    assert read(out, "status.json")["upload"]["state"] == "done"
    assert TOKEN not in said.out + said.err + card and not told(out, TOKEN)
    hub.requests.clear()
    assert main(line) == 0
    assert "uploaded already" in capsys.readouterr().err and not hub.requests


@pytest.mark.parametrize(("place", "status"), [("/blobs/", 0), ("/commit/", 500), ("/repos/create", 403)])
def test_a_failed_upload_leaves_a_finished_run_and_says_how_to_repeat_it(
    world: World, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str, status: int
) -> None:
    out = tmp_path / "out"
    hub.fail = (place, status)
    code = main(command(world, out, f"--push_to_hub --hub_token {TOKEN} --hub_model_id org/book --hub_revision v2"))
    said = capsys.readouterr()
    assert code == ExitCode.UPLOAD_FAILED == 69
    assert "upload failed" in said.err and "Traceback" not in said.err
    found = read(out, "status.json")
    assert found["state"] == "finished" and found["upload"]["state"] == "failed"
    assert TOKEN not in said.out + said.err and not told(out, TOKEN)
    [again] = [line.strip() for line in said.err.splitlines() if "lmtrain push" in line]
    words = shlex.split(again.replace("--hub_token ...", f"--hub_token {TOKEN}"))
    assert words[:3] == ["lmtrain", "push", str(out)] and "org/book" in words

    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "metrics.jsonl"}
    assert main(words[1:]) == ExitCode.UPLOAD_FAILED, "still down"
    said = capsys.readouterr()
    assert "upload failed" in said.err and TOKEN not in said.err
    hub.fail = None
    assert main(words[1:]) == 0
    said = capsys.readouterr()
    assert f"{hub.endpoint}/org/book/commit/" in said.out and TOKEN not in said.out + said.err
    arrived = hub.repositories["org/book"].branches["v2"]
    for name in read(out, "export.json")["files"]:
        assert arrived[name] == (out / name).read_bytes()
    assert read(out, "status.json")["upload"]["state"] == "done" and not told(out, TOKEN)
    changed = {path.name for path, data in before.items() if path.read_bytes() != data}
    assert changed == {"status.json"}


def test_a_signal_during_the_upload_leaves_a_finished_run(
    world: World, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 75 would have a job queued again, and --overwrite_output_dir would then remove what is finished."""
    out = tmp_path / "out"

    def begins(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("lmtrain.engine.runs.uploading.upload", begins)
    line = command(world, out, f"--push_to_hub --hub_token {TOKEN} --overwrite_output_dir")
    assert main(line) == ExitCode.UPLOAD_FAILED
    assert "upload failed: SIGTERM" in capsys.readouterr().err
    found = read(out, "status.json")
    assert found["state"] == "finished" and found["upload"]["state"] == "failed"


def test_a_finished_run_is_uploaded_when_its_command_is_repeated_with_the_wish(
    world: World, hub: Hub, tmp_path: Path
) -> None:
    out = tmp_path / "later"
    assert main(command(world, out)) == 0 and not hub.repositories
    assert main(command(world, out, f"--push_to_hub --hub_token {TOKEN}")) == 0
    assert hub.repositories["me/later"].commits == 1


def test_a_python_function_uploads_as_the_command_does(world: World, hub: Hub, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model_name_or_path": world.gpt2, "train_file": world.text, "output_dir": tmp_path / "mine", "block_size": 32,
        "max_steps": 3, "do_train": True,
    }  # fmt: skip
    assert clm(**options).uploaded is None
    hub.fail = ("/commit/", 500)
    to_the_hub = {"push_to_hub": True, "hub_token": TOKEN}
    failed = clm(**options, **to_the_hub)
    assert failed.uploaded is False and failed.was_finished and (tmp_path / "mine" / "model.safetensors").is_file()
    hub.fail = None
    assert clm(**options, **to_the_hub).uploaded is True
    assert hub.repositories["me/mine"].commits == 1


def test_rights_are_looked_at_before_the_training(
    world: World, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["org/closed"], hub.closed = Repository(), frozenset({"org/closed"})
    line = command(world, tmp_path / "out", f"--push_to_hub --hub_model_id org/closed --hub_token {TOKEN}")
    assert main(line) == ExitCode.WRONG_INPUT
    assert "--push_to_hub" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_checkpoints_are_not_for_the_hub(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(command(world, tmp_path / "out", "--push_to_hub --hub_strategy all_checkpoints"))
    assert "checkpoints never are" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "name what to upload"),
        (["{out}/nothing"], "no such folder"),
        (["{base}", "--hub_model_id", "a b"], "no name that a repository can have"),
        (["{base}", "--hub_model_id", "you/book", "--hub_token", TOKEN], "you is not me"),
        (["{base}", "--hub_model_id", "me/book"], "access token"),
    ],
)
def test_what_push_refuses(
    world: World, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    line = [word.format(out=tmp_path, base=world.gpt2) for word in words]
    assert main(["push", *line]) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert text in said and "Traceback" not in said and TOKEN not in said
    assert not hub.repositories


def test_push_without_a_network(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["push", world.gpt2, "--hub_model_id", "me/x", "--hub_token", TOKEN]) == ExitCode.UPLOAD_FAILED
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "flag"), [("", "MODEL"), ("--base", "--base")])
def test_export_names_what_was_typed(more: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nothing").mkdir()
    model, words = tmp_path / "nothing", []
    if more:
        import torch

        model = tmp_path / "adapter"
        model.mkdir()
        (model / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        save_file({"a": torch.zeros(1)}, model / "adapter_model.safetensors")
        words = [more, str(tmp_path / "nothing")]
    assert main(["export", str(model), str(tmp_path / "out"), "--to", "merged", *words]) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert f"  {flag}   " in said and "--model_name_or_path" not in said, said
    assert not (tmp_path / "out").exists()
