"""What is masked, how often, and that it depends on counters alone.

The statistical tests draw 2 million tokens with a fixed seed, so they always give the same verdict. Their
bounds are 6 standard deviations of a binomial: had the seed been drawn anew, a right implementation would
fail with a probability of 2e-9 for each bound.
"""

import math
import time

import numpy as np
import pytest
import torch

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.objectives import EVALUATION_EPOCH, IGNORED, Masked

MASK, VOCABULARY, ROWS, LENGTH = 4, 1000, 2000, 1000
SPECIAL_IDS = (0, 1, 2, 3, 4)


def some(
    rows: int, length: int, *, epoch: int = 0, first_index: int = 0, lengths: np.ndarray | None = None
) -> Examples:
    ids = np.random.default_rng(7).integers(5, VOCABULARY, (rows, length))
    lengths = np.full(rows, length) if lengths is None else lengths
    index = np.arange(first_index, first_index + rows)
    return Examples(ids, lengths, np.arange(length) >= lengths[:, None], index, epoch)


def masked(**options: object) -> Masked:
    return Masked(MASK, VOCABULARY, special_ids=SPECIAL_IDS, **options)  # type: ignore[arg-type]


def within_six_sigma(found: int, draws: int, probability: float) -> bool:
    return abs(found - draws * probability) < 6 * math.sqrt(draws * probability * (1 - probability))


@pytest.fixture(scope="module")
def large() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids before, ids after, labels of 2 million tokens."""
    examples = some(ROWS, LENGTH)
    batch = masked().batch(examples)
    return torch.from_numpy(examples.ids), batch["input_ids"], batch["labels"]


def test_fifteen_percent_are_hidden(large: tuple[torch.Tensor, ...]) -> None:
    _, _, labels = large
    assert within_six_sigma(int((labels != IGNORED).sum()), labels.numel(), 0.15)


def test_of_these_80_percent_are_masks_10_random_10_unchanged(large: tuple[torch.Tensor, ...]) -> None:
    before, after, labels = large
    hidden = labels != IGNORED
    draws = int(hidden.sum())
    by_chance = 0.1 / VOCABULARY  # a random id may be the old one, or the mask
    assert within_six_sigma(int((after[hidden] == MASK).sum()), draws, 0.8 + by_chance)
    assert within_six_sigma(int((after[hidden] == before[hidden]).sum()), draws, 0.1 + by_chance)
    random_ids = after[hidden & (after != MASK) & (after != before)]
    counts = np.bincount(random_ids.numpy(), minlength=VOCABULARY)
    expected = draws * by_chance
    assert (np.abs(np.delete(counts, MASK) - expected) < 6 * math.sqrt(expected)).all()  # the whole vocabulary


def test_labels_are_the_old_ids_and_the_rest_is_untouched(large: tuple[torch.Tensor, ...]) -> None:
    before, after, labels = large
    hidden = labels != IGNORED
    assert torch.equal(labels[hidden], before[hidden])
    assert torch.equal(after[~hidden], before[~hidden])


def test_positions_and_neighbors_are_hidden_independently(large: tuple[torch.Tensor, ...]) -> None:
    hidden = large[2] != IGNORED
    by_position = hidden.sum(0)
    assert all(within_six_sigma(int(n), ROWS, 0.15) for n in by_position)
    for other in (hidden[:, 1:] & hidden[:, :-1], hidden[1:] & hidden[:-1]):
        assert within_six_sigma(int(other.sum()), other.numel(), 0.15**2)


def test_a_mask_depends_on_seed_epoch_and_index_and_not_on_the_batch() -> None:
    whole = masked().batch(some(6, 50, first_index=100))
    one = some(6, 50, first_index=100)
    last = Examples(one.ids[5:], one.lengths[5:], one.special[5:], one.index[5:])
    assert torch.equal(masked().batch(last)["labels"], whole["labels"][5:])
    assert torch.equal(masked().batch(last)["input_ids"], whole["input_ids"][5:])
    for other in (masked(seed=43).batch(one), masked().batch(some(6, 50, first_index=100, epoch=1))):
        assert not torch.equal(other["labels"], whole["labels"])
    assert not torch.equal(whole["labels"][0] == IGNORED, whole["labels"][1] == IGNORED)


def test_evaluation_masks_are_those_of_no_training_epoch() -> None:
    evaluation = masked().batch(some(4, 50, epoch=EVALUATION_EPOCH))["labels"]
    assert torch.equal(evaluation, masked().batch(some(4, 50, epoch=EVALUATION_EPOCH))["labels"])
    assert not any(torch.equal(evaluation, masked().batch(some(4, 50, epoch=e))["labels"]) for e in range(20))


def test_wider_padding_changes_nothing() -> None:
    lengths = np.array([9, 4, 7])
    narrow = some(3, 9, lengths=lengths)
    wide_ids = np.pad(narrow.ids, ((0, 0), (0, 5)))
    wide = Examples(wide_ids, lengths, np.arange(14) >= lengths[:, None], narrow.index)
    assert torch.equal(masked().batch(wide)["labels"][:, :9], masked().batch(narrow)["labels"])
    assert (masked().batch(wide)["labels"][:, 9:] == IGNORED).all()


def test_at_least_one_where_a_token_is_eligible_and_none_elsewhere() -> None:
    lengths = np.random.default_rng(3).integers(1, 8, 5000)
    examples = some(5000, 8, lengths=lengths)
    special = examples.special.copy()
    special[:, 0] = True  # so rows of length 1 have nothing to hide
    examples = Examples(examples.ids, lengths, special, examples.index)
    hidden = masked(probability=0.01).batch(examples)["labels"].numpy() != IGNORED
    assert not (hidden & special).any()
    assert (hidden.sum(1)[lengths > 1] >= 1).all()
    assert (hidden.sum(1)[lengths == 1] == 0).all()
    # Where one was chosen for want of any, every eligible position has its turn.
    assert (hidden[lengths == 7].sum(0)[1:7] > 0).all()


def test_special_ids_are_never_hidden_even_inside_a_text() -> None:
    examples = some(200, 50)
    examples.ids[:, 10] = 2
    assert (masked(probability=0.9).batch(examples)["labels"][:, 10] == IGNORED).all()


def test_ids_with_gaps_and_ids_that_nobody_named() -> None:
    """The ids of a tokenizer need not be 0 to n - 1, and a data set may bring any: neither is an index of a table."""
    vocabulary = np.array([*range(10), *range(900, VOCABULARY)])
    gapped = Masked(MASK, len(vocabulary), special_ids=SPECIAL_IDS, vocabulary=vocabulary, probability=0.5)
    examples = some(40, 100)
    examples.ids[:] = np.where(examples.ids % 2, 950, 7)
    batch = gapped.batch(examples)
    put = batch["input_ids"][(batch["labels"] != IGNORED) & (batch["input_ids"] != MASK)]
    assert set(put.tolist()) <= set(vocabulary.tolist()) and len(set(put.tolist()) - {7, 950}) > 50
    examples.ids[:, 3] = 10**6
    starts = np.ones(20, dtype=bool)
    for objective in (masked(), gapped, Masked(MASK, 20, special_ids=SPECIAL_IDS, starts_word=starts)):
        labels = objective.batch(examples)["labels"]
        assert 0 < int((labels[:, 3] == 10**6).sum()) < 40 and set(labels[:, 3].tolist()) == {IGNORED, 10**6}


def test_whole_words_are_hidden_whole() -> None:
    starts = np.ones(VOCABULARY, dtype=bool)
    starts[500:] = False  # ids from 500 on continue a word
    examples = some(500, 60)
    labels = masked(starts_word=starts).batch(examples)["labels"].numpy()
    hidden = labels != IGNORED
    continues = examples.ids[:, 1:] >= 500
    assert (hidden[:, 1:] == hidden[:, :-1])[continues].all()
    assert within_six_sigma(int(hidden[:, 1:][~continues].sum()), int((~continues).sum()), 0.15)


def test_a_word_does_not_reach_over_a_special_token() -> None:
    starts = np.ones(VOCABULARY, dtype=bool)
    starts[500:] = False
    ids = np.tile(np.array([[600, 601, 2, 602, 603]]), (2000, 1))
    examples = Examples(ids, np.full(2000, 5), np.zeros_like(ids, dtype=bool), np.arange(2000))
    hidden = masked(starts_word=starts).batch(examples)["labels"].numpy() != IGNORED
    assert (hidden[:, 0] == hidden[:, 1]).all() and (hidden[:, 3] == hidden[:, 4]).all()
    assert (hidden[:, 0] != hidden[:, 3]).any()


def test_a_share_outside_the_possible_is_refused() -> None:
    for probability in (0.0, -0.1, 1.5):
        with pytest.raises(UserError, match="--mlm_probability"):
            masked(probability=probability)


def test_a_batch_takes_less_than_two_milliseconds() -> None:
    objective, examples = masked(), some(32, 128)
    objective.batch(examples)
    best = math.inf
    for _ in range(50):
        start = time.thread_time()
        objective.batch(examples)
        best = min(best, time.thread_time() - start)
    assert best < 0.002
