"""A step with bad numbers changes nothing, is told as what it is, and does not go on for ever."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.core.streams import permutation
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import newest
from lmtrain.engine.display import describe_train
from lmtrain.engine.guarding import BadNumbersError, Guarding, is_spike
from lmtrain.engine.muon import muon_for
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, gpt2, rows, weights
from tiny_models import checkpoint

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "fused AdamW": {"optim": "adamw_torch_fused", "weight_decay": 0.1},
    "AdamW": {"optim": "adamw_torch", "weight_decay": 0.1},
    "SGD": {"optim": "sgd"},
    "Adafactor": {"optim": "adafactor"},
    "Muon": {"make_optimizer": muon_for},
}


class Spoiler(TrainerCallback):
    """Makes the numbers of chosen steps bad: one micro-batch's loss, or only a gradient."""

    def __init__(self, *steps: int, factor: float = math.nan, micro: int = 1, gradient_only: bool = False) -> None:
        self.steps, self.factor, self.micro, self.gradient_only = steps, factor, micro, gradient_only
        self.before: list[Any] = []
        self.after: list[Any] = []
        self.trainer: Any = None

    def attach(self, trainer: LMTrainer) -> None:
        self.trainer, seen = trainer, {"step": -1, "micro": 0}
        scored = trainer.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = scored(*args, **kwargs)
            step = trainer.state.global_step + 1
            seen.update(step=step, micro=seen["micro"] + 1 if seen["step"] == step else 0)
            if step in self.steps and seen["micro"] == self.micro and not self.gradient_only:
                from lmtrain.engine.trainer.guarding import spoil_gradient

                loss = loss + self.factor if math.isinf(self.factor) else loss * self.factor
                spoil_gradient(loss)
            return loss

        trainer.compute_loss = compute_loss  # type: ignore[method-assign]
        weight = next(iter(trainer.model.parameters()))
        weight.register_hook(self._spoil)

    def _spoil(self, gradient: Tensor) -> Tensor:
        if self.gradient_only and self.trainer.state.global_step + 1 in self.steps:
            gradient = gradient.clone()
            gradient.view(-1)[3] = self.factor
        return gradient

    def _snapshot(self, model: Any) -> Any:
        state = self.trainer.optimizer.state_dict()["state"]
        return weights(model), {key: {k: torch.as_tensor(v).clone() for k, v in each.items() if v is not None}
                                for key, each in state.items()}  # fmt: skip

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 in self.steps:
            self.before.append(self._snapshot(kwargs["model"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self.after.append(self._snapshot(kwargs["model"]))


class NoUpdate(TrainerCallback):
    """The same training without the update of one step: what the guard has to equal."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            for weight in kwargs["model"].parameters():
                weight.grad = None


def trainer(
    folder: Path, *callbacks: Any, guarding: Guarding | None = None, make_optimizer: Any = None, **options: Any
) -> LMTrainer:
    """12 examples, 2 × 2 a step: three steps an epoch."""
    chosen = {"max_steps": 7, "lr_scheduler_type": "linear", "gradient_accumulation_steps": 2, **options}
    args = arguments(folder, per_device_train_batch_size=2, **chosen)
    made = LMTrainer(
        gpt2(dropout=0.1), args, MemoryLayout(rows(12)), objective=Causal(), guarding=guarding,
        callbacks=[Progress(stream=io.StringIO()), *callbacks], saving=Saving(background="off"),
        make_optimizer=make_optimizer,
    )  # fmt: skip
    for callback in callbacks:
        if isinstance(callback, Spoiler):
            callback.attach(made)
    return made


def same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other)


@pytest.mark.parametrize("bad_step", [1, 4])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_update_to_the_bit(optimizer: str, bad_step: int, tmp_path: Path) -> None:
    spoiler = Spoiler(bad_step)
    made = trainer(tmp_path / "bad", spoiler, **OPTIMIZERS[optimizer])
    made.train()
    (before,), (after,) = spoiler.before, spoiler.after
    assert same(before[0], after[0]), "weights"
    assert same(before[1], after[1]) and bool(before[1]) == (bad_step > 1 and optimizer != "SGD"), "optimizer state"
    plain = trainer(tmp_path / "plain", NoUpdate(bad_step), **OPTIMIZERS[optimizer])
    plain.train()
    assert same(weights(made.model), weights(plain.model))
    lines, theirs = made.state.log_history, plain.state.log_history
    assert [line.get("learning_rate") for line in lines] == [line.get("learning_rate") for line in theirs]
    for line, other in zip(lines[:-1], theirs[:-1], strict=True):
        if line["step"] == bad_step:
            assert math.isnan(line["loss"]) and line["bad_steps"] == 1
        else:
            assert line["loss"] == other["loss"] and "bad_steps" not in line, "numbers again after it"


@pytest.mark.parametrize(
    "spoiler", [Spoiler(4, factor=math.inf), Spoiler(4, factor=math.inf, gradient_only=True),
                Spoiler(4, gradient_only=True)], ids=["infinite loss", "infinite gradient", "gradient of nan"],
)  # fmt: skip
@pytest.mark.parametrize("norm", [1.0, 0.0], ids=["clipped", "not clipped"])
def test_whatever_is_not_a_number(spoiler: Spoiler, norm: float, tmp_path: Path) -> None:
    spoiler = Spoiler(4, factor=spoiler.factor, gradient_only=spoiler.gradient_only)
    told: list[dict[str, Any]] = []
    made = trainer(tmp_path, spoiler, guarding=Guarding(report=told.append), max_grad_norm=norm)
    made.train()
    assert same(*(snapshots[0] for snapshots in (spoiler.before, spoiler.after)))
    assert len(told) == 1 and told[0]["step"] == 4 and told[0]["in_a_row"] == 1
    assert not math.isfinite(told[0]["grad_norm"])
    assert told[0]["loss"] == math.inf if not spoiler.gradient_only else math.isfinite(told[0]["loss"])
    losses = [line["loss"] for line in made.state.log_history if "loss" in line]
    assert math.isfinite(losses[3]) == spoiler.gradient_only
    assert math.isfinite(made.state.log_history[-1]["train_loss"])


def test_the_examples_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of the micro-batch whose loss is bad; of the whole step, where it is the gradient."""
    told: list[dict[str, Any]] = []
    made = trainer(tmp_path, Spoiler(5), Spoiler(6, gradient_only=True), guarding=Guarding(report=told.append))
    made.train()
    order = permutation(made.args.seed, 1, 12).tolist()  # steps 4 to 6 are the second epoch
    assert [event["examples"] for event in told] == [order[6:8], order[8:12]]
    said = (
        f"step 5 makes no update: its loss is nan, the norm of its gradient nan (examples {order[6]}, {order[7]}); 1 of"
    )
    assert said in caplog.text


def test_a_log_line_over_several_steps_is_the_mean_of_the_numbers(tmp_path: Path) -> None:
    each = trainer(tmp_path / "each", Spoiler(2))
    each.train()
    losses = [line["loss"] for line in each.state.log_history if "loss" in line]
    assert [math.isnan(loss) for loss in losses] == [False, True, *[False] * 5]
    three = trainer(tmp_path / "three", Spoiler(2), logging_steps=3)
    three.train()
    line = three.state.log_history[0]
    assert line["step"] == 3 and line["bad_steps"] == 1
    assert line["loss"] == pytest.approx((losses[0] + losses[2]) / 2)
    whole = sum(loss for loss in losses if math.isfinite(loss)) / 6
    assert three.state.log_history[-1]["train_loss"] == pytest.approx(whole)


def test_too_many_in_a_row_end_it_with_a_good_checkpoint(tmp_path: Path) -> None:
    options = {"max_steps": 12, "save_strategy": "steps", "save_steps": 1}
    made = trainer(tmp_path, Spoiler(2, 4, 5, 6), guarding=Guarding(max_bad_steps=3), **options)
    with pytest.raises(BadNumbersError, match="the last 3 steps, up to 6") as error:
        made.train()
    assert error.value.exit_code == ExitCode.WRONG_INPUT
    for remedy in ("--learning_rate", "--warmup_steps", "--max_grad_norm 1", "fp32", "--max_bad_steps"):
        assert remedy in str(error.value)
    found = newest(tmp_path)
    assert found.checkpoint is not None and found.step == 5 and not found.passed_over
    kept = load_file(found.checkpoint / "model.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    state = torch.load(found.checkpoint / "optimizer.pt")["state"]
    assert all(torch.as_tensor(value).isfinite().all() for moment in state.values() for value in moment.values())
    again = trainer(tmp_path, Spoiler(6), guarding=Guarding(max_bad_steps=3), **options)
    with pytest.raises(BadNumbersError, match="up to 6"):
        again.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("background", ["on", "off"])
def test_the_good_state_is_saved_as_it_would_have_been(background: Any, tmp_path: Path) -> None:
    """Where no checkpoint was due: the same files as those of a run that saves every step, and the run goes on."""
    options = {"max_steps": 12, "logging_steps": 4, "save_strategy": "steps"}
    guard = Guarding(max_bad_steps=3)
    for folder, every in (("rare", 100), ("each", 1)):
        made = trainer(tmp_path / folder, Spoiler(4, 5, 6), guarding=guard, save_steps=every, **options)
        made.saving = Saving(background=background)
        with pytest.raises(BadNumbersError, match=f"is in {tmp_path / folder}/checkpoint-5"):
            made.train()
    rare, each = (tmp_path / folder / "checkpoint-5" for folder in ("rare", "each"))
    assert [path.name for path in rare.parent.glob("checkpoint-*")] == ["checkpoint-5"]
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "run_state.json"):
        assert (rare / name).read_bytes() == (each / name).read_bytes(), name
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (rare, each)]
    speed = ("tokens_per_second", "tflops", "mfu", "waiting_for_data")
    for state in states:
        state["save_steps"] = 0
        state["stateful_callbacks"].pop("TrainerControl")  # whether a save was due
        state["log_history"] = [{k: v for k, v in line.items() if k not in speed} for line in state["log_history"]]
    assert states[0] == states[1]
    again = trainer(tmp_path / "rare", guarding=guard, save_steps=100, **options)
    straight = trainer(tmp_path / "straight", Spoiler(4, 5), guarding=guard, **{**options, "save_strategy": "no"})
    again.train(resume_from_checkpoint=True)
    straight.train()
    assert same(weights(again.model), weights(straight.model))


def test_nothing_is_saved_where_nothing_was_learned(tmp_path: Path) -> None:
    with pytest.raises(BadNumbersError, match="up to 3") as error:
        trainer(tmp_path, Spoiler(1, 2, 3), guarding=Guarding(max_bad_steps=3)).train()
    assert not list(tmp_path.glob("checkpoint-*")) and "What was learned" not in str(error.value)


def test_accepted_changes_begin_the_count_anew(tmp_path: Path) -> None:
    options = {"max_steps": 9, "save_strategy": "steps", "save_steps": 1}
    with pytest.raises(BadNumbersError):
        trainer(tmp_path, Spoiler(4, 5, 6), guarding=Guarding(max_bad_steps=3), **options).train()
    changed = trainer(tmp_path, Spoiler(6), guarding=Guarding(max_bad_steps=3), learning_rate=1e-4, **options)
    changed.saving = Saving(background="off", accept_changes=True)
    changed.train(resume_from_checkpoint=True)
    assert changed.state.global_step == 9


@pytest.mark.parametrize("stop_at", [3, 4, 5])
def test_resumed_around_it_to_the_bit(stop_at: int, tmp_path: Path) -> None:
    class Stop(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == stop_at:
                raise KeyboardInterrupt

    options = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 3, "max_steps": 9}
    straight = trainer(tmp_path / "straight", Spoiler(4), **options)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path / "cut", Spoiler(4), Stop(), **options).train()
    resumed = trainer(tmp_path / "cut", Spoiler(4), **options)
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(resumed.model), weights(straight.model))
    names = ("step", "loss", "learning_rate", "grad_norm", "bad_steps", "train_loss")
    mine, theirs = (
        [{n: repr(line[n]) for n in names if n in line} for line in run.state.log_history]
        for run in (resumed, straight)
    )
    assert mine == theirs and "1" in [line.get("bad_steps") for line in mine]
    assert vars(resumed.bad_steps) == vars(straight.bad_steps)


def test_weights_that_are_lost_end_it_at_once(tmp_path: Path) -> None:
    class Break(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    next(iter(kwargs["model"].parameters())).fill_(math.inf)

    with pytest.raises(BadNumbersError, match="before step 3 weights are no numbers"):
        trainer(tmp_path, Break()).train()


def test_spikes() -> None:
    usual = [2.0, 2.1, 1.9, 2.05, 1.95] * 4
    assert not is_spike(9.0, usual[:19]), "too few to compare with"
    assert is_spike(2.5, usual) and not is_spike(2.2, usual)
    assert is_spike(2.5, [*usual, math.nan, 50.0]), "what stood out before does not hide the next"
    assert is_spike(2.13, [2.0] * 20) and not is_spike(2.11, [2.0] * 20)
    assert not is_spike(math.nan, usual)


def test_a_spike_is_marked_in_the_log(tmp_path: Path) -> None:
    class Louder(Spoiler):
        """A loss that is a number, twenty times as large."""

    spoiler = Louder(24, factor=20.0)
    lines = io.StringIO()
    made = trainer(tmp_path, spoiler, Progress(stream=lines, terminal=False), max_steps=26, learning_rate=1e-5)
    made.train()
    assert [line["step"] for line in made.state.log_history if line.get("spike")] == [24]
    assert [line.split()[1] for line in lines.getvalue().splitlines() if "  spike" in line] == ["24/26"]
    assert describe_train({"loss": 1.0, "bad_steps": 2}) == "loss 1.000  2 steps without update"


def test_the_command_writes_it_down_and_says_what_to_try(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog.\n" * 50)
    out = tmp_path / "run"
    command = (  # a rate no training survives; SGD, since AdamW's steps have a size of their own
        f"clm --model_name_or_path {checkpoint('gpt2', tmp_path / 'model')} --train_file {text} --block_size 16 "
        f"--max_steps 20 --save_steps 1 --optim sgd --learning_rate 1e30 --max_grad_norm 0 --max_bad_steps 3 "
        f"--logging_steps 1 --output_dir {out}"
    )
    assert main(command.split()) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert "--learning_rate" in said and "--warmup_steps" in said and "makes no update" in caplog.text
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    bad = [event for event in events if event["event"] == "bad_step"]
    assert bad and bad[0]["in_a_row"] == 1 and bad[0]["examples"] and bad[0]["loss"] in ("nan", "inf")
