"""Runs the cells of examples/quick_start.py as a notebook's kernel does, without one: in one namespace, one after
another, inside a running event loop, with a kernel's arguments; then all but the first again, as a reader would."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def cells() -> list[str]:
    """The code cells."""
    found = re.split(r"^# %%", (EXAMPLES / "quick_start.py").read_text(), flags=re.M)[1:]
    return [cell.split("\n", 1)[1] for cell in found if not cell.startswith(" [markdown]")]


async def _kernel(code: list[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(code):
        exec(compile(cell, f"<cell {number + 1}>", "exec"), names)
        await asyncio.sleep(0)


if __name__ == "__main__":
    import os

    os.chdir(sys.argv[1])
    sys.argv = ["ipykernel_launcher.py", "-f", "/nowhere/kernel.json"]
    sys.path.insert(0, str(EXAMPLES))
    first, *others = [cell.replace("default=40", "default=4") for cell in cells()]
    asyncio.run(_kernel([first, *others, *others]))
