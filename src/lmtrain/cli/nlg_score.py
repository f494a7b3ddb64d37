"""``lmtrain nlg score``: the official scores of generated text."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmtrain.config.commands.nlg_score import NlgScoreOptions
from lmtrain.core.console import counted, is_first_process, say
from lmtrain.core.errors import ExitCode, Problems, UserError

if TYPE_CHECKING:
    from lmtrain.evaluate.nlg import Difference, Scores


def run(options: NlgScoreOptions) -> int:
    from lmtrain.evaluate.nlg import (
        compare,
        intervals,
        read_predictions,
        read_references,
        score,
    )
    from lmtrain.recipes.data_to_text.scoring import as_in_lora_chain

    task, name = _asked(options)
    predictions = read_predictions(task, name)
    references = read_references(task, options.references, len(predictions), name)
    other: list[str] | None = None
    if options.against is not None:
        other = read_predictions(task, options.against, flag="--against")
        if len(other) != len(predictions):
            raise UserError(
                f"{options.against} has {len(other):,} predictions and {name} has {len(predictions):,}: "
                "both must be of the same inputs",
                flag="--against",
            )
    given = references
    if options.lora_chain:
        predictions, references = as_in_lora_chain(task, predictions, given)
        other = None if other is None else as_in_lora_chain(task, other, given)[0]

    say("score", f"{counted(len(predictions), 'text')}, {counted(sum(map(len, references)), 'reference')}")
    own = score(task, predictions, references)
    second = None if other is None else score(task, other, references)
    draws, seed = options.bootstrap, options.seed
    spans = intervals(own, draws, seed) if draws else {}
    differences = compare(own, second, draws, seed) if draws and second else {}
    if is_first_process():
        if options.json:
            print(json.dumps(_record(options, own, second, spans, differences), ensure_ascii=False))
        else:
            print("\n".join(_table(own, second, spans, differences)))
    return ExitCode.OK


def _asked(options: NlgScoreOptions) -> tuple[str, str]:
    problems = Problems()
    if options.task is None:
        problems.add("say which task: lmtrain nlg score e2e, webnlg or dart")
    if options.predictions is None:
        problems.add("needs the file of generated texts", flag="--predictions")
    if not options.references:
        problems.add("needs the references of the inputs", flag="--references")
    problems.raise_if_any()
    assert options.task is not None and options.predictions is not None
    return options.task, options.predictions


def _record(
    options: NlgScoreOptions,
    own: Scores,
    second: Scores | None,
    spans: dict[str, tuple[float, float]],
    differences: dict[str, Difference],
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "task": own.task,
        "predictions": options.predictions,
        "references": options.references,
        "lora_chain": options.lora_chain,
        "scores": own.values,
        "reasons": own.reasons,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        "intervals": spans,
    }
    if second is not None:
        record["against"] = {
            "predictions": options.against,
            "scores": second.values,
            "reasons": second.reasons,
            "differences": {name: asdict(difference) for name, difference in differences.items()},
        }
    return record


def _table(
    own: Scores,
    second: Scores | None,
    spans: dict[str, tuple[float, float]],
    differences: dict[str, Difference],
) -> list[str]:
    """Scores as the official programs print them, four digits behind the point, and what is known of each."""
    header = f"{'':<8} {'score':>9}" + (f"  {'95 % interval':^19}" if spans else "")
    if second is not None:
        header += f" {'against':>9}" + (f" {'difference':>11}  {'95 % interval':^19} {'p':>7}" if differences else "")
    lines = [header.rstrip()]
    for name, value in own.values.items():
        line = f"{name:<8} {_number(value):>9}"
        if spans:
            line += f"  {_span(*spans[name]) if name in spans else '':^19}"
        if second is not None:
            line += f" {_number(second.values[name]):>9}"
            if name in differences:
                found = differences[name]
                line += f" {found.difference:>+11.4f}  {_span(found.low, found.high):^19} {found.p:>7.4f}"
        lines.append(line.rstrip())
    reasons = {**(second.reasons if second else {}), **own.reasons}
    return lines + [f"{name}: none, for {reason}" for name, reason in reasons.items()]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _span(low: float, high: float) -> str:
    return f"{low:.4f} … {high:.4f}"
