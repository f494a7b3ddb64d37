"""The account of a preparation: what was read, what was passed over, and where every token went."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from lmtrain.core.console import counted
from lmtrain.core.types import Tally
from lmtrain.data.packing import Fill

FILL_BATCH = 8
"""Examples of the batches in the account of padding: the Trainer's default."""


@dataclass(frozen=True, slots=True)
class ChunkCost:
    """What a way of chunking makes of a split: its ``examples``, the ``specials`` that it adds, the tokens it drops."""

    examples: int
    specials: int
    dropped: int

    def __add__(self, other: ChunkCost) -> ChunkCost:
        return ChunkCost(self.examples + other.examples, self.specials + other.specials, self.dropped + other.dropped)


@dataclass(frozen=True, slots=True)
class Chunking:
    """Both ways of ``--chunking`` for one split, and which of them was ``taken``."""

    taken: str
    blocks: ChunkCost
    documents: ChunkCost

    def matters(self, tokens: int) -> bool:
        """Whether the ways differ by a hundredth of a split of ``tokens`` tokens, or more: else neither is told."""
        return abs(self.blocks.dropped - self.documents.dropped) * 100 >= tokens

    def line(self, tokens: int) -> str:
        """For people, of a split of ``tokens`` tokens of text."""

        def told(way: str, cost: ChunkCost) -> str:
            drop, add = ("drops", "adds") if way == self.taken else ("would drop", "add")
            added = f" and {add} {counted(cost.specials, 'special token')}" if cost.specials else ""
            share = cost.dropped / tokens if tokens else 0.0
            return f"{way} {drop} {counted(cost.dropped, 'token')} ({share:.1%}){added}"

        ways = {"blocks": self.blocks, "documents": self.documents}
        first = self.taken
        return "; ".join(told(way, ways[way]) for way in (first, *(way for way in ways if way != first)))


@dataclass(frozen=True, slots=True)
class SplitLedger:
    """Where the tokens of one split went.

    ``tokens`` are those of the documents' text, ``specials`` those that the layout puts around documents;
    ``placed`` are the tokens of both kinds in examples, ``dropped`` those in none: nothing else happens to
    them. ``fill``: for examples of uneven length, the shares of positions that hold tokens in shuffled batches of
    ``FILL_BATCH``, padded and packed. ``chunking``: where documents become blocks, what either way of it costs.
    """

    documents: int
    bytes: int
    tokens: int
    specials: int
    examples: int
    placed: int
    dropped: int
    fill: Fill | None = None
    chunking: Chunking | None = None

    def __post_init__(self) -> None:
        if self.tokens + self.specials != self.placed + self.dropped:
            raise AssertionError(
                f"{self.tokens:,} tokens and {self.specials:,} special tokens came in, "
                f"{self.placed:,} are in examples and {self.dropped:,} are dropped"
            )


@dataclass(slots=True)
class Ledger:
    """The account of one command, over all its splits. ``bytes_read`` are as they lie on disk; ``text_bytes`` the UTF-8
    bytes of the documents' text, 0 where it is not known."""

    files: int = 0
    bytes_read: int = 0
    text_bytes: int = 0
    documents: int = 0
    tokens: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    splits: dict[str, SplitLedger] = field(default_factory=dict)

    @classmethod
    def of_store(cls, manifest: dict[str, Any]) -> Ledger:
        """As the store says that has this manifest."""
        return cls(**{"text_bytes": manifest.get("text_bytes", 0), **manifest["ledger"], "splits": {}})

    @classmethod
    def of(cls, tally: Tally, tokens: int, text_bytes: int = 0) -> Ledger:
        counts = tally.files, tally.bytes_read, text_bytes, tally.documents, tokens
        return cls(*counts, dict(tally.skipped), list(tally.notes))

    def __add__(self, other: Ledger) -> Ledger:
        skipped = dict(self.skipped)
        for reason, count in other.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count
        notes = [*self.notes, *(note for note in other.notes if note not in self.notes)]
        return Ledger(
            self.files + other.files,
            self.bytes_read + other.bytes_read,
            self.text_bytes + other.text_bytes,
            self.documents + other.documents,
            self.tokens + other.tokens,
            skipped,
            notes,
            self.splits | other.splits,
        )

    def as_json(self) -> dict[str, Any]:
        value = asdict(self)
        for name, split in self.splits.items():
            value["splits"][name]["fill"] = split.fill._asdict() if split.fill else None
        return value

    def lines(self) -> list[str]:
        """The account for people, one fact a line; the splits as a table."""
        known = self.tokens and self.text_bytes
        rate = f" · {self.text_bytes / self.tokens:.2f} bytes per token" if known else ""
        documents = counted(self.documents, "document")
        lines = [f"read       {counted(self.files, 'file')}, {counted(self.bytes_read, 'byte')}, {documents}"]
        if self.skipped:
            lines.append("skipped    " + ", ".join(f"{n:,} {why}" for why, n in sorted(self.skipped.items())))
        lines.append(f"tokens     {self.tokens:,}{rate}")
        if self.splits:
            head = ("split", "documents", "bytes", "tokens", "specials", "examples", "placed", "dropped")
            rows = [
                (
                    name,
                    *(f"{v:,}" for v in (s.documents, s.bytes, s.tokens, s.specials, s.examples, s.placed, s.dropped)),
                )
                for name, s in self.splits.items()
            ]
            widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
            for row in [head, *rows]:
                cells = [
                    row[0].ljust(widths[0]),
                    *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
                ]
                lines.append("  ".join(cells))
        for name, split in self.splits.items():
            if split.fill and name == "train":
                padded, packed = (f"{share:.0%}" for share in split.fill)
                lines.append(
                    f"fill       {name}: tokens fill {padded} of a padded batch of {FILL_BATCH}, {packed} packed"
                )
            if split.chunking and name == "train" and split.chunking.matters(split.tokens):
                lines.append(f"chunking   {name}: {split.chunking.line(split.tokens)}")
        return lines + self.notes
