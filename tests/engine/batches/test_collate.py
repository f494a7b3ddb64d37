import logging
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import DataCollatorForLanguageModeling, DataCollatorWithFlattening, PreTrainedTokenizerFast

from lmtrain.core.errors import UserError
from lmtrain.engine.batches import items as module
from lmtrain.engine.batches.collate import Collate, EpochExamples, Guarded, rows_of
from lmtrain.engine.batches.items import Limits
from lmtrain.objectives import IGNORED, Causal
from tiny import MemoryLayout

EOS = 0


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Words are ids; end of text is also the padding, as people set it for GPT-2."""
    vocabulary = {"<eos>": EOS, **{f"w{i}": i for i in range(1, 20)}}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<eos>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", pad_token="<eos>")


def test_the_stock_collator_gets_its_end_of_text_labels_back(tokenizer: PreTrainedTokenizerFast) -> None:
    items = [{"input_ids": [5, 6, 7, EOS]}, {"input_ids": [8, EOS]}]
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    assert EOS not in stock([dict(item) for item in items])["labels"]  # what it does alone
    labels = Guarded(stock)([dict(item) for item in items])["labels"]
    assert labels.tolist() == [[5, 6, 7, EOS], [8, EOS, IGNORED, IGNORED]]


def test_a_kind_of_it_that_masks_more_keeps_what_it_masks(tokenizer: PreTrainedTokenizerFast) -> None:
    class AnswerOnly(DataCollatorForLanguageModeling):
        def torch_call(self, examples: list[Any]) -> dict[str, Any]:
            batch = super().torch_call(examples)
            batch["labels"][:, :2] = IGNORED
            return batch

    labels = Guarded(AnswerOnly(tokenizer, mlm=False))([{"input_ids": [5, 6, 7, 8]}])["labels"]
    assert labels.tolist() == [[IGNORED, IGNORED, 7, 8]]


def test_padding_that_an_item_brings_along_stays_without_label(tokenizer: PreTrainedTokenizerFast) -> None:
    item = {"input_ids": [5, EOS, EOS, EOS], "attention_mask": [1, 1, 0, 0]}
    labels = Guarded(DataCollatorForLanguageModeling(tokenizer, mlm=False))([item])["labels"]
    assert labels.tolist() == [[5, EOS, IGNORED, IGNORED]]


def test_other_collators_keep_their_labels(tokenizer: PreTrainedTokenizerFast) -> None:
    def answer_only(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        ids = torch.stack([item["input_ids"] for item in items])
        labels = ids.clone()
        labels[:, :2] = IGNORED
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    batch = Guarded(answer_only)([{"input_ids": torch.tensor([5, 6, 7])}])
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7]]


def test_examples_that_a_collator_joins_to_one_row_count_one_by_one() -> None:
    guarded = Guarded(DataCollatorWithFlattening(), Limits(rows=9, positions=4))
    assert guarded([{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6, 7]}])["input_ids"].shape == (1, 7)
    with pytest.raises(UserError, match="an example has 5 tokens and the model 4 positions"):
        guarded([{"input_ids": [1, 2]}, {"input_ids": [4, 5, 6, 7, 8]}])


def test_items_of_shape_1_t_are_squeezed_and_it_is_said_once(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    module.warn_once.cache_clear()
    items = [{"input_ids": torch.tensor([[5, 6, 7]])}, {"input_ids": torch.tensor([[8, 9, 3]])}]
    with caplog.at_level(logging.WARNING):
        ours = Collate(Causal())(rows_of(items, np.arange(2), 0, 0))
        theirs = Guarded(DataCollatorForLanguageModeling(tokenizer, mlm=False))(items)
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 3]]
    assert len([r for r in caplog.records if "shape (1, T)" in r.getMessage()]) == 1


def test_items_are_padded_by_length_with_any_id() -> None:
    items = [{"input_ids": [5, EOS]}, {"input_ids": [6, 7, EOS]}]
    batch = Collate(Causal())(rows_of(items, np.arange(2), 0, EOS))
    assert batch["labels"].tolist() == [[5, EOS, IGNORED], [6, 7, EOS]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_padding_on_the_left_is_taken_off_by_the_mask() -> None:
    item = {"input_ids": [9, 9, 5, 6], "attention_mask": [0, 0, 1, 1], "labels": [1, 1, 5, 6]}
    rows = rows_of([item], np.arange(1), 0, 0)
    assert rows.examples.ids.tolist() == [[5, 6]]
    assert rows.labels is not None and rows.labels.tolist() == [[5, 6]]


def test_labels_of_the_data_set_win_over_the_objective() -> None:
    items = [
        {"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]},
        {"input_ids": [8, 9], "labels": [IGNORED, 9]},
    ]
    batch = Collate(Causal())(rows_of(items, np.arange(2), 0, 0))
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [IGNORED, 9, IGNORED]]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"text": "no ids"}, "no input_ids"),
        ({"input_ids": [[1, 2], [3, 4]]}, r"shape \(2, 2\)"),
    ],
)
def test_items_that_cannot_be_used_say_why(item: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        rows_of([item], np.arange(1), 0, 0)


def test_counters_carry_the_epoch() -> None:
    layout = MemoryLayout([[5, 6], [7, 8, 9], [4, 3]])
    examples = EpochExamples(layout).__getitems__([7, 6]).examples  # epoch 2, examples 1 and 0
    assert (examples.epoch, examples.index.tolist()) == (2, [1, 0])
    assert examples.ids.tolist() == [[7, 8, 9], [5, 6, 0]]
    assert EpochExamples(layout, epoch=-1).__getitems__([2]).examples.epoch == -1


def test_lengths_are_known_of_layouts_alone() -> None:
    lengths = EpochExamples(MemoryLayout([[5, 6], [7, 8, 9]])).lengths
    assert lengths is not None and lengths.tolist() == [2, 3]
    assert EpochExamples([{"input_ids": [5, 6]}]).lengths is None


@pytest.mark.parametrize("labelled", [False, True])
def test_a_filler_predicts_nothing_and_shows_one_token(labelled: bool) -> None:
    items = [{"input_ids": [5, 6, 7], **({"labels": [5, 6, 7]} if labelled else {})}] * 2
    batch = Collate(Causal())(EpochExamples(items).__getitems__([1, ~0]))
    assert Causal().count(batch["labels"]).item() == 2
    assert (batch["labels"][1, 1:] == IGNORED).all()
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
