"""What would fail at a run's end is found before its first step, all at once, and looking changes nothing."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stages import stage_of
from torch import nn
from transformers import GPT2LMHeadModel

from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.engine.runs.found import Found
from lmtrain.engine.speed import memory
from lmtrain.rehearsal import cut_off
from lmtrain.rehearsal import rehearse as rehearsing
from lmtrain.rehearsal import twin as twins
from lmtrain.rehearsal.rehearse import Findings, rehearse

ALL = ["save", "reload", "generate", "gradients", "evaluate"]


def problems(stage: Any) -> dict[str | None, str]:
    """By flag; several of one flag in one text."""
    try:
        rehearse(stage)
    except UserError as error:
        found: dict[str | None, str] = {}
        for problem in error.problems:
            found[problem.flag] = found.get(problem.flag, "") + problem.text
        return found
    return {}


# ---- what is fine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("small", [twins.SMALL, 0], ids=["a copy", "a shrunken twin"])
@pytest.mark.parametrize(
    "name",
    ["gpt2", "llama", "bert", "pairs", "lora", "query and value", "merged", "muon", "grown gpt2", "grown bert",
     "grown gpt2, lora", "grown bert, lora"],
)  # fmt: skip
def test_a_sound_run_passes_and_nothing_stays(
    name: str, small: int, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "SMALL", small)
    stage = stage_of(runs[name], tmp_path / "a" / "out")
    found = rehearse(stage)
    assert found.done == [what if "bert" not in name else what.replace("generate", "fill a mask") for what in ALL]
    assert found.lines == []
    assert list(tmp_path.iterdir()) == [], "neither the folder nor anything in it"


def state_of(model: nn.Module) -> tuple[Any, ...]:
    tensors = {name: value.clone() for name, value in (*model.named_parameters(), *model.named_buffers())}
    return tensors, [module.training for module in model.modules()], [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("name", ["gpt2", "bert", "lora"])
def test_model_and_random_streams_are_as_they_were(name: str, runs: dict[str, str], tmp_path: Path) -> None:
    stage = stage_of(f"{runs[name]} --dropout 0.2", tmp_path / "out")
    model, trainer = stage.parts.model, stage.trainer
    trainer.fast_paths  # noqa: B018 -- which may fuse activations: that is the run's
    tensors, modes, trained = state_of(model)
    streams = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    callbacks, history = list(trainer.callback_handler.callbacks), list(trainer.state.log_history)
    rehearse(stage)
    after, modes_after, trained_after = state_of(model)
    assert tensors.keys() == after.keys() and all(torch.equal(tensors[name], after[name]) for name in tensors)
    assert (modes, trained) == (modes_after, trained_after)
    assert all(weight.grad is None for weight in model.parameters())
    assert random.getstate() == streams[0] and torch.equal(torch.get_rng_state(), streams[2])
    assert np.array_equal(np.random.get_state()[1], streams[1])
    assert trainer.callback_handler.callbacks == callbacks and trainer.state.log_history == history
    assert trainer.optimizer is None


@pytest.mark.parametrize("name", ["gpt2", "lora", "bert"])
def test_a_run_ends_with_the_same_weights_to_the_bit(name: str, runs: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from lmtrain.engine.assembly import train

    weights = []
    for skips in ("true", "false"):
        stage = stage_of(f"{runs[name]} --dropout 0.2 --skip_check {skips}", tmp_path / skips)
        held: list[Findings] = []
        train(stage.resolved, rehearse=lambda s, held=held: held.append(rehearse(s)), say=silent)
        assert bool(held) == (skips == "false")
        weights.append(load_file(next((tmp_path / skips).glob("*.safetensors"))))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_goes_on_has_only_its_place_looked_at(runs: dict[str, str], tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = torch.inf

    found = Found("unfinished", tmp_path / "checkpoint-1", 1)
    assert rehearse(stage_of(runs["gpt2"], tmp_path / "out", spoil=spoil, found=found)).done == []
    stage = stage_of(runs["gpt2"], tmp_path / "other", found=found, folder=Path("/proc/nothing/can/be/made/here"))
    if sys.platform == "linux":
        assert "nothing can be written" in problems(stage)["--output_dir"]


# ---- what is not -------------------------------------------------------------------------------------


class Forgetful(GPT2LMHeadModel):
    """Leaves a tensor out of what it saves; in a new model it is zero, as it is when it is missing."""

    def save_pretrained(self, folder: Any, *args: Any, state_dict: Any = None, **kwargs: Any) -> Any:
        state = dict(state_dict or self.state_dict())
        del state["transformer.ln_f.bias"]
        return super().save_pretrained(folder, *args, state_dict=state, **kwargs)


class Silent(GPT2LMHeadModel):
    def generate(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("no words")


def become(kind: type) -> Any:
    def spoil(model: Any) -> None:
        model.__class__ = kind

    return spoil


@pytest.mark.parametrize("small", [twins.SMALL, 0], ids=["a copy", "a shrunken twin"])
def test_a_class_that_forgets_a_tensor(
    small: int, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "SMALL", small)
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=become(Forgetful)))
    assert list(said) == ["--model_name_or_path"]
    assert "ln_f.bias" in said["--model_name_or_path"] and "--skip_check" in said["--model_name_or_path"]
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_generate(runs: dict[str, str], tmp_path: Path) -> None:
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=become(Silent)))
    assert "cannot generate: NotImplementedError: no words" in said["--model_name_or_path"]


def test_generation_settings_that_saving_refuses(runs: dict[str, str], tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        model.generation_config.do_sample, model.generation_config.temperature = False, 0.5
        model.generation_config.eos_token_id = 5000

    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=spoil))["--model_name_or_path"]
    assert "temperature" in said and "eos_token_id 5,000" in said


def test_weights_that_are_no_numbers(runs: dict[str, str], tmp_path: Path) -> None:
    def spoil(model: Any) -> None:
        model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = torch.inf

    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=spoil))
    assert "1 tensor of the model hold" in said["--model_name_or_path"]
    assert "transformer.h.1.mlp.c_fc.weight" in said["--model_name_or_path"]


class Overflowing(GPT2LMHeadModel):
    """Finite weights, and a gradient that is not."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.transformer.ln_f.weight.register_hook(lambda gradient: gradient * torch.nan)
        return super().forward(*args, **kwargs)


def test_gradients_that_are_no_numbers(runs: dict[str, str], tmp_path: Path) -> None:
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=become(Overflowing)))
    assert "gradients of 1 of" in said["--model_name_or_path"]
    assert "transformer.ln_f.weight" in said["--model_name_or_path"]


class WithPooler(GPT2LMHeadModel):
    """Has weights that its loss does not depend on, as BERT with a pooler has."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pooler = nn.Linear(config.n_embd, config.n_embd)


class CutOff(GPT2LMHeadModel):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            outputs = super().forward(*args, **{**kwargs, "labels": None})
        outputs.logits = outputs.logits + 0 * self.transformer.wte.weight.sum()
        return outputs


def test_tensors_without_a_gradient_are_named(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    stage.parts.model.pooler = nn.Linear(4, 4)
    stage.parts.model.__class__ = WithPooler
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)  # loading knows nothing of this pooler
    assert rehearse(stage).lines == [
        "2 of 30 trained tensors get no gradient and stay as they are: pooler.weight, pooler.bias"
    ]
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=become(CutOff)))
    assert "does not depend on 27 of the 28 trained tensors" in said["--model_name_or_path"]


def sever(model: Any) -> None:
    """A layer learns nothing from now on, though the loss depends on it; and on another one it does not depend."""
    linear = model.transformer.h[1].mlp.c_fc
    linear.forward = lambda x: type(linear).forward(linear, x).detach()
    model.pooler = nn.Linear(4, 4)


def skip_at_random(model: Any) -> None:
    """A layer is left out of every other pass, by chance, as LayerDrop does it; of one whose first draw this is after
    ``torch.manual_seed(0)``, which is 0.496."""
    block = model.transformer.h[1]
    block.forward = lambda x, *a, **k: x if torch.rand([]) < 0.5 else type(block).forward(block, x, *a, **k)


@pytest.mark.parametrize("large", [1 << 20, 1], ids=["small", "large"])
def test_tensors_that_are_cut_off_are_told_from_those_that_are_not_used(
    large: int, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a layer norm, too, that are all ones or zeros, and of which a large one would not be copied."""
    monkeypatch.setattr(cut_off, "_LARGE", large)
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)  # saving knows nothing of this pooler
    stage = stage_of(f"{runs['gpt2']} --dropout 0.2", tmp_path / "out", spoil=sever)
    assert stage.trainer.fast_paths
    before = state_of(stage.parts.model)[0]
    said = problems(stage)["--model_name_or_path"]
    assert said.startswith("the loss changes with transformer.h.1.ln_2.weight, ")
    assert "mlp.c_fc.weight" in said and "pooler" not in said and "--skip_check" in said
    after = state_of(stage.parts.model)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_layer_that_the_pass_left_out_by_chance_is_not_cut_off(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)
    found = rehearse(stage_of(f"{runs['gpt2']} --dropout 0", tmp_path / "out", spoil=skip_at_random))
    assert "12 of 28 trained tensors get no gradient" in found.lines[0], "it was left out"


def test_what_there_was_no_time_for_is_said(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsing, "_TOKENIZER_S", 1.0)
    monkeypatch.setattr(rehearsing.Budget, "left", 1.0)
    monkeypatch.setattr(rehearsing.Budget, "left_at_most", 0.0)
    said: list[str] = []
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    stage.say = lambda topic, text: said.append(text)
    rehearse(stage, plan=False)
    assert said[-1] == (
        "save, reload, generate, gradients: fine (not tried, for want of time: saving the tokenizer, an evaluation)"
    )


def test_ids_without_a_row(runs: dict[str, str], tmp_path: Path) -> None:
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=lambda model: model.resize_token_embeddings(50)))
    assert "50 embedding rows" in said["--tokenizer_name"]


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["GPU", "CPU"],
)
def test_what_does_not_fit_into_memory(
    full: RuntimeError, runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(runs["gpt2"], tmp_path / "out")

    def fails(*_: Any, **__: Any) -> None:
        raise full

    assert stage.trainer.fast_paths
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(stage.trainer, "evaluate", fails)
        assert "at once do not fit into memory" in problems(stage)["--per_device_eval_batch_size"]
    monkeypatch.setattr(stage.trainer, "one_pass", fails)
    said = problems(stage)["--per_device_train_batch_size"]
    assert "of up to 16 tokens at once" in said and "--auto_batch" in said


def test_of_the_machine_s_memory_a_process_counts_on_its_share(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 80 * 10**9)
    monkeypatch.setattr(memory, "processes_here", lambda: 4)
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)
    found = rehearse(stage_of(runs["gpt2"], tmp_path / "out")).estimate
    assert found is not None and 20 * 10**9 < found.memory_free < 40 * 10**9, "what it holds comes on top"


def test_all_of_it_at_once(runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(model: Any) -> None:
        model.__class__ = Forgetful
        model.generation_config.eos_token_id = 5000
        model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = torch.inf

    from lmtrain.rehearsal import footprint

    monkeypatch.setattr(footprint, "disk_usage", lambda folder: type("Disk", (), {"free": 1000}))
    said = problems(stage_of(runs["gpt2"], tmp_path / "out", spoil=spoil))
    for part in ("5,000", "ln_f.bias", "c_fc.weight"):
        assert part in said["--model_name_or_path"]
    assert "1.0 kB are free" in said["--output_dir"]


# ---- the place ---------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made(runs: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    stage = stage_of(runs["gpt2"], tmp_path / "out", folder=tmp_path / "file" / "out")
    assert "Not a directory" in problems(stage)["--output_dir"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_disk_that_takes_no_model(runs: dict[str, str], tmp_path: Path) -> None:
    """Files end at 70 kB: the probe is smaller, the model larger."""
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, hard))
    try:
        said = problems(stage)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "writing a small model there fails" in said["--output_dir"] and "File too large" in said["--output_dir"]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def little_disk(tmp_path: Path) -> Any:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = sys.platform == "linux" and os.getuid() == 0
    mounted = (
        mounted
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(place)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_with_too_little_room(runs: dict[str, str], little_disk: Path, tmp_path: Path) -> None:
    said = problems(stage_of(f"{runs['gpt2']} --save_steps 1", little_disk / "out"))
    assert "2 checkpoints and the model take" in said["--output_dir"] and "are free on the disk" in said["--output_dir"]
    assert problems(stage_of(f"{runs['gpt2']} --save_strategy no", little_disk / "out")) == {}


def test_a_failed_rehearsal_leaves_an_earlier_run_alone(runs: dict[str, str], tmp_path: Path) -> None:
    from lmtrain.engine.assembly import train

    out = tmp_path / "out"
    stage = stage_of(runs["gpt2"], out)
    train(stage.resolved, rehearse=rehearse, say=silent)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file() and path.name != "run.lock"}

    def refuse(stage: Any) -> None:
        raise UserError("no", flag="--x")

    again = stage_of(f"{runs['gpt2']} --overwrite_output_dir --learning_rate 1", out)
    with pytest.raises(UserError):
        train(again.resolved, rehearse=refuse, say=silent)
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "run.lock"} == before


# ---- its cost ----------------------------------------------------------------------------------------


def test_it_takes_little_time(runs: dict[str, str], tmp_path: Path) -> None:
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    rehearse(stage)  # what libraries make once in a process
    assert stage.trainer.fast_paths
    taken = []
    for _ in range(3):  # a processor with other work is a slower one
        began = time.process_time()
        rehearse(stage)
        taken.append(time.process_time() - began)
    assert min(taken) < 1.0


def test_as_many_examples_as_fit_into_the_time(
    runs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = stage_of(runs["gpt2"], tmp_path / "out")
    tried = []

    def try_pass(trainer: Any, numbers: Any, *rest: Any) -> Any:
        tried.append(len(numbers))
        return whole_pass(trainer, numbers, *rest)

    whole_pass = rehearsing.try_pass
    monkeypatch.setattr(rehearsing, "try_pass", try_pass)
    monkeypatch.setattr(rehearsing, "_on_a_twin", lambda *_: None)
    for a_second, planned, expected in ((1e-3, 0.0, 8), (5.0, 0.0, 1), (5.0, 2000.0, 3), (50.0, 0.0, None)):
        monkeypatch.setattr(rehearsing, "seconds_of", lambda t, numbers, a=a_second: a)
        monkeypatch.setattr(type(stage.trainer), "planned_passes", planned / a_second)
        found = rehearse(stage)
        assert (tried or [None]) == [expected]
        assert ("none was tried beforehand" in "".join(found.lines)) == (expected is None)
        tried.clear()
