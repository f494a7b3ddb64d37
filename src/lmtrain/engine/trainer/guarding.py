"""A step whose loss or gradient is not finite makes no update."""

from __future__ import annotations

import copy
import logging
import math
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from lmtrain.core.console import counted
from lmtrain.engine.guarding import LOOKED_BACK, BadNumbersError, BadSteps, Guarding, is_spike
from lmtrain.engine.trainer.evaluating import EvaluatingTrainer

_log = logging.getLogger(__name__)
_NAMED = 12  # examples of a bad step that are told
_WHAT_TO_TRY = (
    "a lower --learning_rate, more --warmup_steps, --max_grad_norm 1 or --precision fp32 may help; the same examples "
    "every time point to the data"
)


class GuardingTrainer(EvaluatingTrainer):
    """A Trainer that skips the update of a step whose gradient is not finite, and whose loss spikes are marked.

    The gradient's norm over all parameters tells, which the Trainer works out at every step anyway; a loss that is not
    finite makes the gradient so (:func:`spoil_gradient`). Processes agree without a word, since they have the same
    norm. Weights and optimizer state stay as they are, to the bit; the schedule goes on, so that a step has its
    learning rate whatever happened before (with fp16 it waits: the Trainer takes the scaler's word that there was no
    update).

    DeepSpeed keeps gradients to itself, and updates and skips by its own rules: there steps are counted and told only.
    """

    guarding: Guarding
    bad_steps: BadSteps
    _micro_losses: list[Tensor]  # of the step, on this process
    _sum_before: Tensor  # of the losses since the last log line, before the step
    _place: tuple[int, int] = (0, 0)  # the epoch, the run's first step in it
    _since_log: int = 0  # steps

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        self._place = (kwargs["epoch"], kwargs["epoch"] * kwargs["num_update_steps_per_epoch"])
        return super()._run_epoch(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        self._micro_losses = []
        self._sum_before = self._tr_loss.clone()
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        self._micro_losses.append(loss)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = _whole(super()._get_grad_norm(model, grad_norm=grad_norm))
        # On a GPU this waits for the backward pass, once a step: the update has to know. On a CPU it costs nothing.
        if norm is None or math.isfinite(float(norm)):
            self.bad_steps.in_a_row = 0
        else:
            self._skip_update(model, float(norm))
        return norm

    def _skip_update(self, model: Any, norm: float) -> None:
        losses = self._gathered_losses()
        loss = float(losses.sum(-1).mean())
        if math.isfinite(loss) and self._is_looking_for_its_scale():
            return
        self.optimizer.zero_grad(set_to_none=True)  # optimizers pass over parameters without a gradient
        bad = self.bad_steps
        step, most, in_a_row = self.state.global_step + 1, self.guarding.max_bad_steps, bad.in_a_row + 1
        examples = self._examples_of(losses)
        if self.guarding.report is not None:
            self.guarding.report(
                {"step": step, "loss": loss, "grad_norm": norm, "examples": examples, "in_a_row": in_a_row}
            )
        shown = f" (examples {', '.join(map(str, examples))})" if examples else ""
        if self.args.process_index == 0:
            _log.warning(
                "step %d makes no update: its loss is %.4g, the norm of its gradient %.4g%s; %d of %d in a row that "
                "stop the run",
                step, loss, norm, shown, in_a_row, most,
            )  # fmt: skip
        if in_a_row == 1 and not self._are_weights_finite(model):
            raise self._lost_weights(step)
        if in_a_row >= most:
            raise self._too_many(model, step, f"loss {loss:.4g}, gradient {norm:.4g}{shown}")
        if not math.isfinite(loss):  # nothing would ever bring the sum back to numbers
            self._tr_loss.copy_(self._sum_before)
            bad.left_out += 1
            bad.left_out_since_log += 1
        bad.in_a_row = in_a_row
        bad.since_log += 1

    def _too_many(self, model: Any, step: int, numbers: str) -> BadNumbersError:
        """The steps before this one are saved, as they would have been then: it is what is made first by a run that
        goes on."""
        most, made = self.guarding.max_bad_steps, step - 1
        kept = ""
        if made >= most:  # else no step changed a weight yet
            self._tr_loss.copy_(self._sum_before)
            kept = self._keep(model)
        folder = self.args.output_dir
        kept = f"What was learned is in {folder}/{kept}. " if kept else f"The checkpoints in {folder} are unharmed. "
        return BadNumbersError(
            f"the last {counted(most, 'step')}, up to {step}, had losses or gradients that are no numbers (the last "
            f"one's {numbers}) and changed no weight. {kept}{_WHAT_TO_TRY[0].upper()}{_WHAT_TO_TRY[1:]}. With changed "
            "options go on by --accept_changes, from an earlier checkpoint with --resume_from_checkpoint, or bear more "
            "with --max_bad_steps",
            flag="--learning_rate",
        )

    def _keep(self, model: Any) -> str:
        """Save the steps before this one, which is not finished; the name of the checkpoint, "" where there is none."""
        return ""

    def _lost_weights(self, step: int) -> BadNumbersError:
        if step == 1:
            return BadNumbersError(
                "the model holds weights that are no numbers, so it cannot learn; take another one, or load it in fp32",
                flag="--model_name_or_path",
            )
        return BadNumbersError(
            f"before step {step} weights are no numbers already, by an update too large for their format. Start from "
            f"an earlier checkpoint; {_WHAT_TO_TRY}",
            flag="--learning_rate",
        )

    def _gathered_losses(self) -> Tensor:
        """(processes, micro-batches) of the step."""
        gathered: Tensor = self.accelerator.gather(torch.stack([loss.float() for loss in self._micro_losses])[None])
        return gathered.cpu()

    def _is_looking_for_its_scale(self) -> bool:
        """fp16's scaler skips steps itself while its scale is too high, which is no fault of the training."""
        scaler = getattr(self.accelerator, "scaler", None)
        return scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1

    def _are_weights_finite(self, model: Any) -> bool:
        parts = [getattr(weight, "to_local", lambda weight=weight: weight)() for weight in model.parameters()]
        mine = torch.tensor([all(bool(part.isfinite().all()) for part in parts)], device=self.args.device)
        return bool(self.accelerator.gather(mine).all())

    def _examples_of(self, losses: Tensor) -> list[int]:
        """The first numbers, in the data set, of the step's examples: of the micro-batches whose loss is not finite,
        where there are such."""
        if self._order is None or self.get_tp_size() > 1:
            return []
        epoch, first_step = self._place
        size, world = self._train_batch_size, self.args.world_size
        wrong = ~losses.isfinite()
        asked = (wrong if wrong.any() else torch.ones_like(wrong)).T.nonzero().tolist()
        first = (self.state.global_step - first_step) * self.args.gradient_accumulation_steps
        order = copy.copy(self._order)  # the original is being read from
        order.set_epoch(epoch)
        order.start = first * world * size
        numbers = list(islice(order, len(self._micro_losses) * world * size))
        spread = (numbers[start : start + size] for start in ((micro * world + rank) * size for micro, rank in asked))
        real = (number % order.count for batch in spread for number in batch if number >= 0)  # others are fillers
        return list(islice(real, _NAMED))

    # ---- what is told ----------------------------------------------------------------------------

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self._since_log = self.state.global_step - self._globalstep_last_logged
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def log(self, logs: dict[str, Any], start_time: float | None = None) -> None:
        bad = self.bad_steps
        if "loss" in logs:
            bad.correct(logs, self._since_log)
            told = (line["loss"] for line in reversed(self.state.log_history) if "loss" in line)
            if is_spike(logs["loss"], list(islice(told, LOOKED_BACK))):
                logs["spike"] = True
        if "train_loss" in logs and bad.left_out:
            numbers = self.state.global_step - bad.left_out
            logs["train_loss"] = logs["train_loss"] * self.state.global_step / numbers if numbers > 0 else math.nan
        super().log(logs, start_time)


def spoil_gradient(loss: Tensor) -> None:
    """Have a ``loss`` that is not finite give gradients that are not either, on every process that shares them.

    Else a loss of infinity may come with gradients of 0, and one process's with the others' finite ones. A finite loss
    keeps its gradients to the bit; nothing waits for the device.
    """
    if loss.requires_grad:
        finite = loss.detach().isfinite()
        loss.register_hook(lambda gradient: torch.where(finite, gradient, torch.full_like(gradient, torch.nan)))


def _whole(norm: Any) -> Any:
    """Of sharded gradients, where each process has a part of it."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
