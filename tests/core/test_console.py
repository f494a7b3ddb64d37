from __future__ import annotations

import os
from typing import Any

import pytest

from lmtrain.core.console import Unfailing, amount, counted, duration, say


def test_amounts_and_durations_read_well() -> None:
    assert [amount(n) for n in (0, 812, 9_500_000, 999_960)] == ["0", "812", "9.5 M", "1.0 M"]
    assert amount(31_507_418, "B") == "31.5 MB"
    assert [counted(n, "step") for n in (0, 1, 2000)] == ["0 steps", "1 step", "2,000 steps"]
    assert [duration(s) for s in (0.42, 48.2, 190, 7500)] == ["0.4 s", "48 s", "3 min 10 s", "2 h 05 min"]


def test_only_the_first_rank_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    say("store", "9.5 M tokens")
    monkeypatch.setenv("RANK", "1")
    say("store", "again")
    captured = capsys.readouterr()
    assert captured.err == "● store      9.5 M tokens\n"
    assert captured.out == ""


def test_a_reader_who_leaves_ends_nothing() -> None:
    """``lmtrain clm ... 2>&1 | tee log``: Ctrl-C ends ``tee`` at once, and training has yet to save."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        stream: Any = Unfailing(pipe)
        for _ in range(2):
            print("saved first", file=stream, flush=True)
        os.write(pipe.fileno(), b"of a library in C")


def test_further_lines_stand_below_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    say("data", "one file\n12 tokens")
    assert capsys.readouterr().err == "● data       one file\n             12 tokens\n"
