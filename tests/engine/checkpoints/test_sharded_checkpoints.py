"""The parts of a checkpoint lie on a disk that all machines share, which may show them late."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.engine.checkpoints import sharded


def test_what_another_machine_wrote_may_be_seen_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, slept = tmp_path / "part", []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        part.write_bytes(b"ab" if len(slept) == 1 else b"abc")

    monkeypatch.setattr(sharded.time, "sleep", sleep)
    sharded._require_seen(tmp_path, {"part": {"size": 3}})
    assert len(slept) == 2
    monkeypatch.setattr(sharded, "_SEEN_WITHIN", 0.0)
    with pytest.raises(UserError, match=r"--output_dir: the first process does not see other, .* all machines"):
        sharded._require_seen(tmp_path, {"part": {"size": 3}, "other": {"size": 1}})
