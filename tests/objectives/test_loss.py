import math

import pytest
import torch
from torch.nn import functional
from transformers.trainer_pt_utils import LabelSmoother

from lmtrain.objectives import IGNORED, Causal, Labelled, loss_sums, model_loss_sums

ALIGNED = Labelled(shifted=False)


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(3, 7, 11, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(1))
    labels[0, 4:] = IGNORED
    labels[1, 2] = IGNORED
    return labels


@pytest.mark.parametrize("objective", [Causal(), ALIGNED], ids=["shifted", "aligned"])
def test_sums_are_those_of_position_after_position(objective, logits, labels) -> None:
    found = loss_sums(logits, labels, objective, accuracy=True)
    loss, count, correct = 0.0, 0, 0
    for row in range(3):
        for position in range(objective.shifted, 7):
            label = int(labels[row, position])
            if label != IGNORED:
                scores = logits.detach()[row, position - objective.shifted].double()
                loss += float(torch.logsumexp(scores, 0) - scores[label])
                correct += int(scores.argmax()) == label
                count += 1
    assert found.loss.item() == pytest.approx(loss, rel=1e-6)
    assert (found.count.item(), found.correct.item()) == (count, correct)


@pytest.mark.parametrize("objective", [Causal(), ALIGNED], ids=["shifted", "aligned"])
def test_smoothing_is_the_stock_trainers(objective, logits, labels) -> None:
    stock = LabelSmoother(epsilon=0.1)({"logits": logits}, labels, shift_labels=objective.shifted)
    found = loss_sums(logits, labels, objective, label_smoothing=0.1)
    assert (found.loss / found.count).item() == pytest.approx(stock.item(), rel=1e-6)


@pytest.mark.parametrize("objective", [Causal(), ALIGNED], ids=["shifted", "aligned"])
def test_nothing_predicted_is_zero_and_has_zero_gradients(objective, logits) -> None:
    sums = loss_sums(logits, torch.full((3, 7), IGNORED), objective)
    assert (sums.loss.item(), sums.count.item()) == (0.0, 0)
    sums.loss.backward()
    assert logits.grad is not None and not logits.grad.any()


def test_bf16_logits_are_compared_in_fp32(logits, labels) -> None:
    rounded = logits.detach().bfloat16()
    expected = functional.cross_entropy(
        rounded.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert loss_sums(rounded, labels, ALIGNED).loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss_sums(rounded, labels, ALIGNED).loss.dtype == torch.float32


def test_a_model_may_return_the_logits_alone_or_first(logits, labels) -> None:
    expected = loss_sums(logits, labels, Causal()).loss.item()
    for answer in (logits, (logits, None), {"logits": logits}):
        found, _ = model_loss_sums(lambda answer=answer, **_: answer, {"labels": labels}, Causal())
        assert found.loss.item() == expected


def test_a_uniform_prediction_costs_the_log_of_the_vocabulary() -> None:
    sums = loss_sums(torch.zeros(2, 5, 11), torch.ones(2, 5, dtype=torch.long), Causal())
    assert (sums.loss / sums.count).item() == pytest.approx(math.log(11), rel=1e-6)
