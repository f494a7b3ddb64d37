"""Every command of README.md and docs/ is understood, and executed on a miniature.

``make test`` takes every command through the real parser and its checks and executes the short ones; ``make
docs-test`` (``LMTRAIN_DOCS=all``) executes the rest. What they are changed into: docs_miniature.py.
"""

from __future__ import annotations

import ast
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from docs_miniature import ALSO, BEFORE, ELIDED, NOT_EXECUTED, OPTIONS, PREAMBLE, PYTHON, SHORT, WHOLE
from docs_world import build, write_texts
from documents import ROOT, Block, blocks, commands, is_elided, pages

import lmtrain
from hub_stand_in import TOKEN, serving
from lmtrain.cli.arguments import parse, split_words
from lmtrain.cli.commands import find_command
from lmtrain.cli.main import main
from lmtrain.config.commands import ABOUT_A_RUN
from lmtrain.config.flags import FlagTable, flag_table
from lmtrain.config.load import gather
from lmtrain.core.errors import Problems

ALL = [block for page in pages() for block in blocks(page)]
SHELLS = [block for block in ALL if block.language != "python" and not block.not_run]
PYTHONS = [block for block in ALL if block.language == "python" and not block.not_run]
EVERYTHING = os.environ.get("LMTRAIN_DOCS") == "all"


def test_there_are_commands_and_reasons() -> None:
    assert len(SHELLS) > 60 and len(PYTHONS) > 5
    assert all(len(block.not_run) > 10 for block in ALL if block.not_run)


@pytest.fixture(scope="module")
def made_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LMTRAIN_CACHE", str(tmp_path_factory.mktemp("cache")))
        build(folder, patch)
    return folder


@pytest.fixture
def world(made_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made_world, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "here"


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of lmtrain in ``words``, also behind torchrun, and what follows it."""
    if "-m" in words and words[words.index("-m") + 1 :][:1] == ["lmtrain"]:
        words = words[words.index("-m") + 1 :]
    if words[0] != "lmtrain":
        return None
    # `hf|merged` and COMMAND stand for one of several
    name, rest = find_command(
        [word.split("|")[0].replace("COMMAND", "clm").replace("TASK", "e2e") for word in words[1:]]
    )
    assert name, f"no such command: {' '.join(words)}"
    return name, rest


def understood(name: str, rest: list[str]) -> None:
    """Each option exists and its value is one; what is left out is no mistake here."""
    problems, own = Problems(), flag_table(name) if name in ABOUT_A_RUN else None
    table = flag_table(rest[0] if rest else "clm") if own else flag_table(name)
    both = FlagTable(table.command, {**own.flags, **table.flags}) if own else table
    settings = split_words(both, _given(rest)).settings
    gather(table.command, [item for item in settings if not (own and own.find(item.name))], problems)
    problems.raise_if_any()


def _given(rest: list[str]) -> list[str]:
    """Without elisions, but for one that stands for the value of a flag."""
    pairs = zip(["", *rest], rest, strict=False)
    return [word for before, word in pairs if not is_elided([word]) or before.startswith("--references")]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    shutil.copytree(folder / "corpus", folder / "filtered")  # what an earlier command of the page would have made
    return folder


@pytest.mark.parametrize("block", SHELLS, ids=str)
def test_commands_are_understood(block: Block, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(texts)
    for words in commands(block):
        command = ours(words)
        if command is None:
            _other_program(words)
        elif "--help" not in words:
            name, rest = command
            understood(name, rest)
            if block.language != "inline" and not is_elided(rest):
                parse(name, rest)


def _other_program(words: list[str]) -> None:
    """Programs around ours: what they are told to do exists."""
    line = " ".join(words)
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "pip":
        extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.M))
        for named in re.findall(r"\[([\w,]+)\]", line):
            assert set(named.split(",")) <= extras, f"{line}: no such extra"
        known = "lmtrain" in line or words[-1].startswith(".") or words[2] in ("torch", "trackio", "wandb")
        assert words[1] == "install" and known, line
    elif words[0] == "python" and words[1] == "-m":
        assert (
            words[2].startswith("lmtrain") and (ROOT / "src" / Path(*words[2].split("."))).with_suffix(".py").is_file()
        )
    elif words[0] == "python":
        program = (ROOT / words[1]).read_text(encoding="utf-8")
        for word in words[2:]:
            named = word.removeprefix("--").replace("-", "_")
            assert word.isdigit() or word in program or f"{named}" in program, f"{words[1]} knows no {word}"
    else:
        assert words[0] in ("torchrun", "accelerate"), f"nothing executes {line}; mark the block with a reason"


@pytest.mark.parametrize("block", [block for block in SHELLS if "lmtrain" in block.text], ids=str)
def test_commands_do_what_the_page_says(block: Block, request: pytest.FixtureRequest, monkeypatch) -> None:
    todo = executed(block)
    if not todo:
        pytest.skip("nothing to execute here: the name of a command, or see NOT_EXECUTED")
    if not EVERYTHING and not all(_name(words) in SHORT and not _before(words) for words in todo):
        pytest.skip("in `make docs-test`")
    request.getfixturevalue("world")
    for words in todo:
        for each in _before(words):
            _execute(each, monkeypatch)
            if each[1] == "gpt2-ft":
                shutil.copy(next(Path("made").glob("model.*.pt")), "model.26289.pt")
        _execute(words, monkeypatch)


def _before(words: list[str]) -> list[list[str]]:
    return [shlex.split(made) for start, made in BEFORE.items() if " ".join(words).startswith(start)]


def _name(words: list[str]) -> str:
    command = ours(words)
    return command[0] if command else ""


def executed(block: Block) -> list[list[str]]:
    """Those of its commands that a test executes, without what the page leaves out."""
    found = []
    for words in commands(block):
        line = " ".join(words)
        words = shlex.split(WHOLE.get(line, line)) if line in WHOLE else words
        if ours(words) and not _reason(line) and not _is_a_name(words):
            found.append(words)
    return found


def _reason(line: str) -> str:
    return next((reason for start, reason in NOT_EXECUTED.items() if line.startswith(start)), "")


def _is_a_name(words: list[str]) -> bool:
    """``lmtrain nlg score``, ``lmtrain check clm``: the page speaks of the command."""
    command = ours(words)
    assert command
    name, rest = command
    return (not rest and name != "demo") or (name in ABOUT_A_RUN and len(rest) == 1)


def test_what_is_not_executed_has_a_reason() -> None:
    lines = [(block, " ".join(words)) for block in SHELLS for words in commands(block)]
    for block, line in lines:
        words = shlex.split(line)
        assert ours(words) or _reason(line), f"{block}: {line}: nothing executes it, and NOT_EXECUTED gives no reason"
    for start in (*NOT_EXECUTED, *WHOLE):
        assert any(line.startswith(start) for _, line in lines), f"{start}: no page has it any more"
    untested = [line for _, line in lines if line.startswith("lmtrain") and _reason(line)]
    assert len(untested) <= 4, untested


def _execute(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ours(words)
    assert command
    name, rest = command
    words = rest if "--help" in rest else miniature(name, rest)
    monkeypatch.setattr("sys.stdin", io.StringIO("It was\n/quit\n"))
    monkeypatch.setattr("sys.argv", ["lmtrain", *name.split(), *words])
    for flag in ("--output_dir", "--work_dir"):  # what is to be made here is not there yet
        if flag in words:
            shutil.rmtree(words[words.index(flag) + 1], ignore_errors=True)
    if name == "push" or "--push_to_hub" in words:
        with serving() as hub:
            hub.take_the_place(monkeypatch, Path.cwd())
            monkeypatch.setenv("HF_TOKEN", TOKEN)
            assert main([*name.split(), *words]) == 0
            assert any(request.endswith("/commit/main") for request in hub.requests)
        return
    assert main([*name.split(), *words]) == 0, f"lmtrain {name} {' '.join(words)}"


def miniature(name: str, rest: list[str]) -> list[str]:
    """The words of a command with the options of docs_miniature.py."""
    training = rest[0] if name in ABOUT_A_RUN else name
    if is_elided(rest):
        rest = [word for word in rest if not is_elided([word])]
        given = ELIDED[training].replace("'", "").split("\0")[0]
        rest += given.split() if training != "generate" else [given]
    changes = dict(OPTIONS.get(training, {}))
    if training != name:
        changes |= OPTIONS.get(name, {})
    for part, more in ALSO.items():
        if part in " ".join(rest):
            changes |= more
    if name == "generate":  # prompts come first, and a masked model writes nothing
        changes = {} if any("[MASK]" in word for word in rest) else changes
    table = flag_table(name)
    for flag, value in changes.items():
        rest = _without(rest, flag)
        if value is not None:
            front = 1 if name in ABOUT_A_RUN or name == "nlg" else 0
            new = [f"--{flag}={value}"]
            rest = [*rest[:front], *new, *rest[front:]] if not table.find("prompt") else [*rest, *new]
    return rest


def _without(words: list[str], flag: str) -> list[str]:
    if f"--{flag}" not in words:
        return [word for word in words if not word.startswith(f"--{flag}=")]
    at = words.index(f"--{flag}")
    end = next((i for i in range(at + 1, len(words)) if words[i].startswith("--")), len(words))
    return words[:at] + words[end:]


@pytest.mark.parametrize("block", PYTHONS, ids=str)
def test_python_is_python_and_its_names_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lmtrain":
            assert node.attr in lmtrain.__all__, f"lmtrain has no {node.attr}"


@pytest.mark.skipif(not EVERYTHING, reason="in `make docs-test`")
@pytest.mark.parametrize("block", PYTHONS, ids=str)
def test_python_does_what_the_page_says(block: Block, world: Path) -> None:
    text = block.text
    for old, new in PYTHON.items():
        text = text.replace(old, new)
    Path("page.py").write_text(PREAMBLE + text)
    runpy.run_path("page.py", run_name="__main__")
