"""A token store that lies on object storage: its small files here, its tokens fetched by chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_file, sha256_file, sha256_json
from lmtrain.data.remote.cache import ChunkCache
from lmtrain.data.remote.places import Place, in_time, place_of
from lmtrain.data.remote.retrying import patiently
from lmtrain.data.remote.tokens import RemoteTokens
from lmtrain.data.store import BIN, CHUNK_BYTES, DOCUMENTS, IDX, MANIFEST, DamagedStoreError, TokenStore

_COPIED = 16 << 20  # bytes of an index fetched at once


class RemoteStore(TokenStore):
    """A :class:`~lmtrain.data.store.TokenStore` at an ``address``.

    Its index and the figures of its documents lie in ``cache/remote`` (outside the bound: 32 bytes a document), its
    tokens are :class:`~lmtrain.data.remote.tokens.RemoteTokens` within ``bound`` bytes. Pickles as its address.
    """

    is_remote = True
    tokens: RemoteTokens  # type: ignore[assignment]

    def __init__(self, place: Place, folder: Path, manifest: dict[str, Any], cache: Path, bound: int) -> None:
        chunks = manifest.get("chunks") or {}
        dtype = np.dtype(manifest["dtype"])
        chunk_bytes = int(chunks.get("bytes", CHUNK_BYTES))
        kept = ChunkCache(cache / "remote", folder.name, bound, chunk_bytes)
        tokens = RemoteTokens(place.inside(BIN), manifest["tokens"], dtype, kept, chunks.get("crc32", ()))
        super().__init__(folder, manifest, tokens)
        self._place, self._cache, self._bound = place, cache, bound

    @property
    def place(self) -> str:
        return self._place.name

    def __reduce__(self) -> tuple[Any, ...]:
        place = self._place
        return open_remote_store, (place.address, self._cache, self._bound, place.flag, place.token)


def open_remote_store(
    address: str, cache: Path, bound: int, flag: str | None = None, token: str | None = None
) -> RemoteStore:
    """The store at ``address``, its small files fetched into ``cache`` unless they lie there already.

    ``token`` is for the hub's.

    Raises :class:`UserError` where there is none, or the storage does not answer within seconds, and
    :class:`~lmtrain.data.store.DamagedStoreError`.
    """
    place = place_of(address, flag, token=token)
    written = place.inside(MANIFEST)
    text = in_time(
        lambda: patiently(lambda: written.files.cat_file(written.path), written.address, flag, patience=5),
        address, flag,
    )  # fmt: skip
    try:
        manifest = json.loads(text)
        sizes = TokenStore.sizes_of(manifest, place.name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedStoreError(f"{written.name} cannot be read ({error!r}); upload the store again") from None
    for name, size in sizes.items():
        if (found := place.inside(name).about().get("size")) != size:
            raise DamagedStoreError(
                f"the token store {place.name} is damaged: {name} has {found} bytes instead of {size}; upload it again",
                flag=flag,
            )
    folder = cache / "remote" / sha256_json([place.name, manifest.get("key"), manifest["files"]])[:32]
    try:
        for name in (IDX, DOCUMENTS):
            _fetch_whole(place.inside(name), folder / name, manifest["files"][name])
        with atomic_file(folder / MANIFEST) as stream:
            stream.write(text)
    except PermissionError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror})", flag="--data_cache_dir") from error
    TokenStore.require_header(folder, manifest)
    return RemoteStore(place, folder, manifest, cache, bound)


def _fetch_whole(place: Place, target: Path, about: dict[str, Any]) -> None:
    """A small file, unless it is here; of the processes of a machine one fetches it, and the others wait.

    Raises :class:`DamagedStoreError` where its checksum is not the manifest's.
    """
    size = int(about["bytes"])
    if _is_here(target, size):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if _is_here(target, size):
            return
        with atomic_file(target) as stream:
            for start in range(0, size, _COPIED):
                end = min(start + _COPIED, size)
                stream.write(patiently(_reading(place, start, end), place.address, place.flag))
        if sha256_file(target) != about["sha256"]:
            target.unlink()
            raise DamagedStoreError(
                f"{place.name} is not what was written there (checksum); upload the store again", flag=place.flag
            )


def _is_here(target: Path, size: int) -> bool:
    return target.is_file() and target.stat().st_size == size


def _reading(place: Place, start: int, end: int) -> Any:
    return lambda: place.files.cat_file(place.path, start=start, end=end)
