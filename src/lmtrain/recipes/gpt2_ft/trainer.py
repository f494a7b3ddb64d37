"""The original's arithmetic as strategies of our trainer; what the loop itself does is not touched.

The Trainer sees one epoch that holds the whole run's micro-batches (:class:`~lmtrain.recipes.gpt2_ft.order.RunOrder`),
so its accumulation windows run on across the original's epochs as the original's do. Facts of microsoft/LoRA at
c4593f0, ``examples/NLG/src`` (``gpt2_ft.py``, ``model.py``):

====================  ==================================================================================
the loss              Σ over the micro-batch's labels / (their number + 0.0001) / ``--grad_acc``
an update             after every ``--grad_acc``-th micro-batch; a last window that is not full makes none
the learning rate     that of the micro-batches before the one that completes the window
the validation        completions only, no smoothing, the mean of its batches' means
====================  ==================================================================================
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from lmtrain.engine.batches.collate import Collate
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Completion
from lmtrain.recipes.gpt2_ft.order import Plan, RunOrder, validation_batches
from lmtrain.recipes.gpt2_ft.schedules import ByMicroBatch, Rate

_ADDED = 0.0001  # to the number of labels, so that a micro-batch without any divides by something
_LEAST_SMOOTHING = 0.0001  # up to here the original does not smooth


class Observer(Protocol):
    """Who looks on: called after every micro-batch, when its update, if it makes one, is done."""

    def begin(self, micro_batch: int) -> None:
        """The run begins, or goes on, after ``micro_batch`` micro-batches."""

    def after(self, micro_batch: int, rate: float, loss: Tensor) -> None:
        """``micro_batch`` counts from 1; ``rate`` is that of the next one; ``loss`` () is its mean, on the device."""

    def state(self) -> dict[str, Any]:
        """What it has to know to go on after a checkpoint, as plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


class Gpt2FtTrainer(LMTrainer):
    """Trains as gpt2_ft.py does. ``plan`` and ``rate`` say how long and how fast, ``observer`` is told of every
    micro-batch; ``args`` have to ask for one epoch. The other arguments are :class:`LMTrainer`'s."""

    loss_is_scaled_for_ga = True  # it divides by the micro-batches of a window itself

    def __init__(
        self, *arguments: Any, plan: Plan, rate: Rate, observer: Observer | None = None, **others: Any
    ) -> None:
        self.plan = plan
        self.rate = rate
        self.observer = observer
        self._loss: Tensor | None = None
        super().__init__(*arguments, **others)
        self.remove_callback(Progress)  # the recipe has its own lines
        self.add_callback(_MicroBatches(self))

    # ---- order, loss, rate ------------------------------------------------------------------------

    @property
    def planned_passes(self) -> int:
        return self.plan.total

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        return RunOrder(len(dataset), self._train_batch_size, self.plan.total, self._seed)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """A micro-batch's mean over its own labels, whatever the others of its window have; see the table above."""
        if return_outputs:
            raise NotImplementedError("gpt2-ft makes logits only where there is a label")
        smoothing = self.args.label_smoothing_factor  # of training alone: validation does not come here
        sums = self.fast_paths.scoring(
            model, inputs, self.objective, label_smoothing=smoothing if smoothing > _LEAST_SMOOTHING else 0.0
        )
        loss = sums.loss / (sums.count + _ADDED)
        self._loss = loss.detach()
        return loss / self.args.gradient_accumulation_steps

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            schedule: Any = ByMicroBatch(self.optimizer if optimizer is None else optimizer, self.rate)
            self.lr_scheduler = schedule
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # ---- validation -------------------------------------------------------------------------------

    @torch.no_grad()
    def validation_loss(self, evaluation: int) -> float:
        """The mean of the batches' mean losses, in nats; evaluations are counted from 0."""
        objective = Completion()
        collate = Collate(objective, self._pad_id, self.fast_paths.packing)
        dataset = self._wrapped(self.eval_dataset, epoch=0)
        size = self.args.per_device_eval_batch_size
        means = []
        self.model.eval()
        for batch in validation_batches(len(dataset), size, self._seed, evaluation):
            inputs = self._prepare_inputs(collate(dataset.__getitems__(batch)))
            with self.accelerator.autocast():
                sums = self.fast_paths.scoring(self.model, inputs, objective)
            means.append(sums.loss / (sums.count + _ADDED))
        losses: list[float] = torch.stack(means).float().tolist()
        return sum(losses) / len(losses)


_OBSERVED = "observer"


class _MicroBatches(TrainerCallback, ExportableState):
    """Counts micro-batches, moves the rate on with them, and keeps a window that is not full from making an update.

    What the observer has to know lies in the checkpoints' ``trainer_state.json``, as that of any stateful callback.
    """

    def __init__(self, trainer: Gpt2FtTrainer) -> None:
        self.trainer = trainer
        self.done = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.done = min(state.global_step * args.gradient_accumulation_steps, self.trainer.plan.total)
        self._schedule.move_to(self.done)
        if self.trainer.observer is not None:
            if self.done:
                states: Any = state.stateful_callbacks
                self.trainer.observer.restore(states[type(self).__name__][_OBSERVED])
            self.trainer.observer.begin(self.done)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        full = (self.done + 1) % args.gradient_accumulation_steps == 0
        inner = getattr(self.trainer.optimizer, "optimizer", self.trainer.optimizer)
        inner.withheld = not full

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._after()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._after()

    def state(self) -> dict[str, Any]:
        observer = self.trainer.observer
        return {"args": {}, "attributes": {}, _OBSERVED: observer.state() if observer is not None else {}}

    @property
    def _schedule(self) -> ByMicroBatch:
        schedule = self.trainer.lr_scheduler
        assert isinstance(schedule, ByMicroBatch)
        return schedule

    def _after(self) -> None:
        self.done += 1
        self._schedule.move_to(self.done)
        if self.trainer.observer is not None:
            assert self.trainer._loss is not None
            self.trainer.observer.after(self.done, self.trainer.rate(self.done), self.trainer._loss)
