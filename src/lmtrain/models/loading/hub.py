"""Where a model or tokenizer name points to: a folder here, or a name on the Hugging Face hub.

The libraries take a mistyped path for a hub name and an absent network for a reason to wait: 23 seconds of
retries before an error about the wrong thing. Here the name is looked at first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError, first_line
from lmtrain.core.hub import why_unreachable

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILE_ENDINGS = (
    ".json",
    ".ckpt",
    ".index",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".safetensors",
    ".msgpack",
    ".model",
)


@dataclass(frozen=True)
class Origin:
    """What to hand to ``from_pretrained``: ``name``, and ``keywords`` for the hub (none for a path).

    ``path`` is the local folder or file, None for a hub name.
    """

    name: str
    path: Path | None = None
    keywords: dict[str, Any] = field(default_factory=dict)


def locate(name: str, options: Any, flag: str, probe_file: str = "config.json") -> Origin:
    """Resolve ``name``; raise :class:`UserError` when it is neither here nor can be fetched.

    ``options`` is a ``config.options.ModelOptions``; ``probe_file`` is the file whose presence in the local
    hub cache shows that the name can be used without a network.
    """
    path = user_path(name)
    if path.exists():
        return Origin(str(path), path)
    if _looks_like_path(name):
        raise UserError(_no_such_path(name, path), flag=flag)
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"{name!r} is neither a folder here nor a name a hub model can have", flag=flag)
    keywords: dict[str, Any] = {
        "cache_dir": options.cache_dir,
        "revision": options.model_revision,
        "token": options.token,
    }
    if why := why_unreachable():
        if not _in_cache(name, probe_file, options):
            raise UserError(
                f"there is no folder {name} here, and the hub cannot be reached ({why}) nor "
                "was the model downloaded before; check the path, or give the folder of a downloaded copy",
                flag=flag,
            )
        keywords["local_files_only"] = True
    return Origin(name, None, keywords)


def hub_problem(error: BaseException, name: str, flag: str) -> UserError | None:
    """The user's words for an error of the hub, or None when ``error`` is about something else."""
    from huggingface_hub import errors

    for cause in _causes(error):
        if isinstance(cause, errors.GatedRepoError):
            return UserError(
                f"{name} is gated: accept its conditions on its hub page, then pass your access token as --token",
                flag=flag,
            )
        if isinstance(cause, errors.RepositoryNotFoundError):
            return UserError(
                f"there is no folder {name} here and no model of that name on the hub (a private one needs --token)",
                flag=flag,
            )
        if isinstance(cause, errors.RevisionNotFoundError):
            return UserError(f"{name} has no such branch, tag or commit", flag="--model_revision")
        if isinstance(cause, errors.EntryNotFoundError):
            return UserError(f"{name} on the hub lacks a file that is needed: {first_line(cause)}", flag=flag)
    return None


def _causes(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _looks_like_path(name: str) -> bool:
    """Whether a name that does not exist was meant as a path: by its form, or because it exists in part."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        return True
    if name.endswith(("/", *_FILE_ENDINGS)):
        return True
    first, slash, _ = name.partition("/")
    return bool(slash) and Path(first).is_dir()


def _no_such_path(name: str, path: Path) -> str:
    """Say what is missing, and what lies next to it under a similar name."""
    import difflib

    if path.with_name(path.name + ".index").exists():
        return f"{name} is a TensorFlow checkpoint; {TENSORFLOW_REMEDY}"
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    missing = path if path.parent == parent else parent / path.relative_to(parent).parts[0]
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(missing.name, names, n=1)
    hint = "; the name of a model on the hub has no ./ in front" if name.startswith("./") else ""
    hint = f"; did you mean {parent / near[0]}?" if near else hint
    where = "" if missing == path else f" ({missing} does not exist)"
    return f"no such folder: {name}{where}{hint}"


TENSORFLOW_REMEDY = (
    "today's libraries do not read it. Convert it once: in an environment with transformers 4.x and "
    "tensorflow, load it with from_pretrained(..., from_tf=True), save_pretrained to a folder, and give "
    "that folder"
)


def _in_cache(name: str, file: str, options: Any) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, file, cache_dir=options.cache_dir, revision=options.model_revision)
    return isinstance(found, str)
