"""E2E NLG challenge: a line is ``meaning representation||reference``.

``name : Blue Spice | area : riverside||Blue Spice lies by the river .``
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmtrain.data.nlg.records import Record, lines_of, opened, unusable

_MARK = "||"


def read(path: str | Path) -> Iterator[Record]:
    """The records of a file, in order; blank lines are none. Raises :class:`UserError` naming file and line.

    Text behind a second ``||`` is no part of the reference, as in LoRA's format_converting_e2e.py.
    """
    file = opened(path)
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
