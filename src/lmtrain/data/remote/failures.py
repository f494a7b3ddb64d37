"""What the libraries of object storage raise, in one line for the user; never with a key or a signed address in it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lmtrain.core.addresses import shown
from lmtrain.core.errors import UserError
from lmtrain.core.secrets import without_keys

_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; aws sts get-caller-identity tells who you "
    "are",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "run hf auth login, or give --token",
    "https": "sign the address again, or ask for the right to read it",
}
_SCHEMES = {"s3a": "s3", "gcs": "gs", "http": "https"}
_REFUSED = re.compile(
    r"AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|TokenRefreshRequired"
    r"|Unauthorized|RefreshError|DefaultCredentialsError|Anonymous caller|GatedRepo|invalid_grant|InvalidClientTokenId"
    r"|\b40[13]\b",
)
_NO_CREDENTIALS = re.compile(r"NoCredentials|PartialCredentials|Unable to locate credentials")
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist|The specified bucket is not valid|RepositoryNotFound")
_AWAY = re.compile(
    r"Connect|Timeout|timed out|Unreachable|resolve|RemoteProtocol|ServerDisconnected|IncompleteRead|PayloadError"
    r"|OfflineMode|Offline|MaxRetry|SSLError|ResponseStreaming|HTTPClientError|\b50[0-4]\b|SlowDown|ServiceUnavailable"
    r"|InternalError|RequestTimeout|TooManyRequests|\b429\b"
)
_NETWORK = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPIPE}


class UnreachableError(UserError):
    """Object storage does not answer, or no longer lets us in: the same command goes on once it does.

    ``passing``: whether it may answer if it is asked again.
    """

    def __init__(self, text: str = "", *, flag: str | None = None, passing: bool = True) -> None:
        self.passing = passing
        super().__init__(text, flag=flag)


def scheme_of(address: str) -> str:
    """``s3`` for ``s3://bucket``, and for its other names."""
    scheme = address.partition("://")[0].lower()
    return _SCHEMES.get(scheme, scheme)


def explain(error: BaseException, address: str, flag: str | None) -> UserError:
    """``error`` of reading or writing ``address``, as what the user can do about it.

    An :class:`UnreachableError` where the place does not answer or refuses us, else a plain :class:`UserError`.
    """
    if isinstance(error, UserError):
        return error
    name = shown(address)
    cause = error.__cause__ or error.__context__
    # fsspec's web file system says "not found" of whatever went wrong: its cause knows better.
    words = _words(cause if isinstance(error, FileNotFoundError) and cause is not None else error)
    if is_no_bucket(error):
        return UserError(f"{name}: there is no such bucket, or none that you may see", flag=flag)
    how = _CREDENTIALS.get(scheme_of(address), "give credentials that may read and write there")
    if _NO_CREDENTIALS.search(words):
        return UnreachableError(f"{name}: no credentials were found; {how}", flag=flag, passing=False)
    if isinstance(error, PermissionError) or _REFUSED.search(words):
        return UnreachableError(f"{name}: the credentials were refused; {how}", flag=flag, passing=False)
    if _is_away(error, words):
        said = _short(cause if isinstance(error, FileNotFoundError) and cause is not None else error)
        return UnreachableError(f"{name} does not answer ({said}); is the network up?", flag=flag)
    if isinstance(error, FileNotFoundError) or "NoSuchKey" in words or " 404" in words:
        return UserError(f"{name} is not there; look at its spelling, upper and lower case count", flag=flag)
    return UserError(f"{name} could not be read or written: {_short(error)}", flag=flag)


def is_no_bucket(error: BaseException) -> bool:
    """Whether it says that a bucket is not there, and not something in it."""
    return bool(_NO_BUCKET.search(_words(error)))


def _is_away(error: BaseException, words: str) -> bool:
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if isinstance(error, OSError) and error.errno in _NETWORK:
        return True
    return bool(_AWAY.search(words))


def _words(error: BaseException) -> str:
    """The names and words of an error and of what caused it: libraries wrap each other's."""
    said, seen = [], set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        said.append(" ".join([*(kind.__name__ for kind in type(here).__mro__[:-2]), str(here)]))
        response = getattr(here, "response", None)
        if isinstance(response, dict):  # botocore's
            said.append(str(response.get("Error", {}).get("Code", "")))
        said.append(str(getattr(here, "status", "") or getattr(here, "code", "") or ""))
        here = here.__cause__ or here.__context__
    # Addresses and paths are nothing that anybody said: numbers in them are no status codes.
    return re.sub(r"\S*/\S*", "", " ".join(said))


def _short(error: BaseException) -> str:
    """One line of what the library said."""
    text = (without_keys(shown(str(error))).strip().splitlines() or [""])[0].rstrip(".")
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__


@contextmanager
def explained(address: str, flag: str | None) -> Iterator[None]:
    """Raise what is raised inside as a :class:`UserError`.

    The library's own error is left out of the traceback: it may hold a signed address.
    """
    try:
        yield
    except UserError:
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except Exception as error:
        raise explain(error, address, flag) from None
