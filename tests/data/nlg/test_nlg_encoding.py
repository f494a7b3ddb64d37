"""Records to token ids, as the original example's encoder writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from data.corpora import byte_level_bpe, wordpiece
from lmtrain.core.errors import UserError
from lmtrain.data.nlg.encoding import encode_file
from lmtrain.data.nlg.records import Record, write_records
from lmtrain.data.tokenizer_files import TokenizerFiles

GPT2 = Path("/work/shared/data/gpt2")
RECORDS = [Record("name : Aroma", "It is a café.", True), Record("", " x")]


def test_ids_are_those_of_each_text_by_itself(tmp_path: Path) -> None:
    tokenizer = TokenizerFiles.load(byte_level_bpe(tmp_path / "bpe"))
    write_records(tmp_path / "in", RECORDS)
    records, tokens = encode_file(tmp_path / "in", tmp_path / "out", tokenizer, add_bos=True, add_eos=True)
    ids = tokenizer.backend.encode
    expected = [{"context": [*ids(r.context).ids, 0], "completion": [*ids(" " + r.completion).ids, 0]} for r in RECORDS]
    assert (tmp_path / "out").read_text() == "".join(json.dumps(row) + "\n" for row in expected)
    assert records == 2 and tokens == sum(len(row[key]) for row in expected for key in row)
    encode_file(tmp_path / "in", tmp_path / "bare", tokenizer)
    bare = [json.loads(line) for line in (tmp_path / "bare").read_text().splitlines()]
    assert bare[1] == {"context": [], "completion": ids("  x").ids}


@pytest.mark.skipif(not GPT2.is_dir(), reason=f"GPT-2's vocabulary is not at {GPT2}")
def test_gpt2s_ids(tmp_path: Path) -> None:
    """The ids of gpt2_encode.py, from its own encoder."""
    write_records(tmp_path / "in", [Record("name : Blue Spice", "A coffee shop .")])
    encode_file(tmp_path / "in", tmp_path / "out", TokenizerFiles.load(GPT2), add_bos=True, add_eos=True)
    assert (tmp_path / "out").read_text() == (
        '{"context": [3672, 1058, 4518, 43537, 50256], "completion": [317, 6891, 6128, 764, 50256]}\n'
    )


def test_a_tokenizer_without_an_end_of_text(tmp_path: Path) -> None:
    tokenizer = TokenizerFiles.load(wordpiece(tmp_path / "wordpiece"))
    write_records(tmp_path / "in", RECORDS)
    with pytest.raises(UserError, match=r"--tokenizer_name: .* names no end-of-text token"):
        encode_file(tmp_path / "in", tmp_path / "out", tokenizer, add_eos=True)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_makes_nothing_of_a_text(tmp_path: Path) -> None:
    """As ``GPT2TokenizerFast(vocab_file=…)`` leaves one since transformers 5, without a word."""
    (tmp_path / "tokenizer.json").write_text(Tokenizer(models.BPE()).to_str())
    write_records(tmp_path / "in", RECORDS)
    with pytest.raises(UserError, match=r"--tokenizer_name: .* makes no token of the text 'It is a café.'"):
        encode_file(tmp_path / "in", tmp_path / "out", TokenizerFiles.load(tmp_path / "tokenizer.json"))
    assert not (tmp_path / "out").exists()
