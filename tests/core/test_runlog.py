from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from lmtrain.core.runlog import RunLog, read_events
from no_room import files_of_at_most


def test_every_line_is_json_even_for_nan_and_numpy(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with RunLog(path) as log:
        log.event("step", step=np.int64(3), loss=math.nan, nested={"inf": math.inf}, rate=np.float32(0.5))
        log.event("note", text="two\nlines")
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    event = json.loads(lines[0], parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert (event["step"], event["loss"], event["nested"], event["rate"]) == (3, "nan", {"inf": "inf"}, 0.5)


def test_a_half_written_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with RunLog(path) as log:
        log.event("step", step=1)
    with path.open("a") as stream:
        stream.write('{"event": "step", "st')
    assert [event["step"] for event in read_events(path)] == [1]
    with RunLog(path) as log:
        log.event("step", step=2)
    assert [event["step"] for event in read_events(path)] == [1, 2], "and is not gone on with"
    assert path.read_bytes().count(b"\n") == 3


def test_a_full_disk_stops_nobody_and_what_was_said_meanwhile_is_written_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "metrics.jsonl"
    with RunLog(path) as log:
        log.event("step", step=1)
        room = path.stat().st_size + 10
        with files_of_at_most(room):
            for step in (2, 3):
                log.event("step", step=step)
            assert path.stat().st_size == room, "in the middle of a line"
        assert capsys.readouterr().err.count("metrics.jsonl cannot be written (File too large)") == 1
        log.event("step", step=4)
    assert [event["step"] for event in read_events(path)] == [1, 2, 3, 4]
    assert path.read_bytes().count(b"\n") == 4


def test_a_log_is_continued_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        with RunLog(path) as log:
            log.event("step", step=step)
    assert [event["step"] for event in read_events(path)] == [1, 2]
