"""A context and its completion as one example."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from lmtrain.core.console import counted
from lmtrain.core.errors import UserError
from lmtrain.data.layouts.base import Ids, Row, Rows
from lmtrain.data.ledger import FILL_BATCH, SplitLedger
from lmtrain.data.memory_store import MemoryStore
from lmtrain.data.packing import fill
from lmtrain.data.store import TokenStore

OnLong = Literal["truncate", "skip", "error"]


class Pairs(Rows):
    """Pairs of documents, number 2p the context of pair p and 2p + 1 its completion, each pair an example::

        context [5 6]   completion [8 9]      prefix (1,), between (3,), suffix (2,)

        ids     1 5 6 3 8 9 2
        answer  . . . . x x x                 max_length 6 cuts the 2 off; with 4 no answer is left: left out

    ``pairs`` are the numbers p to take, in this order. A pair longer than ``max_length`` loses its end
    (``on_long="truncate"``), is left out (``"skip"``) or raises :class:`UserError`; one without a token of its answer
    in it is always left out. ``note`` says how many. ``suffix`` is part of the answer, ``prefix`` and ``between`` are
    not.
    """

    def __init__(
        self,
        store: TokenStore | MemoryStore,
        pairs: np.ndarray,
        max_length: int,
        prefix: Ids = (),
        between: Ids = (),
        suffix: Ids = (),
        *,
        on_long: OnLong = "truncate",
        pad_id: int = 0,
    ) -> None:
        self.store = store
        self.max_length = max_length
        self.pad_id = pad_id
        self._pairs = np.asarray(pairs, np.int64)
        self._prefix, self._between, self._suffix = (np.asarray(ids, np.int64) for ids in (prefix, between, suffix))
        contexts = np.asarray(store.lengths[2 * self._pairs], np.int64)
        completions = np.asarray(store.lengths[2 * self._pairs + 1], np.int64)
        self._specials = len(self._prefix) + len(self._between) + len(self._suffix)
        self._tokens = contexts + completions  # (P,) content tokens
        heads = contexts + len(self._prefix) + len(self._between)  # (P,) tokens in front of the answer
        whole = self._tokens + self._specials
        long = whole > max_length
        if on_long == "error" and long.any():
            raise self._too_long(int(np.argmax(long)), whole, int(long.sum()))
        kept = np.minimum(whole, max_length) > heads
        if on_long == "skip":
            kept &= ~long
        self._kept = np.flatnonzero(kept)  # (n,) places in `pairs`
        self._heads = heads[self._kept]
        self._lengths = np.minimum(whole, max_length)[self._kept]
        self._n = len(self._kept)
        self.n_cut = int(np.count_nonzero(kept & long))
        self.n_left_out = len(self._pairs) - self._n
        self._made_of = (store, self._pairs, max_length, tuple(prefix), tuple(between), tuple(suffix))
        self._settings = {"on_long": on_long, "pad_id": pad_id}
        self.note = self._note(int((whole - max_length)[kept & long].sum()), int(np.count_nonzero(long & ~kept)))

    @classmethod
    def from_ids(
        cls,
        contexts: Iterable[Sequence[int]],
        completions: Iterable[Sequence[int]],
        max_length: int,
        *,
        prefix: Ids = (),
        between: Ids = (),
        suffix: Ids = (),
        on_long: OnLong = "truncate",
        pad_id: int = 0,
    ) -> Pairs:
        """Pairs that are token ids already, held in memory; equally many of both."""
        documents = [ids for pair in zip(contexts, completions, strict=True) for ids in pair]
        store = MemoryStore(documents)
        numbers = np.arange(len(documents) // 2)
        return cls(store, numbers, max_length, prefix, between, suffix, on_long=on_long, pad_id=pad_id)

    def _too_long(self, place: int, whole: np.ndarray, count: int) -> UserError:
        number = int(self._pairs[place])
        where, before = "", number
        for source in self.store.manifest["sources"]:
            if before < source["documents"] // 2:
                where = f" of {source['name']}"
                break
            before -= source["documents"] // 2
        return UserError(
            f"pair {before + 1:,}{where} has {int(whole[place]):,} tokens, and an example has at most "
            f"{self.max_length:,} ({counted(count, 'pair')} too long); raise it, or take --on_long truncate or skip",
            flag="--max_seq_length",
        )

    def _note(self, cut_off: int, long: int) -> str | None:
        said = []
        if self.n_cut:
            pairs, tokens = counted(self.n_cut, "pair"), counted(cut_off, "token")
            said.append(f"{pairs} of {len(self._pairs):,} longer than {self.max_length:,} tokens cut ({tokens} lost)")
        if long:
            skips = self._settings["on_long"] == "skip"
            why = f"longer than {self.max_length:,} tokens" if skips else f"whose context takes all {self.max_length:,}"
            said.append(f"{counted(long, 'pair')} {why} left out")
        if short := self.n_left_out - long:
            said.append(f"{counted(short, 'pair')} without a token to learn left out")
        return "; ".join(said) or None

    def _row_at(self, index: int) -> Row:
        number = int(self._pairs[self._kept[index]])
        parts = [self._prefix, self.store.document(2 * number), self._between, self.store.document(2 * number + 1)]
        length = int(self._lengths[index])
        ids = np.concatenate([*parts, self._suffix]).astype(np.int64)[:length]
        special = np.concatenate([np.full(len(part), at % 2 == 0) for at, part in enumerate([*parts, self._suffix])])
        return Row(ids, special[:length], answer=np.arange(length) >= self._heads[index])

    @property
    def numbers(self) -> np.ndarray:
        """(n,) int64: the pair in the store that each example is made of."""
        return self._pairs[self._kept[: self._n]]

    @property
    def lengths(self) -> np.ndarray:
        return self._lengths[: self._n]

    @property
    def answer_lengths(self) -> np.ndarray:
        """(n,) int64: tokens of each example that are its answer, ``suffix`` included."""
        return (self._lengths - self._heads)[: self._n]

    @property
    def n_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def n_answer_tokens(self) -> int:
        """Tokens in examples that are answers."""
        return int(self.answer_lengths.sum())

    @property
    def n_answer_bytes(self) -> int:
        """UTF-8 bytes of the completions in examples, what separates them from their contexts included; of one that
        is cut, its share."""
        sizes = self.store.n_bytes[2 * self.numbers + 1]
        content = np.asarray(self.store.lengths[2 * self.numbers + 1], np.int64)
        covered = np.minimum(content, self.answer_lengths)
        return int(np.rint(sizes * (covered / np.maximum(content, 1))).sum())

    @property
    def n_bytes(self) -> int:
        return int(self.store.n_bytes[2 * self.numbers].sum()) + self.n_answer_bytes

    @property
    def ledger(self) -> SplitLedger:
        tokens, specials = int(self._tokens.sum()), len(self._pairs) * self._specials
        documents = np.concatenate([2 * self._pairs, 2 * self._pairs + 1])
        return SplitLedger(
            documents=len(self._pairs),
            bytes=int(self.store.n_bytes[documents].sum()),
            tokens=tokens,
            specials=specials,
            examples=len(self),
            placed=self.n_tokens,
            dropped=tokens + specials - self.n_tokens,
            fill=fill(self.lengths, FILL_BATCH) if len(self) > 1 else None,
        )
