"""Problems as a person reads them: a column of flags, and no line wider than the terminal."""

from __future__ import annotations

import pytest

from lmtrain.core.errors import Interrupted, UserError
from lmtrain.core.problem_block import Problem, problem_block

PROBLEMS = (
    Problem("no such option; did you mean --learning_rate?", "--lerning_rate"),
    Problem("has no text;\nchoose one: --text_column body", "--train_file"),
    Problem("the disk is full"),
)


def test_the_block_of_problems() -> None:
    assert problem_block("clm", PROBLEMS) == (
        "lmtrain clm: 3 things to change before this can run\n"
        "  --lerning_rate   no such option; did you mean --learning_rate?\n"
        "  --train_file     has no text;\n"
        "                   choose one: --text_column body\n"
        "                   the disk is full"
    )
    in_a_notebook = UserError("x")._render_traceback_()
    assert in_a_notebook == ["lmtrain: 1 thing to change before this can run", "  x"]
    stopped = Interrupted("SIGINT; saved at step 30")._render_traceback_()
    assert stopped == ["interrupted (SIGINT; saved at step 30); the same command goes on"]


BESIDE = "  --lerning_rate   no such option; did you mean\n                   --learning_rate?\n  --train_file     has"
BELOW = (
    "  --lerning_rate\n      no such option; did you mean\n      --learning_rate?\n  --train_file\n      has no text;"
)


@pytest.mark.parametrize(("columns", "beginning"), [(60, BESIDE), (50, BELOW)])
def test_in_a_terminal_it_keeps_to_the_width(columns: int, beginning: str) -> None:
    _, *rest = problem_block("clm", PROBLEMS, columns=columns).split("\n")
    assert "\n".join(rest).startswith(beginning), rest
    assert max(map(len, rest)) < columns and rest[-1].strip() == "the disk is full"
