import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import IterableDataset

import tiny
from lmtrain.engine.batches.collate import Collate, EpochExamples
from lmtrain.engine.evaluation import EvaluationLoader, RunningSums, Totals
from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import EVALUATION_EPOCH, LossSums, Masked


def sums(loss: float, count: int, correct: int) -> LossSums:
    return LossSums(torch.tensor(loss), torch.tensor(count), torch.tensor(correct))


def test_sums_are_divided_once() -> None:
    running = RunningSums(torch.device("cpu"))
    running.add(sums(8.0, 2, 1), examples=1)
    running.add(sums(2.0, 8, 8), examples=3)
    assert running.total() == Totals(loss=10.0, tokens=10, correct=9, examples=4)
    metrics = running.total().metrics()
    assert metrics == {"loss": 1.0, "perplexity": math.e, "accuracy": 0.9, "tokens": 10}


def test_many_small_losses_lose_nothing() -> None:
    """In fp32 a sum of 16 million stops growing by ones."""
    running = RunningSums(torch.device("cpu"))
    running.add(sums(2.0**24, 1, 0), examples=1)
    for _ in range(100):
        running.add(sums(1.0, 1, 0), examples=1)
    assert running.total().loss == 2.0**24 + 100


def test_processes_are_added_before_the_division() -> None:
    mine, theirs = RunningSums(torch.device("cpu")), RunningSums(torch.device("cpu"))
    mine.add(sums(9.0, 1, 0), examples=1)
    theirs.add(sums(1.0, 9, 9), examples=1)
    assert mine.total(lambda values: values + theirs.values).metrics()["loss"] == 1.0


def test_nothing_predicted_is_not_a_perfect_loss() -> None:
    metrics = Totals(0.0, 0, 0, 3).metrics()
    assert math.isnan(metrics["loss"]) and math.isnan(metrics["perplexity"])
    assert metrics["tokens"] == 0


def test_perplexity_overflows_to_infinity() -> None:
    assert Totals(1e6, 1, 0, 1).metrics()["perplexity"] == math.inf


def test_bits_per_byte_where_the_text_is_known() -> None:
    totals = Totals(loss=math.log(2) * 30, tokens=10, correct=0, examples=1)  # 3 bits a token
    assert totals.metrics(text_tokens=11, text_bytes=22)["bits_per_byte"] == pytest.approx(1.5)
    assert "bits_per_byte" not in totals.metrics()


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(7)


@pytest.mark.parametrize("data", [list(range(7)), Stream()], ids=["map", "iterable"])
def test_two_processes_share_the_batches(data) -> None:
    loaders = [EvaluationLoader(data, 2, list, rank=rank, world=2) for rank in range(2)]
    assert [[batch for batch, _ in loader] for loader in loaders] == [[[0, 1], [4, 5]], [[2, 3], [6]]]


def test_a_batch_run_for_company_does_not_count() -> None:
    loader = EvaluationLoader(list(range(3)), 2, list, rank=1, world=3, equal=True)
    assert list(loader) == [([2], True)]
    loader = EvaluationLoader(list(range(3)), 2, list, rank=2, world=3, equal=True)
    assert list(loader) == [([0, 1], False)]
    streams = [list(EvaluationLoader(Stream(), 2, list, rank=rank, world=3, equal=True)) for rank in range(3)]
    assert streams == [[([0, 1], True), ([6], True)], [([2, 3], True), ([6], False)], [([4, 5], True), ([6], False)]]


@pytest.mark.parametrize("world", [1, 2])
def test_the_order_by_length_changes_no_mask_and_no_example(world: int) -> None:
    layout = tiny.MemoryLayout(tiny.rows(23, longest=30))
    examples = EpochExamples(layout, epoch=EVALUATION_EPOCH)
    collate = Collate(Masked(3, tiny.VOCABULARY, special_ids=(0, 1, 2, 3)))

    def seen(lengths: np.ndarray | None) -> tuple[list[tuple[list[int], list[int]]], int]:
        found, positions = [], 0
        for rank in range(world):
            for batch, counts in EvaluationLoader(examples, 4, collate, rank=rank, world=world, lengths=lengths):
                assert counts
                positions += batch["input_ids"].numel()
                mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
                found += [
                    (ids[real].tolist(), labels[real].tolist())
                    for ids, labels, real in zip(batch["input_ids"], batch["labels"], mask.bool(), strict=True)
                ]
        return sorted(found), positions

    (plain, wide), (by_length, narrow) = seen(None), seen(examples.lengths)
    assert plain == by_length and narrow < 0.9 * wide


class Narrowed(TorchDispatchMode):
    """How often each tensor was made bf16, by where it lies."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[int] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.times[args[0].data_ptr()] += 1
        return function(*args, **(kwargs or {}))


def test_weights_are_rounded_once_an_evaluation(tmp_path: Path) -> None:
    data = tiny.MemoryLayout(tiny.rows(12))
    args = tiny.arguments(tmp_path, per_device_eval_batch_size=2, bf16=True)
    trainer = tiny.try_fast_paths(LMTrainer(tiny.llama(), args, eval_dataset=data))
    with Narrowed() as seen:
        first = trainer.evaluate()["eval_loss"]
    matrices = [module.weight for module in trainer.model.modules() if isinstance(module, torch.nn.Linear)]
    assert [seen.times[weight.data_ptr()] for weight in matrices] == [1] * len(matrices) and len(matrices) == 15
    with torch.no_grad():
        for weight in matrices:
            weight.mul_(1.5)
    changed = trainer.evaluate()["eval_loss"]
    fresh = LMTrainer(trainer.model, args, eval_dataset=data).evaluate()["eval_loss"]
    assert changed == fresh != first, "the next evaluation is of the weights as they are then"
