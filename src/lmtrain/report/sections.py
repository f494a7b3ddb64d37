"""The parts of the page that are words and tables, as HTML that needs no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from lmtrain.core.console import counted
from lmtrain.report.accounts import events, ledger, named
from lmtrain.report.facts import (
    Row,
    about,
    command_line,
    compared,
    configuration,
    decided,
    figures,
    machines,
    same_tokens,
    scored_model,
    state_of,
)
from lmtrain.report.log import Sample
from lmtrain.report.markup import Markup, element, folded, joined, table
from lmtrain.report.processes import processes
from lmtrain.report.reading import Run, scrubbed
from lmtrain.report.scores import scores

_MOST_STEPS: Final = 200  # of samples: the first, the last and those evenly between
_LONGEST: Final = 20_000  # characters of a sample; a page is to be read


def sections(runs: Sequence[Run]) -> dict[str, Markup]:
    """By the id of the element that each belongs into; empty where there is nothing to say."""
    return {
        "state": joined(*(_state(run, len(runs) > 1) for run in runs)),
        "headline": _headline(runs),
        "scores": scores(runs),
        "processes": joined(*(processes(run, len(runs) > 1) for run in runs)),
        "samples": joined(*(_samples(run, at, len(runs) > 1) for at, run in enumerate(runs))),
        "ledger": joined(*(ledger(run, len(runs) > 1) for run in runs)),
        "events": joined(*(events(run, at, len(runs) > 1) for at, run in enumerate(runs))),
        "configuration": _configuration(runs),
        "machine": _machine(runs),
        "repeat": joined(*(_repeat(run, at, len(runs) > 1) for at, run in enumerate(runs))),
    }


# ---- what it is and what came of it ---------------------------------------------------------------


def _state(run: Run, several: bool) -> Markup:
    chip = element("span", state_of(run), class_=f"chip {_kind(run.state)}")
    words = element("span", scrubbed(about(run)), class_="about")
    return element("p", element("b", run.name) if several else None, chip, words, class_="state")


def _kind(state: str) -> str:
    return {"finished": "good", "failed": "bad", "lost": "bad", "interrupted": "warn"}.get(state, "busy")


def _headline(runs: Sequence[Run]) -> Markup:
    if len(runs) == 1:
        cards = [
            element("div", element("dt", figure.name), element("dd", figure.text), class_="figure")
            for figure in figures(runs[0])
        ]
        note = scored_model(runs[0])
        return joined(element("dl", *cards, class_="figures"), element("p", note, class_="note") if note else None)
    head = element("tr", element("th", ""), *(element("th", run.name, class_="number") for run in runs))
    body = [
        element(
            "tr",
            element("th", row.name, scope="row"),
            *(
                element("td", text, class_="number best" if at == best else "number")
                for at, text in enumerate(row.texts)
            ),
        )
        for row, best in compared(runs)
    ]
    note = "Not all have the same tokens: what is counted by the token compares where they do, bits per byte always."
    return joined(table([head], body, "compare"), None if same_tokens(runs) else element("p", note, class_="note"))


# ---- samples --------------------------------------------------------------------------------------


def _samples(run: Run, at: int, several: bool) -> Markup | None:
    if not run.history.samples:
        return None
    by_step: dict[int, list[Sample]] = {}
    for sample in run.history.samples:
        by_step.setdefault(sample.step, []).append(sample)
    steps = sorted(by_step)
    kept = evenly(steps, _MOST_STEPS)
    left_out = f" ({len(kept)} of {len(steps):,} steps are shown)" if len(kept) < len(steps) else ""
    blocks = [
        element(
            "div",
            element("h4", f"step {step:,}"),
            *(_sample(sample) for sample in by_step[step]),
            class_="sampled",
            data_step=step,
        )
        for step in kept
    ]
    first = element("p", f"What the model wrote, by step; prompts in bold.{left_out}", class_="note")
    return element("div", named(run, several), first, *blocks, class_="samples", data_key=f"samples-{at}")


def _sample(sample: Sample) -> Markup:
    faint = element("span", " …", class_="faint") if sample.is_cut else None
    text = scrubbed(_cut(sample.completion))
    if not sample.fillings:
        return element("p", element("b", sample.prompt), text, faint, class_="sample")
    found = "".join(f"\n{filling}" for filling in sample.fillings)
    return element(
        "p", element("b", sample.prompt), f"\n{text}", element("span", found, class_="faint"), class_="sample"
    )


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of them, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(at * (len(items) - 1) / (most - 1))] for at in range(most)]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST:,} more characters)"


# ---- how it was made ------------------------------------------------------------------------------


def _configuration(runs: Sequence[Run]) -> Markup:
    differing, chosen, rest = configuration(runs)
    parts: list[Markup | None] = []
    if differing:
        parts += [element("h3", "What differs"), _options(runs, differing, "differs")]
    if chosen:
        parts += [element("h3", "Chosen") if differing else None, _options(runs, chosen, "chosen")]
    if rest:
        title = f"{counted(len(rest), 'option')} left at {'its default' if len(rest) == 1 else 'their defaults'}"
        parts.append(folded(title, _options(runs, rest, "rest"), "options"))
    for at, run in enumerate(runs):
        rows = [
            element("tr", element("th", what.replace("_", " "), scope="row"), element("td", choice), element("td", why))
            for what, choice, why in decided(run)
        ]
        if rows:
            head = element("tr", *(element("th", text) for text in ("what", "choice", "why")))
            of = f" for {run.name}" if len(runs) > 1 else ""
            parts.append(folded(f"Decided by measuring{of}", table([head], rows, "decided"), f"decided-{at}"))
    return joined(*parts)


def _options(runs: Sequence[Run], rows: Iterable[Row], kind: str) -> Markup:
    several = len(runs) > 1
    names = [run.name for run in runs] if several else ["value"]
    last = ["default"] if kind == "chosen" else []
    head = element("tr", *(element("th", text) for text in ("option", *names, *last)))
    body = []
    for row in rows:
        cells = [element("td", scrubbed(text)) for text in row.texts]
        body.append(
            element(
                "tr",
                element("th", _flag(row.name), scope="row"),
                *cells,
                *(element("td", row.note, class_="faint") for _ in last),
                class_="differs" if row.differs else None,
            )
        )
    return table([head], body, "options")


def _flag(name: str) -> Markup:
    """``--name``, which a narrow screen may break at its underscores, and so not behind the dashes."""
    first, *rest = f"--{name}".split("_")
    return joined(first, *(joined(element("wbr"), f"_{word}") for word in rest))


def _machine(runs: Sequence[Run]) -> Markup:
    rows = machines(runs)
    if not rows:
        return joined()
    head = element("tr", element("th", ""), *(element("th", run.name) for run in runs)) if len(runs) > 1 else None
    body = [
        element(
            "tr",
            element("th", row.name, scope="row"),
            *(element("td", text) for text in row.texts),
            class_="differs" if row.differs else None,
        )
        for row in rows
    ]
    return table([head] if head else [], body, "machine")


def _repeat(run: Run, at: int, several: bool) -> Markup | None:
    line = command_line(run)
    if not line:
        return None
    place = run.record.get("working_folder")
    started = run.record.get("started")
    said = [f"begun {started}" if started else "", f"in {place}" if place else ""]
    note = ", ".join(part for part in said if part)
    button = element("button", "Copy", type="button", class_="copy", data_copies=f"command-{at}")
    return element(
        "div",
        named(run, several),
        element("div", element("pre", element("code", line), id=f"command-{at}"), button, class_="command"),
        element("p", note, class_="note") if note else None,
    )
