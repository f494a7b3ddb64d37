"""The only place where the stages are wired together: options in, a finished run folder out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict, without_secrets
from lmtrain.core.console import Say, amount, counted, duration, is_first_process, say
from lmtrain.core.errors import Interrupted
from lmtrain.core.files import read_json
from lmtrain.core.stopping import Stop
from lmtrain.data.corpus import StoresMade
from lmtrain.engine.agreement import require_same_folder, require_same_start
from lmtrain.engine.arguments import examples_of_a_step, training_arguments
from lmtrain.engine.exporting import export_trained
from lmtrain.engine.found import Found, inspect, refuse_other_runs_results
from lmtrain.engine.looking import Look
from lmtrain.engine.making import make_trainer
from lmtrain.engine.meeting import begun_before, note_begun, telling_others
from lmtrain.engine.ordering import choose_order
from lmtrain.engine.parts import Parts, assemble
from lmtrain.engine.precision import compute_dtype
from lmtrain.engine.processes import noticing_lost_ones
from lmtrain.engine.rehearsing import Rehearse, Stage
from lmtrain.engine.requirements import require_a_step
from lmtrain.engine.results import named_as_the_scripts_do, speed_line, summary, write_results
from lmtrain.engine.resume import require_same_data, resume_point
from lmtrain.engine.run_folder import DECISIONS, RunFolder
from lmtrain.engine.sizing import settle_micro_batch, steps_in
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.attention_dropout import cost_of_attention_dropout

_DYING = 30.0  # seconds for which the lock of a process that a launcher has given up may still be held
_MATTERS = 1.5  # times as slow: less is not worth a line
_MAKES_A_MODEL: dict[str, Any] = dict.fromkeys(
    ("model_type", "model_size", "config_name", "config_overrides", "tokenizer_name")
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``metrics`` are those of the result files; ``was_finished``: nothing was left to do."""

    folder: Path | None
    metrics: dict[str, Any] = field(default_factory=dict)
    was_finished: bool = False


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
    folder = Path(resolved.output_dir).expanduser()
    options = as_dict(resolved)
    again = begun_before(str(folder))  # torchrun starts it anew: what it was to do away with is gone
    overwrite = resolved.run.overwrite_output_dir and not again
    found = inspect(folder, resolved.command, options, overwrite=overwrite, patience=_DYING if again else 0)
    if found.state != "finished":
        asked = resolved.training.get("resume_from_checkpoint")
        found = resume_point(None if again and found.checkpoint else asked, found)
    decided = _decided(folder, found)
    require_same_folder(found, decided)
    if found.state == "finished":
        return _already_finished(folder, resolved, say)
    parts = assemble(resolved, decided, made_ahead=made_ahead, say=say)
    if found.state == "unfinished" and not resolved.run.accept_changes:
        require_same_data(folder, parts.corpus.manifest())
    arguments = training_arguments(resolved, parts.precision)
    require_a_step(arguments, len(parts.corpus.splits["train"]))
    choose_order(parts.corpus.splits["train"], resolved.data, examples_of_a_step(arguments), decided)  # or refuse it
    looks = None if look is None else look(parts)
    micro_batch = settle_micro_batch(resolved, parts, decided, say)
    sizes = micro_batch.arguments if micro_batch else {}
    known = _decisions(parts) | ({"micro_batch": micro_batch.as_dict()} if micro_batch else {})
    worked_out: dict[str, Any] = {}
    if minutes is not None:
        worked_out["max_steps"] = decided.get("max_steps") or steps_in(resolved, parts, minutes, decided, say)
    run = RunFolder(folder, overwrite=overwrite, writes=is_first_process())
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
        run.status("preparing", step=found.step)
        trainer = stage.trainer
        known |= {"examples_a_step": examples_of_a_step(trainer.args), "peak": trainer.peak.as_dict()}
        known |= {"order": trainer.ordering.decision}
        run.decisions(known | worked_out | trainer.fast_paths.decisions)
        return _carry_out(trainer, resolved, parts, run, found, say)


def _decided(folder: Path, found: Found) -> dict[str, Any]:
    """What an unfinished run decided when it began."""
    if found.state == "unfinished":
        with suppress(OSError, ValueError):
            decisions: dict[str, Any] = read_json(folder / DECISIONS)
            return decisions
    return {}


def _decisions(parts: Parts) -> dict[str, Any]:
    return {
        "precision": {"choice": parts.precision.name, "reason": parts.precision.reason},
        "device": str(parts.device),
        "threads": torch.get_num_threads(),
        "example_length": parts.length,
        "attention": getattr(parts.model.config, "_attn_implementation", None),
        "tokenization": parts.corpus.lines,
    }


def _carry_out(trainer: LMTrainer, resolved: Resolved, parts: Parts, run: RunFolder, found: Found, say: Say) -> Outcome:
    for line in (*trainer.fast_paths.lines, *_what_attention_dropout_costs(trainer, parts)):
        say("model", line)
    metrics = _train(trainer, resolved, parts, run, found, say)
    for split in ("validation", "test"):
        if split in parts.corpus.splits and (resolved.do_eval or split == "test"):
            run.status("evaluating")
            known = trainer.evaluated_at_the_end() if split == "validation" else None
            scores = _score(trainer, resolved, parts, run.path, split, say, known)
            metrics |= scores
    run.status("finished", step=trainer.state.global_step)
    return Outcome(run.path, metrics)


def _what_attention_dropout_costs(trainer: LMTrainer, parts: Parts) -> list[str]:
    dtype = compute_dtype(trainer.args, parts.model)
    length = round(float(parts.corpus.splits["train"].lengths.mean()))
    with trainer.dropping():
        cost = cost_of_attention_dropout(parts.model, trainer.args.train_batch_size, length, parts.device, dtype)
    if cost is None or cost[0] < _MATTERS * cost[1]:
        return []
    slow, fast = (1000 * seconds * trainer.args.gradient_accumulation_steps for seconds in cost)
    return [
        f"dropout of attention weights keeps the fast attention kernel from being used: {slow:,.0f} ms of a step "
        f"instead of {fast:,.0f}, which --attention_dropout 0 would gain"
    ]


def _train(
    trainer: LMTrainer, resolved: Resolved, parts: Parts, run: RunFolder, found: Found, say: Say
) -> dict[str, Any]:
    checkpoint = found.checkpoint
    for line in found.passed_over:
        say("attention", f"passed over {line}")
    if checkpoint:
        say("run", f"goes on from step {found.step}: {checkpoint}")
    elif found.state == "unfinished":
        say("run", "starts over: it stopped before there was a checkpoint to go on from")
    run.status("training", step=found.step)
    try:
        with trainer.stop.deferred() if trainer.stop else nullcontext():
            result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.is_asked_to_stop:
            reason = trainer.stop.reason if trainer.stop else None
            at = f"saved at step {trainer.state.global_step}"
            raise Interrupted(f"{reason or 'another process was asked to stop'}; {at}", together=True)
    except BaseException:
        run.status("training", step=trainer.state.global_step)  # how far it came; the folder writes down why it ended
        raise
    metrics: dict[str, Any] = {**result.metrics, "train_samples": len(parts.corpus.splits["train"])}
    tokens, seconds = trainer.state.num_input_tokens_seen, metrics.get("train_runtime") or 0
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
    say("train", f"{counted(trainer.state.global_step, 'step')} · {amount(tokens)} tokens in {duration(seconds)} · "
                 f"loss {metrics['train_loss']:.4f} · {speed_line(metrics)}")  # fmt: skip
    if losses and not math.isfinite(losses[-1]):
        say("attention", "the loss is no longer a number, so the model is of no use; a lower --learning_rate, "
                         "--warmup_steps or --max_grad_norm 1 may help")  # fmt: skip
    return metrics


@telling_others()
def evaluate(
    resolved: Resolved, *, made_ahead: Callable[[], StoresMade] | None = None, say: Say = say
) -> dict[str, dict[str, Any]]:
    """Score a model on the validation and test data, by split; figures go to ``output_dir`` when there is one."""
    require_same_start(resolved)
    folder = Path(resolved.output_dir).expanduser() if resolved.output_dir else None
    if folder is not None:
        refuse_other_runs_results(folder, resolved.model.model_name_or_path)
    parts = assemble(resolved, made_ahead=made_ahead, say=say)
    with tempfile.TemporaryDirectory() as nowhere:  # the Trainer insists on a folder
        trainer = make_trainer(resolved, parts, None, output_dir=nowhere)
        return {
            split: _score(trainer, resolved, parts, folder, split, say)
            for split in ("validation", "test")
            if split in parts.corpus.splits
        }


def _score(
    trainer: LMTrainer,
    resolved: Resolved,
    parts: Parts,
    folder: Path | None,
    split: str,
    say: Say,
    known: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """``known`` are figures of these weights and data, which then are not made again."""
    layout: Any = parts.corpus.splits[split]
    prefix = "eval" if split == "validation" else split
    scores = named_as_the_scripts_do(known or trainer.evaluate(layout, metric_key_prefix=prefix))
    scores[f"{prefix}_samples"] = len(layout)
    if not trainer.state.global_step:
        scores.pop("epoch", None)  # of a training that was none
    if folder is not None and trainer.is_world_process_zero():
        write_results(folder, prefix, scores)
    say("result", f"{split} " + summary(scores, resolved.command, prefix))
    return scores


def _already_finished(folder: Path, resolved: Resolved, say: Say) -> Outcome:
    metrics: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        metrics = read_json(folder / "all_results.json")
    say("run", f"{folder} is finished; the model lies there. To train it anew add --overwrite_output_dir")
    if resolved.do_eval and "eval_loss" not in metrics:
        return Outcome(folder, metrics | _evaluate_finished(folder, resolved, say), was_finished=True)
    for split, prefix in (("validation", "eval"), ("test", "test")):
        if f"{prefix}_loss" in metrics:
            say("result", f"{split} " + summary(metrics, resolved.command, prefix))
    return Outcome(folder, metrics, was_finished=True)


def _evaluate_finished(folder: Path, resolved: Resolved, say: Say) -> dict[str, Any]:
    """The scores that a run which only trained lacks: ``--do_train`` first, ``--do_eval`` added later."""
    model = replace(resolved.model, model_name_or_path=str(folder), **_MAKES_A_MODEL)
    training = {**resolved.training, "do_train": False, "do_eval": True}
    return evaluate(replace(resolved, model=model, training=training), say=say).get("validation", {})
