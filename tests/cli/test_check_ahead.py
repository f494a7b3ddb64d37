"""How ``lmtrain check --devices N`` tells of a run on other machines, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lmtrain.cli.check import ahead, long
from lmtrain.cli.main import main
from lmtrain.rehearsal.scale.exchange import Step
from lmtrain.rehearsal.scale.network import Link, Network
from lmtrain.rehearsal.scale.outlook import Outlook, Run, outlook
from lmtrain.rehearsal.scale.saves import Storage

STEP = Step(0.1, 0.2, 0.05, gradients=5e8, weights=2.5e8, sums=2.5e8, layers=12)
DISK = Storage(disk=5e8, memory=1e10)
HOUR = 3600.0


def found(devices: int = 64, mtbf: float = 10_000 * HOUR, steps: int = 10**6, **changes: Any) -> Outlook:
    run = Run(STEP, steps, 1.5e9, **{"is_sharded": False, "background": True, "start": 30.0, **changes})
    return outlook(run, Network(devices, 8, Link.of(3600), Link.of(400)), DISK, mtbf=mtbf)


def told(one: Outlook, steps: int = 10**6) -> dict[str, str]:
    rows = ahead(one, SimpleNamespace(steps=steps))  # type: ignore[arg-type]
    assert all(len(row) < 160 for row in rows)
    return {row.split()[0]: row for row in rows}


def test_the_interval_is_a_flag_to_type() -> None:
    one = found()
    rows = told(one)
    assert f"--save_steps {one.save_steps}" in rows["advice"]
    assert one.save_steps == round(one.interval / one.step.step) > 100
    assert one.interval == pytest.approx((2 * one.save.pause * one.mtbf) ** 0.5, rel=0.01)
    assert "one in 6.5 days" in rows["failures"] and "64 devices in 8 machines" in rows["devices"]
    assert one.mtbf == 10_000 * HOUR / 64 and one.failures == pytest.approx(one.played.wall / one.mtbf)  # type: ignore[union-attr]
    assert "of the time" in rows["lost"] and "%" in rows["lost"]


def test_more_devices_fail_more_often_and_save_more_often() -> None:
    few, many = found(8), found(1024)
    assert many.save_steps < few.save_steps and many.failures > few.failures
    assert many.played is not None and few.played is not None and many.played.lost > few.played.lost


def test_no_save_is_begun_before_the_last_one_is_written() -> None:
    often = found(1024, mtbf=1000 * HOUR, background=True)
    assert often.interval >= often.save.write


def test_a_short_run_saves_at_its_end() -> None:
    one = found(8, steps=50)
    assert one.save_steps == 50 and "once, at the end" in told(one)["advice"]


def test_a_run_that_fails_faster_than_it_starts_is_told_so() -> None:
    assert "does not get to its end" in told(found(1024, mtbf=2 * HOUR))["lost"]


def test_both_ways_of_dividing_the_work_are_told() -> None:
    sharded = found(is_sharded=True, background=False)
    assert sharded.step == sharded.fsdp2 and found().step == found().ddp
    row = told(sharded)["exchange"]
    assert "DDP waits" in row and "FSDP2 waits" in row


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--devices 0", "--devices"),
        ("--devices -3 --mtbf 5", "--devices"),
        ("--mtbf 0", "--mtbf"),
        ("--mtbf -1", "--mtbf"),
        ("--devices many", "--devices"),
        ("--devices 8 --link_gbps 0", "--link_gbps"),
        ("--devices 8 --restart_minutes -1", "--restart_minutes"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "clm", "--output_dir", "o", "--train_file", "a.txt", *words.split()]) == 2
    assert any(line.strip().startswith(said) for line in capsys.readouterr().err.splitlines())


def test_times_as_people_read_them() -> None:
    assert [long(s) for s in (0.02, 190, 36_000 * 2, 3600 * 24 * 12.5)] == [
        "20 ms",
        "3 min 10 s",
        "20.0 h",
        "12.5 days",
    ]
