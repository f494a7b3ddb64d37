"""The loop: ``transformers.Trainer`` with our sums, our order and our evaluation.

This folder alone touches the Trainer and its private methods; tests run it on the oldest and the newest supported
version. What it changes, from the data on: ``reading``, ``settling`` (the fast paths), ``evaluating``, ``seeding``
(dropout), ``resuming``, ``saving``, and the loss here:

========================  ==============================================================================
the loss                  summed over predicted positions, divided once by their number in the whole step;
                          logits at those positions only, where that is proven (``engine/speed/fast_paths.py``)
the order of examples     a function of (seed, epoch); resuming reads no earlier example
dropout                   its random state follows from (seed, step, micro-batch, rank) (``training_step``)
checkpoints               whole or not there, hashed, without pickles, written while training goes on
                          (``_save_checkpoint``, ``_save``; DeepSpeed's models keep the library's way)
sharded models            taken as they are, each process saving its part (``_wrap_model``; ``sharding``)
resuming                  the newest checkpoint that verifies; losses since the last log line, decisions, callbacks'
                          counters and the end of an epoch go on too (``_load_from_checkpoint``,
                          ``_load_optimizer_and_scheduler``, ``_load_scaler``, ``_load_rng_state``,
                          ``_load_callback_state``, ``_init_training_state``, ``_run_epoch``,
                          ``_maybe_log_save_evaluate``, ``get_batch_samples``)
the best model            saved when it is found, kept whatever the limit (``_determine_best_metric``,
                          ``_load_best_model``, ``_finalize_training``)
stopping                  after a step, with a checkpoint; an evaluation that is cut short is made up for
evaluation                running sums, every example once over all processes, no label smoothing
bad numbers               a loss or gradient that is not finite makes no update, is told with its examples and as
                          what it is (``logging_nan_inf_filter`` is off) (``_get_grad_norm``; ``guarding``)
several GPUs              a launcher, or one of them; never ``DataParallel``
progress                  a bar in a terminal, plain lines elsewhere
========================  ==============================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import EvalPrediction

from lmtrain.core.errors import UserError
from lmtrain.core.stopping import Stop
from lmtrain.engine.arguments import require_one_group, use_one_gpu
from lmtrain.engine.batches.collate import Collate, Guarded, filler
from lmtrain.engine.batches.items import Limits, as_dataset, without_labels
from lmtrain.engine.batches.ordering import Ordering
from lmtrain.engine.batches.sampling import EpochOrder
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.debugging import look_at_masks
from lmtrain.engine.distributed.ranks import Ranks
from lmtrain.engine.evaluation import RunningSums
from lmtrain.engine.guarding import BadSteps, Guarding
from lmtrain.engine.kind import objective_for
from lmtrain.engine.meter import Meter, step_work
from lmtrain.engine.progress import Progress
from lmtrain.engine.speed.fast_paths import FastPaths
from lmtrain.engine.speed.job import Compile
from lmtrain.engine.trackers import Trackers
from lmtrain.engine.trainer.guarding import spoil_gradient
from lmtrain.engine.trainer.pace import Pace
from lmtrain.engine.trainer.stopping import StopWhenAsked
from lmtrain.engine.trainer.timing import TimingTrainer
from lmtrain.objectives import Objective, model_loss_sums
from lmtrain.objectives.loss import logits_in


class LMTrainer(TimingTrainer):
    """Train a causal or masked language model on a layout or on one's own data set.

    ``train_dataset`` and ``eval_dataset`` are layouts (``__getitems__`` gives :class:`Examples`), or any torch or
    ``datasets`` data set of ``input_ids`` (:mod:`lmtrain.engine.batches.items` says what an item may be). Without a
    ``data_collator`` the ``objective`` makes the labels and rows are padded by their true length; with one it does,
    and the objective only says whether labels are shifted. Without an ``objective`` the model's class decides. With
    ``compute_metrics`` evaluation keeps all logits, as the stock Trainer does. ``make_optimizer`` makes the optimizer
    from the model, where ``args.optim`` does not name it. ``packing=False`` leaves padding where rows differ in
    length. ``compiles`` compiles the model's layers: ``on``, or ``auto`` where it is found to pay. ``z_loss`` is what
    logsumexp² of the logits is added to the loss with. ``decided`` are the ``decisions`` of :attr:`fast_paths` in an
    earlier part of the run, which are then taken over. ``saving`` says how checkpoints are written and kept,
    ``guarding`` when steps without numbers end it, ``ordering`` in which order a store's examples are read. Any other
    argument of :class:`transformers.Trainer` may follow.

    ``args.load_best_model_at_end`` goes with any two intervals of saving and evaluating. ``TrainingArguments`` itself
    refuses most; :class:`~lmtrain.engine.arguments.LMTrainingArguments` are the same without that.

    >>> trainer = LMTrainer(model, args, train_dataset=my_dataset)      # doctest: +SKIP
    >>> trainer.train()                                                 # doctest: +SKIP
    """

    # Our loss is divided by the whole step's count, so the Trainer must not divide again by the number of
    # micro-batches. Read by transformers ≥ 5.23; before, `model_accepts_loss_kwargs` says the same.
    loss_is_scaled_for_ga = True

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
        z_loss: float = 0.0,
        decided: Mapping[str, Any] | None = None,
        saving: Saving | None = None,
        guarding: Guarding | None = None,
        stop: Stop | None = None,
        ordering: Ordering | None = None,
        **others: Any,
    ) -> None:
        args = args or TrainingArguments(output_dir="trainer_output")
        _prepare_arguments(args)
        given, tokenizer = list(callbacks or []), others.pop("tokenizer", None)  # its name before transformers 5
        processing_class = tokenizer if processing_class is None else processing_class
        self.meter = Meter()
        self.ranks = Ranks(self.meter, args.device, args.world_size)
        self._make_optimizer = make_optimizer
        self._order: EpochOrder | None = None
        self.ordering = ordering or Ordering()
        self._sums: RunningSums | None = None
        self._packing = packing
        self.compiles, self.z_loss = compiles, z_loss
        self._decided = decided or {}
        self._fast_paths: FastPaths | None = None
        self.saving = saving or Saving()
        self.stop = stop
        self.guarding = guarding or Guarding()
        self.bad_steps = BadSteps()
        self._pace = Pace(self)
        self.exported: dict[str, Any] = {}
        super().__init__(
            model=model,
            args=args,
            train_dataset=as_dataset(train_dataset),
            eval_dataset=as_dataset(eval_dataset, "eval_dataset"),
            processing_class=processing_class,
            callbacks=[StopWhenAsked(self), self.meter, self.ranks, self.bad_steps, self._pace, *given],
            compute_metrics=compute_metrics,
            **others,
        )
        self.trackers = Trackers(self.callback_handler.callbacks)
        for stock in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
            if not any(callback is stock or isinstance(callback, stock) for callback in given):
                self.remove_callback(stock)
        if not any(isinstance(callback, Progress) for callback in given):
            self.add_callback(Progress(terminal=False if args.disable_tqdm else None))
        if self.compute_loss_func is None:
            self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga
        self.label_names = self.label_names or ["labels"]  # of a forward that takes none, which are compared here
        self._seed = args.seed if args.data_seed is None else args.data_seed
        self.objective = objective or objective_for(self.model, data_collator, processing_class, self._seed)
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Progress):
                callback.masked, callback.ranks, callback.meter = not self.objective.shifted, self.ranks, self.meter
        self._pad_id = filler(processing_class)
        self._limits = limits = Limits.of(self.model)
        ours = Collate(self.objective, self._pad_id, limits=limits)
        self.data_collator = ours if data_collator is None else Guarded(data_collator, limits)
        if args.train_sampling_strategy not in ("random", "sequential") and self._is_ours:
            raise UserError(
                f"{args.train_sampling_strategy} draws an order from history, which a resumed run cannot "
                "repeat; use random or sequential",
                flag="--train_sampling_strategy",
            )

    def create_accelerator_and_postprocess(self) -> None:
        try:
            super().create_accelerator_and_postprocess()
        except ValueError as error:  # conflicts that the library looks for here, most of them of FSDP and DeepSpeed
            raise UserError(f"the training options do not fit together: {error}") from error

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
        everyone = self._sum_of_all(mine) // copies
        self.meter.add(everyone)
        return (everyone if self.args.average_tokens_across_devices else mine)[1]

    def get_batch_samples(self, epoch_iterator: Any, *args: Any, **kwargs: Any) -> Any:
        return super().get_batch_samples(self.meter.waiting(epoch_iterator), *args, **kwargs)

    def floating_point_ops(self, inputs: Any) -> int:
        """None: the meter counts them, for all processes and by what is predicted."""
        return 0

    def store_flos(self) -> None:
        """Called before a checkpoint is written, whoever asked for it."""
        self.meter.read(self.state)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        self.meter.read(self.state)
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
            answer: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            self._watch(answer[0] if return_outputs else answer)
            spoil_gradient(answer[0] if return_outputs else answer)
            return answer
        if "labels" not in inputs:
            raise without_labels(inputs)
        smoothing = self.args.label_smoothing_factor if model.training else 0.0
        asked: dict[str, Any] = {
            "weighted": model.training,
            "label_smoothing": smoothing,
            "z_loss": self.z_loss if model.training else 0.0,
            "accuracy": self._sums is not None and self.args.world_size == 1,  # several count it by rows
        }
        if return_outputs:  # the caller wants logits
            sums, outputs = model_loss_sums(model, inputs, self.objective, **asked)
            outputs = outputs if isinstance(outputs, dict) else {"logits": logits_in(outputs)}  # as the library reads
        else:
            sums, outputs = self.fast_paths.scoring(model, inputs, self.objective, **asked), None
        if self._sums is not None:
            self._count(sums, inputs, outputs)
        count = sums.count if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        loss = sums.loss / count.to(sums.loss.device).clamp(min=1)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is everyone's, and the processes' gradients are averaged: undo that average.
            loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        self._watch(loss)
        spoil_gradient(loss)
        return (loss, outputs) if return_outputs else loss

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the stock Trainer's; the terminal is left in order and the last save finished however it ends.

        ``resume_from_checkpoint``: a checkpoint's folder, or True for the newest in ``args.output_dir`` that verifies.
        Raises :class:`UserError` when there is none, or when it was made by another training.
        """
        self._evaluated = None
        point = self._begin(resume_from_checkpoint)
        self._begin_saving()
        if self.model_init is None:  # else the model is made in there
            _ = self.fast_paths  # tried before the library hangs on to the modules (--debug) and reads a checkpoint
        try:
            with self._evaluating_once(point):
                return super().train(point, *args, **kwargs)
        finally:
            self.is_in_train = False  # else an evaluation after an interrupt would be taken for a part of it
            self._close_displays()
            self._end_saving()

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


def _prepare_arguments(args: TrainingArguments) -> None:
    require_one_group(args)
    use_one_gpu(args)
    look_at_masks(args)
    args.logging_nan_inf_filter = False
    args.dataloader_pin_memory = args.dataloader_pin_memory and args.device.type != "cpu"  # torch warns of it there
    parallel = getattr(args, "parallelism_config", None)
    if parallel is not None and (parallel.cp_enabled or parallel.sp_enabled):
        raise UserError(
            "context and sequence parallelism split a row over processes, which the loss here does not "
            "follow; use data parallelism (torchrun), FSDP or tensor parallelism",
            flag="--parallelism_config",
        )
