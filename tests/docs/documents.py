"""The commands of README.md and docs/*.md: fenced blocks, indented blocks, and code in the running text."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELL = ("sh", "bash", "console")
ELISIONS = ("…", "...")
_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *([\w-]*)")
_MARK = re.compile(r"^ *<!-- *not run: *(.*?) *-->$")
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PROGRAMS = ("lmtrain", "make", "pip", "python", "torchrun", "accelerate")


@dataclass(frozen=True)
class Block:
    """Some code of a page. ``not_run`` is the reason in the comment on the line before, "" without one."""

    page: str
    line: int
    language: str  # of the fence; "inline" for code in the running text
    text: str
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The code of a page that is a command or a program, in its order.

    Of indented blocks and of code in the running text only what begins with the name of a program is one.
    """
    name, found = str(page.relative_to(ROOT)), list[Block]()
    lines = page.read_text(encoding="utf-8").split("\n")
    at, before = 0, ""
    while at < len(lines):
        line, first = lines[at], at + 1
        at += 1
        fence = _FENCE.match(line)
        if fence:
            start = at
            while at < len(lines) and lines[at].strip() != fence[2]:
                at += 1
            text = "\n".join(row.removeprefix(fence[1]) for row in lines[start:at])
            at += 1
            shown = any(
                _is_command(row.removeprefix("$ ")) for row in text.split("\n")
            )  # whatever the fence calls itself
            if fence[3] in (*SHELL, "python") or shown:
                found.append(Block(name, first, fence[3], text, _reason(before)))
        elif _is_command(line.strip()) and line.startswith("    ") and not before.strip():
            start = at - 1
            while at < len(lines) and lines[at].startswith("    "):
                at += 1
            found.append(Block(name, first, "sh", "\n".join(row[4:] for row in lines[start:at]), _reason(before)))
        else:
            spans = [span.replace("\\|", "|") for span in _INLINE.findall(line)]
            found += [Block(name, first, "inline", span) for span in spans if _is_command(span)]
        before = line
    return found


def _reason(line: str) -> str:
    mark = _MARK.match(line)
    return mark[1] if mark else ""


def _is_command(text: str) -> bool:
    program, _, rest = text.partition(" ")
    return program in _PROGRAMS and bool(rest)


def commands(block: Block) -> list[list[str]]:
    """The words of each command of a block in shell: comments left out, continued lines joined."""
    found = []
    for line in block.text.replace("\\\n", " ").split("\n"):
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if words:
            found.append(words)
    return found


def is_elided(words: list[str]) -> bool:
    return any(word in ELISIONS or word.startswith("…") for word in words)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", text, flags=re.M):
        plain = re.sub(r"[^\w\s-]", "", heading.replace("`", "").lower()).strip()
        found |= {re.sub(r"[\s]", "-", plain), re.sub(r"[-\s]+", "-", plain)}
    return found


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that lie in this repository."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = _INLINE.sub("", text)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]
