"""A checkpoint in which anything is cut off, changed or gone is noticed, named, and done without."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from little_run import trainer
from safetensors.torch import load_file
from transformers import Trainer, TrainerCallback

from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints.manifest import MANIFEST, describe_files, read_manifest, write_manifest
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import newest
from lmtrain.engine.runs.found import look, require_usable
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, gpt2, rows, weights

FILES = ("config.json", "generation_config.json", "manifest.json", "model.safetensors", "optimizer.pt",
         "run_state.json", "scheduler.pt", "trainer_state.json")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("run")
    made = trainer(folder, 3, saving=Saving(background="off"))
    made.train()
    assert tuple(sorted(path.name for path in (folder / "checkpoint-3").iterdir())) == FILES
    return folder, weights(made.model)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut off", "one bit flipped", "removed"])
def test_each_file_is_guarded(
    harm: Callable[[Path], None], run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    for name in FILES:
        folder = tmp_path / name
        shutil.copytree(run[0], folder)
        harm(folder / "checkpoint-3" / name)
        found = newest(folder)
        assert found.step == 2, name
        assert len(found.passed_over) == 1 and found.passed_over[0].startswith(f"checkpoint-3: {name} "), name


def test_the_run_goes_on_from_the_one_before(
    run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    flip(tmp_path / "checkpoint-3" / "optimizer.pt")
    resumed = trainer(tmp_path, 3)
    resumed.train(resume_from_checkpoint=True)
    assert "passed over checkpoint-3: optimizer.pt is damaged" in caplog.text
    assert all(torch.equal(value, run[1][name]) for name, value in weights(resumed.model).items())
    assert newest(tmp_path).step == 3, "and the damaged one was written anew"
    with pytest.raises(UserError, match=r"no checkpoint that training can go on from:\n.*checkpoint-3: model.saf"):
        for step in (1, 2, 3):
            cut(tmp_path / f"checkpoint-{step}" / "model.safetensors")
        trainer(tmp_path, 3).train(resume_from_checkpoint=True)


def test_a_command_says_what_it_passed_over_and_never_starts_over_silently(
    run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(run[0], tmp_path, dirs_exist_ok=True)
    with RunFolder(tmp_path) as made:
        made.describe("clm", [], {})
        made.status("training", step=3)
    cut(tmp_path / "checkpoint-3" / "trainer_state.json")
    found = look(tmp_path, "clm", {}, overwrite=False)
    assert found.checkpoint == tmp_path / "checkpoint-2" and found.passed_over[0].startswith("checkpoint-3: trainer_s")
    for step in (1, 2):
        flip(tmp_path / f"checkpoint-{step}" / MANIFEST)
    with pytest.raises(UserError, match=r"manifest\.json is damaged") as refused:
        require_usable(tmp_path, look(tmp_path, "clm", {}, overwrite=False), {})
    assert "--overwrite_output_dir" in str(refused.value)


class Harm:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_code_is_refused_by_name(
    run: tuple[Path, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    shutil.copytree(run[0], tmp_path / "run")
    checkpoint, mark = tmp_path / "run" / "checkpoint-3", tmp_path / "it ran"
    torch.save({"state": Harm(mark), "param_groups": []}, checkpoint / "optimizer.pt")
    manifest = read_manifest(checkpoint)
    write_manifest(checkpoint, {**manifest, "files": describe_files(checkpoint)})  # hashes do not tell friend from foe
    with pytest.raises(UserError, match=r"optimizer\.pt is refused: .* could run code"):
        trainer(tmp_path / "run", 4, saving=Saving(accept_changes=True)).train(resume_from_checkpoint=str(checkpoint))
    assert not mark.exists()


class Beginning(TrainerCallback):
    """What the first step begins with."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if not vars(self):
            self.weights = weights(parts["model"])
            self.optimizer = copy.deepcopy(parts["optimizer"].state_dict())


def test_one_of_the_stock_trainer_is_gone_on_from_and_its_pickles_are_never_run(tmp_path: Path) -> None:
    data = [{"input_ids": row, "labels": row} for row in rows(12, shortest=6, longest=6)]
    args = arguments(
        tmp_path, max_steps=6, per_device_train_batch_size=4, save_strategy="steps", save_steps=2,
        lr_scheduler_type="linear",
    )  # fmt: skip
    stock = Trainer(model=gpt2(), args=args, train_dataset=data)
    stock.train()
    checkpoint, mark = tmp_path / "checkpoint-4", tmp_path / "it ran"
    for name in ("rng_state.pth", "training_args.bin"):
        assert (checkpoint / name).is_file()
        (checkpoint / name).write_bytes(pickle.dumps(Harm(mark)))
    layout, begun = MemoryLayout(rows(12, shortest=6, longest=6)), Beginning()
    resumed = LMTrainer(gpt2(seed=5), args, layout, callbacks=[begun])
    resumed.train(resume_from_checkpoint=str(checkpoint))
    saved = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(begun.weights[name], value) for name, value in saved.items())
    state = torch.load(checkpoint / "optimizer.pt", weights_only=True)
    torch.testing.assert_close(begun.optimizer, state, rtol=0, atol=0)
    assert state["state"][0]["exp_avg"].any() and state["state"][0]["exp_avg_sq"].any()
    rates = [[line["learning_rate"] for line in made.state.log_history[:6]] for made in (stock, resumed)]
    assert rates[0] == rates[1] and len(set(rates[0])) == 6
    assert not mark.exists()
    assert resumed.state.global_step == 6 and len(resumed.state.log_history) == 7
    moments = resumed.optimizer.state_dict()["state"]
    assert all(float(moment["step"]) == 6 for moment in moments.values())


def test_a_cut_off_stock_checkpoint_is_noticed(tmp_path: Path) -> None:
    data = [{"input_ids": row, "labels": row} for row in rows(12, shortest=6, longest=6)]
    args = arguments(tmp_path, max_steps=3, per_device_train_batch_size=4, save_strategy="steps", save_steps=1)
    Trainer(model=gpt2(), args=args, train_dataset=data).train()
    assert newest(tmp_path).step == 3
    cut(tmp_path / "checkpoint-3" / "model.safetensors")
    (tmp_path / "checkpoint-2" / "optimizer.pt").write_bytes(
        (tmp_path / "checkpoint-2" / "optimizer.pt").read_bytes()[:-200]
    )
    found = newest(tmp_path)
    assert found.step == 1
    assert found.passed_over == ("checkpoint-3: model.safetensors is cut off", "checkpoint-2: optimizer.pt is cut off")
