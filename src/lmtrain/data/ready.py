"""Stores that are named as they are, where text is named: opened, and compared with what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtrain.core.addresses import is_address
from lmtrain.core.errors import UserError
from lmtrain.data.ledger import Ledger
from lmtrain.data.preparing import Prepared, Request
from lmtrain.data.sources.stores import StoreSource
from lmtrain.data.store import TokenStore

_GB = 10**9
_OF_COMPAT = {"first_column", "keep_blank_lines"}  # settings of reading that no flag is named like


def ready_store(request: Request, cache: Path, cache_gb: float) -> Prepared | None:
    """The store that ``request`` names instead of text; None where it names text.

    One on object storage is read through ``cache``, in at most ``cache_gb`` GB of it. Raises :class:`UserError` where
    something else is named beside it, or it was made with another tokenizer.
    """
    stores = [source for source in request.sources if isinstance(source, StoreSource)]
    if not stores:
        return None
    first = stores[0]
    if len(request.sources) > 1:
        raise UserError(
            f"{first.name} is a token store, and stands beside {len(request.sources) - 1:,} other sources; name it "
            "alone, or all of the text that it was made of",
            flag=first.flag,
        )
    store = open_store(first.place, cache, cache_gb, first.flag, first.token)
    if store.manifest["tokenizer"]["fingerprint"] != request.tokenizer.fingerprint:
        raise UserError(
            f"{first.name} was made with another tokenizer ({store.manifest['tokenizer']['name']}); name that one with "
            "--tokenizer_name, or prepare the text anew",
            flag=first.flag,
        )
    lines = _otherwise(store.manifest.get("reading", {}), request.reading)
    return Prepared(store, Ledger.of_store(store.manifest), True, lines)


def open_store(
    place: str, cache: Path, cache_gb: float, flag: str | None = None, token: str | None = None
) -> TokenStore:
    """The store in a folder or at an address; ``token`` is for the hub's."""
    if not is_address(place):
        store = TokenStore.open(place)
        store.watch(cache)
        return store
    from lmtrain.data.remote.store import open_remote_store

    return open_remote_store(place, cache, int(cache_gb * _GB), flag, token)


def _otherwise(was: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, ...]:
    """What the command line says of reading text that was read otherwise when the store was made."""
    named = [name for name in sorted(was.keys() & asked.keys() - _OF_COMPAT) if was[name] != asked[name]]
    if not named:
        return ()
    how = ", ".join(f"without --{name}" if was[name] is None else f"with --{name} {was[name]}" for name in named)
    return (f"the store holds text read {how}, whatever this command says of it",)
