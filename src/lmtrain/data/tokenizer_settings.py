"""What stands beside a ``tokenizer.json``: tokens that other files name, added as transformers adds them on loading."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmtrain.core.errors import UserError

NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
FLAG = "--tokenizer_name"


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = f"{file.parent} has no tokenizer.json" if file.parent.is_dir() else f"no such folder: {file.parent}"
        raise UserError(what, flag=FLAG) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}", flag=FLAG) from error


def read_json(file: Path) -> dict[str, Any]:
    """The object that a file holds; an empty one where there is no file, or something else in it."""
    if not file.exists():
        return {}
    try:
        value = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error}", flag=FLAG) from error
    return value if isinstance(value, dict) else {}


def _content(token: Any) -> str | None:
    """The text of a token as the files spell it: a string, or an object with ``content``."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def named_tokens(config: Mapping[str, Any], special_map: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by what they are for; what ``config`` says counts first."""
    named = {}
    for name in NAMED:
        token = _content(config.get(f"{name}_token")) or _content(special_map.get(f"{name}_token"))
        if token is not None:
            named[name] = token
    return named


def add_missing(backend: Any, config: Mapping[str, Any], named: Mapping[str, str], extra: Mapping[str, Any]) -> bool:
    """Add tokens that the other files name and ``tokenizer.json`` lacks, as transformers does on loading."""
    from tokenizers import AddedToken

    there = {token.content for token in backend.get_added_tokens_decoder().values()}
    before = len(there)
    listed = config.get("added_tokens_decoder") or {}
    for _, entry in sorted(listed.items(), key=lambda item: int(item[0])):
        if isinstance(entry, dict) and entry["content"] not in there:
            flags = {k: bool(entry.get(k, False)) for k in ("single_word", "lstrip", "rstrip", "normalized")}
            backend.add_tokens([AddedToken(entry["content"], special=bool(entry.get("special")), **flags)])
            there.add(entry["content"])
    for token, _ in sorted(extra.items(), key=lambda item: item[1]):
        if backend.token_to_id(token) is None:
            backend.add_tokens([token])
            there.add(token)
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    for special in (*named.values(), *map(_content, more.values() if isinstance(more, dict) else more)):
        if special is not None and special not in there:  # also one that stands among the tokens of words
            backend.add_special_tokens([special])
            there.add(special)
    return len(there) != before
