"""The loop: ``transformers.Trainer`` with our sums, our order and our evaluation.

The only file that touches the Trainer and its private methods; tests run it on the oldest and the newest
supported version. What it changes:

========================  ==============================================================================
the loss                  summed over predicted positions, divided once by their number in the whole step;
                          logits at those positions only, where that is proven (``engine/fast_paths.py``)
the order of examples     a function of (seed, epoch); resuming reads no earlier example
evaluation                running sums, every example once over all processes, no label smoothing
non-finite losses         shown as they are (``logging_nan_inf_filter`` is off)
several GPUs              a launcher, or one of them; never ``DataParallel``
progress                  a bar in a terminal, plain lines elsewhere
========================  ==============================================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, has_length

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.engine.allocator import release_freed_memory
from lmtrain.engine.callbacks import Meter, step_work
from lmtrain.engine.collate import Collate, EpochExamples, Guarded
from lmtrain.engine.compiling import Compile
from lmtrain.engine.evaluation import EvaluationLoader, RunningSums
from lmtrain.engine.fast_paths import FastPaths, settle
from lmtrain.engine.kind import objective_for
from lmtrain.engine.machine import Peak, peak_of
from lmtrain.engine.progress import Progress
from lmtrain.engine.sampling import ByLength, EpochOrder
from lmtrain.models.flops import ModelFlops
from lmtrain.models.layers import no_more_compiling
from lmtrain.objectives import EVALUATION_EPOCH, Masked, Objective, model_loss_sums

_log = logging.getLogger(__name__)


class LMTrainer(Trainer):
    """Train a causal or masked language model on a layout or on one's own data set.

    ``train_dataset`` and ``eval_dataset`` are layouts (``__getitems__`` gives :class:`Examples`), or any
    torch or ``datasets`` data set of ``input_ids``. Without a ``data_collator`` the ``objective`` makes the
    labels and rows are padded by their true length; with one it does, and the objective only says whether
    labels are shifted. Without an ``objective`` the model's class decides. With ``compute_metrics``
    evaluation keeps all logits, as the stock Trainer does. ``make_optimizer`` makes the optimizer from the
    model, where ``args.optim`` does not name it. ``packing=False`` leaves padding where rows differ in length.
    ``compiles`` compiles the model's layers: ``on``, or ``auto`` where it is found to pay.
    ``decided`` are the ``decisions`` of :attr:`fast_paths` in an earlier part of the run, which are then taken
    over. Any other argument of :class:`transformers.Trainer` may follow.

    >>> trainer = LMTrainer(model, args, train_dataset=my_dataset)      # doctest: +SKIP
    >>> trainer.train()                                                 # doctest: +SKIP
    """

    # Our loss is divided by the whole step's count, so the Trainer must not divide again by the number of
    # micro-batches. Read by transformers ≥ 5.23; before, `model_accepts_loss_kwargs` says the same.
    loss_is_scaled_for_ga = True

    objective: Objective
    # Looser than the Trainer declares them: it sets them to None only before it is used.
    model: Any
    optimizer: Any
    eval_dataset: Any
    deepspeed: Any

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        objective: Objective | None = None,
        data_collator: Callable[..., Any] | None = None,
        processing_class: Any = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, Any]] | None = None,
        make_optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        packing: bool = True,
        compiles: Compile = "off",
        decided: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        args = args or TrainingArguments(output_dir="trainer_output")
        _prepare_arguments(args)
        given = list(callbacks or [])
        self.meter = Meter()
        self._make_optimizer = make_optimizer
        self._order: EpochOrder | None = None
        self._sums: RunningSums | None = None
        self._packing = packing
        self.compiles = compiles
        self._decided = decided or {}
        self._fast_paths: FastPaths | None = None
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=[self.meter, *given],
            compute_metrics=compute_metrics,
            **others,
        )
        for stock in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            if not any(callback is stock or isinstance(callback, stock) for callback in given):
                self.remove_callback(stock)
        if not any(isinstance(callback, Progress) for callback in given):
            self.add_callback(Progress(terminal=False if args.disable_tqdm else None))
        if self.compute_loss_func is None:
            self.model_accepts_loss_kwargs = True
        self._seed = args.seed if args.data_seed is None else args.data_seed
        self.objective = objective or objective_for(self.model, data_collator, processing_class, self._seed)
        self._pad_id = _pad_id(processing_class)
        self.data_collator = Collate(self.objective, self._pad_id) if data_collator is None else Guarded(data_collator)
        if args.train_sampling_strategy not in ("random", "sequential") and self._is_ours:
            raise UserError(
                f"{args.train_sampling_strategy} draws an order from history, which a resumed run cannot "
                "repeat; use random or sequential",
                flag="--train_sampling_strategy",
            )

    @property
    def _is_ours(self) -> bool:
        """Whether our own collator makes the batches."""
        return isinstance(self.data_collator, Collate)

    # ---- the order of examples -------------------------------------------------------------------

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._is_ours:
            return super()._get_dataloader(dataset, *args, **kwargs)
        training = kwargs.get("is_training", False)  # both versions pass it by name
        dataset = self._wrapped(dataset, None if training else EVALUATION_EPOCH)
        self.data_collator = self._collate(training)
        try:
            return super()._get_dataloader(dataset, *args, **kwargs)
        finally:
            self.data_collator = self._collate(training=False)

    def _collate(self, training: bool) -> Collate:
        """Evaluation keeps each example in a row of its own: their number, and stock code's logits, go by rows."""
        return Collate(self.objective, self._pad_id, self.fast_paths.packing if training else None)

    def _wrapped(self, dataset: Any, epoch: int | None) -> Any:
        if not isinstance(dataset, IterableDataset):
            return EpochExamples(dataset, pad_id=self._pad_id, epoch=epoch)
        if isinstance(self.objective, Masked):
            raise UserError(
                "an iterable data set does not number its examples, and masks are drawn by number; give "
                "a data set with a length, or data_collator=DataCollatorForLanguageModeling(tokenizer)"
            )
        return dataset

    def _get_collator_with_removed_columns(
        self, data_collator: Callable[..., Any], description: str | None = None
    ) -> Callable[..., Any]:
        # The stock wrapper looks into items, which ours makes of arrays; ours takes the columns it knows.
        if isinstance(data_collator, Collate):
            return data_collator
        return super()._get_collator_with_removed_columns(data_collator, description)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[Any] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        strategy = self.args.train_sampling_strategy
        if not has_length(dataset) or strategy not in ("random", "sequential"):
            return super()._get_train_sampler(train_dataset)
        several = self.args.world_size > 1 and not self.args.dataloader_drop_last
        self._order = EpochOrder(
            len(dataset),
            self._seed,
            shuffle=strategy == "random",
            counters=self._is_ours,
            multiple=self._train_batch_size * self.args.world_size if several else 1,
            by_length=self._by_length(dataset) if self.fast_paths.by_length else None,
        )
        return self._order

    def _by_length(self, dataset: Any) -> ByLength | None:
        lengths = self._wrapped(dataset, None).lengths
        args = self.args
        step = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
        return None if lengths is None or args.train_sampling_strategy != "random" else ByLength(lengths, step)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        # Accelerate hands the epoch on through two levels of samplers, but a run resumed in mid-epoch on
        # several processes has three (skip, shard, batch): without this it would repeat the order of epoch
        # 0.
        if self._order is not None:
            self._order.set_epoch(kwargs["epoch"])
        return super()._run_epoch(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        if self.optimizer is None and self._make_optimizer is not None:
            self.optimizer = self._make_optimizer(self.model)
        return super().create_optimizer(*args, **kwargs)

    # ---- sums, then one division -----------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """Predicted positions of the whole step: all micro-batches, and all processes."""
        if not batch_samples or any("labels" not in batch for batch in batch_samples):
            return None
        works = [step_work(batch, self.objective.count(batch["labels"]), device) for batch in batch_samples]
        mine = torch.stack(works).sum(0)
        copies = self.get_tp_size()  # ranks that see the same batch
        everyone = self.accelerator.gather(mine[None]).sum(0) // copies if self.args.world_size > 1 else mine
        self.meter.add(everyone)
        return (everyone if self.args.average_tokens_across_devices else mine)[1]

    def get_batch_samples(self, epoch_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get_batch_samples(self.meter.waiting(epoch_iterator), *args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        """None: the meter counts them, for all processes and by what is predicted."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs.update(self.meter.lap(self.state))
        super().log(logs, start_time)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Counted by the step above, for all processes in one exchange."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The summed loss of ``inputs`` divided by ``num_items_in_batch``; without it, their own mean."""
        if self.compute_loss_func is not None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if "labels" not in inputs:
            raise ValueError(f"the data collator made no labels, only {', '.join(inputs)}")
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        asked: dict[str, Any] = {"label_smoothing": smoothing, "accuracy": self._sums is not None}
        if return_outputs:  # the caller wants logits
            sums, outputs = model_loss_sums(model, inputs, self.objective, **asked)
        else:
            sums, outputs = self.fast_paths.scoring(model, inputs, self.objective, **asked), None
        if self._sums is not None:
            self._sums.add(sums, len(inputs["labels"]))
        count = sums.count if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = sums.loss / count.to(sums.loss.device).clamp(min=1)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is everyone's, and the processes' gradients are averaged: undo that average.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        return (loss, outputs) if return_outputs else loss

    @property
    def fast_paths(self) -> FastPaths:
        """What is used to be fast on this model and data; tried when it is first asked for."""
        if self._fast_paths is None:
            self._fast_paths = settle(self, self._decided)
            release_freed_memory()  # the trials' pieces, which would lie in the way of the steps'
            for line in self._fast_paths.lines:
                _log.info(line)
        return self._fast_paths

    @property
    def peak(self) -> Peak:
        """What this machine multiplies at best in the run's precision; measured when it is first asked for."""
        if self.meter.peak is None:
            precision = "bf16" if self.args.bf16 else "fp16" if self.args.fp16 else "fp32"
            self.meter.peak = peak_of(self.args.device, precision, self._decided.get("peak"))
        return self.meter.peak

    @property
    def pads_training(self) -> bool:
        """Whether training batches, as they are made without packing, have padding that nobody asked for."""
        dataset = self.train_dataset
        if not (self._packing and self._is_ours) or not has_length(dataset) or getattr(dataset, "pad_to", None):
            return False
        lengths = self._wrapped(dataset, None).lengths
        if lengths is None:  # of one's own data set: as the first examples have it
            examples = self.first_examples(self._train_batch_size)
            lengths = examples.lengths if examples is not None else np.ones(1)
        return int(np.count_nonzero(lengths != lengths[0])) > 1  # one short block at the end is none

    def first_examples(self, count: int) -> Examples | None:
        """The first examples of the training data, else of the evaluation's; None where reading them would use them
        up, or they are not ours to read."""
        dataset = self.train_dataset if self.train_dataset is not None else self.eval_dataset
        if not self._is_ours or not has_length(dataset) or isinstance(dataset, dict) or not len(dataset):
            return None
        rows = self._wrapped(dataset, EVALUATION_EPOCH).__getitems__(range(min(count, len(dataset))))
        return rows.examples

    @property
    def planned_passes(self) -> int:
        """Forward and backward passes that this process is going to make; 0 without training."""
        args = self.args
        if self.train_dataset is None:
            return 0
        if args.max_steps > 0:
            return args.max_steps * args.gradient_accumulation_steps
        examples = len(self.train_dataset) if has_length(self.train_dataset) else 0
        return int(examples * args.num_train_epochs / (self._train_batch_size * args.world_size))

    def first_batch(self) -> dict[str, Tensor] | None:
        """The micro-batch of the first examples in the data set, on the device; None where reading it would use it up
        or it has no labels."""
        dataset, size = self.train_dataset, self._train_batch_size
        if dataset is None:
            dataset, size = self.eval_dataset, self.args.eval_batch_size
        if not has_length(dataset) or isinstance(dataset, dict) or not len(dataset):
            return None
        batch = self.batch_of(range(min(size, len(dataset))), dataset)
        return batch if "labels" in batch else None

    def batch_of(self, numbers: Sequence[int], dataset: Any = None) -> dict[str, Tensor]:
        """The micro-batch of those examples of ``dataset`` (the training data), on the device."""
        dataset = self.train_dataset if dataset is None else dataset
        if self._is_ours:
            dataset = self._wrapped(dataset, EVALUATION_EPOCH)
        items = dataset.__getitems__(numbers) if self._is_ours else [dataset[i] for i in numbers]
        if self._fast_paths is None:  # about to be tried
            return super()._prepare_inputs(self._get_collator_with_removed_columns(self.data_collator)(items))
        collate = self._collate(training=True) if self._is_ours else self.data_collator
        return self._prepare_inputs(self._get_collator_with_removed_columns(collate)(items))

    def one_pass(self, paths: FastPaths) -> None:
        """A forward and backward pass as training makes them, on the first examples, that leaves no trace."""
        batch = self.first_batch()
        assert batch is not None
        was_training = self.model.training
        self.model.train()
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.compute_loss_context_manager():
            sums = paths.scoring(self.model, paths.isolation.isolate(batch), self.objective)
        (sums.loss / sums.count.clamp(min=1)).backward()
        self.model.zero_grad(set_to_none=True)
        self.model.train(was_training)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """On the device, and in the model's words where a row holds several examples."""
        return self.fast_paths.isolation.isolate(super()._prepare_inputs(inputs))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the stock Trainer's; the terminal is left in order however it ends."""
        _ = self.fast_paths  # tried before the model is wrapped for several processes
        _ = self.peak
        if self.meter.flops is None and hasattr(self.model, "config"):
            self.meter.flops = ModelFlops.of(self.model, causal=self.objective.shifted)
        try:
            with no_more_compiling() if self.fast_paths.compiled else nullcontext():
                return super().train(*args, **kwargs)
        finally:
            self._close_displays()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the stock Trainer's; the terminal is left in order however it ends."""
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            if not self.is_in_train:
                self._close_displays()

    def _close_displays(self) -> None:
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.close()

    # ---- evaluation ------------------------------------------------------------------------------

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

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        if not isinstance(dataloader, EvaluationLoader):
            return self._stock_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        scoring = self.fast_paths.scoring
        model = self._evaluation_model()
        self.callback_handler.eval_dataloader = dataloader
        running = RunningSums(self.args.device)
        with torch.no_grad():
            for batch, counts in dataloader:
                inputs = self._prepare_inputs(batch)
                with self.accelerator.autocast():
                    sums = scoring(model, inputs, self.objective, accuracy=True, dtype=running.values.dtype)
                if counts:
                    running.add(sums, len(inputs["labels"]))
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        several = self.args.world_size > 1
        totals = running.total((lambda mine: self.accelerator.reduce(mine, "sum")) if several else None)
        metrics = totals.metrics(**self._text_size(dataloader.dataset))
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        nothing: Any = None  # the Trainer's own loop leaves it out too, for want of logits
        return EvalLoopOutput(nothing, label_ids=None, metrics=named, num_samples=totals.examples)

    def _text_size(self, dataset: Any) -> dict[str, Any]:
        """Tokens and bytes of the text behind a layout; bits per byte mean nothing for hidden tokens."""
        source = getattr(dataset, "dataset", dataset)
        if not self.objective.shifted:
            return {}
        return {
            "text_tokens": getattr(source, "n_tokens", None),
            "text_bytes": getattr(source, "n_bytes", None),
        }

    def _evaluation_model(self) -> torch.nn.Module:
        """The model ready to evaluate.

        The stock loop lets Accelerate prepare a model that was not trained before, which marks it as
        prepared: a training that follows is then not wrapped in DDP, and the processes drift apart without a
        word. Only sharded models need the preparation; for the rest autocast around the forward pass does the
        same.
        """
        args = self.args
        model = self._wrap_model(self.model, training=False)
        if self.is_sharded and not self.accelerator._models and model is self.model:
            whole = self.is_deepspeed_enabled or not args.torch_compile
            model = (
                self.accelerator.prepare(model)
                if whole
                else self.accelerator.prepare_model(model, evaluation_mode=True)
            )
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

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _stock_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None,
        ignore_keys: list[str] | None,
        prefix: str,
    ) -> EvalLoopOutput:
        """The stock loop, which keeps logits; on one process with our sums for the loss beside them."""
        if self.compute_metrics is not None:
            self._say_cost(dataloader)
        self._sums = RunningSums(self.args.device) if self.args.world_size == 1 else None
        untrained = not getattr(self.model, "_is_accelerate_prepared", False)
        try:
            output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, prefix)
            totals = self._sums.total() if self._sums is not None else None
        finally:
            self._sums = None
            if untrained and not self.is_sharded:  # see _evaluation_model
                self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
                self.accelerator._models.clear()
                self.model._is_accelerate_prepared = False
        if totals is not None and totals.examples and output.metrics is not None:
            metrics = totals.metrics(**self._text_size(dataloader.dataset))
            output.metrics.update({f"{prefix}_{name}": value for name, value in metrics.items()})
        return output

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


def _prepare_arguments(args: TrainingArguments) -> None:
    if args.n_gpu > 1:
        _log.warning(
            "This machine has %d GPUs and one of them is used. To use all: torchrun --nproc_per_node %d …",
            args.n_gpu, args.n_gpu,
        )  # fmt: skip
        args._n_gpu = 1
    args.logging_nan_inf_filter = False
    parallel = getattr(args, "parallelism_config", None)
    if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
        raise UserError(
            "context and sequence parallelism split a row over processes, which the loss here does not "
            "follow; use data parallelism (torchrun), FSDP or tensor parallelism",
            flag="--parallelism_config",
        )


def _pad_id(tokenizer: Any) -> int:
    """An id to fill rows with. Any does: labels end where a row ends, whatever follows."""
    for name in ("pad_token_id", "eos_token_id"):
        token = getattr(tokenizer, name, None)
        if isinstance(token, int):
            return token
    return 0
