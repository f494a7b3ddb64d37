"""Two processes on gloo find what one finds: seven rows, batches of two, so the last round is not full."""

import json
from pathlib import Path
from typing import Any

import pytest

from launching import MARKS, launch
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import Causal
from tiny import MemoryLayout, arguments, llama, logged, rows

pytestmark = MARKS


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process saw, and what each of two saw."""
    folder = tmp_path_factory.mktemp("ranks")
    for processes in (1, 2):
        launch(Path(__file__).with_name("ranks.py"), folder, processes=processes)
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
