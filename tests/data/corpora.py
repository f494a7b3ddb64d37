"""Texts, sources and tokenizers for the tests of data/: small, real, trained on the spot."""

from __future__ import annotations

import hashlib
import inspect
import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmtrain.core.types import Piece, Tally

CODE = inspect.getsource(textwrap) + inspect.getsource(inspect)
ODD = (
    "naïve café\r\n\r\n  \u3000👩‍👩‍👧 e\u0301 \x00\t\n"
    "<|endoftext|> x<|endoftext|>\n\n日本語 ½\ufeff no newline at the end"
)


class Texts:
    """A source of given texts, each in given pieces; counts how often it was read."""

    def __init__(self, *documents: str | list[str], name: str = "memory") -> None:
        self.documents = [[d] if isinstance(d, str) else d for d in documents]
        self.name = name
        self.reads = 0

    def content_hash(self) -> str:
        return hashlib.sha256(json.dumps(["".join(d) for d in self.documents]).encode()).hexdigest()

    def pieces(self, tally: Tally) -> Iterator[Piece]:
        self.reads += 1
        tally.files += 1
        for pieces in self.documents:
            tally.documents += 1
            for number, text in enumerate(pieces):
                size = len(text.encode())
                tally.bytes_read += size
                yield Piece(text, size, number == 0)


def byte_level_bpe(folder: Path, vocab_size: int = 600) -> Path:
    """A folder with a byte-level BPE tokenizer in the manner of GPT-2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        [CODE],
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    return _saved(tokenizer, folder, {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"})


def wordpiece(folder: Path) -> Path:
    """A folder with a lower-casing WordPiece tokenizer in the manner of BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    named = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer.train_from_iterator(
        [CODE],
        trainers.WordPieceTrainer(vocab_size=600, special_tokens=list(named.values()), show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return _saved(tokenizer, folder, {f"{name}_token": token for name, token in named.items()})


def llama_like(folder: Path) -> Path:
    """A BPE that puts "▁" before every text and knows no words: cutting a text anywhere shows."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(
        [CODE[:4000]],
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return _saved(tokenizer, folder, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})


def _saved(tokenizer: Tokenizer, folder: Path, named: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
