"""What makes a run that was stopped and goes on equal to one that was not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import EarlyStoppingCallback
from transformers.trainer_callback import ExportableState

from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.engine.checkpoints.deepspeed import require_as_many
from lmtrain.engine.checkpoints.manifest import MANIFEST, read_manifest
from lmtrain.engine.checkpoints.plan import elsewhere, plan_of, require_same_plan
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.checkpoints.read import (
    OPTIMIZER,
    RUN_STATE,
    SCALER,
    SCHEDULER,
    has_optimizer_state,
    newest,
    problem,
    put_weights,
    read_tensors,
)
from lmtrain.engine.runs.versions import machine, versions
from lmtrain.engine.trainer.sharding import ShardingTrainer

_log = logging.getLogger(__name__)
WEIGHTS, _FLAG = "model.safetensors", "--resume_from_checkpoint"


class ResumingTrainer(ShardingTrainer):
    """A Trainer that goes on to the bit.

    ``run_state.json`` carries what the Trainer's own record leaves out: the sum of the losses since the last log line,
    the fast paths' decisions, the plan that the schedule was made for, and whether the epoch's end was dealt with.
    """

    saving: Saving
    _make_optimizer: Any
    _carried: dict[str, Any] | None = None  # the run state of the checkpoint, until it is taken up
    _went_on_from: Path | None = None
    _events_of: int = -1  # the step whose events were dealt with: the second time it is the epoch's end
    _epoch_ended: bool = False
    _has_all_losses: bool = True  # since the first step of the run
    _last_norm: Any = None
    _last_rate: float | None = None

    @property
    def _is_stock_saved(self) -> bool:
        """Whether no process holds the whole model, in a way that only the library's own saving knows."""
        if self._saves_shards:
            return False
        return self.is_sharded or bool(getattr(self, "is_distributed_loading_by_transformers", False))

    # ---- where to go on from ---------------------------------------------------------------------

    def _begin(self, asked: str | bool | None) -> str | None:
        """Find and verify the checkpoint that is ``asked`` for, and take over its decisions. Call it before anything
        is settled. Returns its folder; raises :class:`UserError` when there is none that verifies."""
        self._carried = self._went_on_from = None
        self._has_all_losses = True
        self._events_of, self._epoch_ended, self._last_norm, self._last_rate = -1, False, None, None
        if asked is None or asked is False:
            return None
        told: list[Any] = [None, None]
        try:
            if self.args.process_index == 0:
                told[0] = str(place := self._newest() if asked is True else _named(Path(asked)))
                require_as_many(place, self.args.world_size)
        except UserError as error:
            told[1] = error
        if self.args.world_size > 1:  # verified once, not by each
            broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        self._went_on_from = Path(told[0])
        state = self._went_on_from / RUN_STATE
        self._carried = read_json(state) if state.is_file() else {}
        self._has_all_losses = bool(self._carried)
        self._take_decisions(self._carried.get("decisions") or {})
        if (self._went_on_from / MANIFEST).is_file():
            line = elsewhere(read_manifest(self._went_on_from), versions(), machine())
            if line and self.args.process_index == 0:
                _log.warning("%s %s", self._went_on_from.name, line)
        return told[0]

    def _newest(self) -> Path:
        folder = Path(str(self.args.output_dir))
        found = newest(folder)
        for line in found.passed_over:
            _log.warning("passed over %s", line)
        if found.checkpoint is None:
            raise UserError(f"{folder} holds no checkpoint that training can go on from{found.reasons}", flag=_FLAG)
        return found.checkpoint

    def _take_decisions(self, decisions: Mapping[str, Any]) -> None:
        if "head" in decisions and "head" not in self._decided:
            self._decided = {**self._decided, **decisions}
            if self._fast_paths is not None and self._fast_paths.decisions != decisions:
                self._fast_paths = None  # settled before it was known that the run goes on

    @contextmanager
    def _evaluating_once(self, point: str | None) -> Iterator[None]:
        """Without ``eval_on_start`` where the run started before."""
        asked = self.args.eval_on_start
        self.args.eval_on_start = asked and point is None
        try:
            yield
        finally:
            self.args.eval_on_start = asked

    # ---- what is read ----------------------------------------------------------------------------

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._reads_shards(resume_from_checkpoint):
            self._load_weights(resume_from_checkpoint)
            return
        weights = Path(resume_from_checkpoint) / WEIGHTS
        if self._is_stock_saved or model is not None or not weights.is_file():
            super()._load_from_checkpoint(resume_from_checkpoint, *([] if model is None else [model]))
            return
        inner = self.accelerator.unwrap_model(self.model)
        if wrong := put_weights(inner, weights):
            raise UserError(f"{weights} holds another model's weights: {wrong}", flag=_FLAG)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._is_stock_saved:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        several_gpus = self.args.world_size > 1 and self.args.device.type != "cpu"
        place = self.args.device if several_gpus else "cpu"
        asked = [{k: v for k, v in g.items() if k not in ("params", "lr")} for g in self.optimizer.param_groups]
        schedule: Any = self.lr_scheduler
        rates = list(getattr(schedule, "base_lrs", []))
        if self._reads_shards(checkpoint):
            self._load_optimizer(checkpoint)
        else:
            self.optimizer.load_state_dict(read_tensors(Path(checkpoint) / OPTIMIZER, place))
        schedule.load_state_dict(read_tensors(Path(checkpoint) / SCHEDULER))
        if self.saving.accept_changes:
            self._follow(asked, rates)

    def _follow(self, asked: list[dict[str, Any]], rates: list[float]) -> None:
        """Let the optimizer follow today's settings: those of a checkpoint would silently win."""
        for group, settings in zip(self.optimizer.param_groups, asked, strict=True):
            group.update(settings)
        schedule: Any = self.lr_scheduler
        if rates and isinstance(schedule, torch.optim.lr_scheduler.LambdaLR):
            schedule.base_lrs = list(rates)
            shares = [share(schedule.last_epoch) for share in schedule.lr_lambdas]
            schedule._last_lr = [rate * share for rate, share in zip(rates, shares, strict=True)]
            for group, rate in zip(self.optimizer.param_groups, schedule._last_lr, strict=True):
                group["lr"] = rate

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.accelerator.scaler is None:
            return
        path = Path(checkpoint) / SCALER
        if path.is_file():
            self.accelerator.scaler.load_state_dict(read_tensors(path))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to read: what is random here follows from counters, and the stock file is a pickle."""

    def _load_callback_state(self) -> None:
        """Give the callbacks their counters back; what they were made with stays as it is asked for now."""
        callbacks = [c for c in self.callback_handler.callbacks if isinstance(c, ExportableState)]
        stored: Any = self.state.stateful_callbacks  # as JSON has it
        for name, saved in stored.items():
            same = [callback for callback in callbacks if type(callback).__name__ == name]
            for callback, state in zip(same, saved if isinstance(saved, list) else [saved], strict=False):
                for attribute, value in state.get("attributes", {}).items():
                    setattr(callback, attribute, value)

    def _callback_states(self) -> dict[str, Any]:
        states: dict[str, Any] = {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        return {name: each if len(each) > 1 else each[0] for name, each in states.items()}

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> Any:
        result = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)  # intervals are today's, not the checkpoint's
        self.state.train_batch_size = self._train_batch_size
        before = (self._carried or {}).get("plan")
        if before and not self.saving.accept_changes:
            require_same_plan(str(self._went_on_from), before, self._plan())
        if self._went_on_from is not None and self.state.best_global_step:
            beside = self._went_on_from.with_name(f"checkpoint-{self.state.best_global_step:d}")  # a run may be moved
            self.state.best_model_checkpoint = str(beside) if beside.is_dir() else None  # and no folder elsewhere
        return result

    def _plan(self) -> dict[str, Any]:
        model = self.accelerator.unwrap_model(self.model)
        maker = getattr(self._make_optimizer, "func", self._make_optimizer)  # of a functools.partial
        named = str(getattr(self.args.optim, "value", self.args.optim))
        return plan_of(
            self.args,
            self.train_dataset,
            batch_size=self._train_batch_size,
            steps=self.state.max_steps,
            optimizer=named if maker is None else getattr(maker, "__name__", type(maker).__name__),
            parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        ) | {"z_loss": self.z_loss}

    # ---- between two steps -----------------------------------------------------------------------

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        if self._take_up(kwargs["model"], kwargs["trial"], kwargs["ignore_keys_for_eval"], kwargs["start_time"]):
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **kwargs)

    def _take_up(self, model: Any, trial: Any, ignored: Any, start_time: float) -> bool:
        """Put back what was carried, once; whether training is over."""
        carried, self._carried = self._carried, None
        if carried is None:
            return False
        if carried:
            self._take_up_losses(carried)
        over = self.state.global_step >= self.state.max_steps or any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )

        def deal_with_events() -> None:
            self._maybe_log_save_evaluate(
                self._tr_loss, self._last_norm, model, trial, int(self.state.epoch or 0), ignored, start_time,
                learning_rate=self._last_rate,
            )  # fmt: skip

        at_the_end = over or float(self.state.epoch or 0).is_integer()
        if carried and at_the_end and not carried["epoch_ended"]:
            # The checkpoint was made after the epoch's last step and before what comes at its end.
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
            deal_with_events()
        if carried and carried.get("owes_evaluation") and not self.control.should_training_stop:
            self.control.should_evaluate = True
            deal_with_events()
        return over or self.control.should_training_stop

    def _take_up_losses(self, carried: Mapping[str, Any]) -> None:
        sums = carried["losses"]  # of each process
        rank = self.args.process_index
        mine = sums[rank] if len(sums) == self.args.world_size else sum(sums) / len(sums)
        self._tr_loss = torch.tensor(mine, dtype=torch.float32, device=self.args.device)
        self._total_loss_scalar = carried["loss_total"]
        self._globalstep_last_logged = carried["logged_step"]
        self._last_norm, self._last_rate = carried["grad_norm"], carried["learning_rate"]
        self._events_of = self.state.global_step

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: Any, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        step = self.state.global_step
        self._epoch_ended, self._events_of = self._events_of == step, step
        self._last_norm, self._last_rate = grad_norm, kwargs.get("learning_rate")
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "train_loss" in logs and self._has_all_losses:  # the mean over the whole run, not since it was resumed
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(logs, start_time)

    def _run_state(self, losses: list[float]) -> dict[str, Any]:
        """What the Trainer's own record leaves out, as JSON; ``losses`` are each process's since the last log line."""
        norm = self._last_norm
        return {
            "losses": losses,
            "loss_total": self._total_loss_scalar,
            "logged_step": self._globalstep_last_logged,
            "grad_norm": norm.item() if isinstance(norm, torch.Tensor) else norm,
            "learning_rate": self._last_rate,
            "epoch_ended": self._epoch_ended,
            "decisions": self.fast_paths.decisions,
            "plan": self._plan(),
        }


def _named(checkpoint: Path) -> Path:
    wrong = problem(checkpoint) if checkpoint.is_dir() else "no such folder"
    if wrong is None and not has_optimizer_state(checkpoint):
        wrong = "it holds weights only, from which training cannot go on"
    if wrong is not None:
        raise UserError(f"{checkpoint} cannot be gone on from: {wrong}", flag=_FLAG)
    return checkpoint
