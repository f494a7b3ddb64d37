"""A part of a store on disk: the tokens of some segments, and the account of them.

::

    part/
      tokens.bin      as in a store
      documents.bin   as in a store; of a document that goes over several parts, what is in this one
      lengths.tmp     tokens of each document, int32
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lmtrain.core.types import Tally
from lmtrain.data.preparing.encoding import Account, Work, encode
from lmtrain.data.preparing.engine import Engine
from lmtrain.data.store_writer import DocumentWriter
from lmtrain.data.tokenizer_files import TokenizerFiles

_PLAIN = ("continued", "tokens", "documents", "engine", "claim", "compared")


@dataclass(frozen=True)
class PartRecord:
    """What is known of a part. ``continued``: its first document goes on with the last one of the part before.

    ``engine`` and ``claim``: who encoded it, and why that one; ``compared``: bytes that the plain engine encoded too.
    """

    continued: bool
    tokens: int
    documents: int
    account: Account
    engine: str
    claim: str
    compared: int

    @classmethod
    def of(cls, writer: DocumentWriter, account: Account, engine: Engine, compared_before: int = 0) -> PartRecord:
        """Of all that ``writer`` got, which is now complete."""
        writer.end()
        compared = engine.proof.bytes_compared - compared_before if engine.proof else 0
        counts = writer.continued, writer.n_tokens, writer.n_documents
        return cls(*counts, account, engine.encoder.name, engine.claim, compared)

    def as_json(self) -> dict[str, Any]:
        account = self.account
        read = [[number, account.documents[number], account.bytes[number]] for number in account.documents]
        plain = {name: getattr(self, name) for name in _PLAIN}
        return plain | {"tally": _as_json(account.tally), "read": read, "joined": account.joined}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PartRecord:
        tally = Tally(**{**value["tally"], "skipped": Counter(value["tally"]["skipped"])})
        account = Account(
            tally,
            {number: count for number, count, _ in value["read"]},
            {number: size for number, _, size in value["read"]},
            value["joined"],
        )
        return cls(account=account, **{name: value[name] for name in _PLAIN})


def _as_json(tally: Tally) -> dict[str, Any]:
    return {each.name: getattr(tally, each.name) for each in fields(tally)}


def write_part(folder: Path, work: Work, tokenizer: TokenizerFiles, engine: Engine, seed: str) -> PartRecord:
    """Encode ``work`` into a folder that is empty or holds another part, reading and encoding in turn.

    Raises :class:`DiffersError`.
    """
    before = engine.proof.bytes_compared if engine.proof else 0
    with DocumentWriter(folder, tokenizer.n_ids, continues=True) as writer:
        account = encode(work, engine, writer, seed)
        return PartRecord.of(writer, account, engine, before)
