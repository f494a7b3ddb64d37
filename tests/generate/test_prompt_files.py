"""Prompts from files: lines or records, and every bad one named."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.generate.prompt_files import read_prompts


def write(folder: Path, name: str, content: str) -> str:
    (folder / name).write_bytes(content.encode())
    return str(folder / name)


def test_lines_are_prompts_and_only_line_breaks_part_them(tmp_path: Path) -> None:
    name = write(tmp_path, "p.txt", "\ufeffone\u2028still one\r\n\n  two \x0c\n\t\nthree")
    assert read_prompts(name) == ["one\u2028still one", "  two \x0c", "three"]


def test_a_mark_at_the_beginning_of_standard_input_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeffone\ntwo"))
    assert read_prompts("-") == ["one", "two"]


def test_records_have_a_prompt(tmp_path: Path) -> None:
    prompts = ["one\nwith two lines", "", "é 漢"]
    lines = [json.dumps({"prompt": prompt, "id": 1}) for prompt in prompts]
    assert read_prompts(write(tmp_path, "p.jsonl", "\n\n".join(lines))) == prompts


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"prompt": "a"}\nnot JSON', "p.jsonl:2: not JSON (Expecting value at character 1)"),
        ('{"text": "a"}', 'p.jsonl:1: no record with a "prompt"'),
        ('"a"', 'p.jsonl:1: no record with a "prompt"'),
        ('\n{"prompt": 3}', 'p.jsonl:2: its "prompt" is no text'),
        ("[" * 100_000, "p.jsonl:1: JSON too deep"),
        ("\n \n", "holds no prompt"),
        ("x\n" * 9, "and 4 more such lines"),
    ],
)
def test_bad_lines_are_named_and_many_are_counted(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts(write(tmp_path, "p.jsonl", content))
    assert words in str(caught.value) and len(caught.value.problems) <= 6
    assert {problem.flag for problem in caught.value.problems} == {"--prompts_file"}
