"""Two parts of the page that are accounts: what became of the text, and what happened in the run."""

from __future__ import annotations

from typing import Any, Final

from lmtrain.core.console import amount, counted, duration
from lmtrain.report.happenings import happenings
from lmtrain.report.log import listed, mapping, number, whole
from lmtrain.report.markup import Markup, at_most, element, folded, joined, table
from lmtrain.report.reading import Run, scrubbed

_COLUMNS: Final = ("documents", "bytes", "tokens", "specials", "examples", "placed", "dropped")
_FEW: Final = 12  # entries that need no folding


def named(run: Run, several: bool) -> Markup | None:
    """The run's name as a heading, where there are others."""
    return element("h3", run.name) if several else None


def ledger(run: Run, several: bool) -> Markup | None:
    """What was read and passed over, and where every token went; see :class:`lmtrain.data.ledger.Ledger`."""
    told = run.data.get("ledger")
    if not isinstance(told, dict):
        return None
    tokens = number(told.get("tokens"))
    text = number(told.get("text_bytes", told.get("bytes_read")))  # earlier versions counted bytes on disk only
    facts = [f"{counted(whole(told.get(key)), noun)}" for key, noun in
             (("files", "file"), ("bytes_read", "byte"), ("documents", "document"), ("tokens", "token"))
             if number(told.get(key)) >= 0]  # fmt: skip
    if tokens > 0 and text > 0:
        facts.append(f"{text / tokens:.2f} bytes per token")
    splits = mapping(told.get("splits"))
    head = element("tr", element("th", "split"), *(element("th", name, class_="number") for name in _COLUMNS))
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(element("td", f"{whole(split.get(key)):,}", class_="number") for key in _COLUMNS),
        )
        for name, split in splits.items()
        if isinstance(split, dict)
    ]
    notes = [str(note) for note in listed(told.get("notes"))]
    skipped = told.get("skipped")
    if isinstance(skipped, dict) and skipped:
        notes.insert(0, "skipped: " + ", ".join(f"{whole(count):,} {why}" for why, count in skipped.items()))
    for key, value in told.items():  # of a younger version
        if (
            key not in ("files", "bytes_read", "text_bytes", "documents", "tokens", "skipped", "notes", "splits")
            and value
        ):
            notes.append(f"{key.replace('_', ' ')}: {value}")
    return element(
        "div",
        named(run, several),
        element("p", "read " + ", ".join(facts)),
        table([head], body, "ledger") if body else None,
        *(element("p", note, class_="note") for note in notes),
        _sources(run.data),
    )


def _sources(data: dict[str, Any]) -> Markup | None:
    rows = []
    for split, store in mapping(data.get("stores")).items():
        for source in map(mapping, listed(mapping(store).get("sources"))):
            size = number(source.get("bytes"))
            rows.append(
                element(
                    "tr",
                    element("td", split),
                    element("td", str(source.get("name")), class_="path"),
                    element("td", amount(size, "B") if size >= 0 else "", class_="number"),
                    element("td", str(source.get("sha256", ""))[:16], class_="path"),
                )
            )
    if not rows:
        return None
    head = element("tr", *(element("th", name) for name in ("split", "source", "size", "SHA-256 begins")))
    return folded(f"{counted(len(rows), 'source')}, with hashes", table([head], at_most(rows), "sources"), "sources")


# ---- what happened --------------------------------------------------------------------------------


def events(run: Run, at: int, several: bool) -> Markup:
    """What happened; of a long list what is notable first, and all of it folded. ``at`` is the number of the run."""
    notes = []
    if ignored := run.history.ignored:
        lines = (
            "1 half-written line of the log was" if ignored == 1 else f"{ignored:,} half-written lines of the log were"
        )
        notes.append(f"{lines} passed over")
    notes += [f"{file} is there and cannot be read" for file in run.unreadable]
    if run.history.starts > 1:
        notes.append(f"{counted(run.history.starts, 'start')}; steps that were made twice are shown once")
    told = happenings(run)
    body = [
        element(
            "tr",
            element("td", duration(happening.seconds), class_="number"),
            element("td", "" if happening.step is None else f"{happening.step:,}", class_="number"),
            element("td", scrubbed(happening.text)),
            class_=happening.weight,
        )
        for happening in told
    ]
    head = element("tr", *(element("th", name) for name in ("after", "step", "what")))
    every = table([head], at_most(body), "events")
    if len(body) > _FEW:
        every = folded(f"all {len(body):,} entries", every, f"events-{at}")
        notable = [row for row, happening in zip(body, told, strict=True) if happening.weight != "plain"]
        if notable:
            every = joined(table([head], at_most(notable), "events"), every)
    return element(
        "div",
        named(run, several),
        *(element("p", note, class_="note") for note in notes),
        every if body else None,
        _saves(run, at),
    )


def _saves(run: Run, at: int) -> Markup | None:
    saves = [event for event in run.history.events if event["event"] == "save"]
    if not saves:
        return None
    pauses = [number(save.get("pause_seconds")) for save in saves]
    known = [pause for pause in pauses if pause == pause]
    size = number(saves[-1].get("bytes"))
    text = f"{counted(len(saves), 'checkpoint')} saved, the last at step {saves[-1].get('step')}"
    if size == size:
        text += f" with {amount(size, 'B')}"
    if known:
        text += f"; training paused {_seconds(sum(known))} for them, {_seconds(max(known))} at most"
    head = element("tr", *(element("th", name) for name in ("step", "size", "pause", "written in", "in background")))
    body = [
        element(
            "tr",
            element("td", f"{whole(save.get('step')):,}", class_="number"),
            element("td", amount(whole(save.get("bytes")), "B"), class_="number"),
            element("td", _seconds(number(save.get("pause_seconds"))), class_="number"),
            element("td", _seconds(number(save.get("write_seconds"))), class_="number"),
            element("td", "yes" if save.get("in_background") else "no"),
        )
        for save in saves
    ]
    return folded(text, table([head], at_most(body), "saves"), f"saves-{at}")


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else duration(value) if value == value else "—"
