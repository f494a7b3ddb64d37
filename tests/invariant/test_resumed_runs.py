"""A run that was stopped and resumed is the straight run, to the bit: data, dropout, schedule, logs and weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForMaskedLM, EarlyStoppingCallback, TrainerCallback

from lmtrain.core.errors import UserError
from lmtrain.engine.batches.sampling import BatchesFrom, EpochOrder
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal, Masked
from tiny import POSITIONS, VOCABULARY, MemoryLayout, arguments, gpt2, rows, try_fast_paths, weights

MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)
SAID = ("step", "loss", "learning_rate", "grad_norm", "eval_loss", "epoch")


def dropping_gpt2() -> Any:
    return gpt2(dropout=0.2)


def dropping_bert() -> Any:
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, initializer_range=0.2, **shape)
    return BertForMaskedLM(config)  # dropout 0.1, as BERT has it


def lora() -> Any:
    model = gpt2(dropout=0.2)
    return get_peft_model(
        model, LoraConfig(r=4, lora_dropout=0.2, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    )


KINDS = {"causal": (dropping_gpt2, Causal()), "masked": (dropping_bert, MASKED), "lora": (lora, Causal())}


class StopAt(TrainerCallback):
    """Stop as a user's interrupt does: after a step, or between two micro-batches of one."""

    def __init__(self, step: int, *, in_the_middle: bool = False) -> None:
        self.step, self.in_the_middle = step, in_the_middle

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and not self.in_the_middle:
            raise KeyboardInterrupt

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step and self.in_the_middle:
            raise KeyboardInterrupt


def run(kind: str, folder: Path, *callbacks: Any, saving: Saving | None = None, **options: Any) -> LMTrainer:
    """18 examples in micro-batches of 2, two a step: 5 steps an epoch, the last window not full."""
    make, objective = KINDS[kind]
    layout = MemoryLayout(rows(18))
    chosen = {
        "num_train_epochs": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2,
        "save_strategy": "steps", "save_steps": 1, "logging_steps": 3, "lr_scheduler_type": "cosine", "warmup_steps": 2,
        **options,
    }  # fmt: skip
    trainer = LMTrainer(make(), arguments(folder, **chosen), layout, MemoryLayout(rows(4, seed=9)), objective=objective,
                        callbacks=list(callbacks), saving=saving)  # fmt: skip
    return try_fast_paths(trainer)


def told(trainer: LMTrainer) -> list[dict[str, Any]]:
    return [{name: line[name] for name in SAID if name in line} for line in trainer.state.log_history]


def assert_same(resumed: LMTrainer, straight: LMTrainer) -> None:
    assert told(resumed) == told(straight)
    assert resumed.state.num_input_tokens_seen == straight.state.num_input_tokens_seen
    assert resumed.state.total_flos == straight.state.total_flos
    mine, theirs = weights(resumed.model), weights(straight.model)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    moments = zip(_tensors(resumed), _tensors(straight), strict=True)
    assert all(torch.equal(one, other) for one, other in moments)


def _tensors(trainer: LMTrainer) -> Iterator[torch.Tensor]:
    states = trainer.optimizer.state_dict()["state"].values()
    return chain.from_iterable((v for v in state.values() if isinstance(v, torch.Tensor)) for state in states)


def reads(trainer: LMTrainer) -> list[int]:
    layout: Any = trainer.train_dataset
    return list(layout.reads)


def interrupted(kind: str, folder: Path, stop: StopAt, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(kind, folder, stop, **options).train()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LMTrainer]:
    @cache
    def one(kind: str) -> LMTrainer:
        trainer = run(kind, tmp_path_factory.mktemp(kind), save_strategy="no")
        trainer.train()
        return trainer

    return one


@pytest.fixture(scope="module")
def stopped_at_8(tmp_path_factory: pytest.TempPathFactory) -> tuple[LMTrainer, Path]:
    """A run that was stopped behind its eighth step, which is not saved, and its folder."""
    folder = tmp_path_factory.mktemp("stopped")
    trainer = run("causal", folder, StopAt(8))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer, folder


@pytest.fixture
def stopped(stopped_at_8: tuple[LMTrainer, Path], tmp_path: Path) -> LMTrainer:
    """That trainer; its folder is copied to the test's own."""
    shutil.copytree(stopped_at_8[1], tmp_path, dirs_exist_ok=True)
    return stopped_at_8[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "stop",
    [StopAt(2), StopAt(6), StopAt(12), StopAt(7, in_the_middle=True)],
    ids=["epoch 0", "an epoch's edge", "epoch 2", "within a step"],
)
def test_resumed_is_straight(kind: str, stop: StopAt, straight: Callable[[str], LMTrainer], tmp_path: Path) -> None:
    interrupted(kind, tmp_path, stop)
    resumed = run(kind, tmp_path)
    resumed.train(resume_from_checkpoint=True)
    done = stop.step - (not stop.in_the_middle)
    assert resumed._went_on_from is not None and resumed._went_on_from.name == f"checkpoint-{done}"
    assert_same(resumed, straight(kind))
    examples = done // 5 * 18 + done % 5 * 4
    assert reads(resumed) == reads(straight(kind))[examples:], "nothing before is read"


@pytest.mark.parametrize(("before", "after"), [(0, 4), (4, 1), (1, 0)])
def test_the_number_of_workers_may_change(
    before: int, after: int, straight: Callable[[str], LMTrainer], tmp_path: Path
) -> None:
    interrupted("masked", tmp_path, StopAt(8), dataloader_num_workers=before)
    resumed = run("masked", tmp_path, dataloader_num_workers=after)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, straight("masked"))


def test_without_dropout_a_step_may_be_divided_otherwise(tmp_path: Path) -> None:
    KINDS["plain"] = (gpt2, Causal())
    whole = run("plain", tmp_path / "a", save_strategy="no", logging_steps=1)
    whole.train()
    interrupted("plain", tmp_path / "b", StopAt(8), logging_steps=1)
    divided = run("plain", tmp_path / "b", logging_steps=1, per_device_train_batch_size=4,
                  gradient_accumulation_steps=1)  # fmt: skip
    divided.train(resume_from_checkpoint=True)
    for mine, theirs in zip(told(divided), told(whole), strict=True):
        assert mine["step"] == theirs["step"]
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_checkpointed_activations_drop_the_same_again(tmp_path: Path) -> None:
    """And so do checkpoints of a run that goes on: the gradient is that of the run which keeps its activations."""
    made = []
    for name, option in (("keeps", {}), ("remakes", {"gradient_checkpointing": True})):
        trainer = run("causal", tmp_path / name, save_strategy="no", max_steps=4, **option)
        trainer.train()
        made.append(weights(trainer.model))
    assert all(torch.allclose(made[0][name], made[1][name], atol=1e-6) for name in made[0])


def test_dropout_differs_between_steps_micro_batches_and_seeds(tmp_path: Path) -> None:
    drawn: list[float] = []

    def seeds(seed: int) -> list[float]:
        trainer = run("causal", tmp_path, save_strategy="no", max_steps=3, seed=seed)
        forward = trainer.model.forward
        drawn.clear()

        def watched(*args: Any, **kwargs: Any) -> Any:
            state = torch.get_rng_state()
            drawn.append(torch.rand(()).item())
            torch.set_rng_state(state)
            return forward(*args, **kwargs)

        trainer.model.forward = watched
        _ = trainer.fast_paths
        trainer.train()
        return list(drawn)

    one, same, other = seeds(1), seeds(1), seeds(2)
    assert one == same and len(one) >= 6
    assert len(set(one[-6:])) == 6
    assert set(one).isdisjoint(other)


@pytest.mark.parametrize("saved", ["steps", "epoch"])
def test_evaluations_at_an_epochs_end_are_made_once(saved: str, tmp_path: Path) -> None:
    """Also where its last step was saved before them, or with them."""
    options = {"eval_strategy": "epoch", "logging_strategy": "epoch", "eval_on_start": True, "save_strategy": saved,
               "metric_for_best_model": "eval_loss", "greater_is_better": False}  # fmt: skip

    class Stop(TrainerCallback):
        def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 10 and saved == "steps":
                raise KeyboardInterrupt

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 10 and saved == "epoch":
                raise KeyboardInterrupt

    whole = run("causal", tmp_path / "a", **options)
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        run("causal", tmp_path / "b", Stop(), **options).train()
    resumed = run("causal", tmp_path / "b", **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole)
    assert resumed.state.best_metric == whole.state.best_metric
    assert len([line for line in told(resumed) if "eval_loss" in line]) == 4


def test_counters_of_callbacks_go_on(tmp_path: Path) -> None:
    options = {"eval_strategy": "steps", "eval_steps": 2, "metric_for_best_model": "eval_loss",
               "greater_is_better": False, "learning_rate": 0.5, "warmup_steps": 0}  # fmt: skip
    whole = run("causal", tmp_path / "a", EarlyStoppingCallback(3), **options)
    whole.train()
    assert whole.state.global_step < whole.state.max_steps
    stop = whole.state.global_step - 1
    with pytest.raises(KeyboardInterrupt):
        run("causal", tmp_path / "c", EarlyStoppingCallback(3), StopAt(stop), **options).train()
    resumed = run("causal", tmp_path / "c", EarlyStoppingCallback(3), **options)
    resumed.train(resume_from_checkpoint=True)
    assert_same(resumed, whole)
    again = run("causal", tmp_path / "c", EarlyStoppingCallback(3), **options)
    again.train(resume_from_checkpoint=True)  # it had stopped: it stays stopped
    assert again.state.global_step == whole.state.global_step


@pytest.mark.usefixtures("stopped")
def test_the_mean_loss_is_of_the_whole_run(straight: Callable[[str], LMTrainer], tmp_path: Path) -> None:
    rest = run("causal", tmp_path).train(resume_from_checkpoint=True)
    whole = straight("causal").state.log_history[-1]["train_loss"]
    assert rest.training_loss == rest.metrics["train_loss"] == whole


def test_a_finished_run_trains_no_further(tmp_path: Path) -> None:
    run("causal", tmp_path, max_steps=7).train()
    again = run("causal", tmp_path, max_steps=7)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 7


# ---- nothing before is read ----------------------------------------------------------------------


class Endless:
    """A layout of many examples that are made when they are read."""

    def __init__(self, count: int) -> None:
        self.lengths = np.full(count, 6)
        self.reads = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, indices: Any) -> Any:
        self.reads += len(indices)
        return MemoryLayout([[5 + (i + j) % 50 for j in range(6)] for i in indices]).__getitems__(range(len(indices)))


def test_going_on_late_reads_no_more_than_going_on_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step 100,000 against step 10: examples read, and numbers of examples drawn from the order."""
    drawn = 0
    real = EpochOrder.__iter__

    def counted(self: EpochOrder) -> Iterator[int]:
        nonlocal drawn
        for number in real(self):
            drawn += 1
            yield number

    monkeypatch.setattr(EpochOrder, "__iter__", counted)
    cost = {}
    for step in (10, 100_000):
        layout = Endless(420_000)
        args = arguments(tmp_path / str(step), max_steps=step + 2, per_device_train_batch_size=2,
                         gradient_accumulation_steps=2, save_strategy="steps", save_steps=2)  # fmt: skip
        first = LMTrainer(gpt2(), args, layout, objective=Causal())

        class Pretend(TrainerCallback):
            def on_step_begin(self, args: Any, state: Any, control: Any, step: int = step, **_: Any) -> None:
                state.global_step = step - 1  # as if the steps before had been made
                state.epoch = 0.5

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                control.should_save = control.should_training_stop = True

        first.add_callback(Pretend())
        first.train()
        layout.reads = drawn = 0
        resumed = LMTrainer(gpt2(), args, layout, objective=Causal())
        resumed.train(resume_from_checkpoint=str(tmp_path / str(step) / f"checkpoint-{step}"))
        assert resumed.state.global_step == step + 2
        cost[step] = (layout.reads, drawn)
    assert cost[10] == cost[100_000]


def test_batches_from_yields_nothing_for_what_is_dropped() -> None:
    order = EpochOrder(20, 1)
    whole = list(torch.utils.data.BatchSampler(order, 3, drop_last=False))
    rest = list(BatchesFrom(torch.utils.data.BatchSampler(order, 3, drop_last=False), order, 4, 12))
    assert rest == [[]] * 4 + whole[4:]


# ---- another training ----------------------------------------------------------------------------


@pytest.mark.usefixtures("stopped")
def test_what_would_be_another_training_is_listed_and_needs_a_word(tmp_path: Path) -> None:
    changed: dict[str, Any] = {"num_train_epochs": 4, "learning_rate": 5e-3}
    with pytest.raises(UserError, match="accept_changes") as refused:
        run("causal", tmp_path, **changed).train(resume_from_checkpoint=True)
    assert "steps in all: 15, now 20" in str(refused.value)
    assert "learning_rate: 0.001, now 0.005" in str(refused.value)
    accepted = run("causal", tmp_path, saving=Saving(accept_changes=True), logging_steps=1, **changed)
    accepted.train(resume_from_checkpoint=True)
    fresh = run("causal", tmp_path / "fresh", save_strategy="no", logging_steps=1, **changed)
    fresh.train()
    rates = [{line["step"]: line["learning_rate"] for line in told(t) if "loss" in line} for t in (accepted, fresh)]
    assert rates[0][20] == rates[1][20] and rates[0][8] == rates[1][8]


@pytest.mark.usefixtures("stopped")
def test_other_data_are_noticed_without_a_run_folder(tmp_path: Path) -> None:
    resumed = run("causal", tmp_path)
    resumed.train_dataset = MemoryLayout(rows(17))
    with pytest.raises(UserError, match=r"training examples: 18, now 17"):
        resumed.train(resume_from_checkpoint=True)
    before = resumed.train_dataset = run("causal", tmp_path).train_dataset
    first = before.data[0]
    resumed.train_dataset = MemoryLayout([[first[0], *reversed(first[1:])], *before.data[1:]])
    with pytest.raises(UserError, match=r"a sample of the training text: \w+, now \w+"):
        resumed.train(resume_from_checkpoint=True)


def test_settings_of_schedule_and_optimizer_are_part_of_the_plan(tmp_path: Path) -> None:
    rates = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-4}}
    interrupted("causal", tmp_path, StopAt(8), **rates)
    for changed, said in (
        ({"lr_scheduler_kwargs": {"min_lr": 5e-4}}, 'lr_scheduler_kwargs: {"min_lr": 0.0001}, now {"min_lr": 0.0005}'),
        ({"optim_args": "foo=1"}, "optim_args: None, now foo=1"),
    ):
        with pytest.raises(UserError) as refused:
            run("causal", tmp_path, **(rates | changed)).train(resume_from_checkpoint=True)
        assert said in str(refused.value)


@pytest.mark.usefixtures("stopped")
def test_another_machine_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from lmtrain.engine.trainer import resuming

    here = resuming.machine()
    monkeypatch.setattr(resuming, "machine", lambda: {**here, "torch_threads": 7})
    resumed = run("causal", tmp_path)
    resumed.train(resume_from_checkpoint=True)
    lines = [record.getMessage() for record in caplog.records if "bits" in record.getMessage()]
    assert lines == [f"checkpoint-7 goes on elsewhere than it was saved (torch threads {here['torch_threads']} → 7), "
                     "so the last bits of the results may differ"]  # fmt: skip


def test_the_fast_paths_go_on_without_a_run_folder(stopped: LMTrainer, tmp_path: Path) -> None:
    resumed = run("causal", tmp_path)
    resumed._fast_paths = None
    resumed.train(resume_from_checkpoint=True)
    assert resumed.fast_paths.decisions == stopped.fast_paths.decisions
