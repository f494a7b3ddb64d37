from __future__ import annotations

from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.evaluate.nlg import read_predictions, read_references


def _file(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def test_e2e_groups_and_strips(tmp_path: Path) -> None:
    references = _file(tmp_path, "r", " a one \nanother\n\nthird\n\n")
    assert read_references("e2e", [references], 2, "p") == [["a one", "another"], ["third"]]
    assert read_predictions("e2e", _file(tmp_path, "p", " x \n\ny")) == ["x", "", "y"]


def test_e2e_without_blank_lines_has_one_reference_an_input(tmp_path: Path) -> None:
    assert read_references("e2e", [_file(tmp_path, "r", "a\nb\n")], 2, "p") == [["a"], ["b"]]


def test_references_of_a_single_input_end_with_a_blank_line(tmp_path: Path) -> None:
    """So ``nlg text`` writes them; without the blank line two lines are of two inputs."""
    assert read_references("e2e", [_file(tmp_path, "r", "a\nb\n\n")], 1, "p") == [["a", "b"]]
    assert read_references("e2e", [_file(tmp_path, "r", "a\nb\n\n")], 2, "p") == [["a"], ["b"]]
    with pytest.raises(UserError, match=r"p has 1 prediction, .* for 2 inputs"):
        read_references("e2e", [_file(tmp_path, "r", "a\nb\n")], 1, "p")


def test_webnlg_by_rank_keeps_empty_lines(tmp_path: Path) -> None:
    for rank, text in enumerate(["a\nb\n", "a2\n\n", "\nb3\n"]):
        _file(tmp_path, f"reference{rank}", text)
    expected = [["a", "a2", ""], ["b", "", "b3"]]
    assert read_references("webnlg", [str(tmp_path / "reference")], 2, "p") == expected
    assert read_references("dart", [str(tmp_path)], 2, "p") == expected
    assert read_references("dart", [str(tmp_path / f"reference{rank}") for rank in range(3)], 2, "p") == expected


@pytest.mark.parametrize(
    ("task", "content", "message"),
    [
        ("e2e", "a\n\n\nb\n", "line 3: an input without references"),
        ("e2e", "a\n\nb\n\nc\n", "p has 2 predictions, .* has references for 3 inputs"),
        ("e2e", "", "is empty"),
        ("e2e", "\ufeffa\n", "byte-order mark"),
        ("webnlg", "a\n\n", "line 2: an input without references"),
        ("webnlg", "a\u2028b\nc\n", "line 1: holds a line break"),
        ("webnlg", "a\n", "p has 2 predictions, .* for 1 input;"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, task: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_references(task, [_file(tmp_path, "r", content)], 2, "p")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--predictions: .*No such file"):
        read_predictions("e2e", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"not UTF-8 \(at byte 3\)"):
        read_predictions("e2e", _file(tmp_path, "p", b"caf\xe9"))
    with pytest.raises(UserError, match="is empty"):
        read_predictions("webnlg", _file(tmp_path, "p", ""))
    with pytest.raises(UserError, match="tables are not read"):
        read_references("e2e", [_file(tmp_path, "r.tsv", "a\tb")], 1, "p")


def test_ranks_of_different_lengths_name_both_files(tmp_path: Path) -> None:
    names = [_file(tmp_path, "r0", "a\nb\n"), _file(tmp_path, "r1", "a\n")]
    with pytest.raises(UserError, match=r"r0 has 2 lines and .*r1 has 1"):
        read_references("webnlg", names, 2, "p")
