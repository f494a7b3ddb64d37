"""Two processes rehearse as one: none waits for the other, and both know what one of them found."""

from __future__ import annotations

from pathlib import Path

from launching import MARKS, launch

pytestmark = MARKS


def test_nothing_is_found_by_two_and_what_one_finds_both_say(runs: dict[str, str], tmp_path: Path) -> None:
    launch(Path(__file__).with_name("rehearse_together.py"), tmp_path, runs["gpt2"], processes=2)
    said = [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)]
    assert said == ["save reload generate gradients evaluate", "gradients evaluate"]
    first, second = ((tmp_path / f"spoilt-{rank}").read_text() for rank in (0, 1))
    assert first == second and "transformer.h.0.mlp.c_fc.weight" in first
