"""Result files: every split under its own names, so that none takes another's place."""

from __future__ import annotations

import json
from pathlib import Path

from lmtrain.engine.runs.results import named_as_the_scripts_do, summary, training_line, write_results

FIGURES = {"loss": 2.0, "perplexity": 7.389, "bits_per_byte": 1.5, "accuracy": 0.25, "tokens": 1000}


def scores(prefix: str, **changed: float) -> dict[str, float]:
    return named_as_the_scripts_do({f"{prefix}_{name}": value for name, value in {**FIGURES, **changed}.items()})


def test_the_scripts_names() -> None:
    assert scores("eval").keys() == {"eval_loss", "perplexity", "bits_per_byte", "eval_accuracy", "eval_tokens"}
    assert {"test_loss", "test_perplexity", "test_bits_per_byte"} <= scores("test").keys()


def test_scores_of_the_test_text_leave_those_of_validation_alone(tmp_path: Path) -> None:
    write_results(tmp_path, "eval", scores("eval"))
    write_results(tmp_path, "test", scores("test", loss=3.0, perplexity=20.1))
    everything = json.loads((tmp_path / "all_results.json").read_text())
    assert (everything["eval_loss"], everything["perplexity"]) == (2.0, 7.389)
    assert (everything["test_loss"], everything["test_perplexity"]) == (3.0, 20.1)
    assert everything == {
        **json.loads((tmp_path / "eval_results.json").read_text()),
        **json.loads((tmp_path / "test_results.json").read_text()),
    }


def test_the_line_of_a_training() -> None:
    told = {"train_loss": 2.0, "train_runtime": 80.0, "train_tokens_per_second": 5210.4, "train_waiting_for_data": 0.01}
    line = "100 steps · 400.0 k tokens in 1 min 20 s · loss 2.0000 · 5,210 tokens/s"
    assert training_line(told, 100, 0, 400_000) == line
    known = {**told, "train_mfu": 0.412, "train_waiting_for_data": 0.3}
    assert training_line(known, 100, 0, 400_000) == f"{line} · MFU 41% · 30% of the time waiting for data"
    went_on = training_line(told, 100, 90, 40_000)
    assert went_on.startswith("100 steps, 10 of them since it went on · 40.0 k tokens in 1 min 20 s · loss")
    assert training_line(told, 100, 100, 0) == "100 steps, none of them since it went on · loss 2.0000"


def test_the_line_of_a_split() -> None:
    said = "loss 2.0000 · perplexity 7.39 · 1.500 bits per byte · accuracy 25.0% of 1,000 tokens"
    assert summary(scores("eval"), "clm") == said
    assert summary(scores("test"), "clm", "test") == said
    masked = {name: value for name, value in scores("eval").items() if name != "bits_per_byte"}
    assert "masked-token perplexity 7.39 · accuracy" in summary(masked, "mlm")


def test_the_line_with_key_tokens_apart() -> None:
    apart = {"loss_with_keys": 1.0, "perplexity_with_keys": 2.718, "tokens_with_keys": 250,
             "loss_without_keys": 2.5, "perplexity_without_keys": 12.18, "tokens_without_keys": 750}  # fmt: skip
    said = summary(scores("eval", **apart), "clm")
    assert " · with key tokens (1.0000, perplexity 2.72, 25% of the tokens) · without key tokens (2.5000, " in said
    none = {**apart, "tokens_without_keys": 0, "loss_without_keys": float("nan")}
    assert summary(scores("eval", **none), "clm").endswith(" · without key tokens none")
