"""What is tried before the first step: the fast paths, on the first examples, and the machine's peak."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.trainer_utils import has_length

from lmtrain.core.allocator import release_freed_memory
from lmtrain.core.types import Examples
from lmtrain.engine.arguments import planned_steps, require_a_step
from lmtrain.engine.batches.items import NOTHING_PREDICTED, warn_once
from lmtrain.engine.distributed.ddp import settle_ddp
from lmtrain.engine.meter import Meter
from lmtrain.engine.speed.compiling import with_compiling
from lmtrain.engine.speed.fast_paths import FastPaths, settle
from lmtrain.engine.speed.job import Compile
from lmtrain.engine.speed.machine import Peak, peak_of
from lmtrain.engine.speed.precision import precision_of
from lmtrain.engine.trainer.reading import ReadingTrainer
from lmtrain.models.fast_dropout import dropping_fast
from lmtrain.models.flops import ModelFlops
from lmtrain.models.layers import has_compiled_layers, no_more_compiling
from lmtrain.models.recomputation import is_worth_it, recomputes_all, recomputing
from lmtrain.models.sharding import is_sharded
from lmtrain.objectives import EVALUATION_EPOCH

_log = logging.getLogger(__name__)


class SettlingTrainer(ReadingTrainer):
    """A Trainer that chooses its fast paths on its own model and first examples."""

    meter: Meter
    compiles: Compile
    z_loss: float
    _packing: bool
    _decided: Mapping[str, Any]
    _fast_paths: FastPaths | None

    @property
    def fast_paths(self) -> FastPaths:
        """What is used to be fast on this model and data; tried when it is first asked for."""
        if self._fast_paths is None:
            self._fast_paths = settle(self, self._decided)
            self._fast_paths = with_compiling(self, self._fast_paths, self._decided)  # passes run as settled so far
            settle_ddp(self)
            release_freed_memory()  # the trials' pieces, which would lie in the way of the steps
            for line in self._fast_paths.lines:
                _log.info(line)
        return self._fast_paths

    def call_model_init(self, trial: Any = None) -> Any:
        """A model for this training alone: what was found of the one before does not hold for it."""
        self._fast_paths = self.meter.flops = None
        return super().call_model_init(trial)

    def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
        """By now the model is the one to be trained, and not wrapped for several processes yet."""
        if has_length(self.train_dataset):
            require_a_step(self.args, len(self.train_dataset))
        self._look_at_own_loss()
        paths, _ = self.fast_paths, self.peak
        if self.args.process_index == 0 and not self.is_deepspeed_enabled:  # which keeps weights of 32 bits beside them
            _say_rounding(next((w.dtype for w in self.model.parameters() if w.requires_grad), torch.float32))
        if self.meter.flops is None and hasattr(self.model, "get_output_embeddings"):
            self.meter.flops = ModelFlops.of(self.model, causal=self.objective.shifted)
        with no_more_compiling() if paths.compiled else nullcontext():
            return super()._inner_training_loop(*args, **kwargs)

    def _look_at_own_loss(self) -> None:
        """Of a class with a loss of its own, as people write them for the library's Trainer, that does not say what it
        divides by."""
        order = type(self).__mro__
        own, said = (
            next(n for n, kind in enumerate(order) if name in vars(kind))
            for name in ("compute_loss", "loss_is_scaled_for_ga")
        )
        times = self.args.gradient_accumulation_steps
        if own < said and times > 1 and self.args.process_index == 0:
            _log.warning(
                "compute_loss of %s has to divide by num_items_in_batch, the predicted tokens of the whole step. Where "
                "it returns the mean of its micro-batch the gradients are %d times too large: set "
                "loss_is_scaled_for_ga = False in the class, and True where it divides.",
                order[own].__name__, times,
            )  # fmt: skip

    @property
    def peak(self) -> Peak:
        """What this machine multiplies at best in the run's precision; measured when it is first asked for."""
        if self.meter.peak is None:
            self.meter.peak = peak_of(self.args.device, precision_of(self.args, self.model), self._decided.get("peak"))
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

    @property
    def _tried_dataset(self) -> Any:
        """The training data; without any the evaluation's, the first where there are several."""
        if self.train_dataset is not None:
            return self.train_dataset
        several = isinstance(self.eval_dataset, dict)
        return next(iter(self.eval_dataset.values()), None) if several else self.eval_dataset

    def first_examples(self, count: int) -> Examples | None:
        """The first examples of the training data, else of the evaluation's; None where reading them would use them
        up, or they are not ours to read."""
        dataset = self._tried_dataset
        if not self._is_ours or not has_length(dataset) or not len(dataset):
            return None
        rows = self._wrapped(dataset, EVALUATION_EPOCH).__getitems__(range(min(count, len(dataset))))
        return rows.examples

    @property
    def planned_passes(self) -> int:
        """Forward and backward passes that this process is going to make; 0 without training."""
        if self.train_dataset is None:
            return 0
        examples = len(self.train_dataset) if has_length(self.train_dataset) else 0
        return planned_steps(self.args, examples) * self.args.gradient_accumulation_steps

    def first_batch(self) -> dict[str, Tensor] | None:
        """The micro-batch of the first examples in the data set, on the device; None where reading it would use it up
        or it has no labels."""
        dataset = self._tried_dataset
        size = self.args.eval_batch_size if self.train_dataset is None else self._train_batch_size
        if not has_length(dataset) or not len(dataset):
            return None
        batch = self.batch_of(range(min(size, len(dataset))), dataset)
        if "labels" not in batch:
            return None
        if not self.objective.count(batch["labels"]):
            warn_once(NOTHING_PREDICTED)
        return batch

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

    @contextmanager
    def leaving_no_trace(self) -> Iterator[None]:
        """For passes of :meth:`one_pass`: afterwards the random stream and the mode are as before, and there are no
        gradients."""
        was_training = self.model.training
        try:
            with torch.random.fork_rng([self.args.device] if self.args.device.type == "cuda" else []):
                yield
        finally:
            self.model.zero_grad(set_to_none=True)
            self.model.train(was_training)

    def one_pass(self, batch: dict[str, Any]) -> None:
        """A forward and backward pass over a batch of :meth:`batch_of`, as training makes them."""
        self.model.train()
        with self.dropping(), self.keeping(batch):
            with self.accelerator.autocast():  # as Accelerate does it around the forward pass of a prepared model
                loss: Any = self.compute_loss(self.model, batch)
            loss.backward()

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        with self.dropping(), self.keeping(inputs):
            return super().training_step(model, inputs, *args, **kwargs)

    def dropping(self) -> AbstractContextManager[Any]:
        """How a pass drops values. Compiled layers have a way of their own."""
        fast = self.fast_paths.fast_dropout and not has_compiled_layers(self.model)
        return dropping_fast() if fast else nullcontext()

    def keeping(self, inputs: Mapping[str, Any]) -> AbstractContextManager[Any]:
        """What a pass keeps for its way back; no bit depends on it. Where all is made again nothing is kept anyway, and
        compiled layers choose themselves; sharded ones, and GPUs, were not measured."""
        model: Any = self.model
        ids = inputs.get("input_ids")
        tried = self.args.device.type == "cpu" and not (self.is_sharded or self.args.torch_compile)
        width = getattr(getattr(model, "config", None), "hidden_size", 0)
        if not (tried and isinstance(ids, Tensor) and is_worth_it(ids.numel(), width)):
            return nullcontext()
        return nullcontext() if has_compiled_layers(model) or recomputes_all(model) else recomputing(model)

    def _prepare_inputs(self, inputs: Any) -> Any:
        """On the device, and in the model's words where a row holds several examples."""
        return self.fast_paths.isolation.isolate(super()._prepare_inputs(inputs))

    @property
    def tries_passes(self) -> bool:
        """Whether passes can be tried before training: not where the library is going to shard the model then."""
        return not self.is_sharded or is_sharded(self.model)

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the whole model."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled) or is_sharded(self.model)


@cache
def _say_rounding(held: torch.dtype) -> None:
    """Of a model that was loaded as its checkpoint is, which is the library's default."""
    if held.itemsize == 2:
        _log.warning(
            "The weights that are trained are held in %s, where updates of less than some 0.2 %% of a weight are lost. "
            "Load the model with dtype=torch.float32; bf16=True in the arguments computes in 16 bits all the same.",
            str(held).removeprefix("torch."),
        )
