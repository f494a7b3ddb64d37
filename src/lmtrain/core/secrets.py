"""Keys and passwords are taken out of texts before they are written down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

_PATTERNS: Final = (
    (re.compile(r"\b((?:hf|ghp|github_pat|wandb_v1)_|sk-)[A-Za-z0-9_-]{16,}"), r"\1..."),  # of hubs and trackers
    (re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@"), r"\1...@"),  # a name and a password in an address
    (
        re.compile(r"(https?://[^\s?#'\"]+\?)[^\s'\"]*(?:[Ss]ign|[Tt]oken|[Cc]redential|[Kk]ey)[^\s'\"]*"),
        r"\1...",
    ),  # signed
)
_NAMED_SECRET: Final = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|ACCESS_KEY_ID|ACCOUNT_KEY|CONNECTION_STRING)$"
)
_SHORTEST: Final = 8  # characters: a shorter value may be an ordinary word of the text


def without_keys(text: str, environment: Mapping[str, str] | None = None) -> str:
    """``text`` without what looks like a key or a password, and without the values of variables of the
    ``environment`` (by default the process's) that are named as one: ``HF_TOKEN``, ``AWS_SECRET_ACCESS_KEY``.

    >>> without_keys("asked s3://me:hush@host with hf_abcdefghijklmnopqrst", {})
    'asked s3://...@host with hf_...'
    """
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    for name, value in (os.environ if environment is None else environment).items():
        if len(value) >= _SHORTEST and value in text and _NAMED_SECRET.search(name.upper()):
            text = text.replace(value, "...")
    return text
