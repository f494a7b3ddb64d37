"""A small data-to-text corpus that every machine has: the interpreter's own functions and what they are said to do.

``module : shlex | function : split | parameters : s, comments, posix`` → ``Split the string *s* using shell-like
syntax.``

The facts are a function's module, name and parameters, the text is the first sentence of its documentation. Methods of
several classes of a module may have the same facts, and are then several texts for one input. What is in the corpus
depends on the Python it runs on, and on nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lmtrain.data.nlg.records import Record, write_records

# Installed packages, tests and what only looks like modules.
_NOT_LIBRARY: Final = frozenset(
    {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data"}
)
_LONGEST_FILE: Final = 200_000  # bytes
_WORDS: Final = range(4, 31)  # of a text; shorter ones say nothing
_NEXT_SENTENCE: Final = re.compile(r"\. (?=[A-Z])")  # not the one of "e.g. this"
_PARTS: Final = ("train", "valid", "test")


def miniature(library: Path | None = None) -> dict[str, list[Record]]:
    """The corpus as ``train``, ``valid`` and ``test`` (about 80, 10 and 10 per cent of the functions).

    ``library`` is a folder of Python files, else that of the standard library. Files are read in the order of their
    names. Which part a function is in is told by a hash of its name, so that functions of one name, which are often
    described in the same words, are in one part. Some 3,000 records in about five seconds.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    parts: dict[str, list[Record]] = {part: [] for part in _PARTS}
    seen: set[Record] = set()
    for path in sorted(library.rglob("*.py")):
        inside = path.relative_to(library)
        if _NOT_LIBRARY & set(inside.parts) or path.stat().st_size > _LONGEST_FILE:
            continue
        names = inside.with_suffix("").parts
        module = ".".join(names[:-1] if names[-1] == "__init__" else names)
        if any(name.startswith("_") for name in module.split(".")):
            continue
        for name, record in _described(path, module):
            if record not in seen:
                seen.add(record)
                parts[part_of(name)].append(record)
    return parts


def part_of(name: str) -> str:
    """The part that functions of this name are in."""
    number = hashlib.blake2b(name.encode(), digest_size=4).digest()[0] % 10
    return _PARTS[max(0, number - 7)]


def write_miniature(folder: Path, library: Path | None = None) -> dict[str, Path]:
    """``train.jsonl``, ``valid.jsonl`` and ``test.jsonl`` in ``folder``."""
    files = {}
    for part, records in miniature(library).items():
        files[part] = folder / f"{part}.jsonl"
        write_records(files[part], records)
    return files


def _described(path: Path, module: str) -> Iterator[tuple[str, Record]]:
    """Name and record of each public function of a file, and of the methods of its public classes."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError):
        return  # a file that shows what is no Python, such as lib2to3's test data
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef):
            continue
        if isinstance(node, ast.ClassDef) and node.name.startswith("_"):
            continue
        for function in node.body:
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) or function.name.startswith("_"):
                continue
            if text := first_sentence(ast.get_docstring(function) or ""):
                facts = f"module : {module} | function : {function.name}{_parameters(function.args)}"
                yield function.name, Record(facts, text)


def _parameters(arguments: ast.arguments) -> str:
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    names += [f"*{arguments.vararg.arg}"] if arguments.vararg else []
    names += [argument.arg for argument in arguments.kwonlyargs]
    names += [f"**{arguments.kwarg.arg}"] if arguments.kwarg else []
    shown = [name for name in names if name not in ("self", "cls")]
    return f" | parameters : {', '.join(shown)}" if shown else ""


def first_sentence(documentation: str) -> str:
    """The first paragraph as far as its first full stop, in one line; "" when it is no sentence worth learning."""
    paragraph = " ".join(documentation.split("\n\n")[0].split())
    end = _NEXT_SENTENCE.search(paragraph)
    sentence = paragraph[: end.start() + 1] if end else paragraph
    is_text = sentence.isascii() and sentence[:1].isalpha() and sentence.endswith(".")
    return sentence if is_text and len(sentence.split()) in _WORDS else ""
