"""Masked loss: the model's own ``labels=`` loss on the same masked batch, in value and in every gradient."""

import pytest
import torch

from lmtrain.objectives import IGNORED, Masked, model_loss_sums
from tiny import VOCABULARY, MemoryLayout, bert, distilbert, roberta, rows


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("make", [bert, roberta, distilbert])
def test_loss_and_gradients_are_the_models_own(make, padded: bool) -> None:
    layout = MemoryLayout(rows(6, shortest=3 if padded else 12, longest=12), pad_id=1)
    objective = Masked(4, VOCABULARY, special_ids=(0, 1, 2, 3, 4), probability=0.3)
    batch = objective.batch(layout.__getitems__(range(6)))
    assert ("attention_mask" in batch) is padded
    assert (batch["labels"] != IGNORED).sum() > 6

    theirs, ours = make(), make()
    own = theirs(**batch).loss
    own.backward()
    sums, _ = model_loss_sums(ours, batch, objective)
    (sums.loss / sums.count).backward()

    assert (sums.loss / sums.count).item() == pytest.approx(own.item(), rel=1e-6)
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if expected[name].grad is None:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-5, atol=1e-7)
