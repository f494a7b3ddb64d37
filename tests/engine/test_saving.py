"""Saving while training goes on; the best and the last checkpoint; what is told of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, TrainerCallback, TrainingArguments

from lmtrain.engine.arguments import LMTrainingArguments
from lmtrain.engine.checkpoints.background import Buffers, Writer
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import checkpoints, has_optimizer_state, newest
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows, weights


def trainer(
    folder: Path, *callbacks: Any, saving: Saving | None = None, best: bool = False, model: Any = None, **options: Any
) -> Any:
    args = arguments(folder, **{"max_steps": 8, "per_device_train_batch_size": 4, "save_strategy": "steps",
                                "save_steps": 3, **options})  # fmt: skip
    if best:
        args.load_best_model_at_end = True
        args.metric_for_best_model, args.greater_is_better = "loss", False
    made = LMTrainer(model or gpt2(dropout=0.1), args, MemoryLayout(rows(16)), MemoryLayout(rows(8, seed=3)),
                     objective=Causal(), callbacks=list(callbacks), saving=saving)  # fmt: skip
    made._decided = {"head": {"choice": "all positions", "reason": "for speed of the test"}}
    return made


def steps_in(folder: Path) -> list[int]:
    return [step for step, _ in checkpoints(folder)]


def test_in_the_background_and_in_place_the_same_files_come_out(tmp_path: Path) -> None:
    costs: dict[str, list[dict[str, Any]]] = {"on": [], "off": []}
    for way in ("on", "off"):
        trainer(tmp_path / way, saving=Saving(background=way, report=costs[way].append)).train()  # type: ignore[arg-type]
    for step in (3, 6, 8):
        made = [json.loads((tmp_path / way / f"checkpoint-{step}" / "manifest.json").read_text()) for way in costs]
        same = ("model.safetensors", "optimizer.pt", "scheduler.pt", "config.json")
        assert all(made[0]["files"][name] == made[1]["files"][name] for name in same)
    assert [cost["step"] for cost in costs["on"]] == [3, 6, 8]
    assert all(cost["in_background"] for cost in costs["on"]) and not any(c["in_background"] for c in costs["off"])
    assert all(cost["pause_seconds"] > 0 and cost["bytes"] > 100_000 for cost in costs["on"] + costs["off"])


def test_steps_go_on_while_a_save_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first save is held back until two more steps have been made: its files are those of its own step."""
    released, costs = threading.Event(), list[dict[str, Any]]()

    class Release(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                kept.update(weights(made.model))
            if state.global_step == 5:
                assert made.is_writing
                released.set()

    real = Writer._run

    def held(self: Writer, step: int, write: Any) -> None:
        assert step != 3 or released.wait(60)
        real(self, step, write)

    monkeypatch.setattr(Writer, "_run", held)
    kept: dict[str, torch.Tensor] = {}
    made = trainer(tmp_path, Release(), saving=Saving(background="on", report=costs.append))
    made.train()
    saved = weights(AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-3"))
    assert all(torch.equal(saved[name], value) for name, value in kept.items())
    assert costs[0]["step_seconds_meanwhile"] > 0 and costs[0]["step_seconds"] > 0


def test_an_interrupt_waits_for_the_save_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    real = Writer._run

    def slow(self: Writer, step: int, write: Any) -> None:
        threading.Event().wait(0.5)
        real(self, step, write)

    monkeypatch.setattr(Writer, "_run", slow)
    made = trainer(tmp_path, Stop(), saving=Saving(background="on"))
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert newest(tmp_path).step == 3
    assert not made.is_in_train, "an evaluation from now on is one by itself"


def test_by_itself_it_writes_in_place_where_memory_is_short_or_somebody_waits_for_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmtrain.engine.trainer import saving as module

    class Looks(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append((tmp_path / "looks" / f"checkpoint-{state.global_step}").is_dir())

    def ways(name: str, *callbacks: Any) -> list[bool]:
        told = list[bool]()
        report = Saving(report=lambda cost: told.append(cost["in_background"]))
        trainer(tmp_path / name, *callbacks, saving=report).train()
        return told

    seen = list[bool]()
    assert ways("plain") == [True] * 3
    assert ways("looks", Looks()) == [False] * 3 and seen == [True] * 3
    monkeypatch.setattr(module, "available", lambda device: 1000)
    assert ways("short of memory") == [False] * 3


def test_weights_that_are_not_trained_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = list[int]()
    real = Buffers.copy

    def watched(self: Buffers, tree: Any) -> Any:
        copied.append(self.needed(tree))
        return real(self, tree)

    monkeypatch.setattr(Buffers, "copy", watched)
    made = trainer(tmp_path, saving=Saving(background="on"))
    for name, parameter in made.model.named_parameters():
        parameter.requires_grad_("ln_f" in name)
    made.train()
    assert max(copied) < 4096
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-8")
    assert all(torch.equal(value, weights(saved)[name]) for name, value in weights(made.model).items())


def test_a_save_does_not_copy_what_was_logged(tmp_path: Path) -> None:
    """The pause would grow with the run. What is written is what the library would write."""
    made = trainer(tmp_path)
    made.state.log_history = [{"loss": float(step), "step": step} for step in range(5)]
    kept = made._trainer_state(None)
    assert kept == dataclasses.asdict(made.state) and list(kept) == list(dataclasses.asdict(made.state))
    assert all(line is logged for line, logged in zip(kept["log_history"], made.state.log_history, strict=True))
    made.state.log_history.append({"loss": 5.0, "step": 5})
    assert len(kept["log_history"]) == 5, "the list is a copy: steps go on while it is written"


def test_a_checkpoint_holds_no_pickle_but_tensors(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.train()
    made.save_model(str(tmp_path / "mine"))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert {"optimizer.pt", "scheduler.pt", "manifest.json", "model.safetensors"} <= names
    assert not names & {"training_args.bin", "rng_state.pth"}
    for path in tmp_path.rglob("*.pt"):
        assert torch.load(path, weights_only=True)


# ---- the best and the last -----------------------------------------------------------------------


class Scores(TrainerCallback):
    """Evaluations end as it is written here, by step."""

    def __init__(self, by_step: dict[int, float]) -> None:
        self.by_step = by_step

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        metrics["eval_loss"] = self.by_step[state.global_step]
        for line in state.log_history:
            if "eval_loss" in line and line["step"] == state.global_step:
                line["eval_loss"] = metrics["eval_loss"]


SCORES = {2: 3.0, 4: 1.0, 6: 2.0, 8: 2.5}


class StopsAfterSix(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 6:
            raise KeyboardInterrupt


class Weights(TrainerCallback):
    def __init__(self) -> None:
        self.at: dict[int, dict[str, torch.Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.at[state.global_step] = weights(model)


def test_any_two_intervals_are_legal_in_python(tmp_path: Path) -> None:
    """The pair that the library refuses, from the arguments to the model that is left."""
    options = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps",
               "save_steps": 3, "max_steps": 8, "use_cpu": True, "report_to": "none", "disable_tqdm": True}  # fmt: skip
    with pytest.raises(ValueError, match="round multiple"):
        TrainingArguments(output_dir=str(tmp_path), **options)
    args = LMTrainingArguments(output_dir=str(tmp_path), **options)
    assert (args.load_best_model_at_end, args.metric_for_best_model, args.greater_is_better) == (True, "loss", False)
    made = LMTrainer(gpt2(), args, MemoryLayout(rows(16)), MemoryLayout(rows(8, seed=3)), objective=Causal(),
                     callbacks=[Scores(SCORES)])  # fmt: skip
    made.train()
    assert made.exported["step"] == 4 and made.exported["chosen"] == "best"
    with pytest.raises(ValueError, match="needs evaluations"):
        LMTrainingArguments(output_dir=str(tmp_path), load_best_model_at_end=True)
    for metric, better in (("eval_accuracy", True), ("perplexity", False), ("bits_per_byte", False)):
        chosen = LMTrainingArguments(output_dir=str(tmp_path), metric_for_best_model=metric, use_cpu=True)
        assert chosen.greater_is_better is better


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_any_two_intervals_fit_and_the_best_is_loaded(limit: int | None, tmp_path: Path) -> None:
    """Saves every 3 steps, evaluations every 2: the best is at step 4."""
    history = Weights()
    made = trainer(tmp_path, Scores(SCORES), history, best=True, eval_strategy="steps", eval_steps=2,
                   save_total_limit=limit)  # fmt: skip
    made.train()
    assert made.exported == {"step": 4, "chosen": "best", "metric": "eval_loss", "score": 1.0}
    assert all(torch.equal(value, history.at[4][name]) for name, value in weights(made.model).items())
    expected = {None: [2, 3, 4, 6, 8], 1: [4, 8], 2: [4, 8]}
    assert steps_in(tmp_path) == expected[limit]
    assert newest(tmp_path).step == 8


def test_the_best_adapter_is_loaded_too(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    history = Weights()
    made = trainer(tmp_path, Scores(SCORES), history, best=True, eval_strategy="steps", eval_steps=2,
                   model=get_peft_model(gpt2(), config), learning_rate=0.01)  # fmt: skip
    made.train()
    assert made.exported["step"] == 4
    ends = weights(made.model)
    assert all(torch.equal(value, history.at[4][name]) for name, value in ends.items())
    assert any(not torch.equal(value, history.at[8][name]) for name, value in ends.items())
    assert not (tmp_path / "checkpoint-4" / "model.safetensors").exists()


def test_without_the_wish_for_the_best_the_last_is_exported(tmp_path: Path) -> None:
    made = trainer(tmp_path, Scores(SCORES), eval_strategy="steps", eval_steps=2)
    made.train()
    assert made.exported == {"step": 8, "chosen": "last", "metric": "eval_loss", "score": 2.5}
    assert steps_in(tmp_path) == [3, 6, 8]


def test_the_best_is_remembered_by_a_resumed_run_even_when_it_was_moved(tmp_path: Path) -> None:
    options: dict[str, Any] = {"best": True, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 1}
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "here", Scores(SCORES), StopsAfterSix(), **options).train()
    (tmp_path / "here").rename(tmp_path / "there")
    resumed = trainer(tmp_path / "there", Scores(SCORES), **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.exported["step"] == 4
    assert steps_in(tmp_path / "there") == [4, 8]


def test_the_best_of_a_run_of_the_stock_trainer_stays_and_is_loaded(tmp_path: Path) -> None:
    options: dict[str, Any] = {"best": True, "eval_strategy": "steps", "eval_steps": 2, "save_total_limit": 1}
    history = Weights()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Scores(SCORES), StopsAfterSix(), history, **options).train()
    for _, path in checkpoints(tmp_path):  # what the stock Trainer does not write
        for name in ("manifest.json", "run_state.json"):
            (path / name).unlink()
    resumed = trainer(tmp_path, Scores(SCORES), **options)
    resumed.train(resume_from_checkpoint=True)
    assert steps_in(tmp_path) == [4, 8]
    assert resumed.exported == {"step": 4, "chosen": "best", "metric": "eval_loss", "score": 1.0}
    assert all(torch.equal(value, history.at[4][name]) for name, value in weights(resumed.model).items())


def test_a_best_one_that_could_not_be_saved_gives_way_to_the_best_that_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lmtrain.engine.trainer import saving as module

    real = module.write_checkpoint

    def fails_once(path: Path, contents: Any) -> int:
        if contents.step == 4:
            raise OSError(28, "No space left on device")
        return real(path, contents)

    monkeypatch.setattr(module, "write_checkpoint", fails_once)
    made = trainer(tmp_path, Scores(SCORES), best=True, eval_strategy="steps", eval_steps=2, save_total_limit=1)
    with caplog.at_level(logging.WARNING):
        made.train()
    assert made.exported["step"] == 2 and steps_in(tmp_path) == [2, 8]
    assert "step 4 scored best and could not be saved; step 2 is the best that was" in caplog.text


def test_the_scale_of_fp16_goes_on_whoever_saved_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(tmp_path)
    monkeypatch.setattr(type(made), "_is_stock_saved", True)  # as of the first FSDP's models
    torch.save(torch.amp.GradScaler("cpu", init_scale=8.0).state_dict(), tmp_path / "scaler.pt")
    made.accelerator.scaler = torch.amp.GradScaler("cpu")
    made._load_scaler(str(tmp_path))
    assert made.accelerator.scaler.get_scale() == 8.0


def test_old_optimizer_states_go_and_the_newest_stays(tmp_path: Path) -> None:
    trainer(tmp_path, saving=Saving(keep_optimizer_states=1), save_steps=2).train()
    assert [has_optimizer_state(path) for _, path in checkpoints(tmp_path)] == [False, False, False, True]
    assert newest(tmp_path).passed_over == ()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-2")
