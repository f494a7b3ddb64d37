"""The only place where the stages are wired together: options in, a finished run folder out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import torch

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict, without_secrets
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, is_first_process, say
from lmtrain.core.stopping import Stop
from lmtrain.data.corpus import StoresMade
from lmtrain.engine.agreement import looked_at_once, require_same_folder, require_same_start
from lmtrain.engine.arguments import examples_of_a_step, require_a_step, training_arguments
from lmtrain.engine.attention_cost import what_attention_dropout_costs
from lmtrain.engine.batches.ordering import choose_order
from lmtrain.engine.distributed.meeting import begun_before, note_begun, telling_others
from lmtrain.engine.distributed.processes import noticing_lost_ones
from lmtrain.engine.ending import fitting, interrupted, writing_down
from lmtrain.engine.exporting import export_trained
from lmtrain.engine.looking import Look
from lmtrain.engine.making import make_trainer
from lmtrain.engine.measuring import Outcome, already_finished, evaluate, score, score_exported, splits_to_score
from lmtrain.engine.parts import Parts, assemble
from lmtrain.engine.rehearsing import Rehearse, Stage
from lmtrain.engine.runs.found import Found, require_unchanged
from lmtrain.engine.runs.results import training_line, write_results
from lmtrain.engine.runs.resume import decided_by, goes_on_with_it, require_same_data, where_to_begin
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.sizing import settle_micro_batch, steps_in
from lmtrain.engine.speed.threads import threads_for
from lmtrain.engine.trainer import LMTrainer
from lmtrain.engine.unfinished import (
    EXPORTED,
    is_saved,
    lacks_only_scores,
    noting_interruptions,
    require_unasked,
    why_stopped,
)


@telling_others()
def train(
    resolved: Resolved,
    argv: Sequence[str] = (),
    *,
    minutes: float | None = None,
    made_ahead: Callable[[], StoresMade] | None = None,
    stop: Stop | None = None,
    rehearse: Rehearse | None = None,
    look: Callable[[Parts], Look] | None = None,
    say: Say = say,
) -> Outcome:
    """Train and evaluate as the options say; resume, or say that it is finished, when the folder holds this run.

    ``made_ahead`` gives the stores that this process made already. ``minutes`` replaces epochs and steps by a time:
    the number of steps that fit is measured once, written into the run's decisions and replayed when the run is
    resumed. ``rehearse`` tries beforehand what could fail later, unless ``--skip_check`` says not to. What
    ``look`` makes of the parts is shown the model at each evaluation. Raises :class:`UserError` before anything is
    written wherever the input shows it, and :class:`Interrupted` when training was ended by ``stop``, with a
    checkpoint.
    """
    if not resolved.do_train or resolved.output_dir is None:
        scores = evaluate(resolved, made_ahead=made_ahead, say=say)
        return Outcome(None, scores.get("validation", {}))
    require_same_start(resolved)
    folder = user_path(resolved.output_dir)
    options = as_dict(resolved)
    again = begun_before(str(folder))  # torchrun starts it anew: what it was to do away with is gone
    found = looked_at_once(partial(where_to_begin, folder, resolved.command, options, argv, again=again))
    decided = decided_by(folder, found)
    require_same_folder(found, decided)
    for line in found.lines:
        say("run", line)
    if found.state == "finished":
        return already_finished(folder, resolved, say)
    if lacks_only_scores(folder, found, options):
        return score_exported(folder, resolved, found, say)
    with noting_interruptions(folder, found):
        parts = assemble(resolved, decided, made_ahead=made_ahead, say=say)
        if goes_on_with_it(found) and not resolved.run.accept_changes:
            require_same_data(folder, parts.corpus.manifest(), options)
        arguments = training_arguments(resolved, parts.precision)
        require_a_step(arguments, len(parts.corpus.splits["train"]))
        # or refuse it
        choose_order(parts.corpus.splits["train"], resolved.data, examples_of_a_step(arguments), decided)
        looks = None if look is None else look(parts)
        micro_batch = settle_micro_batch(resolved, parts, decided, say)
        sizes = micro_batch.arguments if micro_batch else {}
        known = _decisions(parts) | ({"micro_batch": micro_batch.as_dict()} if micro_batch else {})
        worked_out: dict[str, Any] = {}
        if minutes is not None:
            worked_out["max_steps"] = decided.get("max_steps") or steps_in(resolved, parts, minutes, decided, say)
        run = RunFolder(
            folder, overwrite=found.overwrites, keep=found.checkpoint, set_aside=found.set_aside,
            still=partial(require_unchanged, folder, found.seen), writes=is_first_process(),
        )  # fmt: skip
        make = partial(
            make_trainer, resolved, parts, run, decided=decided, stop=stop, look=looks, say=say, **sizes, **worked_out
        )
        stage = Stage(resolved, parts, folder, found, make, say)
        if rehearse is not None and not resolved.run.skip_check:
            rehearse(stage)
    with run, noticing_lost_ones():
        if is_first_process():  # which has cleared it
            note_begun(str(folder))
        run.describe(resolved.command, without_secrets(resolved.command, argv), options)
        run.data(parts.corpus.manifest())
        run.status("preparing", step=found.step, **{EXPORTED: False})
        trainer = stage.trainer
        known |= {"examples_a_step": examples_of_a_step(trainer.args), "peak": trainer.peak.as_dict()}
        known |= {"order": trainer.ordering.decision} | trainer.trackers.decision
        run.decisions(known | worked_out | trainer.fast_paths.decisions)
        with trainer.trackers.to_the_end():
            return _carry_out(trainer, resolved, parts, run, found, say)


def _decisions(parts: Parts) -> dict[str, Any]:
    return {
        "precision": {"choice": parts.precision.name, "reason": parts.precision.reason},
        "device": str(parts.device),
        "threads": torch.get_num_threads(),
        "threads_for": threads_for(),
        "example_length": parts.length,
        "attention": getattr(parts.model.config, "_attn_implementation", None),
        "tokenization": parts.corpus.lines,
    }


def _carry_out(trainer: LMTrainer, resolved: Resolved, parts: Parts, run: RunFolder, found: Found, say: Say) -> Outcome:
    for line in (*trainer.fast_paths.lines, *what_attention_dropout_costs(trainer, parts)):
        say("model", line)
    with ExitStack() as waiting:  # a signal waits until there is a checkpoint of what was trained, or the model
        if trainer.stop is not None:
            waiting.enter_context(trainer.stop.deferred())
        figures = _train(trainer, run, found, say)
        if is_saved(trainer, found):
            waiting.close()
            if trainer.is_anyone_asked():  # since the last look, while the last save was waited for
                run.status("training", step=trainer.state.global_step)
                raise interrupted(trainer, run.path, why_stopped(trainer))
        with writing_down(trainer, run.path):
            metrics = _leave(trainer, resolved, parts, run, figures, found.step, say)
            run.status("evaluating", **{EXPORTED: True})
    with writing_down(trainer, run.path):
        for split in splits_to_score(resolved, parts):
            known = trainer.evaluated_at_the_end() if split == "validation" else None
            if known is None:
                require_unasked(trainer, split)
            metrics |= score(trainer, resolved, parts, run.path, split, say, known)
        run.status("finished", step=trainer.state.global_step)
    return Outcome(run.path, metrics)


def _train(trainer: LMTrainer, run: RunFolder, found: Found, say: Say) -> dict[str, Any]:
    checkpoint = found.checkpoint
    for line in found.passed_over:
        say("attention", f"passed over {line}")
    if checkpoint:
        say("run", f"goes on from step {found.step}: {checkpoint}")
    elif found.state == "unfinished":
        say("run", "starts over: it stopped before there was a checkpoint to go on from")
    run.status("training", step=found.step)
    try:
        with fitting(trainer):
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.was_stopped:
            raise interrupted(trainer, run.path, why_stopped(trainer))
    except BaseException:
        with suppress(OSError):  # the folder may be why; else it writes down why it ended, and here how far it came
            run.status("training", step=trainer.state.global_step)
        raise
    return result.metrics


def _leave(
    trainer: LMTrainer, resolved: Resolved, parts: Parts, run: RunFolder, figures: dict[str, Any], begun: int, say: Say
) -> dict[str, Any]:
    """Export the model, and write and say what training came to from the step ``begun`` on; ``figures`` are the
    Trainer's."""
    metrics: dict[str, Any] = {**figures, "train_samples": len(parts.corpus.splits["train"])}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if losses:
        metrics["train_loss_at_end"] = losses[-1]  # train_loss is the mean over the whole run, as in the scripts
    metrics |= trainer.meter.whole(trainer.state) | trainer.ranks.whole()
    run.status("saving", step=trainer.state.global_step)
    export_trained(trainer, resolved, parts.tokenizer, run, say)
    if trainer.is_world_process_zero():
        write_results(run.path, "train", metrics)
    if trainer.exported.get("chosen") == "best":
        best = trainer.exported
        say("train", f"the model is that of step {best['step']}, which had the best {best['metric']}: {best['score']}")
    trainer.save_state()
    say("train", training_line(metrics, trainer.state.global_step, begun, trainer.meter.tokens))
    if losses and not math.isfinite(losses[-1]):
        say("attention", "the loss is no longer a number, so the model is of no use; a lower --learning_rate, "
                         "--warmup_steps or --max_grad_norm 1 may help")  # fmt: skip
    return metrics
