"""A training that can be asked to stop: it finishes the step, saves it and ends, and goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lmtrain.core.errors import Interrupted
from lmtrain.core.stopping import Stop
from lmtrain.data.remote.failures import UnreachableError
from lmtrain.engine.checkpoints.read import problem
from lmtrain.engine.evaluation import EvaluationLoader
from lmtrain.engine.trainer.choosing import ChoosingTrainer
from lmtrain.models.sharding import count_of

_ASK_EVERY: Final = 4
"""Batches of an evaluation between two exchanges, whose answer is read at the next: about a step's time later."""

_SLOW_DISK: Final = 200e6
"""Bytes a second, for a save that was not measured yet: what a network file system takes, hashing included."""


class _EvaluationStopped(Exception):  # noqa: N818 -- nothing went wrong
    """Left in the middle; it is made up for when the run goes on."""


class StopWhenAsked(TrainerCallback):
    """Ends training after the step in which it was asked for, with a checkpoint.

    An evaluation that is due then, or under way, is left to the part of the run that goes on.
    """

    def __init__(self, trainer: StoppingTrainer) -> None:
        self._trainer = trainer
        self._stopping = False
        self._evaluated = 0  # batches of the evaluation under way
        self._told: Tensor | None = None  # of the last exchange in it

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._stopping = False
        self._evaluated, self._told = 0, None
        self._trainer._asked_anywhere, self._trainer.was_stopped = None, False
        if self._trainer.stop is not None:
            self._trainer.stop.begin_looking()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        trainer = self._trainer
        if trainer.stop is None:
            return
        trainer.stop.look(trainer.seconds_of_a_save)
        if trainer.is_asked_to_stop:
            trainer.was_stopped = True
            self._stopping = control.should_training_stop = control.should_save = True
            trainer.owes_evaluation = control.should_evaluate
            control.should_evaluate = False

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._stopping:  # the end of the epoch, if it is one, comes when the run goes on
            control.should_log = control.should_evaluate = control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._trainer.stop is not None:
            self._trainer.stop.begin_looking()  # a save is counted for itself

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **_: Any,
    ) -> None:
        trainer = self._trainer
        if trainer.stop is None or not trainer.is_in_train:
            return
        asked = trainer.stop.look(trainer.seconds_of_a_save)
        if not (self._is_anyone_asked(asked, eval_dataloader) if args.world_size > 1 else asked):
            return
        if not trainer.is_after_step:  # --eval_on_start: there is nothing to save
            reason = trainer.stop.reason or "another process was asked to stop"
            raise Interrupted(f"{reason}; no step was made yet", together=True)
        raise _EvaluationStopped

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._evaluated, self._told = 0, None
        if self._trainer.stop is not None and self._trainer.is_in_train:
            self._trainer.stop.look(self._trainer.seconds_of_a_save)  # samples were made meanwhile

    def _is_anyone_asked(self, asked: bool, loader: Any) -> bool:
        """As the processes told each other a few batches ago, so that no device is waited for and all hear it at the
        same batch. Nothing is told where one process may have fewer batches than another."""
        self._evaluated += 1
        # Processes whose logits are gathered, with compute_metrics, have as many batches all.
        common = loader.common_batches if isinstance(loader, EvaluationLoader) else self._evaluated
        if self._evaluated > common or self._evaluated % _ASK_EVERY:
            return False
        told, self._told = self._told, self._trainer.asked_by_any(asked)
        if told is None or not told:
            return False
        self._trainer._asked_anywhere = told
        return True


class StoppingTrainer(ChoosingTrainer):
    """A Trainer that looks at a :class:`Stop` after each step; all processes stop after the same one."""

    stop: Stop | None
    was_stopped: bool = False  # before its end, or at it, with a checkpoint
    owes_evaluation: bool = False
    is_after_step: bool = False  # in what a step is followed by: its log line, evaluation and checkpoint
    _asked_anywhere: Tensor | None = None
    _bytes_of_a_save: int | None = None

    @property
    def is_asked_to_stop(self) -> bool:
        """As all processes know it: with several, what each said when the step began."""
        if self.args.world_size == 1:
            return self.stop is not None and self.stop.asked
        return self._asked_anywhere is not None and bool(self._asked_anywhere)

    @property
    def seconds_of_a_save(self) -> float:
        """As the last one took; before the first, what so many bytes take on a slow disk: weights, and two moments of
        each trained number."""
        if self.save_seconds or not self.state.global_step:
            return self.save_seconds
        if self._bytes_of_a_save is None:
            trained = count_of(self.model, trained=True)
            written = trained if hasattr(self.model, "peft_config") else count_of(self.model)  # an adapter alone
            moments = 0 if self.args.save_only_model else 8 * trained
            self._bytes_of_a_save = moments + 4 * written
        return self._bytes_of_a_save / _SLOW_DISK

    def is_anyone_asked(self) -> bool:
        """Whether any process was asked to stop, now. Every process has to call it."""
        asked = self.stop is not None and self.stop.asked
        return bool(self.asked_by_any(asked))

    def asked_by_any(self, asked: bool) -> Tensor:
        """Whether any process was ``asked`` to stop, on the device. Every process has to call it."""
        told: Tensor = self.accelerator.gather(torch.tensor([int(asked)], device=self.args.device))
        return told.sum() > 0

    def _sum_of_all(self, mine: Tensor) -> Tensor:
        """The sum of ``mine`` (n,) over all processes; they hear at the same time whether one was asked to stop."""
        if self.args.world_size == 1:
            return mine
        asked = self.stop is not None and self.stop.asked
        everyones = self.accelerator.gather(torch.cat([mine, mine.new_tensor([asked])])[None]).sum(0)
        self._asked_anywhere = everyones[-1] > 0  # stays on the device: read at the step's end, when it is long there
        sums: Tensor = everyones[:-1]
        return sums

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        self.is_after_step = True
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except _EvaluationStopped:
            self.owes_evaluation = self.was_stopped = True
            self.control.should_evaluate, self.control.should_training_stop = False, True
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        except UnreachableError as error:
            self.owes_evaluation = True
            raise self._without_data(error) from None
        finally:
            self.is_after_step = False

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_batch_samples(*args, **kwargs)
        except UnreachableError as error:
            raise self._without_data(error) from None

    def _without_data(self, error: UnreachableError) -> BaseException:
        """What a run ends with whose data can no longer be read: nothing is wrong with it, and all steps are saved.

        Several processes would have to save together, and the others wait in the next step: they go on from the last
        checkpoint.
        """
        said = str(error).strip().splitlines()[-1].rpartition("UnreachableError: ")[2]  # a worker adds its traceback
        if not self.state.global_step:
            return UnreachableError(said, passing=error.passing)
        if self.args.world_size > 1:
            return Interrupted(f"{said}; goes on from the last checkpoint")
        kept = self._save_steps(self.model_wrapped)
        return Interrupted(f"{said}; saved at step {self.state.global_step}" if kept else said)

    def _keep(self, model: Any) -> str:
        self.meter.take_back()
        return self._save_steps(model)

    def _save_steps(self, model: Any) -> str:
        """Save the steps that are finished; the name of the checkpoint, "" where that failed."""
        self.settle_save(ending=True)
        self.meter.read(self.state)
        checkpoint = self._folder() / f"checkpoint-{self.state.global_step}"
        if not self._is_there(checkpoint):
            self._save_checkpoint(model, None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)
            self.settle_save(ending=True)
        return checkpoint.name if self._is_there(checkpoint) else ""

    def _is_there(self, checkpoint: Path) -> bool:
        """As the first process, which writes it, sees it: all have to do the same."""
        mine = self.args.process_index == 0 and checkpoint.is_dir() and problem(checkpoint) is None
        return bool(broadcast_object_list([mine])[0])

    def _load_callback_state(self) -> None:
        super()._load_callback_state()
        if self.saving.accept_changes:  # what was changed deserves its own chances
            self.bad_steps.in_a_row = 0

    def _run_state(self, losses: list[float]) -> dict[str, Any]:
        return super()._run_state(losses) | {"owes_evaluation": self.owes_evaluation}
