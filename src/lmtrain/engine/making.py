"""A run's trainer, made of its options and parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import EarlyStoppingCallback

from lmtrain.config.options import Resolved
from lmtrain.core.console import Say, say
from lmtrain.core.stopping import Stop
from lmtrain.engine.arguments import examples_of_a_step, steps_of_tokens, training_arguments
from lmtrain.engine.batches.ordering import choose_order
from lmtrain.engine.checkpoints.policy import Saving
from lmtrain.engine.exporting import require_gathering
from lmtrain.engine.guarding import Guarding
from lmtrain.engine.looking import Look, Looking
from lmtrain.engine.muon import maker_of
from lmtrain.engine.parts import Parts
from lmtrain.engine.progress import Progress
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer


def make_trainer(
    resolved: Resolved,
    parts: Parts,
    run: RunFolder | None = None,
    *,
    decided: dict[str, Any] | None = None,
    model: Any = None,
    callbacks: Sequence[Any] = (),
    stop: Stop | None = None,
    look: Look | None = None,
    say: Say = say,
    **worked_out: Any,
) -> LMTrainer:
    """The trainer of a run. ``worked_out`` are training arguments that only a measurement or the caller could tell;
    ``model`` takes the place of the run's, ``callbacks`` that of the progress shown and of ``look``."""
    arguments = training_arguments(resolved, parts.precision, **worked_out)
    own = [Progress(run, summaries=False), *_stopping_early(resolved)]
    train = parts.corpus.splits.get("train")
    ordering = None
    if train is not None:
        if resolved.run.train_tokens is not None and "max_steps" not in worked_out:
            arguments.max_steps = steps_of_tokens(arguments, resolved.run.train_tokens, train.lengths)
        ordering = choose_order(train, resolved.data, examples_of_a_step(arguments), decided)
    trainer = LMTrainer(
        parts.model if model is None else model,
        arguments,
        train_dataset=train,
        eval_dataset=parts.corpus.splits.get("validation"),
        objective=parts.objective,
        processing_class=parts.tokenizer,
        callbacks=list(callbacks) or own,
        make_optimizer=maker_of(resolved.training, parts.precision.name),
        packing=resolved.run.packing,
        compiles=resolved.run.compile,
        z_loss=resolved.run.z_loss,
        decided=decided,
        saving=_saving(resolved, run),
        guarding=_guarding(resolved, run),
        stop=stop,
        ordering=ordering,
    )
    if resolved.do_train:
        require_gathering(trainer)
    if run is not None:
        trainer.trackers.name_run(trainer.args, run.path, decided)
    if look is not None and run is not None and not callbacks:
        trainer.callback_handler.callbacks.insert(0, Looking(look, run, say))  # its time is no time of training
    return trainer


def _saving(resolved: Resolved, run: RunFolder | None) -> Saving:
    options = resolved.run
    return Saving(
        max_failed_saves=options.max_failed_saves,
        keep_optimizer_states=options.keep_optimizer_states,
        background=options.background_save,
        accept_changes=options.accept_changes or options.extend,
        report=None if run is None else lambda cost: run.event("save", **cost),
    )


def _guarding(resolved: Resolved, run: RunFolder | None) -> Guarding:
    report = None if run is None else lambda step: run.event("bad_step", **step)
    return Guarding(resolved.run.max_bad_steps, report)


def _stopping_early(resolved: Resolved) -> list[EarlyStoppingCallback]:
    patience = resolved.run.early_stopping_patience
    return [] if patience is None else [EarlyStoppingCallback(patience, resolved.run.early_stopping_threshold)]
