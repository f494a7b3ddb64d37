"""Score a model on its validation and test data: by itself, at the end of a run, or for a run that lacks only that."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, is_first_process, say
from lmtrain.core.files import read_record
from lmtrain.data.corpus import StoresMade
from lmtrain.engine.agreement import require_same_start
from lmtrain.engine.distributed.meeting import telling_others
from lmtrain.engine.distributed.processes import noticing_lost_ones
from lmtrain.engine.making import make_trainer
from lmtrain.engine.parts import Parts, assemble
from lmtrain.engine.runs.found import Found, refuse_other_runs_results, require_unchanged
from lmtrain.engine.runs.results import named_as_the_scripts_do, summary, write_results
from lmtrain.engine.runs.resume import require_same_data
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.trainer import LMTrainer

_MAKES_A_MODEL: dict[str, Any] = dict.fromkeys(
    ("model_type", "model_size", "config_name", "config_overrides", "tokenizer_name")
)

LONGER_OR_ANEW: Final = (
    ". To train it for longer give more --max_steps or --num_train_epochs and --extend; to train it anew add "
    "--overwrite_output_dir"
)


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``metrics`` are those of the result files; ``was_finished``: nothing was left to do.
    ``uploaded``: whether the hub took the model, on the first process; None where that was not asked for."""

    folder: Path | None
    metrics: dict[str, Any] = field(default_factory=dict)
    was_finished: bool = False
    uploaded: bool | None = None


@telling_others()
def evaluate(
    resolved: Resolved, *, made_ahead: Callable[[], StoresMade] | None = None, of_run: bool = False, say: Say = say
) -> dict[str, dict[str, Any]]:
    """Score a model on the validation and test data, by split; figures go to ``output_dir`` when there is one.

    ``of_run``: it is that of the run there, whose text has to be what it began with, and is scored as the run asks.
    """
    require_same_start(resolved)
    folder = user_path(resolved.output_dir) if resolved.output_dir else None
    if folder is not None:
        refuse_other_runs_results(folder, resolved.model.model_name_or_path)
    parts = assemble(resolved, made_ahead=made_ahead, say=say)
    if of_run and folder is not None:
        require_same_data(folder, parts.corpus.manifest(), as_dict(resolved), by="sources")
    with tempfile.TemporaryDirectory() as nowhere:  # the Trainer insists on a folder
        trainer = make_trainer(resolved, parts, None, output_dir=nowhere)
        return {
            split: score(trainer, resolved, parts, folder, split, say) for split in splits_to_score(resolved, parts)
        }


def splits_to_score(resolved: Resolved, parts: Parts) -> list[str]:
    """Of what there is, in the order of scoring; the test data always."""
    asked = ("validation", "test") if resolved.do_eval else ("test",)
    return [split for split in asked if split in parts.corpus.splits]


def score(
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


def already_finished(folder: Path, resolved: Resolved, say: Say) -> Outcome:
    metrics = read_record(folder / "all_results.json")
    say("run", f"{folder} is finished; the model lies there{LONGER_OR_ANEW}")
    if resolved.do_eval and "eval_loss" not in metrics:  # --do_train first, --do_eval added later
        return Outcome(
            folder, metrics | _evaluate_model_in(folder, resolved, say).get("validation", {}), was_finished=True
        )
    for split, prefix in (("validation", "eval"), ("test", "test")):
        if f"{prefix}_loss" in metrics:
            say("result", f"{split} " + summary(metrics, resolved.command, prefix))
    return Outcome(folder, metrics, was_finished=True)


def score_exported(folder: Path, resolved: Resolved, found: Found, say: Say) -> Outcome:
    """The scores that a run lacks which ended when its model was written. Raises :class:`UserError` where its text is
    not what it began with."""
    say("run", f"goes on with the model that it has trained and written to {folder}: only scores are missing")
    run = RunFolder(folder, still=partial(require_unchanged, folder, found.seen), writes=is_first_process())
    with run, noticing_lost_ones():
        run.status("evaluating")
        metrics = read_record(folder / "all_results.json")
        for scores in _evaluate_model_in(folder, resolved, say).values():
            metrics |= scores
        run.status("finished")
    return Outcome(folder, metrics)


def _evaluate_model_in(folder: Path, resolved: Resolved, say: Say) -> dict[str, dict[str, Any]]:
    model = replace(resolved.model, model_name_or_path=str(folder), **_MAKES_A_MODEL)
    training = {**resolved.training, "do_train": False, "do_eval": resolved.do_eval}
    return evaluate(replace(resolved, model=model, training=training), of_run=True, say=say)
