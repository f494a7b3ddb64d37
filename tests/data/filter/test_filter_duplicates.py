"""Each text once: equal ones, and such as share most of their words; the first in the order of the input stays."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from filter_corpora import code, contents, kept, run, write

from lmtrain.data.duplicates.shingles import jaccard, shingles

pytest.importorskip("rensa")


def changed(text: str, words: int, seed: int) -> str:
    """The text with some words replaced."""
    draw, parts = random.Random(seed), text.split(" ")
    for place in draw.sample(range(len(parts)), words):
        parts[place] = f"other{draw.randrange(10**6)}"
    return " ".join(parts)


def corpus() -> tuple[list[dict[str, Any]], list[int]]:
    """Records, and the numbers of those that are first of their kind."""
    originals = code(300, words=600)
    draw = random.Random(5)
    records, first = [], []
    for number, record in enumerate(originals):
        first.append(len(records))
        records.append(record)
        if number % 3 == 0:
            records.append({**record, "path": "copy.py"})
        if number % 3 == 1:
            records.append({**record, "content": changed(record["content"], 4, number)})
        if number % 5 == 0:
            records.append({**record, "content": changed(record["content"], 200, number)})
            first.append(len(records) - 1)
    assert draw
    return records, first


def similarity(one: str, other: str) -> float:
    return jaccard(*shingles([one.encode(), other.encode()]))


RULE = ["--text_column", "content"]


@pytest.mark.parametrize("form", ["a.jsonl", "a.parquet"])
def test_exact(tmp_path: Path, form: str) -> None:
    records, _ = corpus()
    texts: dict[str, dict[str, Any]] = {}
    for record in records:
        texts.setdefault(record["content"], record)
    report = run(
        "--source", write(tmp_path / form, records), *RULE, "--deduplicate", "exact", "--output", tmp_path / "out"
    )
    assert kept(tmp_path / "out") == list(texts.values())
    removed = len(records) - len(texts)
    assert report["duplicates"]["removed"] == removed == report["dropped"]["exact duplicate"]["documents"] == 100
    assert report["duplicates"]["groups"] == 100 and report["duplicates"]["largest_group"] == 2
    assert report["duplicates"]["samples"][0]["kept"].endswith("record 1")


def test_near_drops_only_what_is_truly_alike_and_misses_little(tmp_path: Path) -> None:
    records, first = corpus()
    report = run("--source", write(tmp_path / "a.jsonl", records), *RULE, "--deduplicate", "near", "--output",
                 tmp_path / "out", "--near_threshold", 0.8)  # fmt: skip
    left = kept(tmp_path / "out")
    numbers = {id(record): number for number, record in enumerate(records)}
    assert [record for record in left if record in records] == left and numbers
    stayed = {records.index(record) for record in left}
    assert set(first) <= stayed, "no false positive"
    alike = [n for n in range(len(records)) if n not in first and records[n]["path"] != "copy.py"]
    alike = [n for n in alike if similarity(records[n]["content"], records[n - 1]["content"]) >= 0.8]
    missed = [n for n in alike if n in stayed]
    assert len(alike) > 80 and len(missed) <= 0.05 * len(alike), "bands bring together 95 % even at the threshold"
    for sample in report["duplicates"]["samples"]:
        assert sample["jaccard"] >= 0.8 and abs(sample["jaccard"] - sample["estimated"]) < 0.2


def test_near_does_not_depend_on_the_processes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", corpus()[0])
    for processes in (1, 2):
        run("--source", source, *RULE, "--deduplicate", "near", "--output", tmp_path / f"{processes}", "--num_proc",
            processes)  # fmt: skip
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_texts_without_words_are_alike_only_when_equal(tmp_path: Path) -> None:
    records = [{"content": text} for text in ["", "…", "???", "", "!!", "???"]]
    run("--source", write(tmp_path / "a.jsonl", records), "--deduplicate", "near", "--output", tmp_path / "out")
    assert [record["content"] for record in kept(tmp_path / "out")] == ["", "…", "???", "!!"]


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from lmtrain.core.errors import UserError

    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UserError, match=r"pip install 'lmtrain\[dedup\]'"):
        run(
            "--source",
            write(tmp_path / "a.jsonl", code(5)),
            *RULE,
            "--deduplicate",
            "near",
            "--output",
            tmp_path / "out",
        )
