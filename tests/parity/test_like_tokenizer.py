"""``lmtrain tokenizer --like`` against ``train_new_from_iterator`` of transformers on the same text.

The same vocabulary and ids for byte-level BPE. The trainers of WordPiece and unigram break ties by the order of a hash
table: two runs of transformers itself differ in the order of tokens and in a few of them, so there the tokens are
compared as sets.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import forked
from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Tally
from lmtrain.data.round_trip import tried
from lmtrain.data.tokenizer_text import TrainingText
from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer

OLD_TEXT = inspect.getsource(textwrap)
TEXT = inspect.getsource(inspect)
ODD = "Naïve CAFÉ — 你好, \U0001f98a\n\ttabs  and   spaces [MASK] <extra> end"


class OneText:
    """A source of one document in memory."""

    name = "text"

    def __init__(self, text: str) -> None:
        self.text = text

    def content_hash(self) -> str:
        return "text"

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        tally.documents += 1
        yield Piece(self.text, len(self.text.encode()))


def gpt2_kind() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet,
                                  show_progress=False)  # fmt: skip
    backend.train_from_iterator([OLD_TEXT], trainer)
    named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=128, **named)


def bert_kind() -> Any:
    names = {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=list(names.values()), show_progress=False)
    backend.train_from_iterator([OLD_TEXT], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{f"{k}_token": v for k, v in names.items()})


def t5_kind() -> Any:
    """Unigram in SentencePiece's manner: NFKC, spaces as a character, </s> behind a text, unknowns unknown."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
                                      show_progress=False)  # fmt: skip
    backend.train_from_iterator([OLD_TEXT], trainer)
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=["<extra>"],
    )


def llama_kind() -> Any:
    """BPE in SentencePiece's manner, with byte fallback."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(OLD_TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


KINDS = {"gpt2": gpt2_kind, "bert": bert_kind, "t5": t5_kind}


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_and_the_ids_of_transformers(kind: str, tmp_path: Path) -> None:
    old = KINDS[kind]()
    chunks = list(TrainingText([OneText(TEXT)]))
    expected = old.train_new_from_iterator(chunks, 700, show_progress=False)
    trained = train_tokenizer([OneText(TEXT)], TokenizerPlan(vocab_size=700, like=old))
    new = trained.tokenizer
    assert type(new) is type(old) and len(new) == len(expected) == 700
    assert new.get_vocab().keys() != old.get_vocab().keys()
    if kind == "gpt2":
        assert new.get_vocab() == expected.get_vocab()
        for text in (TEXT[:5000], ODD):
            assert new(text)["input_ids"] == expected(text)["input_ids"]
    else:
        assert len(new.get_vocab().keys() ^ expected.get_vocab().keys()) <= 2 * 14, "more than 2 % of 700 differ"
    before, after = (json.loads(t.backend_tokenizer.to_str()) for t in (old, new))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert after[part] == before[part]
    assert {k: v for k, v in after["model"].items() if k not in ("vocab", "merges", "unk_id")} == {
        k: v for k, v in before["model"].items() if k not in ("vocab", "merges", "unk_id")
    }
    assert new.special_tokens_map == old.special_tokens_map
    assert [new.convert_tokens_to_ids(t) for t in old.all_special_tokens] == [
        expected.convert_tokens_to_ids(t) for t in old.all_special_tokens
    ]
    trained.save(tmp_path / "new")
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert again(ODD)["input_ids"] == new(ODD)["input_ids"]
    assert again.model_max_length == old.model_max_length
    names = [name for name, _ in trained.beside]
    assert names[0] == f"the old vocabulary of {old.backend_tokenizer.get_vocab_size():,}"
    assert (len(names) == 1) == (kind == "gpt2"), "only GPT-2's own kind needs no other like it"
    assert (trained.lost is None) == (kind == "gpt2")


def test_byte_fallback_gets_its_bytes_and_loses_nothing(tmp_path: Path) -> None:
    old, text = llama_kind(), TEXT[:20_000]  # one word to its trainer, which takes the longer for that
    stock = old.train_new_from_iterator([text], 800, show_progress=False)
    assert stock.unk_token_id in stock("\U0001f98a")["input_ids"], "what transformers leaves out"
    trained = train_tokenizer([OneText(text)], TokenizerPlan(vocab_size=800, like=old))
    assert trained.lost is None and "BPE with byte fallback, 800 tokens" in trained.line
    trained.save(tmp_path / "new")
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    ids = again(ODD)["input_ids"]
    assert again.unk_token_id not in ids and again.decode(ids) == ODD
    assert tried(again.backend_tokenizer, [text])[0] is None


def test_special_tokens_are_added_to_its_own() -> None:
    old = gpt2_kind()
    plan = TokenizerPlan(vocab_size=500, like=old, special_tokens=("<|user|>", "<|endoftext|>"))
    new = train_tokenizer([OneText(TEXT)], plan).tokenizer
    assert len(new) == 500 and new.eos_token_id == 0
    ids = new("a<|user|>b")["input_ids"]
    assert new.convert_tokens_to_ids("<|user|>") in ids and len(ids) == 3
    word = max((token for token in old.get_vocab() if token.isascii() and token.isalpha()), key=len)
    new = train_tokenizer([OneText(TEXT)], TokenizerPlan(vocab_size=500, like=old, special_tokens=(word,))).tokenizer
    assert new.convert_tokens_to_ids(word) in new.all_special_ids, "though it was a token of words"


@pytest.mark.parametrize(("kind", "size"), [("gpt2", 200), ("bert", 20), ("t5", 3)])
def test_fewer_tokens_than_its_alphabet(kind: str, size: int) -> None:
    with pytest.raises(UserError) as error:
        train_tokenizer([OneText(TEXT)], TokenizerPlan(vocab_size=size, like=KINDS[kind]()))
    assert error.value.problems[0].flag == "--vocab_size"


def test_a_frequency_is_for_kinds_that_count() -> None:
    for kind in ("gpt2", "bert"):
        TokenizerPlan(like=KINDS[kind](), min_frequency=3).check()
    with pytest.raises(UserError, match="--min_frequency"):
        TokenizerPlan(like=t5_kind(), min_frequency=3).check()


def test_the_command(tmp_path: Path) -> None:
    gpt2_kind().save_pretrained(tmp_path / "old")
    (tmp_path / "text.py").write_text(TEXT)
    words = ["--source", tmp_path / "text.py", "--vocab_size", "600", "--output_dir", tmp_path / "new"]
    command = ["-m", "lmtrain", "tokenizer", "--like", tmp_path / "old", *words]
    done = forked.run(command)
    assert done.returncode == 0, done.stderr
    assert "byte-level BPE, 600 tokens" in done.stderr and "the old vocabulary of 400: " in done.stderr
    assert "every byte comes back" in done.stderr
    assert json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())["model_max_length"] == 128
    command[command.index(tmp_path / "old")] = tmp_path / "nothing"
    done = forked.run(command)
    assert done.returncode == 2 and "--like" in done.stderr
