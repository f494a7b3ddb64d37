"""Addresses to file systems: which library a scheme needs, and how long it may take to answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any, TypeVar

from lmtrain.core.addresses import shown
from lmtrain.core.errors import UserError
from lmtrain.data.remote.failures import UnreachableError, explained, scheme_of

_T = TypeVar("_T")
_NEEDS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "https": ("aiohttp", "http"), "hf": ("huggingface_hub", "")}
_FIRST_ANSWER = 30.0  # seconds; the libraries alone would try for minutes
# s3: botocore waits for 60 s and tries five times, s3fs again on top; we try again ourselves (retrying).
_SETTINGS: dict[str, dict[str, Any]] = {
    "s3": {"config_kwargs": {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}},
}
# What a listing says of an object's content, strongest first: S3's and most others' ETag, Google's, the hub's.
_MARKS = ("sha256", "ETag", "etag", "md5Hash", "crc32c", "generation", "xet_hash", "blob_id", "Content-MD5", "Digest")


@dataclass(frozen=True)
class Place:
    """An address with its file system, opened. ``flag``: who named it; ``token`` is for the hub's."""

    address: str
    flag: str | None
    files: Any  # an fsspec.AbstractFileSystem
    path: str
    token: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """As it may be shown."""
        return shown(self.address)

    def beside(self, path: str) -> Place:
        """Another path of the same file system, as its listings give them."""
        address = path if "://" in path else f"{self.address.partition('://')[0]}://{path.lstrip('/')}"
        return replace(self, address=address, path=path)

    def inside(self, name: str) -> Place:
        """A file of this folder."""
        return replace(self, address=f"{self.address.rstrip('/')}/{name}", path=f"{self.path.rstrip('/')}/{name}")

    def about(self) -> dict[str, Any]:
        """What the storage tells of it: ``size``, ``type`` and marks of its content. Raises :class:`UserError`."""
        with explained(self.address, self.flag):
            found: dict[str, Any] = in_time(lambda: self.files.info(self.path), self.address, self.flag)
            return found


def place_of(address: str, flag: str | None, *, token: str | None = None) -> Place:
    """Open the file system of an address; nothing is asked of it yet. Raises :class:`UserError`."""
    scheme = scheme_of(address)
    module, extra = _NEEDS.get(scheme, ("", ""))
    if module and find_spec(module) is None:
        what = f"lmtrain[{extra}]" if extra else module
        raise UserError(f"{scheme}:// needs {module}; try: pip install '{what}'", flag=flag)
    import fsspec

    settings: dict[str, Any] = dict(_SETTINGS.get(scheme, {}))
    if token and scheme == "hf":
        settings["token"] = token
    try:
        kind = fsspec.get_filesystem_class(address.partition("://")[0].lower())
    except ImportError as error:
        said = str(error).split(";")[0]
        raise UserError(f"{shown(address)}: {said or 'its library is missing'}; install that", flag=flag) from None
    except ValueError:
        raise UserError(
            f"{shown(address)}: no storage is called {scheme}://; there are s3://, gs://, hf:// and https://", flag=flag
        ) from None
    with explained(address, flag):
        # A listing that was kept would hide what was uploaded meanwhile.
        files = kind(**kind._get_kwargs_from_urls(address), **settings, use_listings_cache=False)  # such as a host
        return Place(address, flag, files, kind._strip_protocol(address), token)


def mark_of(about: dict[str, Any]) -> str | None:
    """What tells one content of an object from another, by its listing; None where only its bytes do."""
    lfs = about.get("lfs")
    if lfs is not None and (digest := lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)):
        return f"sha256:{digest}"
    marks = [f"{name}:{value}" for name in _MARKS if (value := about.get(name)) and not str(value).startswith("W/")]
    if not marks:
        return None
    version = about.get("VersionId")
    return marks[0] + (f" version:{version}" if version and version != "null" else "")


def in_time(work: Callable[[], _T], address: str, flag: str | None, seconds: float = _FIRST_ANSWER) -> _T:
    """What ``work`` returns; :class:`UnreachableError` where that takes longer than ``seconds``.

    Libraries have no common way to be told how long to wait, so it is done in a thread that is left behind.
    """
    done: list[_T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True, name="first answer")
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise UnreachableError(f"{shown(address)} did not answer within {seconds:g} s; is the network up?", flag=flag)
    return done[0]
