"""The demo in miniature: the real chain on a part of the standard library, for some seconds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from interrupting import logged_losses, signalled
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode
from lmtrain.engine.checkpoints.read import newest
from lmtrain.recipes.corpus import standard_library


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some packages of the standard library: enough files for a held-out part, little enough for seconds."""
    for package in ("asyncio", "email", "concurrent", "importlib", "json", "logging", "unittest", "xml"):
        shutil.copytree(standard_library() / package, tmp_path / "lib" / package)
    return tmp_path / "lib"


def test_from_nothing_to_a_model_that_writes(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    words = ["demo", "--source", str(source), "--vocab_size", "400", "--minutes", "0.15", "--output_dir", str(out)]
    assert main(words) == 0
    captured = capsys.readouterr()
    for topic in ("corpus", "tokenizer", "store", "model", "plan", "train", "result"):
        assert f"● {topic}" in captured.err
    for figure in ("training loss", "validation loss", "perplexity", "tokens/s", "bits per byte", "gzip -9", "xz -9"):
        assert figure in captured.out
    assert captured.out.count("┌") == 3, "three completions"
    assert "Your turn" in captured.out
    AutoModelForCausalLM.from_pretrained(out)
    assert len(AutoTokenizer.from_pretrained(out)) == 400
    decided = json.loads((out / "decisions.json").read_text())["max_steps"]
    assert json.loads((out / "trainer_state.json").read_text())["global_step"] == decided

    assert main(words) == 0, "once more: it shows what came out and trains nothing"
    again = capsys.readouterr()
    assert "is finished" in again.err
    assert "● train" not in again.err
    assert "bits per byte" in again.out


def test_a_signal_saves_it_and_the_same_command_goes_on(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    words = ["demo", "--source", str(source), "--vocab_size", "400", "--minutes", "20", "--output_dir", str(out)]
    with signalled(logged_losses(out)):
        assert main(words) == ExitCode.INTERRUPTED
    told = capsys.readouterr()
    assert "the same command goes on" in told.err and "bits per byte" not in told.out
    found = newest(out)
    assert found.checkpoint is not None and not found.passed_over
    decided = json.loads((out / "decisions.json").read_text())["max_steps"]
    assert 0 < found.step < decided
    with signalled(logged_losses(out, 2)):  # the rest would take its time
        assert main(words) == ExitCode.INTERRUPTED
    assert f"goes on from step {found.step}" in capsys.readouterr().err
    assert found.step < newest(out).step < decided
    assert json.loads((out / "decisions.json").read_text())["max_steps"] == decided
