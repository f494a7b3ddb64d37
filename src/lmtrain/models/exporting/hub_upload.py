"""Upload an exported model to the hub: whether that will be allowed, and the upload itself.

What the hub answers, as its interface has it: ``GET /api/whoami-v2`` says whose a token is and what it may do;
``GET /api/models/NAME/auth-check/write`` says whether it may write to a repository that is there.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.core.errors import ExitCode, UserError, one_line
from lmtrain.core.hub import why_unreachable
from lmtrain.models.exporting.exported_files import CARD, CONFIGS, WEIGHTS, exported_files
from lmtrain.models.exporting.model_card import model_card
from lmtrain.models.quiet import quiet_libraries

_SECONDS = 10.0  # to wait for a short answer
_MAY_WRITE = ("repo.write", "repo.content.write")  # rights of a fine-grained token


class HubError(UserError):
    """The hub did not take something: unreachable, refused, broken off. What is on disk here is complete."""

    exit_code = ExitCode.UPLOAD_FAILED


@dataclass(frozen=True)
class Destination:
    """Where an upload goes; ``repo_id`` None: the folder's name, for the token's owner. ``token`` None: the one of
    ``hf auth login`` or HF_TOKEN. ``private`` is for a repository that is made; None: as the hub has it."""

    repo_id: str | None = None
    token: str | None = None
    private: bool | None = None
    revision: str | None = None

    def __repr__(self) -> str:
        return f"Destination({self.repo_id!r}, private={self.private}, revision={self.revision!r})"  # no token


@dataclass(frozen=True)
class Uploaded:
    """``url`` is that of the commit."""

    repository: str
    url: str
    files: int
    size: int


def upload(folder: Path, to: Destination) -> Uploaded:
    """Make the repository if need be, and upload the model in ``folder`` in one commit.

    One commit, so that at no moment a mixture of two models can be loaded from there; weights and configuration of an
    earlier model that have no successor go with it. What lies there already is not sent again. Raises
    :class:`UserError` for a folder without a complete model, and :class:`HubError` with the reason where the hub does
    not take it.
    """
    files = exported_files(folder)
    name = repo_name(to.repo_id, folder)
    token = _token(to.token, None, "--hub_token")
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=token)
    with _refusals(), quiet_libraries(), _quiet_bars():
        repository = api.create_repo(name, private=to.private, exist_ok=True).repo_id
        if to.revision:
            api.create_branch(repository, branch=to.revision, exist_ok=True)
        names = {path.relative_to(folder).as_posix(): path for path in files}
        content: dict[str, Any] = dict(names)
        content.setdefault(CARD, model_card(folder, repository).encode("utf-8"))
        there = api.list_repo_files(repository, revision=to.revision)
        earlier = (*CONFIGS, *WEIGHTS)  # an adapter_config.json beside a whole model would be read in its place
        gone = [old for old in there if old not in names and any(fnmatch.fnmatchcase(old, one) for one in earlier)]
        done = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(path_in_repo=key, path_or_fileobj=value) for key, value in content.items()),
                *(CommitOperationDelete(path_in_repo=old) for old in gone),
            ],
            commit_message="Model trained with lmtrain",
            revision=to.revision,
        )
    return Uploaded(repository, done.commit_url, len(content), sum(path.stat().st_size for path in files))


@contextmanager
def _refusals() -> Iterator[None]:
    """What the hub's library raises, of many kinds, as :class:`HubError` in one line."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise HubError(_why(error)) from error


def _why(error: BaseException) -> str:
    """The reason that lies deepest: the library wraps refusals into sentences of its own."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for one in chain:
        answer = getattr(one, "response", None)
        if answer is not None:
            said = getattr(one, "server_message", None) or answer.headers.get("X-Error-Message") or ""
            words = {
                401: "the hub does not accept this access token (401)",
                403: "this access token may not write there (403)",
                404: "the hub knows no such repository or branch (404)",
            }.get(answer.status_code, f"the hub answered {answer.status_code} {answer.reason_phrase}")
            return f"{words}: {one_line(said)}" if said else words
    return f"{type(chain[-1]).__name__}: {one_line(chain[-1])}"


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Progress bars in a terminal only."""
    import sys

    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def check_rights(
    repo_id: str | None,
    token: str | None,
    *,
    folder: Path | None = None,
    flag: str | None = "--push_to_hub",
    token_flag: str = "--hub_token",
    name_flag: str = "--hub_model_id",
) -> None:
    """Make sure, within seconds and without changing anything, that a model could be uploaded as ``repo_id``.

    ``repo_id`` is ORG/NAME, or NAME for one of the token's owner; None: the name of ``folder``, and without a folder
    only the token is looked at. ``token`` None: the one of ``hf auth login`` or HF_TOKEN. Raises :class:`UserError`
    (:class:`HubError` where the hub cannot be asked), in one line, that names ``flag`` or the flag at fault.
    """
    name = repo_name(repo_id, folder, name_flag) if repo_id or folder is not None else None
    if why := why_unreachable():
        raise HubError(f"the hub cannot be reached ({why}), so nothing can be uploaded", flag=flag)
    who = _asked("/api/whoami-v2", _token(token, flag, token_flag), flag, token_flag)
    user = str(who.get("name"))
    owner = name.split("/")[0] if name and "/" in name else user
    access = (who.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise UserError(
            f"this access token of {user} may only read; make one that may write at {_endpoint()}/settings/tokens",
            flag=token_flag,
        )
    organizations = {org.get("name"): org.get("roleInOrg") for org in who.get("orgs") or []}
    if owner != user and owner not in organizations:
        theirs = f", nor of {', '.join(sorted(map(str, organizations)))}" if organizations else ""
        raise UserError(f"{owner} is not {user}, whose token this is{theirs}; name one's own", flag=name_flag)
    if name is None:
        return
    full = name if "/" in name else f"{user}/{name}"
    if not _may_write(full, _token(token, flag, token_flag), flag, token_flag):
        no_role = owner != user and organizations[owner] == "read"
        if no_role or (access.get("role") == "fineGrained" and not _grants_writing(access)):
            raise UserError(f"this access token of {user} may not make a repository {full}", flag=flag)


def repo_name(repo_id: str | None, folder: Path | None, flag: str = "--hub_model_id") -> str:
    """``repo_id``, or else the folder's name. Raises :class:`UserError` for what no repository can be called."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    name = repo_id or (folder.resolve().name if folder is not None else "")
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        whose = f"the folder is called {name!r}, and so " if not repo_id else ""
        raise UserError(
            f"{whose}{name!r} is no name that a repository can have; give ORG/NAME of letters, digits, '-', '_', '.'",
            flag=flag,
        ) from error
    return name


def _may_write(name: str, token: str, flag: str | None, token_flag: str) -> bool:
    """Whether the repository is there and may be written to; False where it has to be made first."""
    try:
        _asked(f"/api/models/{name}/auth-check", token, flag, token_flag)
    except _NotThereError:
        return False
    with suppress(_NotThereError):  # a hub that does not know this question
        _asked(f"/api/models/{name}/auth-check/write", token, flag, token_flag)
    return True


def _grants_writing(access: dict[str, Any]) -> bool:
    """Whether a fine-grained token may write anywhere: which names it may is the hub's to say."""
    scoped = (access.get("fineGrained") or {}).get("scoped") or []
    return any(right in _MAY_WRITE for scope in scoped for right in scope.get("permissions") or [])


def _token(token: str | None, flag: str | None, token_flag: str) -> str:
    from huggingface_hub import get_token

    found = token or get_token()
    if not found:
        raise UserError(f"uploading needs an access token of the hub: hf auth login once, or {token_flag}", flag=flag)
    return found


class _NotThereError(HubError):
    """A name or a question that the hub does not know."""


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _asked(path: str, token: str, flag: str | None, token_flag: str) -> dict[str, Any]:
    """What the hub answers; an error that it answers in words for the user."""
    from huggingface_hub.errors import HTTPError  # that of httpx or httpx2, whichever it uses
    from huggingface_hub.utils import build_hf_headers, get_session

    try:
        answer = get_session().get(_endpoint() + path, headers=build_hf_headers(token=token), timeout=_SECONDS)
    except (HTTPError, OSError) as error:
        raise HubError(f"the hub cannot be reached ({one_line(error)})", flag=flag) from error
    status = answer.status_code
    if status == 404:
        raise _NotThereError(f"the hub answers with 404 to {path}", flag=flag)
    if status == 401:
        raise UserError("the hub does not know this access token (401); it may be mistyped or expired", flag=token_flag)
    if status == 403:
        said = answer.headers.get("X-Error-Message") or "403 Forbidden"
        raise UserError(f"the hub does not let this access token write there: {one_line(said)}", flag=flag)
    if status >= 400:
        raise HubError(f"the hub answers with {status} {answer.reason_phrase}; try again later", flag=flag)
    try:
        found = answer.json()
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
