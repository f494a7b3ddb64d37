"""The end of every preparation, alone or of parts: the manifest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmtrain.data.cutting import Cut
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing.encoding import Account
from lmtrain.data.preparing.request import Request, versions
from lmtrain.data.seams import joined_line
from lmtrain.data.store_writer import StoreWriter


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
    """Complete the store. Of its manifest only time and versions depend on who made which part of it."""
    ledger = Ledger.of(account.tally, writer.n_tokens)
    documents, sizes = account.documents, account.bytes
    writer.finish(
        {
            "key": key,
            "sources": [
                {"name": s.name, "sha256": sha, "bytes": sizes.get(number, 0), "documents": documents.get(number, 0)}
                for number, (s, sha) in enumerate(zip(request.sources, hashes, strict=True))
            ],
            "text_bytes": sum(sizes.values()),
            "cut": cut.as_json() if cut else None,
            "tokenizer": _tokenizer(request),
            "reading": dict(request.reading),
            "engine": {"name": engine, "why": [*why, *said_of(account)]},
            "ledger": replace(ledger, splits={}).as_json(),
            "versions": versions(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    )
    return ledger


def said_of(account: Account) -> list[str]:
    """What is to be said of the work besides the engine."""
    line = joined_line(account.joined)
    return [line] if line else []


def _tokenizer(request: Request) -> dict[str, Any]:
    return {"name": request.tokenizer.name, "fingerprint": request.tokenizer.fingerprint}
