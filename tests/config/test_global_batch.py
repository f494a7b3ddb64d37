"""A step of N examples, whoever shares it."""

from __future__ import annotations

from math import lcm
from pathlib import Path

import pytest

from lmtrain.cli.arguments import parse
from lmtrain.config.global_batch import Division, divide, examples_a_step, largest_division
from lmtrain.core.errors import UserError


@pytest.mark.parametrize("processes", range(1, 9))
@pytest.mark.parametrize("examples", [1, 6, 7, 8, 24, 32, 100, 512])
def test_micro_batches_make_up_the_step(examples: int, processes: int) -> None:
    if examples % processes:
        with pytest.raises(UserError) as caught:
            divide(examples, processes)
        assert caught.value.problems[0].flag == "--global_batch_size"
        return
    division = divide(examples, processes)
    assert division.micro_batch * division.accumulation * processes == examples
    assert 1 <= division.micro_batch <= 8
    assert divide(examples, processes, division.micro_batch) == division


def test_as_many_at_once_as_may_be() -> None:
    assert divide(16, 1) == Division(8, 2)
    assert divide(16, 4) == Division(4, 1)
    assert divide(22, 2) == Division(1, 11), "11 is a prime"
    assert divide(64, 2, 32) == Division(32, 1)
    assert largest_division(12, 5) == Division(4, 3)


@pytest.mark.parametrize(
    ("examples", "processes", "micro", "says"),
    [
        (16, 3, None, "--global_batch_size 15 or 18, or start 2 or 4 processes"),
        (2, 4, None, "--global_batch_size 4, or start 2 processes"),
        (7, 2, None, "--global_batch_size 6 or 8, or start 1 or 7 processes"),
        (16, 2, 3, "each of 2 processes takes 8 of 16 examples; give --per_device_train_batch_size 2 or 4"),
        (16, 1, 32, "give --per_device_train_batch_size 16, or leave it out"),
    ],
)
def test_what_to_type_instead(examples: int, processes: int, micro: int | None, says: str) -> None:
    with pytest.raises(UserError) as caught:
        divide(examples, processes, micro)
    assert says in caught.value.problems[0].text
    assert "\n" not in caught.value.problems[0].text


def test_the_number_of_processes_is_the_launchers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.txt").write_text("text")
    words = f"--model_name_or_path m --train_file {tmp_path / 'text.txt'} --output_dir {tmp_path / 'out'}".split()
    for processes in (1, 2, 3, 4, 6):
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        parse("clm", [*words, "--global_batch_size", str(lcm(1, 2, 3, 4, 6))])
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(UserError, match="by 5 processes; give --global_batch_size 10 or 15"):
        parse("clm", [*words, "--global_batch_size", "12"])


def test_the_size_of_a_step_by_the_options() -> None:
    assert examples_a_step({}, 2) == 16
    assert examples_a_step({"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3}, 2) == 24
    assert examples_a_step({"global_batch_size": 12, "per_device_train_batch_size": 4}, 2) == 12
    assert examples_a_step({"batch_tokens": 4096}, 2) is None
