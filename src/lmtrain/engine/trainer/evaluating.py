"""Evaluation: running sums, every example once over all processes, no label smoothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers.integrations.deepspeed import deepspeed_init
from transformers.trainer_utils import EvalLoopOutput, has_length

from lmtrain.core.errors import UserError
from lmtrain.engine.batches.items import as_dataset, without_labels
from lmtrain.engine.evaluation import EvaluationLoader, RunningSums
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.engine.trainer.settling import SettlingTrainer
from lmtrain.objectives import EVALUATION_EPOCH, Completion, KeyTokens, LossSums, loss_sums
from lmtrain.objectives.loss import keyed_in

_log = logging.getLogger(__name__)


class EvaluatingTrainer(SettlingTrainer):
    """A Trainer whose evaluation keeps sums, not logits."""

    _sums: RunningSums | None
    exported: dict[str, Any]
    _evaluated: tuple[int, dict[str, float]] | None = None  # the step of this training's last evaluation, its figures

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        if self.compute_metrics is not None:
            return super().get_eval_dataloader(eval_dataset)
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        if dataset is None:
            raise ValueError("evaluation needs a data set: give LMTrainer(eval_dataset=…) or evaluate(dataset)")
        args, lengths = self.args, None
        if self._is_ours:
            dataset = self._wrapped(dataset, EVALUATION_EPOCH)
            lengths = getattr(dataset, "lengths", None)
        return EvaluationLoader(
            dataset,
            args.eval_batch_size,
            self._get_collator_with_removed_columns(self.data_collator, "evaluation"),
            lengths=lengths,
            rank=args.process_index,
            world=args.world_size,
            equal=self.is_sharded,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and torch.cuda.is_available(),
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        return super().get_test_dataloader(as_dataset(test_dataset, "test_dataset"))

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        if not isinstance(dataloader, EvaluationLoader):
            asked = {"prediction_loss_only": prediction_loss_only, "ignore_keys": ignore_keys}
            return self._stock_loop(dataloader, metric_key_prefix, description=description, **asked)
        scoring = self.fast_paths.scoring
        model = self._evaluation_model()
        self.callback_handler.eval_dataloader = dataloader
        running = RunningSums(self.args.device, apart=isinstance(self.objective, KeyTokens))
        with torch.no_grad(), self._rounding_once(scoring) as scoring:
            for batch, counts in dataloader:
                if "labels" not in batch:
                    raise without_labels(batch)
                inputs = self._prepare_inputs(batch)
                with self._as_in_training():
                    kind = running.values.dtype
                    sums = scoring(model, inputs, self.objective, weighted=False, accuracy=True, dtype=kind)
                if counts:
                    running.add(sums, len(inputs["labels"]))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = running.total(self.accelerator.reduce)  # their sum
        metrics = totals.metrics(**self._text_size(dataloader.dataset))
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        nothing: Any = None  # the Trainer's own loop leaves it out too, for want of logits
        return EvalLoopOutput(nothing, label_ids=None, metrics=named, num_samples=totals.examples)

    def _as_in_training(self) -> AbstractContextManager[Any]:
        """What Accelerate puts around the forward pass in training: nothing where FSDP2 casts unit by unit."""
        return nullcontext() if self.accelerator.is_fsdp2 else self.accelerator.autocast()

    @contextmanager
    def _rounding_once(self, scoring: Scoring) -> Iterator[Scoring]:
        """Inside, weights are made narrow for the first batch and kept so: none changes, and autocast forgets its
        copies when the outermost one ends. Of a sharded model no copy may outlive its layer."""
        kind = self.args.device.type
        if self.is_sharded:
            yield scoring
            return
        with self.accelerator.autocast():
            narrow = torch.is_autocast_enabled(kind)
            yield scoring.ahead(torch.get_autocast_dtype(kind)) if narrow else scoring

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        if not (isinstance(eval_dataset, str) and isinstance(self.eval_dataset, Mapping)):  # one's name, else
            eval_dataset = as_dataset(eval_dataset, "eval_dataset")
        metrics = super().evaluate(eval_dataset, *args, **kwargs)
        if self.is_in_train and eval_dataset is None:
            self._evaluated = self.state.global_step, dict(metrics)
        return metrics

    def evaluated_at_the_end(self) -> dict[str, float] | None:
        """The figures of the evaluation that this training made of the very weights it ended with; None without one."""
        args, step = self.args, self.state.global_step
        other_weights = self.exported.get("step") != step or (args.load_best_model_at_end and self.is_sharded)
        rounded = args.fp16_full_eval or args.bf16_full_eval  # after training only
        if self._evaluated is None or self._evaluated[0] != step or other_weights or rounded:
            return None
        return self._evaluated[1] if "eval_loss" in self._evaluated[1] else None

    def _text_size(self, dataset: Any) -> dict[str, Any]:
        """Tokens and bytes of the text behind a layout; bits per byte mean nothing for hidden tokens."""
        source = getattr(dataset, "dataset", dataset)
        if not self.objective.shifted:
            return {}
        of = "n_answer_" if isinstance(self.objective, Completion) else "n_"
        return {f"text_{what}": getattr(source, f"{of}{what}", None) for what in ("tokens", "bytes")}

    def _evaluation_model(self) -> torch.nn.Module:
        """The model ready to evaluate.

        The stock loop lets Accelerate prepare a model that was not trained before, which marks it as
        prepared: a training that follows is then not wrapped in DDP, and the processes drift apart without a
        word. Only models that the library shards need the preparation; for the rest autocast around the forward
        pass does the same.
        """
        args = self.args
        if self.is_deepspeed_enabled and self.deepspeed is None:
            try:
                deepspeed_init(self, num_training_steps=0, inference=True)
            except ValueError as error:  # ZeRO 1 and 2 divide what only training has
                raise UserError(
                    f"evaluates nothing without training ({error}); leave it out", flag="--deepspeed"
                ) from None
        model = self._wrap_model(self.model, training=False)
        by_library = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if by_library and not self.accelerator._models and model is self.model:
            if self.accelerator.is_fsdp2:  # Accelerate takes no model without an optimizer; this one holds nothing
                model, _ = self.accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.0))
                self.accelerator._optimizers.clear()
            elif self.is_deepspeed_enabled or not args.torch_compile:
                model = self.accelerator.prepare(model)
            else:
                model = self.accelerator.prepare_model(model, evaluation_mode=True)
            if self.is_fsdp_enabled:
                self.model = model
            if model is not self.model:
                self.model_wrapped = model
            if self.is_deepspeed_enabled:
                self.deepspeed = self.model_wrapped
        if not self.is_in_train and (args.fp16_full_eval or args.bf16_full_eval):
            model = model.to(dtype=torch.float16 if args.fp16_full_eval else torch.bfloat16, device=args.device)
        model.eval()
        if hasattr(self.optimizer, "eval") and callable(self.optimizer.eval):
            self.optimizer.eval()  # schedule-free optimizers keep two sets of weights
        return model

    def _stock_loop(self, dataloader: Any, prefix: str, **asked: Any) -> EvalLoopOutput:
        """The stock loop, which keeps logits, with our sums for the loss beside them."""
        if self.compute_metrics is not None:
            self._say_cost(dataloader)
        self._sums = RunningSums(self.args.device, apart=isinstance(self.objective, KeyTokens))
        untrained = not getattr(self.model, "_is_accelerate_prepared", False)
        try:
            output = super().evaluation_loop(dataloader, metric_key_prefix=prefix, **asked)
            totals = self._sums.total()
        finally:
            self._sums = None
            if untrained and not self.is_sharded:  # see _evaluation_model
                self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
                self.accelerator._models.clear()
                self.model._is_accelerate_prepared = False
        if totals.examples and output.metrics is not None:
            metrics = totals.metrics(**self._text_size(dataloader.dataset))
            output.metrics.update({f"{prefix}_{name}": value for name, value in metrics.items()})
        return output

    def _count(self, sums: LossSums, inputs: dict[str, Any], outputs: Any) -> None:
        """Add a batch of the stock loop to the running sums: those of all processes to those of each.

        There the last batch is filled up with examples that were there before. The library leaves them out once their
        logits are gathered, by their rows; so the sums travel row by row too.
        """
        assert self._sums is not None
        if self.args.world_size == 1:
            self._sums.add(sums, len(inputs["labels"]))
            return
        logits, labels, keyed, table = outputs["logits"], inputs["labels"], keyed_in(inputs), []
        for row in (slice(n, n + 1) for n in range(len(labels))):
            own = RunningSums(self.args.device, apart=isinstance(self.objective, KeyTokens))
            own.add(
                loss_sums(
                    logits[row], labels[row], self.objective,
                    keyed=None if keyed is None else keyed[row], accuracy=True, dtype=own.values.dtype,
                ),
                1,
            )  # fmt: skip
            table.append(own.values)
        self._sums.values += self.accelerator.gather_for_metrics(torch.stack(table)).sum(0)

    def _say_cost(self, dataloader: Any) -> None:
        if self.preprocess_logits_for_metrics is not None or self.args.batch_eval_metrics:
            return  # the user keeps less than the logits
        vocabulary = getattr(getattr(self.model, "config", None), "vocab_size", None)
        if vocabulary is None or not has_length(dataloader):
            return
        batches: Any = dataloader
        length = next(iter(batches))["input_ids"].shape[1]
        examples = self.num_examples(batches)
        _log.warning(
            "compute_metrics keeps the logits of every position in memory: %d examples × %d positions × "
            "%d ids × 4 bytes = %.1f GB. Give preprocess_logits_for_metrics to keep less; loss, perplexity "
            "and accuracy need no compute_metrics.",
            examples, length, vocabulary, examples * length * vocabulary * 4 / 1e9,
        )  # fmt: skip
