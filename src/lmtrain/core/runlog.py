"""``metrics.jsonl``: one event a line, each line complete JSON, readable while the run goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol


class Events(Protocol):
    """Where events go: a :class:`RunLog`, or what has one."""

    def event(self, kind: str, **values: Any) -> None: ...


def _plain(value: Any) -> Any:
    """Make a value JSON that any parser accepts: non-finite numbers become strings ("nan", "inf")."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    item = getattr(value, "item", None)  # numpy and torch scalars
    return _plain(item()) if callable(item) else str(value)


class RunLog:
    """Appends events to a file. Each is flushed, so a killed run loses at most the line being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8")

    def event(self, kind: str, **values: Any) -> None:
        line = json.dumps({"event": kind, "time": round(time.time(), 3), **_plain(values)}, ensure_ascii=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log; a half-written last line, as a killed run leaves it, is passed over."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict):
                yield event
