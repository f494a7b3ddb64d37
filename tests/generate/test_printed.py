from __future__ import annotations

import io

import pytest

from lmtrain.generate.results import Printed

WRITTEN = "\x1b]0;title\x07 1\t2\r\n\x9b2Jé"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "shown"), [(Terminal, "\\x1b]0;title\\x07 1\t2\\x0d\n\\x9b2Jé"), (io.StringIO, WRITTEN)]
)
def test_a_terminal_does_not_obey_what_a_model_writes(kind: type[io.StringIO], shown: str) -> None:
    stream = kind(newline="")
    Printed(headings=False, file=stream).write(WRITTEN)
    assert stream.getvalue() == shown
