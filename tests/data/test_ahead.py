"""Stores made beside the imports are the ones that the run asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import byte_level_bpe
from transformers import AutoTokenizer

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.data.ahead import Ahead
from lmtrain.data.cache import list_stores
from lmtrain.data.corpus import prepare_corpus
from lmtrain.data.tokenizer_files import TokenizerFiles


@pytest.fixture
def resolved(tmp_path: Path) -> Resolved:
    (tmp_path / "train.txt").write_text("A line of text.\n" * 200)
    (tmp_path / "test.txt").write_text("Another text.\n" * 50)
    tokenizer = byte_level_bpe(tmp_path / "tokenizer")
    data = DataOptions(
        train_file=[str(tmp_path / "train.txt")],
        test_file=[str(tmp_path / "test.txt")],
        data_cache_dir=str(tmp_path / "cache"),
    )
    return Resolved("clm", ModelOptions(tokenizer_name=str(tokenizer)), data, MaskingOptions(), RunOptions())


def prepared(resolved: Resolved, ahead: Ahead) -> tuple[dict[str, bool], list[str]]:
    """Whether each split's store was cached, and the topics said."""
    said: list[str] = []
    tokenizer = TokenizerFiles.from_transformers(AutoTokenizer.from_pretrained(resolved.model.tokenizer_name))
    corpus = prepare_corpus(
        resolved.data, tokenizer, "clm", block_size=16, wanted=resolved.splits, made_ahead=ahead.made,
        say=lambda topic, text: said.append(topic),
    )  # fmt: skip
    return {name: made.was_cached for name, made in corpus.stores.items()}, said


def test_the_run_finds_what_was_made_ahead_and_tells_it_once(resolved: Resolved, tmp_path: Path) -> None:
    ahead = Ahead(resolved)
    assert len(ahead.made()) == 2
    cached, said = prepared(resolved, ahead)
    assert cached == {"train": False, "test": False}  # made by this process, and accounted for as such
    assert said.count("store") == 2 and "tokenizer" in said
    assert len(list_stores(tmp_path / "cache")) == 2  # and none made twice

    cached, said = prepared(resolved, Ahead(resolved))
    assert cached == {"train": True, "test": True}


@pytest.mark.parametrize("change", ["no file", "no tokenizer", "again", "several processes", "too large"])
def test_nothing_is_made_ahead_where_it_is_a_gamble(
    resolved: Resolved, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if change == "no file":
        resolved.data.train_file = [str(tmp_path / "missing.txt")]
    elif change == "no tokenizer":
        resolved.model.tokenizer_name = "some/hub-name"
    elif change == "again":
        resolved.data.overwrite_cache = True
    elif change == "several processes":
        monkeypatch.setenv("WORLD_SIZE", "2")
    else:
        monkeypatch.setattr("lmtrain.data.ahead._MOST_BYTES", 100)
    assert Ahead(resolved).made() == {}
    assert not (tmp_path / "cache").exists()


def test_what_is_wrong_is_left_for_the_run_to_say(resolved: Resolved, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\xff not UTF-8 \xc3")
    ahead = Ahead(resolved)
    assert ahead.made() == {}
    with pytest.raises(Exception, match="UTF-8"):
        prepared(resolved, ahead)
