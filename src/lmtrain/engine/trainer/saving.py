"""Checkpoints that are whole or not there, written while training goes on."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy
from transformers.utils import logging as transformers_logging

from lmtrain.core.files import clear_scratch
from lmtrain.engine.checkpoints.background import Buffers, Writer, Written
from lmtrain.engine.checkpoints.keep import tidy
from lmtrain.engine.checkpoints.policy import NoSaveSucceededError
from lmtrain.engine.checkpoints.read import OPTIMIZER, RUN_STATE, SCALER, SCHEDULER, STATE
from lmtrain.engine.checkpoints.write import Contents, write_checkpoint
from lmtrain.engine.runs.versions import machine, versions
from lmtrain.engine.speed.memory import available
from lmtrain.engine.trainer.pace import Pace
from lmtrain.engine.trainer.resuming import WEIGHTS, ResumingTrainer
from lmtrain.models.loading.vocabulary import make_generation_config_valid

_log = logging.getLogger(__name__)
_FAILURES = (OSError, SafetensorError)  # a full disk, a lost right: what a later save may be spared
_MAIN = torch.device("cpu")
SPARE = 1.25  # so much memory has to be free of what a copy takes


class SavingTrainer(ResumingTrainer):
    """A Trainer whose checkpoints appear by rename, and whose failed saves leave the run and earlier ones alone."""

    save_seconds: float = 0.0  # that the last save took, its pause and its writing
    saved_step: int | None = None  # of the last save that succeeded since training began
    _failed: int = 0  # saves in a row
    _best_saved: tuple[int, float | None] | None = None  # the step of the best checkpoint that is on disk, its score
    _writer: Writer
    _buffers: Buffers
    _pace: Pace
    _about: dict[str, Any]  # where this is made

    # ---- one save --------------------------------------------------------------------------------

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self._is_stock_saved:
            super()._save_checkpoint(model, trial)
            self.saved_step = self.state.global_step
            return
        began = time.perf_counter()
        self.settle_save()
        self.store_flos()
        losses = [float(loss) for loss in gather(self._tr_loss[None])]  # each process's, since the last log line
        writes = self.args.should_save
        if not (writes or self._saves_shards):
            return
        folder = Path(self._get_output_dir(trial))
        step, best = self.state.global_step, self.state.best_global_step
        is_best = best == step and self.state.best_metric is not None
        target = folder / f"checkpoint-{step}"
        state = self._trainer_state(str(target) if is_best else None)
        best_saved = (step, self.state.best_metric) if is_best else self._best_saved
        records = {STATE: state, RUN_STATE: self._run_state(losses) | {"best_saved": best_saved}}

        write_it, background = self._writing(target, step, records)
        limit, states = self.args.save_total_limit, self.saving.keep_optimizer_states
        kept = [best_saved[0]] if best_saved else []

        def write() -> int:
            size = write_it()
            if not writes:
                return size
            try:
                tidy(folder, step, limit=limit, keep_optimizer_states=states, keep=kept)
            except OSError as error:
                _log.warning("an old checkpoint in %s could not be removed: %s", folder, error)
            return size

        if background:
            self._writer.start(step, write)
        else:
            self._writer.now(step, write)
        self._pace.saved(step, time.perf_counter() - began, is_best and self.state.best_metric, background)
        if not background:
            self.settle_save()
            if writes and self.args.push_to_hub and target.is_dir():
                self._push_from_checkpoint(str(target))

    def _writing(self, target: Path, step: int, records: dict[str, Any]) -> tuple[Callable[[], int], bool]:
        """What makes the checkpoint ``target``, and whether it may do so while training goes on."""
        tensors = {} if self.args.save_only_model else self._states()
        inner = self._inner()
        if getattr(inner, "generation_config", None) is not None:
            make_generation_config_valid(inner)
        if self._saves_shards:
            return self._writing_shards(target, step, tensors, records, self._about), False
        parts = inner.state_dict(keep_vars=True)
        trained = _changing(parts)
        background = self._in_background(trained, tensors)
        if background:
            trained, tensors = self._buffers.copy([trained, tensors])
        weights = {name: trained.get(name, part).detach() for name, part in parts.items()}

        def write_weights(place: Path) -> None:
            self._save(str(place), weights)

        contents = Contents(step, write_weights, tensors, records, bool(tensors), self._about)
        return lambda: write_checkpoint(target, contents), background

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written in the background."""
        return self._writer.busy

    def settle_save(self, *, ending: bool = False) -> None:
        """Wait for the save before, if there is one, and take note of how it went.

        Raises :class:`NoSaveSucceededError` when too many have failed, unless training is ``ending`` anyway.
        """
        written = self._writer.result()
        if written is None:
            return
        score = self._pace.score
        cost = self._pace.report(written)
        self.save_seconds = cost["pause_seconds"] + cost["write_seconds"]
        if written.error is None:
            self._failed, self.saved_step = 0, written.step
            if score is not False:
                self._best_saved = (written.step, score)
                self.state.best_model_checkpoint = str(self._folder() / f"checkpoint-{written.step}")
            if self.saving.report is not None:
                self.saving.report(cost)
            _log.info("checkpoint-%d: %s", written.step, cost)
            return
        self._note_failure(written, ending)

    def _note_failure(self, written: Written, ending: bool) -> None:
        error = written.error
        assert error is not None
        if not isinstance(error, _FAILURES):
            raise error
        self._failed += 1
        most = self.saving.max_failed_saves
        if self.saving.report is not None:
            self.saving.report({"step": written.step, "failed": str(error), "in_a_row": self._failed})
        if self._failed >= most and not ending:
            raise NoSaveSucceededError(
                f"the last {self._failed} saves in {self._folder()} have failed, so nothing more of this run would be "
                f"kept: {error}. Make room or give back the right to write, then run the same command again",
                flag="--max_failed_saves",
            ) from error
        tell = _log.warning if self.args.should_save else _log.debug  # of a sharded one all know
        onward = "" if ending else "training goes on, "
        tell(
            "checkpoint-%d could not be saved (%s); %searlier checkpoints are as they were "
            "(%d of %d failures in a row that stop the run)",
            written.step, error, onward, self._failed, most,
        )  # fmt: skip

    def _folder(self) -> Path:
        return Path(self._get_output_dir(None))

    def _states(self) -> dict[str, Any]:
        schedule: Any = self.lr_scheduler
        states = {SCHEDULER: schedule.state_dict()}
        if not self._saves_shards:
            states[OPTIMIZER] = self.optimizer.state_dict()
        scaler = getattr(self.accelerator, "scaler", None)
        return states if scaler is None else {**states, SCALER: scaler.state_dict()}

    def _trainer_state(self, best_model_checkpoint: str | None) -> dict[str, Any]:
        self.state.stateful_callbacks = self._callback_states()  # type: ignore[assignment]
        values = {field.name: getattr(self.state, field.name) for field in dataclasses.fields(self.state)}
        # Lines never change once they are logged, and they are many: `asdict` would copy each (20,000: 0.9 s).
        values = copy.deepcopy({**values, "log_history": None}) | {"log_history": list(self.state.log_history)}
        if best_model_checkpoint is not None:
            values["best_model_checkpoint"] = best_model_checkpoint
        return values

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The model and tokenizer as ``from_pretrained`` reads them. The library's leaves a pickle beside them."""
        place = Path(str(self.args.output_dir if output_dir is None else output_dir))
        writes = self.args.should_save
        if not writes and not getattr(self, "is_distributed_loading_by_transformers", False):
            return
        model = self._inner()
        if hasattr(model, "save_pretrained"):
            with _no_bar():
                model.save_pretrained(str(place), state_dict=state_dict, is_main_process=writes)
        else:  # a module of one's own
            place.mkdir(parents=True, exist_ok=True)
            parts = _each_once(model.state_dict() if state_dict is None else state_dict)
            save_file(parts, place / WEIGHTS, metadata={"format": "pt"})
        if writes:
            self._save_tokenizer(place)

    # ---- meanwhile -------------------------------------------------------------------------------

    def _in_background(self, *trees: Any) -> bool:
        wanted = self.saving.background
        if wanted != "auto":
            return wanted == "on"
        if self.args.push_to_hub or self._is_somebody_told():
            return False
        return self._pace.prepared or available(_MAIN) > SPARE * Buffers.needed(list(trees))

    def _is_somebody_told(self) -> bool:
        """Whether a callback that is not ours looks at a checkpoint when it hears of it: then it has to be there."""
        return any(
            type(callback).on_save is not TrainerCallback.on_save
            and not type(callback).__module__.startswith(("lmtrain.", "transformers.trainer_callback"))
            for callback in self.callback_handler.callbacks
        )

    def prepare_buffers(self) -> None:
        """Have the memory for copies ready before the first save, where there is going to be one."""
        in_place = self._is_stock_saved or self._saves_shards
        none = self.args.save_strategy == SaveStrategy.NO or not self.args.should_save or in_place
        if none or self.args.save_only_model or self.saving.background == "off":
            return
        model = self._inner()
        trees = [_changing(model.state_dict(keep_vars=True)), self._states()]
        if self._in_background(*trees):
            self._buffers.prepare(trees)
            self._pace.prepared = True

    def _begin_saving(self) -> None:
        """Before training: forget an earlier one's saves, and clear away what killed ones left."""
        self._writer, self._buffers, self._failed, self.saved_step = Writer(), Buffers(), 0, None
        self._about = {"versions": versions(), "machine": machine()}
        self._pace.forget()
        best = (self._carried or {}).get("best_saved")
        self._best_saved = (best[0], best[1]) if best and isinstance(best[0], int) else None
        if self.args.should_save:
            for name in clear_scratch(Path(str(self.args.output_dir)), "checkpoint-*"):
                _log.info("removed %s, which a killed save left", name)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._init_training_state(*args, **kwargs)
        best = self.state.best_model_checkpoint
        if best is not None and self._best_saved is None and Path(best).parent.resolve() == self._folder().resolve():
            self._best_saved = (int(self.state.best_global_step or 0), self.state.best_metric)  # of the stock Trainer
        return result

    def _end_saving(self) -> None:
        """However training ends: the save that is under way is finished first."""
        try:
            self.settle_save(ending=True)
        finally:
            self._buffers = Buffers()


def _each_once(parts: dict[str, Any]) -> dict[str, Any]:
    """By their first names, as safetensors takes them: no two for the same memory."""
    first = {(part.data_ptr() if part.numel() else name, part.shape): name for name, part in reversed(parts.items())}
    return {name: parts[name].contiguous() for name in first.values()}


def _changing(parts: dict[str, Any]) -> dict[str, Any]:
    """A weight that is not trained stays as it is, and need not be copied."""
    return {n: part for n, part in parts.items() if part.requires_grad or not isinstance(part, torch.nn.Parameter)}


@contextmanager
def _no_bar() -> Iterator[None]:
    """Without the library's progress bar of shards, which would be drawn over the run's lines."""
    was = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was:
            transformers_logging.enable_progress_bar()
