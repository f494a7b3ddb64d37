"""Predictions and references as the scorers of the three corpora read them.

What becomes of a prediction is what LoRA's gpt2_decode.py does: it ends at ``<|endoftext|>`` or at an empty line, and
may be split at everything that is no letter or digit and put into lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from lmtrain.core.errors import UserError
from lmtrain.core.files import write_text
from lmtrain.data.nlg.records import Group, Record

Filter = Literal["all", "seen", "unseen"]
_NOT_WORD = re.compile(r"(\W)")


def ended(text: str) -> str:
    """The text as far as ``<|endoftext|>`` and as far as its first empty line, without white space around it."""
    return text.split("<|endoftext|>")[0].split("\n\n")[0].strip()


def split_at_marks(text: str) -> str:
    """Every character that is no letter, digit or underscore by itself: ``don't.`` becomes ``don ' t .``"""
    return " ".join(" ".join(_NOT_WORD.split(text)).split())


def processed(text: str, *, tokenize: bool = False, lower: bool = False) -> str:
    """The text as it is scored, in one line."""
    text = text.lower() if lower else text
    text = split_at_marks(text) if tokenize else text
    return " ".join(text.splitlines())  # a line break of any kind would make it two texts, and shift all that follow


def require_references(records: Iterable[Record]) -> None:
    """Raise :class:`UserError` for a record that ends before it begins: its reference would be an empty line, which
    the scorers of E2E take for the end of an input."""
    for number, record in enumerate(records, start=1):
        if not ended(record.completion):
            raise UserError(
                f"the text of record {number:,} begins with an empty line or <|endoftext|>, where gpt2_decode.py ends "
                f"it, so it would be an empty reference of {record.context!r}; take that off its beginning"
            )


def chosen(records: Iterable[Record], which: Filter = "all") -> list[Record]:
    """The records of categories that training has seen, of those it has not, or all. Raises :class:`UserError` for
    records that do not say."""
    found = list(records)
    if which == "all":
        return found
    if any(record.seen is None for record in found):
        raise UserError("only records of WebNLG say which categories were seen ('cate')", flag="--filter")
    return [record for record in found if record.seen == (which == "seen")]


def by_context(records: Sequence[Record], predictions: Iterable[tuple[int, str]]) -> dict[str, str]:
    """The predicted text of each context. ``predictions`` are a record's number and its text; of several for one
    context the last counts. Raises :class:`UserError` for a number that no record has."""
    found = {}
    for number, text in predictions:
        if not 0 <= number < len(records):
            raise UserError(f"there is a prediction for record {number}, and the records are 0 to {len(records) - 1}")
        found[records[number].context] = text
    return found


def hypotheses_of(groups: Sequence[Group], predictions: Mapping[str, str]) -> list[str]:
    """The prediction of each group, ended. Raises :class:`UserError` when one has none."""
    missing = [group.context for group in groups if group.context not in predictions]
    if missing:
        raise UserError(f"{len(missing)} of {len(groups)} inputs have no prediction; the first is {missing[0]!r}")
    return [ended(predictions[group.context]) for group in groups]


def write_hypotheses(path: Path, hypotheses: Iterable[str], *, tokenize: bool = False, lower: bool = False) -> None:
    """One a line."""
    write_text(path, "".join(processed(text, tokenize=tokenize, lower=lower) + "\n" for text in hypotheses))


def write_grouped_references(
    path: Path, groups: Iterable[Group], *, tokenize: bool = False, lower: bool = False
) -> None:
    """For the E2E scorer: the texts of a group one a line, an empty line behind each group."""
    lines = []
    for group in groups:
        lines += [processed(ended(text), tokenize=tokenize, lower=lower) + "\n" for text in group.completions]
        lines.append("\n")
    write_text(path, "".join(lines))


def write_reference_files(
    folder: Path, groups: Sequence[Group], *, count: int = 4, tokenize: bool = False, lower: bool = False
) -> list[Path]:
    """For the scorers of WebNLG and DART: ``folder/reference0`` … ``reference{count - 1}``, a group a line.

    A group with fewer texts has its first one again; with more, those beyond ``count`` are not used. Files of an
    earlier call with a larger ``count`` are removed: a scorer reads on as long as there is a next one.
    """
    files = []
    for number in range(count):
        texts = (g.completions[number if number < len(g.completions) else 0] for g in groups)
        files.append(folder / f"reference{number}")
        lines = (processed(ended(text), tokenize=tokenize, lower=lower) + "\n" for text in texts)
        write_text(files[-1], "".join(lines))
    further = count
    while (path := folder / f"reference{further}").is_file():
        path.unlink()
        further += 1
    return files
