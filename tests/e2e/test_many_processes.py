"""The command on several processes: under SLURM's variables, resumed on other numbers of them, started differently."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from world import World

from forked import Forked, run_ranks
from launching import MARKS
from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode

pytestmark = MARKS
STEPS, SAVED_AT, LOGGED_EVERY = 6, 3, 2  # the losses since the last line go on, too


def words(world: World, out: Path, *more: str) -> list[str]:
    return [
        *f"clm --model_name_or_path {world.gpt2} --train_file {world.text} --block_size 16 --max_steps {STEPS}".split(),
        *f"--save_steps {SAVED_AT} --global_batch_size 8 --use_cpu --learning_rate 1e-3".split(),
        *("--logging_steps", str(LOGGED_EVERY), "--output_dir", str(out), *more),
    ]


def environment(cache: Path, **more: object) -> dict[str, str]:
    own = {"LMTRAIN_CACHE": cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}
    return {**os.environ, **{name: str(value) for name, value in own.items()}}


def slurm(number: int, port: int) -> dict[str, object]:
    """What srun sets for one of two tasks of a job, whose number makes the port."""
    return {
        "SLURM_PROCID": number, "SLURM_LOCALID": number, "SLURM_STEP_NUM_TASKS": 2,
        "SLURM_JOB_ID": 30_000 + port - 15_000, "SLURM_JOB_NODELIST": "localhost",
    }  # fmt: skip


def free_port() -> int:
    for port in range(17_000, 30_000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no port is free")


def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "eval_results.json").read_text())


def losses(folder: Path) -> list[float]:
    state = json.loads((folder / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def assert_same(folder: Path, other: Path) -> None:
    assert losses(folder) == pytest.approx(losses(other), rel=1e-6)
    assert figures(folder)["eval_loss"] == pytest.approx(figures(other)["eval_loss"], rel=1e-6)
    assert figures(folder)["eval_tokens"] == figures(other)["eval_tokens"]


def stopped_after(finished: Path, step: int, to: Path) -> Path:
    """What a run leaves that is killed after its checkpoint of that step."""
    shutil.copytree(finished, to)
    for checkpoint in to.glob("checkpoint-*"):
        if checkpoint.name != f"checkpoint-{step}":
            shutil.rmtree(checkpoint)
    for result in to.glob("*_results.json"):
        result.unlink()
    status = json.loads((to / "status.json").read_text())
    (to / "status.json").write_text(json.dumps({**status, "state": "interrupted", "step": step, "exported": False}))
    return to


@pytest.fixture(scope="module")
def runs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same run on one process and, as srun starts it, on two."""
    folder = tmp_path_factory.mktemp("runs")
    port = free_port()
    tasks = []
    for number in range(2):
        said_by_srun = environment(folder / "cache", **slurm(number, port))
        del said_by_srun["OMP_NUM_THREADS"]
        tasks.append(Forked(["-m", "lmtrain", *words(world, folder / "two")], env=said_by_srun))
    (one,) = run_ranks(["-m", "lmtrain", *words(world, folder / "one")], 1, env=environment(folder / "cache"))
    said = [task.communicate(timeout=240)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    assert one.returncode == 0, one.stderr
    assert "8 examples a step: 8 examples at once, once\n" in one.stderr
    assert "8 examples a step: 4 examples at once, once in each of 2 processes" in said[0]
    assert said[0].count("● result") == 1 and "●" not in said[1], "one process speaks"
    return folder


def test_srun_alone_trains_as_one_process_does(runs: Path) -> None:
    assert len(losses(runs / "two")) == STEPS // LOGGED_EVERY
    assert_same(runs / "two", runs / "one")
    decided = json.loads((runs / "two" / "decisions.json").read_text())
    assert decided["threads_for"]["processes"] == 2, "whatever Accelerate takes them for"
    assert decided["threads"] <= max(1, decided["threads_for"]["cpus"] // 2)


@pytest.mark.parametrize("processes", [1, 4])
def test_goes_on_with_another_number_of_processes(processes: int, runs: Path, world: World, tmp_path: Path) -> None:
    folder = stopped_after(runs / "two", SAVED_AT, tmp_path / "run")
    ends = run_ranks(["-m", "lmtrain", *words(world, folder)], processes, env=environment(runs / "cache"))
    assert [end.returncode for end in ends] == [0] * processes, ends[0].stderr
    assert f"goes on from step {SAVED_AT}" in ends[0].stderr
    assert_same(folder, runs / "one")


def test_without_a_global_batch_it_says_which_one_keeps_the_step(
    runs: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_after(runs / "two", SAVED_AT, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    record["options"]["global_batch_size"] = None
    record["options"]["per_device_train_batch_size"] = 4  # of each of two
    (folder / "run.json").write_text(json.dumps(record))
    plain = [word for word in words(world, folder) if word not in ("--global_batch_size", "8")]
    assert main([*plain, "--per_device_train_batch_size", "4"]) == ExitCode.WRONG_INPUT
    said = capsys.readouterr().err
    assert "a step had 8 examples and has 4 with 1 process; --global_batch_size 8 keeps it" in said
    assert main(words(world, folder)) == 0, "and it does"


def test_the_plan_tells_how_a_step_is_divided(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [*words(world, tmp_path / "out"), "--per_device_train_batch_size", "2"]
    assert main(["check", *asked]) == 0
    plan = capsys.readouterr().out
    assert "6 steps of 8 examples" in plan and "2 examples at once, 4 times" in plan


def test_processes_started_differently_do_not_begin(world: World, tmp_path: Path, own_cache: Path) -> None:
    """Other options, other data: each ends both, and the first says why."""
    for number in range(2):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "text.txt").write_text(Path(world.text).read_text() + "one more line\n" * number)

    def both(*more: list[str]) -> list[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1], "WORLD_SIZE": 2}
        started = [
            Forked(
                ["-m", "lmtrain", *words(world, tmp_path / "out"), *extra],
                env=environment(own_cache, RANK=n, LOCAL_RANK=n, **where),
                cwd=tmp_path / str(n),
            )
            for n, extra in enumerate(more)
        ]
        said = [process.communicate(timeout=120)[1] for process in started]
        assert [process.returncode for process in started] == [ExitCode.WRONG_INPUT] * 2, said
        assert not (tmp_path / "out").exists()
        assert "Traceback" not in "".join(said)
        assert not said[1].strip(), "one process speaks"
        return [line.strip() for line in said[0].splitlines() if " on rank " in line or "process 1" in line]

    (options,) = both(["--seed", "1"], ["--seed", "2", "--dataloader_num_workers", "1"])
    assert options.startswith("--seed") and "is 1 on rank 0 and 2 on rank 1" in options
    (data,) = both(*[["--train_file", "text.txt"]] * 2)
    assert data.startswith("the train data is ") and data.count("examples") == 2


def test_each_with_a_folder_of_its_own_is_noticed(world: World, tmp_path: Path, own_cache: Path) -> None:
    """One finds a run there and the other none: they would wait for each other at different places."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    given = words(world, Path("out"), "--skip_check")
    ended = run_ranks(["-m", "lmtrain", *given], 1, env=environment(own_cache), cwd=tmp_path / "a")
    assert ended[0].returncode == 0, ended[0].stderr
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": 2}
    processes = [
        Forked(
            ["-m", "lmtrain", *given], env=environment(own_cache, RANK=n, LOCAL_RANK=n, **group), cwd=tmp_path / name
        )
        for n, name in enumerate(("a", "b"))
    ]
    said = "".join(process.communicate(timeout=120)[1] for process in processes)
    assert [process.returncode for process in processes] == [ExitCode.WRONG_INPUT] * 2, said
    assert "what the output folder holds is finished, step 6 on rank 0 and new, step 0 on rank 1" in said
    assert not (tmp_path / "b" / "out").exists()
