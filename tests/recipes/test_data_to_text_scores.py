"""Scores of the parts of a test set, and the table that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.config.commands.nlg import NlgTraining
from lmtrain.data.nlg.records import Record
from lmtrain.evaluate.nlg import java, score
from lmtrain.evaluate.nlg.statistics import NotComputableError
from lmtrain.recipes.data_to_text.scoring import PartScores, score_texts
from lmtrain.recipes.data_to_text.table import table
from lmtrain.recipes.data_to_text.tasks import TASKS
from lmtrain.recipes.data_to_text.training import resolved_training, said_training


def meteor_of(requests: list[str]) -> list[str]:
    """Figures as the jar answers them: words of the text and of the first reference, those in both, two pieces."""
    rows = []
    for request in requests:
        *references, text = request.removeprefix("SCORE ||| ").split(" ||| ")
        words, others = set(text.split()), set(references[0].split())
        shared = len(words & others)
        row = [len(words), len(others), 0, 0, shared, shared, *[0] * 14, 2, shared, shared]
        rows.append(" ".join(f"{number}.0" for number in row))
    return rows


def test_the_parts_of_webnlg_have_the_scores_that_they_have_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[int] = []

    def count(requests: list[str]) -> list[str]:
        asked_for.append(len(requests))
        return meteor_of(requests)

    def absent(requests: list[str]) -> list[str]:
        raise NotComputableError("there is no Java")

    monkeypatch.setattr(java, "meteor_statistics", absent)
    records = [
        Record(f"input {n}", f"This is number {n} of them, written {'again ' * way}at length.", n % 3 > 0)
        for n in range(12)
        for way in range(1 + n % 2)
    ]
    firsts = {record.context: number for number, record in reversed(list(enumerate(records)))}
    texts = {
        number: f"This is number {n} of them, written {'some ' * (n % 5)}length"
        for n, number in enumerate(firsts.values())
    }
    texts.pop(0)  # of 12 inputs 11 are decoded
    found = score_texts(TASKS["webnlg"], records, texts, tmp_path, bootstrap=20, seed=3)
    assert found["seen"].values["METEOR"] is None and found["seen"].reasons == {"METEOR": "there is no Java"}
    monkeypatch.setattr(java, "meteor_statistics", count)  # it is there now: what could not be had is made
    found = score_texts(TASKS["webnlg"], records, texts, tmp_path, bootstrap=20, seed=3)
    assert asked_for == [11], "the program is asked once for all parts"
    assert {part: (scores.inputs, scores.of) for part, scores in found.items()} == {
        "unseen": (3, 4), "seen": (8, 8), "all": (11, 12),
    }  # fmt: skip
    for part in ("unseen", "seen"):
        own = [r for r in records if r.seen == (part == "seen")]
        mine = {own.index(records[n]): text for n, text in texts.items() if records[n] in own}
        alone = score_texts(TASKS["webnlg"], own, mine, tmp_path / part, bootstrap=20, seed=3)
        assert found[part].values == pytest.approx(alone["all"].values, rel=1e-12)
        for name, span in found[part].intervals.items():
            assert span == pytest.approx(alone["all"].intervals[name], rel=1e-12)
        assert all(value is not None for value in found[part].values.values())
    assert found["unseen"].values != found["seen"].values
    asked_for.clear()
    assert score_texts(TASKS["webnlg"], records, texts, tmp_path, bootstrap=20, seed=3) == found and not asked_for
    other = {**texts, next(iter(texts)): "This is another."}
    assert score_texts(TASKS["webnlg"], records, other, tmp_path, bootstrap=20, seed=3) != found and asked_for == [11]
    with pytest.raises(ValueError, match="E2E"):
        score("e2e", ["a b c d"], [["a b c d"]]).of([0])


def test_an_input_of_both_kinds_of_category_is_scored_with_its_own_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "meteor_statistics", meteor_of)
    records = [Record("a", "one two three four", True), Record("a", "five six seven eight", False)]
    found = score_texts(TASKS["webnlg"], records, {0: "one two three four"}, tmp_path)
    assert [found[part].values["TER"] for part in ("seen", "unseen", "all")] == [0.0, 1.0, 0.0]


def test_the_table_is_a_page_wide_and_says_how_it_came_about(tmp_path: Path) -> None:
    values = {"BLEU": 70.412, "NIST": 8.8512, "METEOR": 46.8, "ROUGE_L": 71.8, "CIDEr": 2.53}
    spans = {name: (value - 1, value + 1) for name, value in values.items()}
    settings = resolved_training(
        NlgTraining(gradient_accumulation_steps=2, max_train_samples=900), TASKS["e2e"], tmp_path, None, tmp_path, 110
    )
    said = said_training(settings, {"examples_a_step": 16, "precision": {"choice": "bf16"}})
    assert said == (
        "LoRA of rank 4, α 32, dropout 0.1, epochs 5, 16 examples a step, the first 900 records, learning rate 0.0002 "
        "after 500 steps of warm-up, weight decay 0.01, label smoothing 0.1, bf16"
    )
    for seeds in ((110,), (110, 111, 112)):
        by_seed = {seed: {"all": PartScores(3, 630, values, {}, spans)} for seed in seeds}
        page = table("e2e", by_seed, "gpt2-medium, LoRA r=4", {"training": said, "beam search": "10 beams"}).as_text()
        lines = page.splitlines()
        assert max(map(len, lines)) <= 120
        assert lines[2].startswith("gpt2-medium, LoRA r=4, 3 of 630 inputs  ") and "70.41" in lines[2]
        assert "46.0" in page and "8.62" in page, "with the digits of the paper"
        assert said in page.replace("\n  ", " ") and "beam search: 10 beams" in lines
    whole = table("e2e", {110: {"all": PartScores(630, 630, values, {}, spans)}}, "gpt2-medium, LoRA r=4").as_text()
    assert "inputs" not in whole
