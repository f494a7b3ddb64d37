"""The scores equal the official programs' figures, which make_fixtures.py wrote into official.json."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluate_nlg import E2E, HAS_JAVA_SCORERS, WEBNLG, Corpus, apart, digest

from lmtrain.evaluate.nlg import METRICS, PUBLISHED, in_paper_scale, java, missing, multi_bleu_detok, score
from lmtrain.evaluate.nlg.statistics import NotComputableError, Statistics
from lmtrain.recipes.data_to_text.scoring import as_in_lora_chain

OFFICIAL: dict[str, Any] = json.loads(Path(__file__).with_name("official.json").read_text(encoding="utf-8"))
needs_java = pytest.mark.skipif(not HAS_JAVA_SCORERS, reason="needs Java and the extra `nlg`")


def test_fixtures_are_of_these_texts() -> None:
    assert OFFICIAL["texts"] == digest(E2E, WEBNLG), "nlg_texts.py changed: run make_fixtures.py again"


@pytest.fixture
def no_meteor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jar takes ten seconds to read its tables: test_meteor_equals_the_jar_s_own_sums asks it once for all."""

    def absent(requests: list[str]) -> list[str]:
        raise NotComputableError("not asked in this test")

    monkeypatch.setattr(java, "meteor_statistics", absent)


@pytest.mark.parametrize("name", E2E)
def test_e2e_equals_measure_scores(name: str, no_meteor: None) -> None:
    found = score("e2e", *apart(E2E[name]))
    expected = OFFICIAL["e2e"][name]
    for metric, value in found.values.items():
        if value is None:
            assert metric == "METEOR" or ("awkward" in name and not HAS_JAVA_SCORERS), metric
            continue
        assert value == pytest.approx(expected["scores"][metric], rel=1e-9), metric
        if metric in expected["sentences"]:
            _by_sentence_equal(found.statistics[metric], expected["sentences"][metric])
    assert found.values["BLEU"] is not None and found.values["NIST"] is not None


def _by_sentence_equal(statistics: Statistics, expected: list[float]) -> None:
    assert [float(statistics.figure(row)) for row in statistics.rows] == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", WEBNLG)
def test_webnlg_and_dart_equal_generation_eval(name: str, no_meteor: None) -> None:
    predictions, references = apart(WEBNLG[name])
    found = score("webnlg", predictions, references)
    expected = OFFICIAL["webnlg"][name]
    assert _line(predictions, references) == expected["bleu"]
    if "TER" in expected:
        assert found.values["TER"] == pytest.approx(expected["TER"], rel=1e-12)
    else:
        assert found.values["TER"] is None and "Punkt" in found.reasons["TER"]
    assert score("dart", predictions, references).values == found.values


@pytest.mark.slow
@needs_java
def test_meteor_equals_the_jar_s_own_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it reads accents whatever the locale. It is asked once for all."""
    monkeypatch.setenv("LC_ALL", "C")
    accents = ["café verde"], [["café verde"]]
    asked: list[str] = []

    def listen(requests: list[str]) -> list[str]:
        asked.extend(requests)
        raise NotComputableError("later")

    corpora = [("e2e", name, corpus) for name, corpus in E2E.items()]
    corpora += [("webnlg", name, corpus) for name, corpus in WEBNLG.items() if "METEOR" in OFFICIAL["webnlg"][name]]
    ask = java.meteor_statistics
    monkeypatch.setattr(java, "meteor_statistics", listen)
    for task, _, corpus in corpora:
        score(task, *apart(corpus))
    score("webnlg", *accents)
    answers = dict(zip(asked, ask(asked), strict=True))
    monkeypatch.setattr(java, "meteor_statistics", lambda requests: [answers[request] for request in requests])
    for task, name, corpus in corpora:
        found = score(task, *apart(corpus))
        expected = OFFICIAL[task][name]
        official = expected["METEOR"] if task == "webnlg" else expected["scores"]["METEOR"]
        assert found.values["METEOR"] == pytest.approx(official, rel=1e-9), name
        if task == "e2e":
            _by_sentence_equal(found.statistics["METEOR"], expected["sentences"]["METEOR"])
    assert score("webnlg", *accents).values["METEOR"] == 1.0


def _line(predictions: list[str], references: list[list[str]]) -> str:
    """What multi-bleu-detok.perl prints, from our sums."""
    statistics = multi_bleu_detok.bleu(predictions, references)
    sums = statistics.rows.sum(axis=0)
    parts = "/".join(f"{100 * hits / count:.1f}" for hits, count in zip(sums[:4], sums[4:8], strict=True))
    length, reference = sums[4], sums[8]
    brevity = min(1.0, float(np.exp(1 - reference / length)))
    ratio = f"BP={brevity:.3f}, ratio={length / reference:.3f}, hyp_len={length:.0f}, ref_len={reference:.0f}"
    return f"BLEU = {statistics.score:.2f}, {parts} ({ratio})"


def test_without_java_what_needs_it_is_left_out_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(java, "_package", lambda: Path("anywhere"))
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert missing() == {"METEOR": "there is no `java` on the PATH (any Java from 8 on)"}
    plain = score("e2e", *apart(E2E["pubs"]))
    assert plain.values["METEOR"] is None and "java" in plain.reasons["METEOR"]
    assert plain.values["CIDEr"] == pytest.approx(OFFICIAL["e2e"]["pubs"]["scores"]["CIDEr"], rel=1e-9)
    awkward = score("e2e", *apart(E2E["pubs and awkward"]))
    assert awkward.values["CIDEr"] is None and "Mr. Smith" in awkward.reasons["CIDEr"]
    assert awkward.values["BLEU"] is not None


def test_without_the_extra_the_reason_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_package", lambda: None)
    found = score("webnlg", ["a b c d e"], [["a b c d f"]])
    assert "pip install 'lmtrain[nlg]'" in found.reasons["METEOR"] == missing()["METEOR"]


@needs_java
def test_a_program_that_fails_is_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "java"
    fake.write_text("#!/bin/sh\necho out of memory >&2; exit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert score("webnlg", ["a"], [["a"]]).reasons["METEOR"] == "METEOR ended with code 3: out of memory"


@pytest.mark.skipif(find_spec("pycocoevalcap") is None, reason="compares with pycocoevalcap")
def test_rouge_and_cider_equal_the_installed_caption_scorers() -> None:
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    from lmtrain.evaluate.nlg.cider import cider
    from lmtrain.evaluate.nlg.rouge_l import rouge_l

    draw = np.random.default_rng(3)
    texts = lambda: " ".join(draw.choice(list("abcdefgh"), draw.integers(0, 12)))  # noqa: E731
    references = [[texts() for _ in range(draw.integers(1, 5))] for _ in range(60)]
    predictions = [texts() for _ in references]
    gts = dict(enumerate(references))
    res = {number: [text] for number, text in enumerate(predictions)}
    for ours, theirs in ((rouge_l, Rouge()), (cider, Cider())):
        expected, each = theirs.compute_score(gts, res)
        statistics = ours(predictions, references)
        assert statistics.score == pytest.approx(expected, rel=1e-12)
        assert statistics.rows[:, 0] == pytest.approx(each, rel=1e-12, abs=1e-15)


def test_the_lora_chain_prepares_texts_once_and_for_all() -> None:
    predictions, references = ["It's 3.5 km!"], [["A-B", "b", "", "c", "d", " ", "e", "f", "g"]]
    once = as_in_lora_chain("webnlg", predictions, references)
    assert once == (["it ' s 3 . 5 km !"], [["a - b", "b", "c", "d", "e", "f"]])
    assert as_in_lora_chain("dart", *once) == once
    lines = ["It's 3.5 km!"], [["A-B", "b"]]
    assert as_in_lora_chain("e2e", *lines) == lines


def test_words_that_depend_on_a_trained_model_are_not_guessed(no_meteor: None) -> None:
    found = score("webnlg", ["He met Dr. Who. It was late."], [["He met Dr. Who late."]])
    assert found.values["TER"] is None and "Punkt" in found.reasons["TER"]
    assert found.values["BLEU"] is not None
    chained = score("webnlg", *as_in_lora_chain("webnlg", ["He met Dr. Who. It was late."], [["He met Dr. Who late."]]))
    assert chained.values["TER"] is not None


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a"], [], "1 predictions and 0 lists"),
        (["a", "b"], [["a"], []], "prediction 2 has no references"),
        (["a\nb"], [["a"]], "line break"),
        ([], [], "nothing to score"),
    ],
)
def test_texts_that_do_not_fit_are_refused(predictions: list[str], references: list[list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score("e2e", predictions, references)


def test_of_two_references_equally_near_the_shorter_is_the_length() -> None:
    """As multi-bleu-detok.perl and pymteval have it: five words against four and six are not too short."""
    for references in (["a b c d", "a b c d f g"], ["a b c d f g", "a b c d"]):
        assert multi_bleu_detok.bleu(["a b c d e"], [references]).rows[0, -1] == 4


def test_a_figure_that_the_official_scorer_lacks_is_none(no_meteor: None) -> None:
    found = score("webnlg", ["", ""], [["a b"], ["c"]])
    assert found.values["BLEU"] is None and "divides by zero" in found.reasons["BLEU"]


def test_published_figures_are_in_the_scale_that_scores_are_brought_to(no_meteor: None) -> None:
    table: Corpus = E2E["templates"]
    values = score("e2e", *apart(table)).values
    for line in PUBLISHED:
        assert tuple(line.values) == METRICS[line.task] and "Table" in line.source
        assert line.spread.keys() <= line.values.keys() and bool(line.spread) == (line.method == "lora")
        per_cent = {name for name, value in line.values.items() if value > 10}
        assert per_cent == ({"BLEU", "METEOR", "ROUGE_L"} if line.task == "e2e" else {"BLEU"})
    assert len({(line.task, line.model, line.method, line.part) for line in PUBLISHED}) == len(PUBLISHED) == 20
    assert set(METRICS["e2e"]) == set(values)
    assert values["BLEU"] is not None and 1 < in_paper_scale("e2e", "BLEU", values["BLEU"]) <= 100
    assert in_paper_scale("webnlg", "BLEU", 55.3) == 55.3 and in_paper_scale("e2e", "NIST", 8.5) == 8.5
