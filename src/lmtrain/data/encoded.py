"""Pairs that are token ids already: checked and copied into a store, without a tokenizer at work."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from lmtrain.core.console import Say, silent
from lmtrain.core.files import atomic_folder, sha256_json
from lmtrain.core.types import Tally
from lmtrain.data.cache import locked, store_folder
from lmtrain.data.preparing import Prepared, Request
from lmtrain.data.preparing.encoding import Account
from lmtrain.data.preparing.finding import find, still_to_make
from lmtrain.data.preparing.manifest import finish, made_line
from lmtrain.data.sources.pairs import PairSource
from lmtrain.data.store import FORMAT, TokenStore, explaining_disks
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenizer_files import TokenizerFiles

_BATCH = 2048  # pairs written at once


def prepare_encoded(
    sources: Sequence[PairSource],
    tokenizer: TokenizerFiles,
    cache: Path,
    *,
    overwrite: bool = False,
    say: Say = silent,
) -> Prepared:
    """The store of encoded pairs, as :func:`~lmtrain.data.preparing.prepare` makes that of text.

    The bytes of the text behind the ids are not known and stored as 0. Raises
    :class:`~lmtrain.core.errors.UserError` for ids that are not in the vocabulary, and where there is no pair.
    """
    hashes = [source.content_hash() for source in sources]
    request = Request(sources, tokenizer, {"encoded": [[*source.columns.names, source.skips] for source in sources]})
    reading = request.reading
    key = sha256_json({"format": FORMAT, "sources": hashes, "reading": reading, "n_ids": tokenizer.n_ids})
    if not overwrite and (found := find(request, cache, None, key, key, say)):
        return found
    with locked(cache, key, "another process is preparing these pairs; waiting for it"):
        target = store_folder(cache, key)
        overwrite = still_to_make(overwrite, target)
        if not overwrite and (found := find(request, cache, None, key, key, say)):
            return found  # the other process has made it
        began = time.perf_counter()
        with (
            explaining_disks(target.parent),
            atomic_folder(target) as scratch,
            StoreWriter(scratch, tokenizer.n_ids) as writer,
        ):
            account = Account()
            for number, source in enumerate(sources):
                before = account.tally.documents
                _copy(source, writer, account.tally)
                account.documents[number] = 2 * (account.tally.documents - before)
            why = ["the pairs were encoded before"]
            ledger = finish(writer, request, hashes, key, None, account, "none", why)
        store = TokenStore.open(target)
        say("store", made_line(store, ledger, time.perf_counter() - began))
        return Prepared(store, ledger, False)


def _copy(source: PairSource, writer: StoreWriter, tally: Tally) -> None:
    pairs = source.encoded(tally, writer.n_ids)
    while batch := list(islice(pairs, _BATCH)):
        documents = [np.asarray(ids, np.uint32) for pair in batch for ids in pair]
        offsets = np.zeros(len(documents) + 1, np.int64)
        np.cumsum([len(ids) for ids in documents], out=offsets[1:])
        crcs = [zlib.crc32(ids.tobytes()) for ids in documents]
        n = len(documents)
        writer.append(np.concatenate(documents), offsets, [True] * n, [0] * n, crcs)
