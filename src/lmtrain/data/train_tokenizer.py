"""A tokenizer of one's own: byte-level BPE, BERT's WordPiece or a unigram model, or like another; learned from sources.

It is saved as files that ``AutoTokenizer`` loads, without importing transformers. The byte-level kinds (bpe,
unigram) keep the whole alphabet of 256 bytes, so every text comes back exactly and nothing is unknown; that is tried
on text before the tokenizer is given out.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from lmtrain.core.console import amount, counted
from lmtrain.core.errors import UserError
from lmtrain.core.files import as_os_errors, atomic_folder, write_json
from lmtrain.core.types import Source, Tally
from lmtrain.data.gpt2_words import learn
from lmtrain.data.like_tokenizer import describe, explained, is_gpt2s_kind, is_unigram, train_like
from lmtrain.data.round_trip import tried
from lmtrain.data.tokenizer_text import TrainingText

Kind = Literal["bpe", "wordpiece", "unigram"]
END_OF_TEXT = "<|endoftext|>"
_BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
_SPOKEN = {"bpe": "byte-level BPE", "wordpiece": "WordPiece", "unigram": "byte-level unigram"}
_ALPHABET = 256  # one token for each byte value
_BASELINE_BYTES = 16 << 20  # of the text, that the baseline learns from: it is there for one figure
_MIN_FREQUENCY = 2


@dataclass(frozen=True)
class TokenizerPlan:
    """What to train. ``special_tokens`` empty: ``<|endoftext|>``, or BERT's five for WordPiece; beside ``like`` those
    are added to its own.

    ``like``: a transformers tokenizer whose kind, normalisation and special tokens the new one has. ``min_frequency``
    None: 2, or what the trainer of ``like`` takes by itself.
    """

    kind: Kind = "bpe"
    vocab_size: int = 8192
    special_tokens: tuple[str, ...] = ()
    min_frequency: int | None = None
    sample_bytes: int | None = None
    model_max_length: int | None = None
    like: Any = None

    def all_special_tokens(self) -> tuple[str, ...]:
        """Special tokens in the order of their ids."""
        if self.kind == "wordpiece":
            own = tuple(_BERT[name] for name in ("pad", "unk", "cls", "sep", "mask"))
        else:
            own = () if END_OF_TEXT in self.special_tokens else (END_OF_TEXT,)
        return (*own, *(token for token in dict.fromkeys(self.special_tokens) if token not in own))

    def check(self) -> None:
        """Raise :class:`UserError` for a plan that cannot give a tokenizer."""
        if self.min_frequency is not None and (self.kind == "unigram" if self.like is None else is_unigram(self.like)):
            raise UserError(
                "counts pairs that become tokens, and a unigram model starts from many pieces and drops the least "
                "useful ones; leave it out, or choose --type bpe or wordpiece",
                flag="--min_frequency",
            )
        if self.like is not None:
            return  # its own alphabet and special tokens count; see train_like
        if self.kind != "wordpiece":
            for token in self.special_tokens:
                _require_apart(token)
        specials = len(self.all_special_tokens())
        least = specials + (_ALPHABET if self.kind != "wordpiece" else 1)
        if self.vocab_size < least:
            raise UserError(
                f"{self.vocab_size} tokens are too few: the alphabet and {counted(specials, 'special token')} alone "
                f"are {least}; use at least --vocab_size {least}",
                flag="--vocab_size",
            )


def _require_apart(special: str) -> None:
    """Refuse a special token with letters that stand for bytes in a byte-level vocabulary: its decoder would turn them
    into these bytes."""
    from tokenizers import pre_tokenizers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_ = "".join(letter for letter in special if letter in alphabet and not letter.isascii())
    if bytes_:
        raise UserError(
            f"{special!r} would not come back from its token: {bytes_} is how a byte-level vocabulary writes single "
            "bytes; use ASCII letters, or others than those of Latin alphabets",
            flag="--special_tokens",
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
    tokenizer: Any = None  # of transformers, where it is like another
    lost: str | None = None  # what does not come back from its tokens
    beside: tuple[tuple[str, float], ...] = ()  # other tokenizers' bytes per token on the same text
    tried: tuple[str, ...] = ()  # the first of the text that it was measured on

    @property
    def kind(self) -> str:
        return _SPOKEN[self.plan.kind] if self.tokenizer is None else describe(self.tokenizer)

    @property
    def bytes_per_token(self) -> float:
        return self.held_out_bytes / max(1, self.held_out_tokens)

    @property
    def line(self) -> str:
        """What the user is told."""
        where = "held-out text" if self.held_out else "the training text itself (too short to hold some out)"
        beside = "; ".join(f"{name}: {value:.2f}" for name, value in self.beside)
        back = "every byte comes back" if self.lost is None else f"not every text comes back: {self.lost}"
        return (
            f"{self.kind}, {self.backend.get_vocab_size():,} tokens, {self.seconds:.1f} s on "
            f"{self.trained_bytes / 1e6:.1f} MB · {self.bytes_per_token:.2f} bytes per token on {where}"
            f"{f' ({beside})' if beside else ''} · {back}"
        )

    def save(self, folder: Path) -> None:
        """Write the folder that ``AutoTokenizer.from_pretrained`` loads."""
        with atomic_folder(folder) as scratch, as_os_errors():
            if self.tokenizer is not None:
                self.tokenizer.model_max_length = self.plan.model_max_length or self.tokenizer.model_max_length
                self.tokenizer.save_pretrained(scratch)
                return
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
    text = TrainingText(sources, plan.sample_bytes)
    chunks = iter(text)
    if (first := next(chunks, None)) is None:  # what the trainers make of nothing is theirs: nothing, or a panic
        raise UserError("there is no text to learn from", flag="--train_file")
    chunks = chain([first], chunks)
    tokenizer, backend = None, None
    if plan.like is not None:
        asked: dict[str, Any] = {"special_tokens": plan.special_tokens, "min_frequency": plan.min_frequency}
        tokenizer = train_like(plan.like, chunks, plan.vocab_size, **asked)
        backend = tokenizer.backend_tokenizer
    else:
        backend, trainer = _build(plan)
        with explained(_SPOKEN[plan.kind], plan.vocab_size):
            if plan.kind == "wordpiece":
                backend.train_from_iterator(chunks, trainer)
            else:
                learn(backend, trainer, chunks)
    seconds = time.perf_counter() - began
    if (size := backend.get_vocab_size()) > plan.vocab_size:
        raise UserError(
            f"{plan.vocab_size} tokens are too few: the characters of this text and the special tokens alone are "
            f"{size}; use at least --vocab_size {size}",
            flag="--vocab_size",
        )
    if tokenizer is None and plan.kind == "wordpiece":
        _put_around(backend)
    held_out = text.held_out or [first]
    gone, tokens = tried(backend, held_out)
    if gone and tokenizer is None and plan.kind != "wordpiece":
        raise RuntimeError(f"the trained tokenizer loses text: {gone}")
    n_bytes = sum(len(chunk.encode("utf-8")) for chunk in held_out)
    beside = _beside(sources, plan, text, tokenizer)
    return Trained(
        backend, plan, seconds, text.trained_bytes, n_bytes, tokens, bool(text.held_out), text.tally,
        tokenizer, gone, tuple((name, n_bytes / max(1, _count(other, held_out))) for name, other in beside),
        tuple(held_out[:4]),
    )  # fmt: skip


def _beside(
    sources: Sequence[Source], plan: TokenizerPlan, text: TrainingText, tokenizer: Any
) -> list[tuple[str, Any]]:
    """What to compare with on the held-out text: the old tokenizer, and GPT-2's kind at the size of the new one."""
    found = []
    if plan.like is not None:
        old = plan.like.backend_tokenizer
        found.append((f"the old vocabulary of {old.get_vocab_size():,}", old))
    is_gpt2s = plan.kind == "bpe" if tokenizer is None else is_gpt2s_kind(tokenizer)
    baseline = TokenizerPlan(vocab_size=plan.vocab_size)
    if is_gpt2s or plan.vocab_size <= _ALPHABET + 1:
        return found
    backend, trainer = _build(baseline)
    most = min(_BASELINE_BYTES, plan.sample_bytes or _BASELINE_BYTES)
    whole = text.trained_bytes <= most
    same = TrainingText(sources, plan.sample_bytes if whole else most, without=frozenset(text.held_out))
    learn(backend, trainer, same)
    learned = "" if whole else f" that learned from {amount(same.trained_bytes, 'B')}"
    found.append((f"a BPE like GPT-2's of {backend.get_vocab_size():,}{learned}", backend))
    return found


def _count(backend: Any, texts: list[str]) -> int:
    return sum(len(e.ids) for e in backend.encode_batch_fast(texts, add_special_tokens=False))


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
            min_frequency=_MIN_FREQUENCY if plan.min_frequency is None else plan.min_frequency,
            special_tokens=specials,
            show_progress=False,
        )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if plan.kind == "bpe":
        backend = Tokenizer(models.BPE())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=plan.vocab_size,
            min_frequency=_MIN_FREQUENCY if plan.min_frequency is None else plan.min_frequency,
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
