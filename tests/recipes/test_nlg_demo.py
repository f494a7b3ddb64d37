"""The data-to-text demo in a few steps: every stage runs, and the same call takes over what was done."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.config.nlg import NlgDemoOptions
from lmtrain.recipes.data_to_text import demo
from lmtrain.recipes.data_to_text.demo import run_nlg_demo
from lmtrain.recipes.data_to_text.table import before_and_after

pytestmark = pytest.mark.slow


def test_from_nothing_to_scores_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java: METEOR would start it twice
    options = NlgDemoOptions(output_dir=str(tmp_path / "demo"), minutes=0.05)
    said: list[str] = []
    shown = run_nlg_demo(options, say=lambda topic, text: said.append(text), inputs=4)
    assert shown.before.inputs == shown.after.inputs == 4
    assert shown.after.values["BLEU"] is not None and shown.after.values["METEOR"] is None
    assert len(shown.samples) == 3 and all(context and reference for context, _, _, reference in shown.samples)
    table = before_and_after(shown.before, shown.after)
    assert table.splitlines()[2].startswith("before training") and "METEOR: not computed" in table
    assert {path.name for path in (tmp_path / "demo").iterdir()} >= {"corpus", "tokenizer", "base", "data", "adapted"}

    monkeypatch.setattr(demo, "train_tokenizer", None)
    monkeypatch.setattr("lmtrain.recipes.data_to_text.decoding.beam_search", None)
    again = run_nlg_demo(options, say=lambda topic, text: None, inputs=4)
    assert again == shown
