"""Processes find each other or say who is missing; what differs is named; what ends one ends those that wait for it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forked import Forked
from launching import MARKS, TESTS
from lmtrain.core.errors import UserError
from lmtrain.engine.agreement import differences
from lmtrain.engine.distributed.meeting import compared, meet, ranks, telling_others, wait_for_all
from lmtrain.engine.distributed.store import PATIENCE

pytestmark = MARKS
WORLD = 3


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def start(number: int, port: int, *words: object, world: int = WORLD, **more: object) -> Forked:
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": world, "RANK": number, **more}
    environment = {
        **os.environ,
        **{name: str(value) for name, value in group.items()},
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    return Forked(words, env=environment)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes saw; the last two and the first two come in this order."""
    folder, port = tmp_path_factory.mktemp("meeting"), free_port()
    script = Path(__file__).with_name("meeting_ranks.py")
    ports = [free_port() for _ in range(3)]
    processes = [start(number, port, script, folder, *ports) for number in (2, 1, 0)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2, 2], said
    return [json.loads((folder / f"{number}.json").read_text()) for number in range(WORLD)]


def test_the_same_is_no_difference(seen: list[dict[str, Any]]) -> None:
    assert [(each["same"], each["again"]) for each in seen] == [(None, None)] * WORLD


def test_the_first_process_knows_who_has_what(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["differences"] == [["--seed", "is 0 on ranks 0, 2 and 1 on rank 1"]]
    assert seen[1]["differences"] == [["--seed", "is 0 on rank 0 and 1 on rank 1"]]
    assert seen[2]["differences"] == [], "it has what the first one has"


def test_the_first_process_tells_the_others(seen: list[dict[str, Any]]) -> None:
    assert [each["told"] for each in seen] == ["by 0"] * WORLD


def test_texts_of_a_mix_and_weights_are_compared(seen: list[dict[str, Any]]) -> None:
    """Weights where no process sends its own to the others: one of 20,000 that differs in its last places is seen."""
    same, text, weights, not_asked, precision = seen[0]["parts"]
    assert same == not_asked == ""
    assert text.startswith("the train data is 3 examples a c on rank 0 and 3 examples a b on ranks 1-2; every process")
    assert "the model's weights is " in weights and " on ranks 0-1 and " in weights and " on rank 2; " in weights
    assert precision.startswith("--precision: is fp32 on rank 0 and bf16 on ranks 1-2; every process needs the same ")
    assert [[bool(said) for said in each["parts"]] for each in seen] == [[False, True, True, False, True]] * WORLD


def test_a_process_whose_gpu_is_broken_does_not_wait_for_the_others(seen: list[dict[str, Any]]) -> None:
    """It would meet them on gloo, and they it on NCCL."""
    assert [each["start"][0] for each in seen] == [""] * WORLD
    assert seen[0]["start"][1].startswith("the device is cuda on ranks 0, 2 and cpu on rank 1; start every process ")
    assert all(each["start"][1] for each in seen)


def test_an_interruption_or_a_fault_of_one_ends_those_that_wait(seen: list[dict[str, Any]]) -> None:
    assert seen[1]["interrupted"] == "Interrupted: SIGTERM came" and seen[1]["fault"] == "KeyError: 'a bug'"
    for waiting in (seen[0], seen[2]):
        assert waiting["interrupted"] == "Interrupted: process 1: SIGTERM came"
        assert waiting["fault"] == "OwnResultWrong: process 1 failed (KeyError: 'a bug'); it says more itself"


def test_what_one_finds_wrong_the_others_say_at_once(seen: list[dict[str, Any]]) -> None:
    assert seen[2]["error"] == "--train_file: no such file: a.txt"
    for each in seen[:2]:
        assert each["error"] == "--train_file: process 2: no such file: a.txt"
    assert all(each["heard"] for each in seen)
    assert max(each["left"] for each in seen) - min(each["left"] for each in seen) < 60, "less than their patience"


def test_alone_there_is_nobody_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    began = time.monotonic()
    meet()
    wait_for_all()
    assert compared("facts", "anything") is None
    with pytest.raises(UserError) as caught, telling_others():
        raise UserError("wrong")
    assert not caught.value.heard and time.monotonic() - began < 60


def test_who_is_missing_is_said_in_bounded_time(tmp_path: Path) -> None:
    """The first process without the second, and the second without the first."""
    waiting = tmp_path / "waiting.py"
    waiting.write_text("from lmtrain.engine.distributed.meeting import meet; meet()")
    first = start(0, free_port(), waiting, world=4, **{PATIENCE: 1})
    other = start(1, closed := free_port(), waiting, world=2, **{PATIENCE: 1})
    said = [process.communicate(timeout=90)[1].strip().splitlines()[-1] for process in (first, other)]
    assert "1 of 4 processes came to 127.0.0.1:" in said[0] and "not ranks 1-3" in said[0]
    assert f"process 1 of 2 has found nobody at 127.0.0.1:{closed} for 1 s (Connection refused)" in said[1]


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    from lmtrain.engine.distributed import meeting

    with socket.socket() as busy:
        busy.bind(("0.0.0.0", 0))
        busy.listen()
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": busy.getsockname()[1], "RANK": 0}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(meeting, "_stores", [])
        with pytest.raises(UserError, match="another program has this port; set MASTER_PORT"):
            meet()
        monkeypatch.setenv(PATIENCE, "soon")
        with pytest.raises(UserError, match=r"LMTRAIN_MEETING_TIMEOUT is 'soon'"):
            meet()


def test_ranks_are_written_short() -> None:
    assert ranks([0]) == "rank 0"
    assert ranks([0, 1, 2, 3, 7]) == "ranks 0-3, 7"


def test_differences_are_named_once_each() -> None:
    facts = {0: {"--a": "1", "torch": "2.13"}, 5: {"--a": "1", "torch": "2.12", "--b": "x" * 100}}
    assert differences(facts) == [
        ("torch", "is 2.13 on rank 0 and 2.12 on rank 5"),
        ("--b", f"is not given on rank 0 and {'x' * 60}… on rank 5"),
    ]
