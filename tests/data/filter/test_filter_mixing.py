"""Several sources in given shares: exact, each document once, a function of the seed, and the same when stopped."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from filter_corpora import contents, kept, run, shards, write

from lmtrain.core.errors import UserError
from lmtrain.data.filter import run as running
from lmtrain.data.filter.shards import Spool

RULE = ["--keep_any", "yes", "--shard_bytes", 15_000]


def texts(name: str, count: int, *, every: int = 1) -> list[dict[str, Any]]:
    """Each ``every``-th is kept."""
    word = "word " * 12
    return [{"text": f"{name} {n} {'no' if n % every else 'yes'} {word}", "n": n} for n in range(count)]


@pytest.fixture
def named(tmp_path: Path) -> list[Any]:
    """700 of code and 1,000 of prose, the latter in two files, half of whose documents are dropped."""
    code = write(tmp_path / "code.jsonl", texts("code", 700))
    first, second = texts("prose", 2000, every=2)[:300], texts("prose", 2000, every=2)[300:]
    prose = write(tmp_path / "a.jsonl.gz", first), write(tmp_path / "b.parquet", second)
    return ["--source", f"code={code}", *(f"prose={path}" for path in prose), *RULE]


def mixed(named: list[Any], out: Path, *words: Any, shares: tuple[str, str] = ("code=0.7", "prose=0.3")) -> Any:
    return run(*named, "--mix", shares[0], "--mix", shares[1], "--output", out, *words)


def names(out: Path) -> list[str]:
    return [record["text"].split()[0] for record in kept(out)]


def test_the_shares_are_met_and_nothing_is_repeated(tmp_path: Path, named: list[Any]) -> None:
    report = mixed(named, tmp_path / "out")
    records = kept(tmp_path / "out")
    assert Counter(names(tmp_path / "out")) == {"code": 700, "prose": 300}, "until code is used up"
    assert len({record["text"] for record in records}) == 1000
    order = names(tmp_path / "out")
    for start in range(0, 1000, 256):  # mixed everywhere, and in no fixed pattern
        some = order[start : start + 256]
        assert abs(some.count("prose") - 0.3 * len(some)) <= 1
    assert order[:200] != order[256:456]
    numbers = [record["n"] // 2 for record in records if record["text"].startswith("prose")]
    assert numbers == sorted(numbers), "in the order of the source"
    assert [sum(start <= n < start + 256 for n in numbers) for start in (0, 256, 512)] == [76, 77, 77], "all along it"
    assert len({b - a for a, b in pairwise(numbers)}) > 4, "drawn"

    assert [source["name"] for source in report["sources"]] == ["code", "prose"]
    assert report["kept"]["documents"] == 1000 == sum(shard["documents"] for shard in report["shards"])
    assert report["dropped"]["mix"]["documents"] == 700 and report["dropped"]["keep_any"]["documents"] == 1000
    for part in (report, *report["sources"]):
        for unit in ("documents", "bytes"):
            assert part["seen"][unit] == part["kept"][unit] + sum(count[unit] for count in part["dropped"].values())
    sizes = [len(json.dumps(record)) + 1 for record in records if record["text"].startswith("code")]
    assert report["sources"][0]["kept"]["bytes"] == sum(sizes)
    assert {path.name for path in (tmp_path / "out" / ".filter").iterdir()} == {"lock", "state.json", "report.json"}


def test_it_is_a_function_of_the_seed_alone(tmp_path: Path, named: list[Any]) -> None:
    mixed(named, tmp_path / "one")
    mixed(named, tmp_path / "three", "--num_proc", 3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three") and len(shards(tmp_path / "one")) > 3
    mixed(named, tmp_path / "other", "--seed", 7)
    assert Counter(names(tmp_path / "other")) == {"code": 700, "prose": 300}
    assert names(tmp_path / "other") != names(tmp_path / "one")


@pytest.mark.parametrize("form", ["jsonl.zst", "parquet"])
def test_stopped_again_and_again(tmp_path: Path, named: list[Any], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--format", form, "--deduplicate", "exact"]
    straight = mixed(named, tmp_path / "straight", *words)
    monkeypatch.setattr(running, "_CHECKPOINT", 0.0)
    write_, pause, left = Spool.write, running.Kept.add, [0]

    def failing(plain: Any) -> Any:
        def write(self: Any, part: Any) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            plain(self, part)

        return write

    monkeypatch.setattr(Spool, "write", failing(write_))
    monkeypatch.setattr(running.Kept, "add", failing(pause))
    attempts = 0
    while attempts < 30:
        attempts += 1
        left[0] = 2
        try:
            report = mixed(named, tmp_path / "out", *words)
            break
        except UserError as error:
            assert "No space left" in error.problems[0].text
    assert 5 <= attempts < 30, "stopped while reading and while mixing"
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    for key in ("seen", "kept", "dropped", "sources", "shards", "duplicates"):
        assert report[key] == straight[key]
    with pytest.raises(UserError, match=r"begun with other options: --seed \(then 42, now 7\)"):
        mixed(named, tmp_path / "out", *words, "--seed", 7)


def test_without_a_rule_and_with_duplicates(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", texts("a", 40))
    b = write(tmp_path / "b.jsonl", texts("a", 20) + texts("longer", 60))
    words = ["--source", f"a={a}", f"b={b}", "--mix", "a=1", "b=1", "--output"]
    assert run(*words, tmp_path / "all")["kept"]["documents"] == 80
    report = run(*words, tmp_path / "once", "--deduplicate", "exact")
    assert Counter(names(tmp_path / "once")) == {"a": 40, "longer": 40}
    assert report["kept"]["bytes"] == sum(len(json.dumps(record)) + 1 for record in kept(tmp_path / "once"))
    assert report["dropped"]["exact duplicate"]["documents"] == 20 == report["dropped"]["mix"]["documents"]
    for part in report["sources"]:
        assert part["seen"]["bytes"] == part["kept"]["bytes"] + sum(
            count["bytes"] for count in part["dropped"].values()
        )


def test_the_report_says_what_was_left_out(
    tmp_path: Path, named: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from lmtrain.cli.main import main

    words = [str(word) for word in named]
    assert main(["filter", *words, "--mix", "code=7", "prose=3", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "code: 700 documents" in said and "prose: 300 documents" in said
    assert "--mix       dropped 700 documents" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--mix", "code=0.7", "prose=0.3", "--keep_any", "code"],
            "--mix: of prose nothing is kept, .*--keep_any drops",
        ),
        (["--mix", "code=0.7"], "--mix: a mix is of two texts or more"),
        (["--mix", "code=0.7", "verse=0.3"], "--source: prose .* has no share"),
        (["--mix", "code=1", "prose=0"], "--mix: 'prose=0' is no NAME=SHARE"),
    ],
)
def test_what_cannot_be_mixed(tmp_path: Path, named: list[Any], words: list[str], said: str) -> None:
    named = named[:-4]
    if "--keep_any" not in words:
        words = [*words, "--keep_any", "yes"]
    with pytest.raises(UserError, match=said):
        run(*named, *words, "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plain_text_beside_records_whose_field_is_named(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", texts("a", 4)), tmp_path / "b.txt"
    b.write_text("yes")
    mix = ["--source", f"a={a}", f"b={b}", "--mix", "a=1", "b=1"]
    report = run(*mix, "--text_column", "text", "--output", tmp_path / "out")
    assert report["kept"]["documents"] == 2


def test_a_source_without_its_name_is_asked_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", texts("a", 4))
    with pytest.raises(UserError, match=r"which text of the mix is a\.jsonl") as told:
        run("--source", "a.jsonl", "--mix", "a=1", "b=1", "--output", "out")
    assert "lies inside" not in str(told.value), "the folder of nothing is not this one"


def test_a_mix_has_its_text_in_one_field(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.jsonl", texts("a", 4)), tmp_path / "b.jsonl"
    b.write_text('{"body": "yes"}\n')
    with pytest.raises(UserError, match=r"'text' in a, 'body' in b.*mix in training"):
        run("--source", f"a={a}", f"b={b}", "--mix", "a=1", "b=1", "--output", tmp_path / "out")
    assert not (tmp_path / "out").exists()
