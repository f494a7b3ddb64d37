"""Which examples come when, and how they become batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from accelerate.data_loader import DataLoaderShard, SkipBatchSampler, skip_first_batches
from torch.utils.data import IterableDataset, Sampler
from transformers import Trainer
from transformers.trainer_utils import has_length

from lmtrain.core.children import begin_loader
from lmtrain.core.errors import UserError
from lmtrain.engine.batches.collate import Collate, EpochExamples
from lmtrain.engine.batches.items import Limits
from lmtrain.engine.batches.ordering import Ordering, Upcoming
from lmtrain.engine.batches.sampling import BatchesFrom, ByLength, EpochOrder
from lmtrain.objectives import EVALUATION_EPOCH, Masked, Objective


class ReadingTrainer(Trainer):
    """A Trainer whose order of examples is a function of (seed, epoch), and whose batches our objective makes."""

    objective: Objective
    # Looser than the Trainer declares them: it sets them to None only before it is used.
    model: Any
    optimizer: Any
    eval_dataset: Any
    deepspeed: Any

    fast_paths: Any  # a FastPaths; see SettlingTrainer
    _seed: int
    _pad_id: int
    _limits: Limits
    _order: EpochOrder | None
    ordering: Ordering

    @property
    def _is_ours(self) -> bool:
        """Whether our own collator makes the batches."""
        return isinstance(self.data_collator, Collate)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        loader = self._loader_of(dataset, *args, **kwargs)
        inner = getattr(loader, "base_dataloader", loader)  # of Accelerate's, which wraps it
        inner.worker_init_fn = partial(begin_loader, then=inner.worker_init_fn)
        return loader

    def _loader_of(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
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
        return Collate(self.objective, self._pad_id, self.fast_paths.packing if training else None, self._limits)

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
            windows=self.ordering.windows if self._is_train(dataset) else None,
            upcoming=self._upcoming() if self._is_train(dataset) else None,
        )
        return self._order

    def _is_train(self, dataset: Any) -> bool:
        return getattr(dataset, "dataset", dataset) is self.train_dataset  # the layout, or it as EpochExamples

    def _upcoming(self) -> Upcoming | None:
        if self.ordering.remote is None:
            return None
        args = self.args
        return Upcoming(self.ordering, batch=self._train_batch_size, rank=args.process_index, world=args.world_size)

    def _by_length(self, dataset: Any) -> ByLength | None:
        lengths = self._wrapped(dataset, None).lengths
        args = self.args
        step = self._train_batch_size * args.gradient_accumulation_steps * args.world_size
        return None if lengths is None or args.train_sampling_strategy != "random" else ByLength(lengths, step)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().get_batch_samples(*args, **kwargs)
        except ValueError as error:
            if "does not contain any data" not in str(error):  # Accelerate's words
                raise
            raise UserError(
                f"train_dataset gave no example when it was read from its beginning after step "
                f"{self.state.global_step}; an iterable data set is read again for each epoch, and what a generator "
                "gives comes once: let __iter__ make a new one, or give fewer max_steps"
            ) from error

    def _run_epoch(self, *args: Any, **kwargs: Any) -> Any:
        # Accelerate hands the epoch on through two levels of samplers, but a run resumed in mid-epoch on
        # several processes has three (skip, shard, batch): without this it would repeat the order of epoch
        # 0.
        if self._order is not None:
            self._order.set_epoch(kwargs["epoch"])
            self._order.start = 0
            done = kwargs["steps_trained_in_current_epoch"]  # batches, of the epoch that is resumed
            if done and kwargs["resume_from_checkpoint"] is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
                kwargs["train_dataloader"] = self._from_batch(kwargs["train_dataloader"], done, self._order)
        return super()._run_epoch(*args, **kwargs)

    def _from_batch(self, loader: Any, done: int, order: EpochOrder) -> Any:
        """``loader``, which is about to have ``done`` batches skipped, such that they cost nothing."""
        several = self.args.world_size > 1
        if not isinstance(loader, DataLoaderShard) or (several and not order.counters):
            return loader  # the last batch of one's own data set is filled up with the first ones, on several processes
        loader = skip_first_batches(loader, 0)  # a loader like it, with a sampler whose source can be set
        source = loader.batch_sampler
        if isinstance(source, SkipBatchSampler):
            examples = done * self._train_batch_size * self.args.world_size
            source.batch_sampler = BatchesFrom(source.batch_sampler, order, done, examples)
        return loader
