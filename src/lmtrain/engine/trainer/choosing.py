"""The best checkpoint and the last: which one the run leaves, and that both stay."""

from __future__ import annotations

import logging
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers.trainer_utils import SaveStrategy, TrainOutput

from lmtrain.engine.checkpoints.read import problem
from lmtrain.engine.trainer.resuming import WEIGHTS
from lmtrain.engine.trainer.saving import SavingTrainer

_log = logging.getLogger(__name__)


class ChoosingTrainer(SavingTrainer):
    """A Trainer that saves a best model when it finds it, and can end with it."""

    exported: dict[str, Any]  # which step the model in memory is of, once training has ended

    def _determine_best_metric(self, metrics: Any, trial: Any) -> bool:
        """A new best is saved when it is found, whatever the interval of saving: a later save is another model."""
        is_best: bool = super()._determine_best_metric(metrics, trial)
        if is_best and self.args.load_best_model_at_end and self.args.save_strategy != SaveStrategy.NO:
            self.control.should_save = True
        return is_best

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> TrainOutput:
        self._take_up(self.model_wrapped, trial, None, start_time)  # nothing was left to train
        self.settle_save(ending=True)
        if not self._is_stock_saved:  # only who writes knows what is on disk
            on_disk: list[Any] = [self._best_saved, self.state.best_model_checkpoint]
            self._best_saved, self.state.best_model_checkpoint = broadcast_object_list(on_disk)
        step, limit = self.state.global_step, self.args.save_total_limit
        self.exported = {"step": step, "chosen": "last", **self._score_of(step)}
        self.args.save_total_limit = None  # at 1 the library now deletes all but the best, and the last is resumed from
        try:
            output = super()._finalize_training(trial, num_train_samples, start_time)
        finally:
            self.args.save_total_limit = limit
        return TrainOutput(output.global_step, output.metrics["train_loss"], output.metrics)

    def _score_of(self, step: int) -> dict[str, Any]:
        """The metric that chooses the best model, as it was last evaluated at ``step``."""
        metric = self.args.metric_for_best_model or "loss"
        metric = metric if metric.startswith("eval_") else f"eval_{metric}"
        scores = [line[metric] for line in self.state.log_history if line.get("step") == step and metric in line]
        return {"metric": metric, "score": scores[-1]} if scores else {}

    def _load_best_model(self) -> None:
        if self._is_stock_saved or self._best_saved is None:
            super()._load_best_model()
            found: Any = self.state.best_global_step
            self.exported = {"step": found, "chosen": "best", **self._score_of(found)}
            return
        step = self._best_saved[0]
        best = self._folder() / f"checkpoint-{step}"
        wrong = None
        if step != self.state.global_step and self.args.process_index == 0:  # else it is in memory
            wrong = problem(best) if best.is_dir() else "it is gone"
        wrong = broadcast_object_list([wrong])[0]
        if wrong is not None:
            _log.warning("the best model (%s) cannot be loaded: %s; the last one stays", best, wrong)
            return
        if step != self.state.global_step:
            self.state.best_model_checkpoint = str(best)
            if (best / WEIGHTS).is_file() or self._reads_shards(best):
                self._load_from_checkpoint(str(best))
            else:  # adapters, a model in several files
                super()._load_best_model()
        if step != self.state.best_global_step:
            _log.warning("step %s scored best and could not be saved; step %d is the best that was",
                         self.state.best_global_step, step)  # fmt: skip
        self.exported = {"step": step, "chosen": "best", **self._score_of(step)}
