"""A new vocabulary in an old tokenizer: its kind, normalisation, splitting and special tokens are kept.

The work is ``train_new_from_iterator`` of transformers, as in the Hugging Face course, chapter 7.6. What it leaves out
is added: the 256 byte tokens of a tokenizer with byte fallback (Llama's kind), without which every character that the
training text did not hold would be unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lmtrain.core.errors import UserError

_FLAG = "--like"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_KINDS = {"BPE": "BPE", "Unigram": "unigram", "WordPiece": "WordPiece", "WordLevel": "word-level"}


def train_like(
    old: Any,
    text: Iterable[str],
    vocab_size: int,
    *,
    special_tokens: Sequence[str] = (),
    min_frequency: int | None = None,
) -> Any:
    """A tokenizer as ``old`` (of transformers, with a Rust backend), learned from ``text``; of the same class.

    ``special_tokens`` are added to its own. Raises :class:`UserError`.
    """
    state = _state(old)
    model = state["model"]["type"]
    missing = _BYTES if state["model"].get("byte_fallback") else []
    kept = _kept(state)
    new_ones = [token for token in dict.fromkeys(special_tokens) if token not in kept]
    options: dict[str, Any] = {"show_progress": False}
    if min_frequency is not None:
        options["min_frequency"] = min_frequency
    all_bytes = _is_byte_level(state) or state["model"].get("byte_fallback")
    least = len(kept) + len(new_ones) + (256 if all_bytes else 0)  # below which nothing can be learned
    if vocab_size <= least:
        raise UserError(
            f"{vocab_size} tokens are too few: the alphabet and the special tokens of this kind alone are {least}; use "
            f"at least --vocab_size {least + 1}",
            flag="--vocab_size",
        )
    size = vocab_size - len(missing)
    with explained(_KINDS[model], vocab_size):
        new = old.train_new_from_iterator(text, size, new_special_tokens=new_ones or None, **options)
    if missing:
        _add_bytes(new)
    return new


@contextmanager
def explained(kind: str, vocab_size: int) -> Iterator[None]:
    """What a trainer complains of, as :class:`UserError`."""
    try:
        yield
    except UserError:  # about the text that it was reading
        raise
    except Exception as error:  # the Rust trainers raise plain Exception
        raise UserError(
            f"a {kind} tokenizer of {vocab_size:,} tokens cannot be learned from this text: {error}",
            flag="--vocab_size",
        ) from error


def describe(tokenizer: Any) -> str:
    """Its kind in words: ``byte-level BPE``, ``WordPiece``, ``unigram with byte fallback``."""
    state = _state(tokenizer)
    kind = _KINDS[state["model"]["type"]]
    if _is_byte_level(state):
        return f"byte-level {kind}"
    return f"{kind} with byte fallback" if state["model"].get("byte_fallback") else kind


def is_unigram(tokenizer: Any) -> bool:
    """Whether its pieces are chosen by a unigram model."""
    return bool(_state(tokenizer)["model"]["type"] == "Unigram")


def is_gpt2s_kind(tokenizer: Any) -> bool:
    """Whether it is a byte-level BPE that splits words as GPT-2's does."""
    state = _state(tokenizer)
    splits = state["pre_tokenizer"] or {}
    return state["model"]["type"] == "BPE" and splits.get("type") == "ByteLevel" and state["normalizer"] is None


def _state(tokenizer: Any) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("this tokenizer is written in Python, which has no trainer; choose one with a tokenizer.json",
                        flag=_FLAG)  # fmt: skip
    state: dict[str, Any] = json.loads(backend.to_str())
    if state["model"]["type"] not in _KINDS:
        raise UserError(f"there is no trainer for a {state['model']['type']} tokenizer", flag=_FLAG)
    return state


def _is_byte_level(state: dict[str, Any]) -> bool:
    splits = state["pre_tokenizer"] or {}
    return any(part["type"] == "ByteLevel" for part in [splits, *splits.get("pretokenizers", [])] if part)


def _kept(state: dict[str, Any]) -> set[str]:
    """The tokens that ``train_new_from_iterator`` keeps: those of words go, also where they stand as added."""
    unigram = state["model"]["type"] == "Unigram"
    return {token["content"] for token in state["added_tokens"] if token["special"] or unigram}


def _add_bytes(tokenizer: Any) -> None:
    """Give it a token for each byte, behind all others."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    if state["model"]["type"] == "Unigram":
        there = {piece for piece, _ in vocabulary}
        # Never likelier than the characters themselves, should "<0x41>" stand in a text as such.
        least = min(score for _, score in vocabulary) - 10.0
        vocabulary += [[byte, least] for byte in _BYTES if byte not in there]
    else:
        first = max([*vocabulary.values(), *(token["id"] for token in state["added_tokens"])]) + 1
        vocabulary |= {byte: first + at for at, byte in enumerate(b for b in _BYTES if b not in vocabulary)}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))  # as train_new_from_iterator itself replaces it
