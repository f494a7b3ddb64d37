"""Addresses such as ``s3://bucket/file``: told from paths, and shown without what opens doors."""

from __future__ import annotations

import re

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_PARTS = re.compile(
    r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]+://)(?:[^/\s@]*@)?(?P<rest>[^\s?#'\"]*)(?P<more>[?#][^\s'\"]*)?"
)
_WEB = ("http://", "https://")
HIDDEN = "…"


def is_address(text: str) -> bool:
    """Whether ``text`` names something on object storage or on the web; a drive such as ``C:`` is a path."""
    return bool(_SCHEME.match(text))


def shown(text: str) -> str:
    """``text`` as it may be printed and written down: addresses in it without user, password and signature.

    What follows a ``?`` is hidden for web addresses, since a signed one opens what it names to anybody; elsewhere a
    ``?`` is part of a pattern, or names a version.

    >>> shown("https://me:pw@host/a.txt?X-Amz-Signature=12ab"), shown("s3://bucket/part-?.txt")
    ('https://host/a.txt?…', 's3://bucket/part-?.txt')
    """
    if "://" not in text:
        return text

    def part(found: re.Match[str]) -> str:
        more = found["more"] or ""
        if more and found["scheme"].lower() in _WEB:
            more = more[0] + HIDDEN
        return found["scheme"] + found["rest"] + more

    return _PARTS.sub(part, text)
