"""Whether a run that is killed and resumed is the run that was left alone, tried with the run's own options.

::

    straight       ── 1 ── 2 ── 3 ── 4 ── 5 ── 6 ──▶ folder
                                │ checkpoint
    interrupted    ── 1 ── 2 ── 3 ── 4 ─╳ SIGKILL
                                └─ resumed ─ 4 ── 5 ── 6 ──▶ folder

Each line is a process of its own that runs ``lmtrain clm`` (or mlm, sft). Both runs lie in a temporary folder; the
token store goes where the run itself would look for it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.core.console import Say, counted, say
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, write_json
from lmtrain.core.runlog import read_events
from lmtrain.engine.checkpoints.read import OPTIMIZER, newest, read_tensors
from lmtrain.engine.runs.run_folder import DATA, DECISIONS, METRICS, RUN, STATUS
from lmtrain.rehearsal.run_comparison import Row, compare_logged, compare_tensors

_TRIES = 8  # each leaves less time before the kill; the last ones none
_GLANCE = 0.002  # seconds between two looks for the checkpoint


@dataclass(frozen=True)
class Verdict:
    """How two runs compare; the second was killed after step ``killed_after`` (0: before the first log line), and went
    on from the checkpoint of step ``resumed_from``."""

    rows: tuple[Row, ...]
    steps: int
    killed_after: int
    resumed_from: int

    @property
    def is_equal(self) -> bool:
        return all(row.difference is None for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        return {"equal": self.is_equal, **asdict(self)}


def verify_resume(resolved: Resolved, steps: int, save_at: int | None = None, *, say: Say = say) -> Verdict:
    """Train ``steps`` steps straight, and once more killed and resumed; compare them.

    Raises :class:`UserError` when a run fails, and when the steps are over before one can be killed.
    """
    save_at = steps // 2 if save_at is None else save_at
    if not 1 <= save_at < steps:
        raise UserError(f"a checkpoint at step {save_at} leaves none of {steps} steps to go on with", flag="--save_at")
    if not resolved.do_train:
        raise UserError("there is nothing to train, so nothing to resume; name a text", flag="--train_file")
    if "-" in (*resolved.data.train_file, *resolved.data.validation_file):
        raise UserError("standard input cannot be read by several runs; give a file", flag="--train_file")
    if resolved.training.get("save_only_model"):
        raise UserError(
            "saves nothing that a run could go on from, so there is nothing to verify", flag="--save_only_model"
        )
    with tempfile.TemporaryDirectory(prefix="lmtrain-verify-") as place:
        runs = _Runs(resolved, Path(place), steps, save_at)
        say("straight", f"{counted(steps, 'step')}, saving at every {save_at}")
        straight = runs.finish("straight")
        killed_after, resumed_from = _interrupt(runs, straight, say)
        interrupted = runs.finish("interrupted")
        rows = compare_runs(straight, interrupted, steps)
        return Verdict(tuple(rows), steps, killed_after, resumed_from)


def compare_runs(straight: Path, interrupted: Path, steps: int) -> list[Row]:
    """One row for each thing that has to be the same, with the first difference or None.

    Both are run folders; of a step that was made twice each record is compared.
    """
    one, other = (list(read_events(folder / METRICS)) for folder in (straight, interrupted))
    logged = (compare_logged(name, kind, one, other) for name, kind in _TOLD)
    rows = [row for row in logged if row is not None]
    rows.append(compare_tensors("final weights", _weights(straight), _weights(interrupted)))
    last = f"checkpoint-{steps}"
    rows.append(
        compare_tensors("optimizer state", _optimizer_state(straight / last), _optimizer_state(interrupted / last))
    )
    return rows


_TOLD = (
    ("loss", "train"), ("learning_rate", "train"), ("grad_norm", "train"), ("tokens", "train"),
    ("eval_loss", "evaluation"),
)  # fmt: skip


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {
        f"{file.name}: {name}" if len(files) > 1 else name: tensor
        for files in [sorted(folder.glob("*.safetensors"))]
        for file in files
        for name, tensor in load_file(file).items()
    }


def _optimizer_state(checkpoint: Path) -> dict[str, Any]:
    states = read_tensors(checkpoint / OPTIMIZER)["state"]
    return {f"{parameter}.{name}": value for parameter, state in states.items() for name, value in state.items()}


class _Runs:
    """Runs of one configuration, each in a folder and a process of its own."""

    def __init__(self, resolved: Resolved, place: Path, steps: int, save_at: int) -> None:
        self.place, self.steps, self.save_at = place, steps, save_at
        self._command = resolved.command
        self._options = _options(resolved, steps, save_at)
        token = resolved.model.token  # a secret: in no file and on no command line
        self._environment = {**os.environ, **({"HF_TOKEN": token} if token else {})}
        self._logs = 0

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """The command of the run in folder ``name``: again, where it was started before."""
        config = self.place / f"{name}.json"
        write_json(config, {**self._options, "output_dir": str(self.place / name)})
        self._logs += 1
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lmtrain", self._command, "--config", str(config)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment,
                start_new_session=True,  # its loader workers are killed with it
            )  # fmt: skip

    def finish(self, name: str) -> Path:
        """Run to the end, and return the folder."""
        process = self.start(name)
        try:
            code = process.wait()
        finally:
            kill(process)
        if code:
            said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
            raise UserError(
                f"the {name} run ended with exit code {code}:\n" + "\n".join(f"    {line}" for line in said)
            )
        return self.place / name

    @property
    def _log(self) -> Path:
        return self.place / f"output-{self._logs}.txt"


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, which nothing can answer, to the process and its own; nothing happens when it has ended."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _options(resolved: Resolved, steps: int, save_at: int) -> dict[str, Any]:
    """The user's options, less what says where a run goes and how long it takes."""
    options = as_dict(replace(resolved, data=replace(resolved.data, test_file=[])))
    for name in ("resume_from_checkpoint", "overwrite_output_dir", "max_minutes", "train_tokens", "report_to",
                 "push_to_hub"):  # fmt: skip
        options.pop(name, None)
    options |= {
        "max_steps": steps, "save_strategy": "steps", "save_steps": save_at, "do_train": True,
        "logging_strategy": "steps", "logging_steps": 1,
    }  # fmt: skip
    if options.get("eval_strategy", "no") == "no":  # the scores at the end say nothing about resuming
        options["do_eval"] = False
    return options


def _interrupt(runs: _Runs, straight: Path, say: Say) -> tuple[int, int]:
    """Start the second run and kill it at a random moment between its first checkpoint and its end; returns the last
    step that it logged, and that of the checkpoint it left."""
    folder = runs.place / "interrupted"
    left = _seconds_left(straight, runs.save_at)
    for attempt in range(_TRIES):
        if folder.exists():
            shutil.rmtree(folder)
        _begin_alike(straight, folder)
        delay = random.SystemRandom().uniform(0, left / 2**attempt) if attempt < _TRIES // 2 else 0.0
        process = runs.start("interrupted")
        try:
            appeared = _wait_for(lambda: (folder / f"checkpoint-{runs.save_at}").is_dir(), process)
            time.sleep(delay)
            ended = process.poll() is not None
        finally:
            kill(process)
        if not appeared:
            runs.finish("interrupted")  # says what is wrong
        found = newest(folder)
        if not ended and found.checkpoint is not None and found.step < runs.steps:
            killed_after = _last_step(folder)
            say("killed", f"after step {killed_after}, {1e3 * delay:.0f} ms after checkpoint-{runs.save_at} appeared; "
                          f"resumes from step {found.step}")  # fmt: skip
            return killed_after, found.step
    raise UserError(
        f"the {runs.steps} steps were over before the run could be killed, {_TRIES} times; give it more", flag="--steps"
    )


def _begin_alike(straight: Path, folder: Path) -> None:
    """Have the second run begin with what the first one decided, as a run does that was stopped before any checkpoint.

    What is fast is found by measuring, which may come out otherwise the second time, and is no matter of resuming.
    """
    folder.mkdir()
    for name in (RUN, DECISIONS, DATA):
        write_json(folder / name, read_json(straight / name))
    write_json(folder / STATUS, {"state": "training", "step": 0})


def _wait_for(there: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    while not there():
        if process.poll() is not None:
            return there()
        time.sleep(_GLANCE)
    return True


def _seconds_left(folder: Path, save_at: int) -> float:
    """What the steps after the first checkpoint took in a run that ended."""
    times = {event["step"]: event["time"] for event in read_events(folder / METRICS) if event["event"] == "train"}
    return max(0.0, times[max(times)] - times[save_at])


def _last_step(folder: Path) -> int:
    return max((event["step"] for event in read_events(folder / METRICS) if event["event"] == "train"), default=0)
