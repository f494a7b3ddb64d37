"""What people hand to a Trainer: each kind trains alike, or is answered with what to change."""

import logging
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    random_split,
)
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    default_data_collator,
)

from lmtrain.core.errors import UserError
from lmtrain.engine.batches import items
from lmtrain.engine.batches.items import Limits
from lmtrain.engine.trainer import LMTrainer
from tiny import arguments, bert, logged
from tiny_models import TEXT, gpt2_style

LENGTH = 24
TEXTS = TEXT * 3


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """As GPT-2's: an end-of-text token, no pad token."""
    made = gpt2_style()
    assert made.pad_token is None
    return made


@pytest.fixture(autouse=True)
def _say_again() -> None:
    items.warn_once.cache_clear()


class Own(Dataset):
    """One's own data set as tutorials write it, tokenizing in ``__getitem__``."""

    def __init__(self, tokenizer: Any, **how: Any) -> None:
        self.tokenizer, self.how = tokenizer, {"truncation": True, "max_length": LENGTH, **how}

    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> Any:
        return self.tokenizer(TEXTS[index], **self.how)


class Stream(IterableDataset):
    def __init__(self, data: Any) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        return (self.data[i] for i in range(len(self.data)))


class Once(IterableDataset):
    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return self.items


def model(tokenizer: Any, positions: int = 48) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_positions=positions, **shape, **ids))


def trainer(tokenizer: Any, folder: Any, data: Any, held_out: Any = None, /, **given: Any) -> LMTrainer:
    options = given.pop("args", {})
    args = arguments(folder, **{"max_steps": 3, "per_device_train_batch_size": 2, **options})
    return LMTrainer(given.pop("model", None) or model(tokenizer), args, data, held_out, **given)


def losses(tokenizer: Any, folder: Any, data: Any, /, **given: Any) -> list[float]:
    made = trainer(tokenizer, folder, data, **given)
    made.train()
    return logged(made, "loss")


def columns(tokenizer: Any) -> datasets.Dataset:
    """A data set of ``datasets`` as ``map`` leaves it, with the text beside the tokens."""
    raw = datasets.Dataset.from_dict({"text": TEXTS})
    return raw.map(lambda rows: tokenizer(rows["text"], truncation=True, max_length=LENGTH), batched=True)


# ---- what trains alike ---------------------------------------------------------------------------


def test_every_kind_of_item_and_collator_trains_alike(tokenizer: Any, tmp_path: Any) -> None:
    """GPT-2's tokenizer has no pad token, items of shape (1, T) make batches of (B, 1, T), a text is no tensor."""
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)  # which gets a pad token when it is first used
    mapped = columns(tokenizer)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "lists": (Own(tokenizer), {}),
        "their tokenizer by its old name": (Own(tokenizer), {"tokenizer": tokenizer}),
        "their tokenizer by its new name": (Own(tokenizer), {"processing_class": tokenizer}),
        "tensors of shape (1, T)": (Own(tokenizer, return_tensors="pt"), {}),
        "arrays": ([{"input_ids": np.array(Own(tokenizer)[i]["input_ids"])} for i in range(len(TEXTS))], {}),
        "ids alone": ([Own(tokenizer)[i]["input_ids"] for i in range(len(TEXTS))], {}),
        "without a mask": ([{"input_ids": Own(tokenizer)[i]["input_ids"]} for i in range(len(TEXTS))], {}),
        "with labels": ([{**Own(tokenizer)[i], "labels": Own(tokenizer)[i]["input_ids"]} for i in range(12)], {}),
        "columns of a tokenizer": (tokenizer(TEXTS, truncation=True, max_length=LENGTH), {}),
        "a dictionary of lists": ({"input_ids": mapped["input_ids"][:]}, {}),
        "several joined": (ConcatDataset([Subset(Own(tokenizer), range(5)), Subset(Own(tokenizer), range(5, 12))]), {}),
        "datasets, with text": (mapped, {}),
        "datasets, as tensors": (mapped.with_format("torch", columns=["input_ids", "attention_mask"]), {}),
        "the stock collator": (mapped, {"data_collator": stock}),
        "the stock collator, (1, T)": (Own(tokenizer, return_tensors="pt"), {"data_collator": stock}),
        "the tutorial": (Own(tokenizer, padding="max_length", return_tensors="pt"), {"data_collator": stock}),
        "padded": (Own(tokenizer, padding="max_length", return_tensors="pt"), {"processing_class": tokenizer}),
        "for pairs": (
            mapped.map(lambda row: {"labels": row["input_ids"]}), {"data_collator": DataCollatorForSeq2Seq(tokenizer)}
        ),
    }  # fmt: skip
    found = {name: losses(tokenizer, tmp_path, data, **given) for name, (data, given) in kinds.items()}
    for name, figures in found.items():
        assert figures == pytest.approx(found["lists"], rel=1e-6), name
    assert tokenizer.pad_token == tokenizer.eos_token


def test_a_stream_trains_as_the_same_items_in_order(tokenizer: Any, tmp_path: Any) -> None:
    in_order = {"args": {"train_sampling_strategy": "sequential"}}
    expected = losses(tokenizer, tmp_path, Own(tokenizer), **in_order)
    mapped = columns(tokenizer)
    for data in (Stream(Own(tokenizer, return_tensors="pt")), mapped.to_iterable_dataset()):
        for collator in (None, DataCollatorForLanguageModeling(tokenizer, mlm=False)):
            assert losses(tokenizer, tmp_path, data, data_collator=collator) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match="max_steps"):
        trainer(tokenizer, tmp_path, Stream(Own(tokenizer)), args={"max_steps": -1}).train()
    with pytest.raises(UserError, match="gave no example when it was read from its beginning after step 2"):
        trainer(tokenizer, tmp_path, Once(Own(tokenizer)[i] for i in range(4))).train()


def test_labels_of_minus_100_are_not_learned(tokenizer: Any, tmp_path: Any) -> None:
    def answers(row: dict[str, Any]) -> dict[str, Any]:
        return {"labels": [-100] * 5 + row["input_ids"][5:]}

    data = columns(tokenizer).map(answers)
    made = trainer(tokenizer, tmp_path, data, data)
    made.train()
    expected = sum(len(row["input_ids"]) - 5 for row in data)
    assert made.evaluate()["eval_tokens"] == expected
    with_collator = losses(tokenizer, tmp_path, data, data_collator=DataCollatorForSeq2Seq(tokenizer))
    assert logged(made, "loss") == pytest.approx(with_collator, rel=1e-6)


def test_parts_of_ones_own_data_are_evaluated_by_name(tokenizer: Any, tmp_path: Any) -> None:
    train, held_out = random_split(Own(tokenizer), [8, 4], torch.Generator().manual_seed(0))
    named = {"some": held_out, "columns": tokenizer(TEXTS[:3])}
    made = trainer(tokenizer, tmp_path, train, named)
    scores = made.evaluate()
    assert scores["eval_columns_tokens"] == sum(len(ids) - 1 for ids in tokenizer(TEXTS[:3])["input_ids"])
    assert scores["eval_some_loss"] > 0
    for other in (tokenizer(TEXTS[:3]), dict(tokenizer(TEXTS[:3]))):  # columns, too, and not a data set each
        assert made.evaluate(other)["eval_loss"] == scores["eval_columns_loss"]
        assert made.predict(other).metrics["test_loss"] == pytest.approx(scores["eval_columns_loss"])
    for wrong, words in (("a text", "is the text 'a text'"), ([], "is empty"), (3, "is a int, which has no items")):
        with pytest.raises(UserError, match=f"test_dataset {words}"):
            made.predict(wrong)
    with pytest.raises(UserError, match="eval_dataset is empty"):
        made.evaluate([])


def test_compute_metrics_sees_logits_and_labels(tokenizer: Any, tmp_path: Any) -> None:
    def accuracy(prediction: Any) -> dict[str, float]:
        """Of the next token, as people write it: labels are not moved yet."""
        labels, guesses = prediction.label_ids[:, 1:], prediction.predictions.argmax(-1)[:, :-1]
        return {"mine": float((guesses == labels)[labels != -100].mean())}

    data = columns(tokenizer)
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    for collator in (None, stock):
        made = trainer(tokenizer, tmp_path, data, data, compute_metrics=accuracy, data_collator=collator)
        scores = made.evaluate()
        assert scores["eval_mine"] == pytest.approx(scores["eval_accuracy"])


def test_empty_texts_are_no_obstacle(tokenizer: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Wikitext, which the tutorials take, has thousands; they change nothing but the number of examples."""
    full = [Own(tokenizer)[i]["input_ids"] for i in range(2)]
    with caplog.at_level(logging.WARNING):
        mixed = losses(tokenizer, tmp_path, [full[0], [], full[1], []], args={"per_device_train_batch_size": 4})
    plain = losses(tokenizer, tmp_path, full, args={"per_device_train_batch_size": 4})
    assert mixed == pytest.approx(plain, rel=1e-6)
    assert caplog.text.count("have no tokens") == 1
    tokenizer.pad_token = tokenizer.eos_token
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    padded = [tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True) for text in (TEXTS[0], "")]
    assert losses(tokenizer, tmp_path, padded, data_collator=stock) == pytest.approx(
        losses(tokenizer, tmp_path, padded[:1], data_collator=stock), rel=1e-6
    )


def test_masked_models_take_the_stock_collator_and_ones_own_items(tmp_path: Any) -> None:
    from tokenizers import Tokenizer, models

    from tiny import VOCABULARY, rows

    words = {"[PAD]": 0, "[MASK]": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="[PAD]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", mask_token="[MASK]")
    data = [{"input_ids": torch.tensor([row]), "text": "x"} for row in rows(12)]
    args = {"max_steps": 60, "per_device_train_batch_size": 12, "learning_rate": 1e-2}
    for given in (
        {"processing_class": tokenizer},
        {"data_collator": DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3)},
    ):
        found = losses(tokenizer, tmp_path, data, model=bert(), args=args, **given)
        assert np.mean(found[-5:]) < found[0] - 1


# ---- what is said --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a text", "train_dataset is the text 'a text'; tokenize it first"),
        (["a text"] * 2, "is the text 'a text'; tokenize it first"),
        (default_data_collator, "train_dataset is a function, which has no items; give a list, .* is data_collator=…"),
        (DataLoader([{"input_ids": [1, 2]}]), "is a DataLoader, which has no items; .*batches are made here"),
        ([], "train_dataset is empty: it has no examples"),
        ({"input_ids": []}, "train_dataset is empty: it has no examples"),
        ([{"text": "a text"}] * 2, r"has no input_ids, only text; tokenize it first: .*rows\['text'\]"),
        ([{"ids": [1, 2]}] * 2, "has no input_ids, only ids; return them from __getitem__"),
        ({"train": [1], "test": [2]}, r"\(train, test\) and no input_ids; choose one: train_dataset=data\['train'\]"),
        ([{"input_ids": [[1, 2], [3, 4]]}] * 2, r"input_ids of shape \(2, 2\); an item is one row of ids"),
        (TensorDataset(torch.ones(4, 3).long(), torch.ones(4, 3).long()), "a tuple of 2 tensors"),
        ([{"input_ids": [1.0, 2.0]}] * 2, "input_ids of type float64; ids are whole numbers"),
        ([{"input_ids": [1, 2], "labels": 1}] * 2, r"has 1 as its labels: that is a class"),
        ([{"input_ids": [1, 2, 3], "labels": [1, 2]}] * 2, "has 3 input_ids and 2 labels; give one for each token"),
        ([{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [1, 2]}], "some items .* have labels and others"),
        ([{"input_ids": [1, 5000]}] * 2, r"holds the id 5000 and the model knows the ids from 0 to \d+"),
        ([{"input_ids": [1, -100]}] * 2, "holds the id -100"),
        ([{"input_ids": [1] * 50}] * 2, "an example has 50 tokens and the model 48 positions; cut it: .*max_length=48"),
    ],
)
def test_what_cannot_be_used_is_answered_with_what_to_change(
    data: Any, words: str, tokenizer: Any, tmp_path: Any
) -> None:
    with pytest.raises(UserError, match=words):
        trainer(tokenizer, tmp_path, data).train()


@pytest.mark.parametrize(
    ("collator", "item", "words"),
    [
        (DataCollatorForLanguageModeling, {"text": "a"}, "has no input_ids; tokenize it first"),
        (DataCollatorWithPadding, {"labels": [3, 4]}, "Padding cannot make a batch of items with 2 to 3 labels; leave "
         "data_collator out"),
        (None, {}, "default_data_collator cannot make a batch of items with 2 to 3 input_ids"),
    ],
)  # fmt: skip
def test_a_collator_that_fails_is_explained(
    collator: Any, item: dict[str, Any], words: str, tokenizer: Any, tmp_path: Any
) -> None:
    if "text" in item:
        data: list[dict[str, Any]] = [item] * 2
    else:
        longer = {name: [*values, 5] for name, values in item.items()}
        data = [{"input_ids": [3, 4], **item}, {"input_ids": [3, 4, 5], **longer}]
    if collator is DataCollatorForLanguageModeling:
        made: Any = collator(tokenizer, mlm=False)
    else:
        made = default_data_collator if collator is None else collator(tokenizer)
    with pytest.raises(UserError, match=words):
        trainer(tokenizer, tmp_path, data, data_collator=made).train()


def test_a_collator_that_makes_no_labels_is_named_in_training_and_evaluation(tokenizer: Any, tmp_path: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    data = [Own(tokenizer)[i] for i in range(4)]
    made = trainer(tokenizer, tmp_path, data, data, data_collator=DataCollatorWithPadding(tokenizer))
    for use in (made.train, made.evaluate):
        with pytest.raises(UserError, match="made no labels, only input_ids, attention_mask; have it make them"):
            use()


def test_an_id_that_is_too_large_is_found_behind_a_stock_collator_too(tokenizer: Any, tmp_path: Any) -> None:
    stock = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    with pytest.raises(UserError, match="holds the id 5000"):
        trainer(tokenizer, tmp_path, [{"input_ids": [1, 5000]}] * 4, data_collator=stock).train()


@pytest.mark.parametrize("whole_words", [False, True])
def test_a_masked_model_says_as_much_of_a_foreign_id(whole_words: bool, tmp_path: Any) -> None:
    """Before the id is hidden behind a mask, where it would be a label beyond the vocabulary."""
    from lmtrain.objectives import Masked
    from tiny import VOCABULARY

    starts = np.ones(VOCABULARY, dtype=bool) if whole_words else None
    objective = Masked(4, VOCABULARY, probability=1.0, starts_word=starts)
    data = [{"input_ids": [5, 6, 5000]}] * 4
    with pytest.raises(UserError, match=f"holds the id 5000 and the model knows the ids from 0 to {VOCABULARY - 1}"):
        trainer(None, tmp_path, data, model=bert(), objective=objective).train()


@pytest.mark.parametrize(
    ("make", "data", "words"),
    [
        (None, [{"input_ids": [5, 6, 7], "labels": [-100] * 3}] * 4, "no token to predict"),
        (None, [[5]] * 4, "no token to predict"),
        (None, [{"input_ids": [5, 6, 7, 8], "labels": [6, 7, 8, -100]}] * 4, "moved by one"),
        (bert, [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 4, "sees what it is to predict"),
    ],
)
def test_labels_that_teach_something_else_are_told_of_once(
    make: Any, data: Any, words: str, tokenizer: Any, tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from lmtrain.objectives import Masked
    from tiny import VOCABULARY

    given = {"model": make(), "objective": Masked(4, VOCABULARY)} if make else {}
    with caplog.at_level(logging.WARNING):
        losses(tokenizer, tmp_path, data, **given)
    assert caplog.text.count(words) == 1


def test_a_model_without_a_table_of_positions_is_not_bounded(tokenizer: Any) -> None:
    rotary = LlamaForCausalLM(
        LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                    max_position_embeddings=4)
    )  # fmt: skip
    assert Limits.of(rotary) == Limits(9, None)
    assert Limits.of(model(tokenizer)) == Limits(len(tokenizer), 48)
