"""Which documents are kept for validation: views over a store, no tokens move.

``first``  the first per cent of the documents, as ``datasets`` counts ``train[:5%]``
``hash``   documents drawn by their content: one stays where it is when the corpus grows, and equal documents
           are on the same side
``files``  whole source files, drawn by their content, so that they hold about that part of the bytes
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmtrain.core.errors import UserError
from lmtrain.core.streams import mixed
from lmtrain.data.store import TokenStore

_FLAG = "--validation_split_percentage"


@dataclass(frozen=True)
class Split:
    """Document numbers of a store, int64, ascending; ``line`` says in words what was kept for validation."""

    train: np.ndarray
    validation: np.ndarray
    line: str


def first_count(percentage: float, n_documents: int) -> int:
    """Documents in the first ``percentage`` per cent, rounded as ``datasets`` does ("closest" in
    arrow_reader.py)."""
    return round(percentage * n_documents / 100.0)


def split_documents(store: TokenStore, mode: str, percentage: float, seed: int = 0) -> Split:
    """Divide a store's documents; raises :class:`UserError` when a side would be empty."""
    n = len(store)
    if percentage <= 0:
        return Split(np.arange(n), np.empty(0, np.int64), "no validation documents")
    cut = store.manifest.get("cut")
    if mode == "first" and cut is not None:
        chosen = np.arange(n) < cut["validation_documents"]
        line = f"held out the first {percentage:g} % of the text, up to a line break: {cut['bytes']:,} bytes"
    elif mode == "first":
        count = first_count(percentage, n)
        chosen = np.arange(n) < count
        line = f"held out the first {count:,} of {n:,} documents ({percentage:g} %)"
    elif mode == "hash":
        chosen = _drawn(store.crc32, seed) < np.uint64(min(percentage / 100.0, 1.0) * (2**64 - 2**11))
        line = f"held out {int(chosen.sum()):,} of {n:,} documents, drawn by their content ({percentage:g} %)"
    elif mode == "files":
        chosen, line = _by_file(store, percentage, seed)
    else:
        raise ValueError(f"no such split mode: {mode}")
    for side, size in (("validation", int(chosen.sum())), ("training", n - int(chosen.sum()))):
        if size == 0:
            plural = "s" if n != 1 else ""
            raise UserError(
                f"{percentage:g} % of {n:,} document{plural} by --validation_split_mode {mode} leaves none "
                f"for {side}; choose another percentage or mode, name a --validation_file, or keep all of it "
                "for training with 0",
                flag=_FLAG,
            )
    return Split(np.flatnonzero(~chosen), np.flatnonzero(chosen), line)


def _drawn(crc32: np.ndarray, seed: int) -> np.ndarray:
    """Uniform uint64 from each CRC and the seed."""
    return mixed(crc32.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1)))


def _by_file(store: TokenStore, percentage: float, seed: int) -> tuple[np.ndarray, str]:
    sources: Sequence[dict[str, Any]] = store.manifest["sources"]
    by_content: dict[str, list[int]] = {}  # equal files stay together
    for number, source in enumerate(sources):
        if source["documents"]:
            by_content.setdefault(source["sha256"], []).append(number)
    if len(by_content) < 2:
        raise UserError(
            "whole files cannot be held out of a single one; use --validation_split_mode first or hash",
            flag="--validation_split_mode",
        )
    order = sorted(by_content, key=lambda sha: hashlib.sha256(f"{seed}/{sha}".encode()).digest())
    target = sum(source["bytes"] for source in sources) * percentage / 100.0
    kept: set[int] = set()
    size = 0
    for sha in order[:-1]:  # at least one stays for training
        more = sum(sources[i]["bytes"] for i in by_content[sha])
        if kept and size + more - target > target - size:
            continue  # it would lead further from the target than leaving it out
        kept.update(by_content[sha])
        size += more
        if size >= target:
            break
    chosen = np.zeros(len(store), bool)
    at = 0
    for number, source in enumerate(sources):
        if number in kept:
            chosen[at : at + source["documents"]] = True
        at += source["documents"]
    n_files = sum(1 for source in sources if source["documents"])
    return chosen, f"held out {len(kept):,} of {n_files:,} files, {size:,} bytes ({percentage:g} % asked)"
