from __future__ import annotations

import pytest

from lmtrain.core.errors import ExitCode, Problems, UserError, about
from lmtrain.core.problem_block import Problem


def test_problems_are_shown_together_and_once() -> None:
    problems = Problems()
    problems.add("no such file: a.txt", flag="--train_file")
    problems.add("no such file: a.txt", flag="--train_file")
    with problems.collect():
        raise UserError("4096 is longer than 1024 positions", flag="--block_size")
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert [p.flag for p in caught.value.problems] == ["--train_file", "--block_size"]


class NoSaveError(UserError):
    exit_code = ExitCode.NO_SAVE_SUCCEEDED


@pytest.mark.parametrize(("where_none", "flags"), [(False, ["--like", "--like"]), (True, ["--seed", "--like"])])
def test_an_error_is_told_about_what_was_typed(where_none: bool, flags: list[str]) -> None:
    """It stays the error that it is, with the exit code of its kind."""
    with pytest.raises(NoSaveError) as caught, about("--like", where_none=where_none):
        raise NoSaveError(problems=(Problem("no number", "--seed"), Problem("no room")))
    assert [(p.text, p.flag) for p in caught.value.problems] == list(zip(["no number", "no room"], flags, strict=True))
    assert str(caught.value) == f"{flags[0]}: no number; {flags[1]}: no room"


def test_no_problem_raises_nothing_and_other_errors_pass() -> None:
    problems = Problems()
    problems.raise_if_any()
    with pytest.raises(ZeroDivisionError), problems.collect():
        _ = 1 / 0
