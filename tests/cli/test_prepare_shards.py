"""``lmtrain prepare --shard`` and ``--merge``, as they are typed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # corpora

from corpora import CODE, byte_level_bpe

from lmtrain.cli.main import main
from lmtrain.data.cache import list_stores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("shards")
    byte_level_bpe(here / "tokenizer")
    (here / "text").mkdir()
    for number in range(6):
        (here / "text" / f"{number}.py").write_text(f"# {number}\n" + CODE[number * 500 : 9000])
    (here / "held.jsonl").write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(50)))
    return here


def prepare(folder: Path, cache: Path, *more: str) -> int:
    words = ["prepare", "--train_file", str(folder / "text"), "--validation_file", str(folder / "held.jsonl")]
    words += ["--tokenizer_name", str(folder / "tokenizer"), "--data_cache_dir", str(cache), "--block_size", "64"]
    return main([*words, *more])


def test_shards_and_their_store(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(folder, tmp_path / "whole", "--json") == 0
    whole = json.loads(capsys.readouterr().out)
    assert prepare(folder, tmp_path / "cache", "--shard", "1/2", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shard"] == [1, 2] and list(said["stores"]) == ["train", "validation"]
    assert prepare(folder, tmp_path / "cache", "--merge", "2", "--json") == 2
    captured = capsys.readouterr()
    assert "1 shard of 2 is missing in" in captured.err and "--shard 0/2 in place of --merge 2" in captured.err
    assert prepare(folder, tmp_path / "cache", "--shard", "0/2", "--preprocessing_num_workers", "2") == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("shard 0 of 2 of train: 3 documents")
    assert prepare(folder, tmp_path / "cache", "--shard", "0/2") == 0
    assert "0 of 2, made before" in capsys.readouterr().err
    assert prepare(folder, tmp_path / "cache", "--merge", "2", "--json") == 0
    merged = json.loads(capsys.readouterr().out)
    for name, store in whole["stores"].items():
        made = merged["stores"][name]
        assert made["key"] == store["key"]
        for file in ("tokens.bin", "tokens.idx", "documents.bin"):
            assert (Path(made["folder"]) / file).read_bytes() == (Path(store["folder"]) / file).read_bytes()
    del merged["stores"], whole["stores"]
    assert merged == whole
    assert len(list_stores(tmp_path / "cache")) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "2/2"], "parts are counted from 0, and the last of 2 is 1/2; 2/2 is none"),
        (["--shard", "0/0"], "parts are counted from 0, and there is at least one part: 0/1; 0/0 is none"),
        (["--shard", "half"], "'half' is no part; the first of four is 0/4, the last 3/4"),
        (["--shard", "0/2", "--merge", "2"], "puts together what --shard makes; give one of them"),
        (["--shard", "0/2", "--train_file", "-"], "standard input is read by one command"),
        (["--merge", "3"], "3 shards of 3 are missing in"),
        (["--merge", "0"], "--merge"),
    ],
)
def test_bad_input(
    words: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(folder, tmp_path, *words) == 2
    assert said in capsys.readouterr().err
