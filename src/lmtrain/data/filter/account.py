"""What became of the documents, counted: sums that add up in any grouping."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Count:
    """Documents and their bytes."""

    documents: int = 0
    bytes: int = 0

    def add(self, documents: int, size: int) -> None:
        self.documents += documents
        self.bytes += size

    def share(self, whole: Count) -> float:
        """The share of the bytes."""
        return self.bytes / whole.bytes if whole.bytes else 0.0


@dataclass
class Account:
    """Documents seen and kept, and what took the others.

    Bytes are those of the records as they lie in the source, unpacked: a line of JSON with its end, a text file, the
    text of a row of a table. ``skipped`` counts what was no document: bad records, records without text, blank lines.
    ``found`` counts the documents with each keyword of ``keep_any``.
    """

    seen: Count = field(default_factory=Count)
    kept: Count = field(default_factory=Count)
    dropped: dict[str, Count] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)

    def drop(self, rule: str, documents: int, size: int) -> None:
        if documents:
            self.dropped.setdefault(rule, Count()).add(documents, size)

    def __iadd__(self, other: Account) -> Account:
        self.seen.add(other.seen.documents, other.seen.bytes)
        self.kept.add(other.kept.documents, other.kept.bytes)
        for rule, count in other.dropped.items():
            self.drop(rule, count.documents, count.bytes)
        self.skipped.update(other.skipped)
        self.found.update(other.found)
        return self

    def as_json(self) -> dict[str, Any]:
        def pair(count: Count) -> dict[str, int]:
            return {"documents": count.documents, "bytes": count.bytes}

        return {
            "seen": pair(self.seen),
            "kept": pair(self.kept),
            "dropped": {rule: pair(count) for rule, count in self.dropped.items()},
            "skipped": dict(self.skipped),
            "found": dict(self.found),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Account:
        return cls(
            Count(**value["seen"]),
            Count(**value["kept"]),
            {rule: Count(**count) for rule, count in value["dropped"].items()},
            Counter(value["skipped"]),
            Counter(value["found"]),
        )
