"""One number for one model and one text, however it is cut into batches."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from lmtrain.engine.trainer import LMTrainer
from lmtrain.objectives import EVALUATION_EPOCH, IGNORED, Causal, Masked, Objective
from tiny import VOCABULARY, MemoryLayout, arguments, bert, llama, rows, try_fast_paths

DATA = rows(19, shortest=2, longest=14)
MASKED = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4))
KINDS = [pytest.param(llama, Causal(), id="causal"), pytest.param(bert, MASKED, id="masked")]


def evaluate(make, objective: Objective, folder: Path, batch: int, *, width: int | None = None) -> dict[str, float]:
    layout = MemoryLayout(DATA, width=width)
    args = arguments(folder, per_device_eval_batch_size=batch)
    trainer = try_fast_paths(LMTrainer(make(), args, eval_dataset=layout, objective=objective))
    metrics = trainer.evaluate()
    assert sorted(layout.reads) == list(range(len(DATA)))
    return {name: metrics[f"eval_{name}"] for name in ("loss", "perplexity", "accuracy", "tokens")}


@pytest.mark.parametrize(("make", "objective"), KINDS)
def test_batch_size_does_not_show(make, objective: Objective, tmp_path: Path) -> None:
    one = evaluate(make, objective, tmp_path, 1)
    for batch in (3, 8):
        assert evaluate(make, objective, tmp_path, batch) == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize(("make", "objective"), KINDS)
def test_padding_does_not_show(make, objective: Objective, tmp_path: Path) -> None:
    longest = evaluate(make, objective, tmp_path, 4)
    assert evaluate(make, objective, tmp_path, 4, width=40) == pytest.approx(longest, rel=1e-6)


@pytest.mark.parametrize(("make", "objective"), KINDS)
def test_twice_is_the_same_to_the_last_bit(make, objective: Objective, tmp_path: Path) -> None:
    args = arguments(tmp_path, per_device_eval_batch_size=4)
    trainer = LMTrainer(make(), args, eval_dataset=MemoryLayout(DATA), objective=objective)
    first, second = trainer.evaluate(), trainer.evaluate()
    assert (first["eval_loss"], first["eval_accuracy"]) == (second["eval_loss"], second["eval_accuracy"])


@pytest.mark.parametrize(("make", "objective"), KINDS)
def test_it_is_the_mean_over_tokens_computed_row_by_row(make, objective: Objective, tmp_path: Path) -> None:
    """Against the plainest way there is, which the mean of the batches' means does not agree with."""
    model = make().eval()
    losses, means = [], []
    for index in range(len(DATA)):
        row = MemoryLayout(DATA).__getitems__([index])
        batch = objective.batch(type(row)(row.ids, row.lengths, row.special, row.index, EVALUATION_EPOCH))
        with torch.no_grad():
            logits = model(batch["input_ids"]).logits[0]
        labels = batch["labels"][0]
        if objective.shifted:
            logits, labels = logits[:-1], labels[1:]
        hidden = labels != IGNORED
        row_losses = functional.cross_entropy(logits[hidden], labels[hidden], reduction="none").tolist()
        losses += row_losses
        means.append(sum(row_losses) / len(row_losses))
    found = evaluate(make, objective, tmp_path, 3)
    assert found["tokens"] == len(losses)
    assert found["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    assert found["loss"] != pytest.approx(sum(means) / len(means), rel=1e-3)
