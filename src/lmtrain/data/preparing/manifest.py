"""The end of every preparation, alone or of parts: the manifest, and the line that tells of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from lmtrain.core.console import amount
from lmtrain.core.errors import UserError
from lmtrain.core.types import Source
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing.encoding import Account
from lmtrain.data.preparing.request import Request, versions
from lmtrain.data.sources.pairs import PairSource
from lmtrain.data.sources.segments import file_of
from lmtrain.data.sources.text import passed_over_by
from lmtrain.data.store import TokenStore
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.validation_cut import Cut


def finish(
    writer: StoreWriter,
    request: Request,
    hashes: Sequence[str],
    key: str,
    cut: Cut | None,
    account: Account,
    engine: str,
    why: Sequence[str],
) -> Ledger:
    """Complete the store. Of its manifest only time and versions depend on who made which part of it.

    Raises :class:`UserError` where there is no document: a store of nothing would be found again and again.
    """
    documents, sizes = account.documents, account.bytes
    text_bytes = sum(sizes.values())
    ledger = Ledger.of(account.tally, writer.n_tokens, text_bytes)
    if not ledger.documents:
        raise _nothing_in(request.sources, ledger)
    writer.finish(
        {
            "key": key,
            "sources": [
                {"name": s.name, "sha256": sha, "bytes": sizes.get(number, 0), "documents": documents.get(number, 0)}
                for number, (s, sha) in enumerate(zip(request.sources, hashes, strict=True))
            ],
            "text_bytes": text_bytes,
            "cut": cut.as_json() if cut else None,
            "tokenizer": {"name": request.tokenizer.name, "fingerprint": request.tokenizer.fingerprint},
            "reading": dict(request.reading),
            "engine": {"name": engine, "why": [*why, *said_of(account)]},
            "ledger": ledger.as_json(),
            "versions": versions(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )
    return ledger


def _nothing_in(sources: Sequence[Source], ledger: Ledger) -> UserError:
    """Where and why there is nothing, about the flag that all ``sources`` came by."""
    what = "pair" if isinstance(sources[0], PairSource) else "document"
    named = ", ".join(source.name for source in sources[:3]) + (", …" if len(sources) > 3 else "")
    skipped = passed_over_by(sources).skipped + Counter(ledger.skipped)
    why = ", ".join(f"{count:,} × {reason}" for reason, count in sorted(skipped.items()))
    read = "; ".join(note for note in ledger.notes if note.startswith("text is read from"))
    said = "; ".join(part for part in (f"passed over: {why}" if why else "", read) if part)
    flags = {file.flag for source in sources if (file := file_of(source)) is not None}
    return UserError(
        f"there is no {what} in {named}" + (f" ({said})" if said else ""),
        flag=flags.pop() if len(flags) == 1 else None,
    )


def said_of(account: Account) -> list[str]:
    """What is to be said of the work besides the engine."""
    if not account.joined:
        return []
    return [
        f"{account.joined:,} cuts through long documents would have changed tokens, so those were tokenized in one go: "
        "memory grows with the longest document"
    ]


def made_line(store: TokenStore, ledger: Ledger, seconds: float) -> str:
    """What was made, how fast, where."""
    size = store.manifest["text_bytes"]
    speed = f" ({amount(size / seconds, 'B')}/s)" if size >= 1e6 else ""  # of less it would say nothing
    return f"{ledger.tokens:,} tokens in {seconds:.1f} s{speed} · {store.folder}"
