"""Two processes on gloo find what one finds: seven rows, batches of two, so the last round is not full."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, llama, logged, rows

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun needs libuv there"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process saw, and what each of two saw."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *sys.path]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    script = [str(HERE / "ranks.py"), str(folder)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for command in ([sys.executable, *script], [*launch, *script]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_evaluation_is_the_same_number(seen: dict[str, Any]) -> None:
    assert set(seen) == {"1-0", "2-0", "2-1"}
    for rank in ("2-0", "2-1"):
        assert seen[rank]["before"] == pytest.approx(seen["1-0"]["before"], rel=1e-6)


def test_every_row_is_evaluated_once(seen: dict[str, Any]) -> None:
    assert sorted(seen["2-0"]["evaluation_reads"] + seen["2-1"]["evaluation_reads"]) == list(range(7))
    assert len(seen["2-0"]["evaluation_reads"]) == 4  # batches 0 and 2, two rows each


def test_both_make_the_same_steps_and_every_row_counts_once(seen: dict[str, Any]) -> None:
    """One process makes 2 + 2 + 2 + 1 rows; two make 4 + 3 and a filler, whose loss and tokens do not
    count."""
    two = (seen["2-0"], seen["2-1"])
    assert [len(rank["losses"]) for rank in two] == [4, 4]
    reads = two[0]["training_reads"] + two[1]["training_reads"]
    assert len(reads) == 2 * 8 and set(reads) == set(range(7))
    assert two[0]["losses"] == two[1]["losses"]
    assert two[0]["weights"] == two[1]["weights"]


def test_resumed_in_the_second_epoch_each_goes_on_in_that_epochs_order(seen: dict[str, Any]) -> None:
    for rank in ("2-0", "2-1"):
        assert seen[rank]["resumed_reads"] == seen[rank]["training_reads"][-2:]
        assert seen[rank]["resumed_losses"] == seen[rank]["losses"]


def test_training_on_two_is_training_on_one_with_twice_the_batch(seen: dict[str, Any], tmp_path: Path) -> None:
    data = MemoryLayout(rows(7, shortest=2, longest=14))
    args = arguments(
        tmp_path,
        per_device_train_batch_size=4,
        num_train_epochs=2,
        optim="sgd",
        learning_rate=0.05,
        max_grad_norm=0,
    )
    one = LMTrainer(llama(), args, data, data, objective=Causal())
    one.train()
    assert seen["2-0"]["losses"] == pytest.approx(logged(one, "loss"), rel=1e-5)
    assert seen["2-0"]["norms"] == pytest.approx(logged(one, "grad_norm"), rel=1e-5)
    assert seen["2-0"]["after"] == pytest.approx(one.evaluate()["eval_loss"], rel=1e-5)
    assert seen["2-0"]["tokens"] == one.state.num_input_tokens_seen + 2  # a filler has one visible token
