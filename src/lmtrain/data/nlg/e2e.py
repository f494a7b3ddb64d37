"""E2E NLG challenge: a line is ``meaning representation||reference``, or a row of a table with the columns mr and ref.

``name : Blue Spice | area : riverside||Blue Spice lies by the river .``, as microsoft/LoRA has it; the challenge's own
files (trainset.csv, devset.csv, testset_w_refs.csv) are CSV, with other words for the same meaning. Neither is changed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from lmtrain.data.nlg.records import Record, lines_of, opened, unusable
from lmtrain.data.sources.opening import File

_MARK = "||"


def read(path: str | Path) -> Iterator[Record]:
    """The records of a file, in order; blank lines are none. Raises :class:`UserError` naming file and line.

    Text behind a second ``||`` is no part of the reference, as in LoRA's format_converting_e2e.py.
    """
    file = opened(path)
    first = next((line for _, line in lines_of(file)), "")
    if {"mr", "ref"} <= set(_columns(first.split(","))):
        yield from _rows(file)
        return
    for number, line in lines_of(file):
        if not (line := line.strip()):
            continue
        context, mark, rest = line.partition(_MARK)
        if not mark:
            raise unusable(
                file,
                number,
                f"no {_MARK!r} between the meaning and its text; a line looks like "
                "name : Aroma | food : Thai||Aroma serves Thai food.",
            )
        completion = rest.split(_MARK)[0]
        if not completion.strip():
            raise unusable(file, number, f"nothing behind {_MARK!r}; the text is missing")
        yield Record(context, completion)


def _columns(names: list[str]) -> list[str]:
    return [name.strip(' "').lower() for name in names]


def _rows(file: File) -> Iterator[Record]:
    """Those of a table. A line break inside quotes becomes a space: a record's texts are lines."""
    rows = csv.reader((f"{line}\n" for _, line in lines_of(file)), strict=True)
    try:
        columns = _columns(next(rows))
        for row in filter(None, rows):
            if len(row) != len(columns):
                raise unusable(
                    file, rows.line_num, f"{len(row)} fields, and the first line names {len(columns)} columns"
                )
            context, completion = (" ".join(row[columns.index(name)].split("\n")).strip() for name in ("mr", "ref"))
            if not completion:
                raise unusable(file, rows.line_num, "nothing in the column ref; the text is missing")
            yield Record(context, completion)
    except csv.Error as error:
        raise unusable(file, rows.line_num, f"broken CSV ({error})") from error
