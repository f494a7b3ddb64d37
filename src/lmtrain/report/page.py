"""One HTML page that needs nothing else: no network, no other file; a script in it that may ask nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

from lmtrain.core.errors import UserError
from lmtrain.core.files import write_text
from lmtrain.core.version import __version__
from lmtrain.report.charts import PALETTE, drawing
from lmtrain.report.markup import joined
from lmtrain.report.reading import Run
from lmtrain.report.sections import sections

_SCRIPTS: Final = ("axes.js", "chart.js", "save.js", "page.js")
_OURS: Final = '<meta name="generator" content="lmtrain report">'


def title_of(runs: Sequence[Run]) -> str:
    return ", ".join(run.name for run in runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")


def content_of(runs: Sequence[Run]) -> dict[str, Any]:
    """All that changes while a run goes on, as plain values."""
    return {
        "title": title_of(runs),
        "drawing": drawing(runs).as_json(),
        "sections": sections(runs),
        "working": any(run.is_at_work for run in runs),
    }


def page(runs: Sequence[Run], *, stamp: str | None = None) -> str:
    """The report of ``runs``. With a ``stamp`` the page asks where it came from for what is newer (``--live``)."""
    content = content_of(runs)
    style, script = _style(), _script()
    made = time.strftime("%Y-%m-%d %H:%M")
    data = {"drawing": content["drawing"], "stamp": stamp}
    parts = {
        "policy": joined(_policy(style, script, live=stamp is not None)),
        "title": joined(content["title"]),
        "style": style,
        "script": script,
        "data": for_script(data),
        "footer": joined(f"Made {made} by lmtrain {__version__}. This page loads nothing and sends nothing."),
        **content["sections"],
    }
    # In one pass, so that what is put in is never looked through for names of parts.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))


def write_page(path: Path, runs: Sequence[Run]) -> None:
    """Write the report to ``path``; refuse to write over a file that is no report."""
    flag = "--output"
    try:
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a file, such as {path / 'report.html'}", flag=flag)
        if path.exists() and _OURS not in path.read_text(encoding="utf-8", errors="replace")[:4000]:
            raise UserError(f"{path} is there and is no report of ours; give another name", flag=flag)
        write_text(path, page(runs))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file", flag=flag) from error


def for_script(value: Any) -> str:
    """JSON that cannot end the ``<script>`` element it stands in, nor begin a comment in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _style() -> str:
    # Beside light-dark(), which browsers know since 2024, the colours for light ground alone.
    names = [f"--run-{at}" for at in range(len(PALETTE))]
    plain = " ".join(f"{name}: {light};" for name, (light, _) in zip(names, PALETTE, strict=True))
    both = " ".join(f"{name}: light-dark({light}, {dark});" for name, (light, dark) in zip(names, PALETTE, strict=True))
    colours = f":root {{ {plain} }}\n@supports (color: light-dark(red, red)) {{ :root {{ {both} }} }}\n"
    return colours + _asset("page.css")


def _script() -> str:
    parts = ['"use strict";', f"const PALETTE_SIZE = {len(PALETTE)};", *(_asset(name) for name in _SCRIPTS)]
    return "\n".join(parts)


def _policy(style: str, script: str, *, live: bool) -> str:
    """What a browser lets the page do: run this one script, and reach nothing; --live reaches where it came from."""

    def hashed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"

    reaches = "'self'" if live else "'none'"
    return (
        f"default-src 'none'; script-src {hashed(script)}; style-src {hashed(style)}; img-src blob:; "
        f"connect-src {reaches}; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return resources.files("lmtrain.report").joinpath("assets", name).read_text(encoding="utf-8")
