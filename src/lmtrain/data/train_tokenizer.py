"""A tokenizer of one's own: byte-level BPE, BERT's WordPiece or a unigram model, learned from sources.

It is saved as files that ``AutoTokenizer`` loads, without importing transformers. The byte-level kinds (bpe,
unigram) keep the whole alphabet of 256 bytes, so every text comes back exactly and nothing is unknown.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_folder, write_json
from lmtrain.core.types import Source, Tally

Kind = Literal["bpe", "wordpiece", "unigram"]
END_OF_TEXT = "<|endoftext|>"
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_SPOKEN = {"bpe": "byte-level BPE", "wordpiece": "WordPiece", "unigram": "byte-level unigram"}
_ALPHABET = 256  # one token for each byte value
_HELD_OUT_ONE_IN = 20
_HELD_OUT_BYTES = 2 << 20
_CHUNK = 1 << 16  # characters given to the trainer at once


@dataclass(frozen=True)
class TokenizerPlan:
    """What to train. ``special_tokens`` empty: ``<|endoftext|>``, or BERT's five for WordPiece."""

    kind: Kind = "bpe"
    vocab_size: int = 8192
    special_tokens: tuple[str, ...] = ()
    min_frequency: int = 2
    sample_bytes: int | None = None
    model_max_length: int | None = None

    def all_special_tokens(self) -> tuple[str, ...]:
        """Special tokens in the order of their ids."""
        if self.kind == "wordpiece":
            own = tuple(_BERT[name] for name in ("pad", "unk", "cls", "sep", "mask"))
        else:
            own = () if END_OF_TEXT in self.special_tokens else (END_OF_TEXT,)
        return (*own, *(token for token in dict.fromkeys(self.special_tokens) if token not in own))

    def check(self) -> None:
        """Raise :class:`UserError` for a plan that cannot give a tokenizer."""
        specials = len(self.all_special_tokens())
        least = specials + (_ALPHABET if self.kind != "wordpiece" else 1)
        if self.vocab_size < least:
            raise UserError(
                f"{self.vocab_size} tokens are too few: the alphabet and the {specials} special tokens alone "
                f"are {least}; use at least --vocab_size {least}",
                flag="--vocab_size",
            )


@dataclass
class Trained:
    """A trained tokenizer and how well it packs text that it was not trained on."""

    backend: Any  # tokenizers.Tokenizer
    plan: TokenizerPlan
    seconds: float
    trained_bytes: int
    held_out_bytes: int
    held_out_tokens: int
    held_out: bool
    tally: Tally = field(default_factory=Tally)

    @property
    def bytes_per_token(self) -> float:
        return self.held_out_bytes / max(1, self.held_out_tokens)

    @property
    def line(self) -> str:
        """What the user is told."""
        kind = _SPOKEN[self.plan.kind]
        where = "held-out text" if self.held_out else "the training text itself (too short to hold some out)"
        return (
            f"{kind}, {self.backend.get_vocab_size():,} tokens, {self.seconds:.1f} s on "
            f"{self.trained_bytes / 1e6:.1f} MB · {self.bytes_per_token:.2f} bytes per token on {where}"
        )

    def save(self, folder: Path) -> None:
        """Write the folder that ``AutoTokenizer.from_pretrained`` loads."""
        with atomic_folder(folder) as scratch:
            self.backend.save(str(scratch / "tokenizer.json"))
            named = self._named_tokens()
            config: dict[str, Any] = {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "clean_up_tokenization_spaces": False,
                # transformers' own value for "no limit" (tokenization_utils_base.VERY_LARGE_INTEGER)
                "model_max_length": self.plan.model_max_length or int(1e30),
                **named,
            }
            write_json(scratch / "tokenizer_config.json", config)
            write_json(scratch / "special_tokens_map.json", named)

    def _named_tokens(self) -> dict[str, str]:
        if self.plan.kind == "wordpiece":
            return {f"{name}_token": token for name, token in _BERT.items()}
        return {f"{name}_token": END_OF_TEXT for name in ("bos", "eos", "unk")}


def train_tokenizer(sources: Sequence[Source], plan: TokenizerPlan) -> Trained:
    """Learn a tokenizer from ``sources``, read as a stream; raises :class:`UserError`."""
    plan.check()
    began = time.perf_counter()
    backend, trainer = _build(plan)
    text = _Text(sources, plan.sample_bytes)
    backend.train_from_iterator(iter(text), trainer)
    if text.trained_bytes == 0:
        raise UserError("there is no text to learn from", flag="--train_file")
    if plan.kind == "wordpiece":
        _put_around(backend)
    held_out = text.held_out or [text.first]
    tokens = sum(len(e.ids) for e in backend.encode_batch_fast(held_out, add_special_tokens=False))
    return Trained(
        backend,
        plan,
        time.perf_counter() - began,
        text.trained_bytes,
        sum(len(chunk.encode("utf-8")) for chunk in held_out),
        tokens,
        bool(text.held_out),
        text.tally,
    )


class _Text:
    """The sources as chunks for the trainer; one in twenty, chosen by content, is kept back to measure on."""

    def __init__(self, sources: Sequence[Source], sample_bytes: int | None) -> None:
        # Whole files in an order given by their names' hashes: a sample is then not only the first folder
        order = list(range(len(sources)))
        if sample_bytes:
            order.sort(key=lambda i: zlib.crc32(sources[i].name.encode("utf-8", "surrogateescape")))
        self._sources = [sources[i] for i in order]
        self._limit = sample_bytes
        self.tally = Tally()
        self.held_out: list[str] = []
        self.held_out_bytes = 0
        self.trained_bytes = 0
        self.first = ""

    def __iter__(self) -> Iterator[str]:
        for source in self._sources:
            for piece in source.pieces(self.tally):
                for chunk in _chunks(piece.text):
                    data = chunk.encode("utf-8")
                    if self.held_out_bytes < _HELD_OUT_BYTES and zlib.crc32(data) % _HELD_OUT_ONE_IN == 0:
                        self.held_out.append(chunk)
                        self.held_out_bytes += len(data)
                        continue
                    self.first = self.first or chunk
                    self.trained_bytes += len(data)
                    yield chunk
                    if self._limit and self.trained_bytes >= self._limit:
                        return


def _chunks(text: str) -> Iterator[str]:
    """``text`` in chunks of about ``_CHUNK`` characters, cut behind line breaks where there are some."""
    start = 0
    while start < len(text):
        end = min(start + _CHUNK, len(text))
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def _build(plan: TokenizerPlan) -> tuple[Any, Any]:
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    specials = list(plan.all_special_tokens())
    if plan.kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token=_BERT["unk"]))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece(prefix="##")
        return backend, trainers.WordPieceTrainer(
            vocab_size=plan.vocab_size,
            min_frequency=plan.min_frequency,
            special_tokens=specials,
            show_progress=False,
        )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if plan.kind == "bpe":
        backend = Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=plan.vocab_size,
            min_frequency=plan.min_frequency,
            special_tokens=specials,
            initial_alphabet=alphabet,
            show_progress=False,
        )
    else:
        backend = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=plan.vocab_size,
            special_tokens=specials,
            initial_alphabet=alphabet,
            show_progress=False,
        )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend, trainer


def _put_around(backend: Any) -> None:
    """``[CLS] … [SEP]``, as BERT reads text."""
    from tokenizers import processors

    ids = [(token, backend.token_to_id(token)) for token in (_BERT["cls"], _BERT["sep"])]
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ids
    )
