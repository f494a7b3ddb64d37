"""What a decoding has found so far, line by line, so that one that was killed goes on.

``.NAME.unfinished`` beside the file of the results: a line that says of what it is made, then one for each distinct
input as it is decided. It is gone when the results are there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmtrain.core.files import write_text


class Unfinished:
    """Results under way for ``target``, of what ``key`` names; those of another key are not taken over."""

    def __init__(self, target: Path, key: str) -> None:
        self.path = target.with_name(f".{target.name}.unfinished")
        self._head = json.dumps({"made_of": key}) + "\n"

    def read(self) -> dict[int, list[int]]:
        """The ids for each input by its number; a line that was cut off is none."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if lines[:1] != [self._head]:
                return {}
            rows = [json.loads(line) for line in lines[1:] if line.endswith("\n")]
            return {int(row["id"]): list(row["predict"]) for row in rows}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    @contextmanager
    def going_on(self) -> Iterator[Callable[[int, list[int]], None]]:
        """A function that adds the result of an input by its number. What cannot be gone on from is cleared away."""
        known = self.read()
        write_text(self.path, self._head + "".join(_line(number, ids) for number, ids in known.items()))
        with self.path.open("a", encoding="utf-8", buffering=1) as stream:  # a line is with the system once it is whole

            def add(number: int, ids: list[int]) -> None:
                stream.write(_line(number, ids))

            yield add

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _line(number: int, ids: list[int]) -> str:
    return json.dumps({"id": number, "predict": ids}) + "\n"
