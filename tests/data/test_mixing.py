"""Several texts in given shares: the right examples, equally often, in an order that is a function of the seed."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpora import byte_level_bpe
from hypothesis import given
from hypothesis import strategies as st

from lmtrain.config.mix import Mix
from lmtrain.config.options import DataOptions
from lmtrain.core.errors import UserError
from lmtrain.data.corpus import Corpus, prepare_corpus
from lmtrain.data.layouts import Joined, Mixed
from lmtrain.data.layouts import mixed as module
from lmtrain.data.layouts.mixed import _apportioned
from lmtrain.data.tokenizer_files import TokenizerFiles


class Numbers:
    """A layout of ``n`` examples of one token each: its own number, beginning at ``first``."""

    note = None
    pad_id = 0

    def __init__(self, first: int, n: int, length: int = 1) -> None:
        self.first, self.n, self.length = first, n, length

    def __len__(self) -> int:
        return self.n

    def __getitems__(self, indices):  # type: ignore[no-untyped-def]
        from lmtrain.core.types import Examples

        index = np.asarray(indices)
        ids = np.repeat(self.first + index[:, None], self.length, 1)
        return Examples(ids, np.full(len(index), self.length), np.zeros(ids.shape, bool), index)

    @property
    def lengths(self) -> np.ndarray:
        return np.full(self.n, self.length)


def ids(layout: Joined, epoch: int) -> list[int]:
    examples = layout.in_epoch(range(len(layout)), epoch)
    assert examples.index.tolist() == list(range(len(layout)))
    return examples.ids[:, 0].tolist()


def mixed(seed: int = 0) -> Mixed:
    return Mixed({"few": Numbers(0, 10), "many": Numbers(1000, 90)}, {"few": 0.5, "many": 0.5}, seed)


def test_shares_are_kept_and_each_example_is_read_equally_often() -> None:
    layout = mixed()
    assert len(layout) == 100 and layout.counts.tolist() == [50, 50]
    read = Counter[int]()
    for epoch in range(9):  # 450 of 10, 450 of 90
        drawn = ids(layout, epoch)
        assert sum(i < 1000 for i in drawn) == 50
        read.update(drawn)
    assert {read[i] for i in range(10)} == {45} and {read[1000 + i] for i in range(90)} == {5}


def test_one_epoch_of_a_large_text_goes_on_where_the_last_stopped() -> None:
    layout = mixed()
    first, second = ({i for i in ids(layout, epoch) if i >= 1000} for epoch in (0, 1))
    assert len(first) == 50 and len(second - first) == 40  # the other 40, then 10 of the next round


def test_the_first_part_of_an_epoch_is_mixed_like_the_whole() -> None:
    layout = Mixed({"a": Numbers(0, 300), "b": Numbers(1000, 300)}, {"a": 0.9, "b": 0.1}, 0)
    part = layout.take(50)
    assert len(part) == 50 and part.counts.tolist() == [45, 5]
    assert ids(part, 0) == ids(layout, 0)[:50]
    assert "90.0% a" in part.note and "10.0% b" in part.note


def test_the_order_is_a_function_of_the_seed_and_survives_pickling() -> None:
    one, again, other = ids(mixed(1), 3), ids(pickle.loads(pickle.dumps(mixed(1))), 3), ids(mixed(2), 3)
    assert one == again != other and sorted(one) != one
    short = pickle.loads(pickle.dumps(mixed(1).take(7)))
    assert ids(short, 0) == ids(mixed(1), 0)[:7]


def test_any_part_of_an_epoch_can_be_read_alone() -> None:
    layout = mixed()
    whole = ids(layout, 5)
    assert layout.in_epoch([70, 3, 3], 5).ids[:, 0].tolist() == [whole[70], whole[3], whole[3]]
    with pytest.raises(IndexError):
        layout.in_epoch([100], 0)


def test_of_many_texts_each_is_put_in_order_once_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch reads from all of them, and from one so small that it is begun again many times in a batch."""
    drawn: list[tuple[int, ...]] = []

    def counted(*about: int) -> np.ndarray:
        drawn.append(about)
        return plain(*about)

    plain = module._permutation
    monkeypatch.setattr(module, "_permutation", counted)
    sizes = {"small": 2} | {str(number): 50 for number in range(12)}
    layout = Mixed({name: Numbers(0, size) for name, size in sizes.items()}, dict.fromkeys(sizes, 1.0), 0)
    for start in range(0, len(layout), 100):
        layout.in_epoch(range(start, min(start + 100, len(layout))), 0)
    assert Counter(size for _, _, size, _ in drawn)[50] == 12


def test_rows_of_different_lengths_make_one_batch() -> None:
    layout = Mixed({"a": Numbers(1, 2, 3), "b": Numbers(7, 2, 5)}, {"a": 1, "b": 1}, 0)
    examples = layout.in_epoch(range(4), 0)
    assert examples.ids.shape == (4, 5) and sorted(examples.lengths.tolist()) == [3, 3, 5, 5]
    for row, length in zip(examples.ids, examples.lengths, strict=True):
        assert len(set(row[:length])) == 1 and not row[length:].any()
    assert examples.special[examples.lengths == 3][:, 3:].all() and not examples.special[:, :3].any()
    assert layout.lengths.tolist() == examples.lengths.tolist()


def test_joined_is_every_example_once() -> None:
    layout = Joined({"a": Numbers(0, 3), "b": Numbers(10, 2)})
    assert ids(layout, 0) == ids(layout, 4) == [0, 1, 2, 10, 11]
    assert ids(layout.take(4), 0) == [0, 1, 2, 10]


def test_a_text_without_examples_cannot_be_mixed_in() -> None:
    with pytest.raises(UserError, match="empty gives no example"):
        Mixed({"some": Numbers(0, 3), "empty": Numbers(0, 0)}, {"some": 1, "empty": 1}, 0)


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=6), st.integers(1, 10_000))
def test_whole_numbers_in_given_shares(weights: list[float], total: int) -> None:
    shares = [w / sum(weights) for w in weights]
    counts = _apportioned(shares, total)
    assert (counts >= 1).all() and abs(int(counts.sum()) - total) <= len(shares)
    for share, count in zip(shares, counts.tolist(), strict=True):
        assert count == 1 or abs(count - share * total) < 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["code", "prose=0.3"], "'code' is no NAME=SHARE"),
        (["code=0", "prose=1"], "'code=0' is no NAME=SHARE"),
        (["code=x", "prose=1"], "'code=x' is no NAME=SHARE"),
        (["code=1", "code=2"], "code has two shares"),
        (["code=1"], "two texts or more"),
    ],
)
def test_wrong_shares(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Mix.of(words)


def test_wrong_names() -> None:
    mix = Mix.of(["code=7", "prose=3"])
    assert mix is not None and mix.shares == {"code": 0.7, "prose": 0.3}
    assert mix.paths(["prose=b", "code=a", "code=x=y"]) == {"code": ["a", "x=y"], "prose": ["b"]}
    with pytest.raises(UserError) as refused:
        mix.paths(["book.txt", "cooode=a"])
    assert [problem.text for problem in refused.value.problems] == [
        "which text of the mix is book.txt? Write code=book.txt",
        "cooode (in cooode=a) has no share; name one: --mix cooode=0.1",
        "code has a share and no text; name it: --train_file code=PATH",
        "prose has a share and no text; name it: --train_file prose=PATH",
    ]


def corpus(tmp_path: Path, **more: object) -> Corpus:
    for name, letter, n in (("code", "x = 1\n", 400), ("prose", "some words ", 900)):
        (tmp_path / f"{name}.txt").write_text(letter * n)
    options = DataOptions(
        train_file=[f"code={tmp_path / 'code.txt'}", f"prose={tmp_path / 'prose.txt'}"],
        mix=["code=0.75", "prose=0.25"],
        data_cache_dir=str(tmp_path / "cache"), **more,  # type: ignore[arg-type]
    )  # fmt: skip
    return prepare_corpus(options, TokenizerFiles.load(byte_level_bpe(tmp_path / "tok")), "clm", block_size=16)


def test_from_options_to_examples(tmp_path: Path) -> None:
    made = corpus(tmp_path, validation_split_percentage=20.0)
    train, validation = made.splits["train"], made.splits["validation"]
    assert isinstance(train, Mixed) and type(validation) is Joined
    sizes = [len(layout) for layout in train.layouts.values()]
    assert len(train) == sum(sizes) and abs(train.counts[0] / len(train) - 0.75) < 1 / len(train)
    assert made.ledger.splits["train"].examples == len(train)
    assert set(made.stores) == {"train/code", "train/prose"} and made.manifest()["mix"]["shares"] == train.shares
    assert any("75" in line and "code" in line for line in made.lines)
    held_out = sum(ledger.tokens for ledger in (layout.ledger for layout in validation.layouts.values()))
    assert made.ledger.splits["validation"].tokens == held_out > 0
    json.dumps(made.manifest())


def test_at_most_so_many(tmp_path: Path) -> None:
    made = corpus(tmp_path, validation_split_percentage=0.0, max_train_samples=8)
    train = made.splits["train"]
    assert isinstance(train, Mixed) and train.counts.tolist() == [6, 2]
