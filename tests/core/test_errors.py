from __future__ import annotations

import pytest

from lmtrain.core.errors import Problems, UserError


def test_problems_are_shown_together_and_once() -> None:
    problems = Problems()
    problems.add("no such file: a.txt", flag="--train_file")
    problems.add("no such file: a.txt", flag="--train_file")
    with problems.collect():
        raise UserError("4096 is longer than 1024 positions", flag="--block_size")
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert [p.flag for p in caught.value.problems] == ["--train_file", "--block_size"]


def test_no_problem_raises_nothing_and_other_errors_pass() -> None:
    problems = Problems()
    problems.raise_if_any()
    with pytest.raises(ZeroDivisionError), problems.collect():
        _ = 1 / 0
