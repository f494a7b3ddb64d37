"""Two processes rehearse as one: none waits for the other, and both know what one of them found."""

from __future__ import annotations

from pathlib import Path

from launching import MARKS, launch

pytestmark = MARKS
SCRIPT = Path(__file__).parent / "rehearse_together.py"


def test_two_processes_find_nothing(runs: dict[str, str], tmp_path: Path) -> None:
    launch(SCRIPT, tmp_path, runs["gpt2"], processes=2)
    said = [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)]
    assert said == ["save reload generate gradients evaluate", "gradients evaluate"]


def test_what_one_finds_both_say(runs: dict[str, str], tmp_path: Path) -> None:
    launch(SCRIPT, tmp_path, runs["gpt2"], "spoilt", processes=2)
    first, second = ((tmp_path / f"rank-{rank}").read_text() for rank in (0, 1))
    assert first == second and "transformer.h.0.mlp.c_fc.weight" in first
