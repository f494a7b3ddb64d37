"""The largest noisy score is a sample of the distribution."""

import math

import torch

from lmtrain.core.streams import derive
from lmtrain.generate.sampling import GumbelNoise


def test_the_largest_is_drawn_with_the_probability_of_the_softmax():
    """20,000 rows with fixed seeds, so always one verdict; for a new seed, 6 deviations fail once in 2e9."""
    rows = 20_000
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -math.inf])
    noise = GumbelNoise([derive(1, "test", row) % 2**63 for row in range(rows)])
    drawn = noise(torch.zeros(rows, 1, dtype=torch.int64), scores.expand(rows, -1)).argmax(-1)
    shares = torch.bincount(drawn, minlength=5) / rows
    expected = scores.softmax(-1)
    deviation = (expected * (1 - expected) / rows).sqrt()
    assert (shares - expected).abs().le(6 * deviation).all()
    assert shares[4] == 0


def test_a_row_draws_the_same_whatever_rows_are_beside_it():
    scores = torch.zeros(1, 50)
    alone = GumbelNoise([7])
    first, second = alone(None, scores), alone(None, scores)
    pair = GumbelNoise([3, 7])
    assert torch.equal(pair(None, scores.expand(2, -1))[1:], first)
    assert torch.equal(pair(None, scores.expand(2, -1))[1:], second)
    assert not torch.equal(first, second)
