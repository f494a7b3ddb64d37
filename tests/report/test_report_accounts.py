"""The ledger on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtrain.report.accounts import ledger
from lmtrain.report.log import History
from lmtrain.report.reading import Run


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        ({"bytes_read": 8, "text_bytes": 960}, "4.00"),  # a packed file
        ({"bytes_read": 720}, "3.00"),  # as versions before wrote it
    ],
)
def test_bytes_per_token_are_those_of_the_text(tmp_path: Path, told: dict[str, Any], rate: str) -> None:
    data = {"ledger": {"files": 1, "documents": 1, "tokens": 240, **told}}
    run = Run(tmp_path, "run", "finished", History(), data=data)
    shown = str(ledger(run, several=False))
    assert f"{rate} bytes per token" in shown and "text bytes" not in shown
