"""One of two processes fails in mid-training: its log holds why, the first one names it, and the run goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forked import ranks
from launching import MARKS, TESTS
from lmtrain.core.errors import ExitCode
from lmtrain.core.ranklog import host
from tiny_models import checkpoint

pytestmark = MARKS
FAILS, AT, STEPS = 1, 4, 6


def start(folder: Path, fails: int | None) -> tuple[list[int], list[str]]:
    """Exit codes and standard error of both."""
    words = (
        f"clm --model_name_or_path {folder / 'model'} --train_file {folder / 'text.txt'} --block_size 16 --use_cpu "
        f"--max_steps {STEPS} --save_steps 2 --logging_steps 1 --per_device_train_batch_size 2 --skip_check "
        f"--output_dir {folder / 'out'}"
    ).split()
    own = {"LMTRAIN_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = TESTS / "faults" / "failing_rank.py"
    processes = ranks([script, fails, AT, *words], 2, env={**os.environ, **own})
    return [process.wait(150) for process in processes], [process.communicate()[1] for process in processes]


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int], list[str]]:
    folder = tmp_path_factory.mktemp("failing")
    checkpoint("gpt2", folder / "model")
    (folder / "text.txt").write_text("".join(f"The quick fox number {n} jumps over it.\n" for n in range(120)))
    return folder, *start(folder, FAILS)


def test_the_failing_ones_log_holds_why(failed: tuple[Path, list[int], list[str]]) -> None:
    folder, codes, said = failed
    text = (folder / "out" / "logs" / "rank-1.log").read_text()
    assert codes[1] == ExitCode.OUR_FAULT
    assert "in training_step" in text and "nearly there, says 1" in text
    assert text.rstrip().endswith(f"==== failed: rank 1 on {host()}: LookupError: the example has gone")
    line = f"rank 1 on {host()} failed: LookupError: the example has gone; see "
    assert said[1].count("LookupError") == 1 and line in said[1], "one line on the terminal, not a traceback a rank"


def test_the_first_names_it(failed: tuple[Path, list[int], list[str]]) -> None:
    folder, codes, said = failed
    line = f"rank 1 on {host()} failed: LookupError: the example has gone; see logs/rank-1.log"
    assert codes[0] == ExitCode.INTERRUPTED and line in said[0]
    assert line in json.loads((folder / "out" / "status.json").read_text())["reason"]
    log = (folder / "out" / "logs" / "rank-0.log").read_text()
    assert line in log and "==== interrupted: rank 0" in log
    assert "nearly there, says 0" in said[0] and "nearly there" not in said[1], "the first one's warnings are shown"


def test_the_same_command_goes_on_into_the_same_logs(failed: tuple[Path, list[int], list[str]]) -> None:
    folder, *_ = failed
    codes, said = start(folder, None)
    assert codes == [0, 0], said
    for rank in (0, 1):
        text = (folder / "out" / "logs" / f"rank-{rank}.log").read_text()
        assert text.count("==== start: ") == 2 and text.endswith("==== end\n")
    assert f"step {STEPS}/{STEPS}" in (folder / "out" / "logs" / "rank-0.log").read_text(), "what is printed"
    assert "goes on from step 4" in said[0]
    results = json.loads((folder / "out" / "all_results.json").read_text())
    assert results["train_memory"] > 10_000_000 and results["train_memory_rank"] in (0, 1)
    assert 0 <= results["train_collectives"] < 1
