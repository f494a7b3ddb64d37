"""Word starts, on tokenizers trained in the test."""

from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.objectives import IGNORED, Masked, word_starts

TEXT = ["unbelievable readers are reading unreadable books", "believers read and reread the books"] * 20
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def wordpiece() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=60, special_tokens=SPECIAL))
    return wrapped(tokenizer)


def byte_level() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=60, special_tokens=SPECIAL))
    return wrapped(tokenizer)


def metaspace() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=SPECIAL, unk_token="[UNK]")
    tokenizer.train_from_iterator(TEXT, trainer)
    return wrapped(tokenizer)


def words(tokenizer: PreTrainedTokenizerFast, text: str) -> Iterator[str]:
    """The text cut where ``word_starts`` says."""
    starts, word = word_starts(tokenizer), ""
    for i in tokenizer(text, add_special_tokens=False)["input_ids"]:
        piece = tokenizer.convert_ids_to_tokens(i).replace("##", "").strip("Ġ▁")
        if starts[i] and word:
            yield word
            word = ""
        word += piece
    yield word


@pytest.mark.parametrize("tokenizer", [wordpiece(), byte_level(), metaspace()], ids=["wordpiece", "bytes", "meta"])
def test_text_falls_into_its_words(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "readers reread unbelievable books"
    assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) > 4  # the words do have several tokens
    assert list(words(tokenizer, text)) == text.split()


def test_a_vocabulary_of_characters_is_refused() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=40, special_tokens=SPECIAL))
    with pytest.raises(UserError, match="--mask_whole_words"):
        word_starts(wrapped(tokenizer))


def test_gaps_between_the_ids_stand_by_themselves() -> None:
    vocabulary = {"[UNK]": 0, "[MASK]": 1, "read": 2, "##ers": 6, "##ing": 9}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", mask_token="[MASK]")
    assert len(tokenizer) == 5
    assert word_starts(tokenizer).tolist() == [True] * 6 + [False, True, True, False]
    objective = Masked.for_tokenizer(tokenizer, whole_words=True)
    assert objective.vocab_size == 5
    ids = np.array([[2, 6, 2, 9, 2, 9]] * 50)
    examples = Examples(ids, np.full(50, 6), np.zeros_like(ids, dtype=bool), np.arange(50), 0)
    batch = objective.batch(examples)
    assert set(batch["input_ids"].unique().tolist()) <= set(vocabulary.values())
    hidden = batch["labels"].numpy() != IGNORED
    assert hidden.any() and (hidden[:, 0::2] == hidden[:, 1::2]).all(), "words as a whole"


def test_an_objective_takes_ids_and_words_from_its_tokenizer() -> None:
    tokenizer = wordpiece()
    objective = Masked.for_tokenizer(tokenizer, whole_words=True)
    assert objective.mask_id == SPECIAL.index("[MASK]")
    assert objective.vocab_size == len(tokenizer)
    assert objective.starts_word is not None and len(objective.starts_word) == len(tokenizer)
    tokenizer.mask_token = None
    with pytest.raises(UserError, match="no mask token"):
        Masked.for_tokenizer(tokenizer)
