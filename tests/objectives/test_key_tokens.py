"""Key tokens: which ids they are, how an example's weight follows, and what stays unweighted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmtrain.core.errors import UserError
from lmtrain.core.types import Examples
from lmtrain.engine.batches.packed import Packing, packed
from lmtrain.objectives import IGNORED, KeyTokens, find_key_ids, loss_sums
from lmtrain.objectives.base import KEYS


def examples(ids: list[list[int]], lengths: list[int]) -> Examples:
    array = np.array(ids)
    special = np.arange(array.shape[1]) >= np.array(lengths)[:, None]
    return Examples(array, np.array(lengths), special, np.arange(len(ids)))


def test_every_key_token_of_a_row_counts_and_padding_does_not() -> None:
    batch = KeyTokens([4, 9, 4], alpha=0.5).batch(examples([[4, 7, 9, 4], [5, 4, 4, 4], [7, 7, 7, 7]], [4, 2, 4]))
    assert batch[KEYS].tolist() == [[3] * 4, [1] * 4, [0] * 4]
    weights = KeyTokens([4, 9], alpha=0.5).weights(batch)
    assert weights[:, 0].tolist() == [2.0, 1.0, 0.5]
    assert batch["labels"].tolist() == [[4, 7, 9, 4], [5, 4, IGNORED, IGNORED], [7, 7, 7, 7]]


def test_an_examples_weight_goes_with_it_into_a_packed_row() -> None:
    objective = KeyTokens([4])
    batch = objective.batch(examples([[4, 7, 4, 0], [5, 6, 0, 0], [8, 4, 0, 0], [6, 0, 0, 0]], [3, 2, 2, 1]))
    lengths = np.array([3, 2, 2, 1])
    rows = packed(batch, lengths, Packing(one_row=True), shifted=True)
    assert rows["segments"].tolist() == [[1, 1, 1, 2, 2, 3, 3, 4]]
    assert rows[KEYS].tolist() == [[2, 2, 2, 0, 0, 1, 1, 0]]
    targets = objective.targets(rows["labels"])
    assert targets.tolist() == [[7, 4, IGNORED, 6, IGNORED, 4, IGNORED, IGNORED]]
    weights = objective.at_targets(objective.weights(rows), 0)
    assert weights[targets.ne(IGNORED)].tolist() == [3, 3, 1, 2]


def test_the_count_is_not_weighted_and_the_parts_add_up() -> None:
    objective = KeyTokens([4])
    batch = objective.batch(examples([[4, 7, 4], [5, 6, 3]], [3, 3]))
    logits = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(0))
    plain = loss_sums(logits, batch["labels"], objective, keyed=batch[KEYS].gt(0), accuracy=True)
    weighted = loss_sums(logits, batch["labels"], objective, weights=objective.weights(batch))
    assert weighted.count.item() == plain.count.item() == 4
    assert plain.keyed is not None and plain.keyed.count.item() == 2
    others = plain.loss - plain.keyed.loss
    assert weighted.loss.item() == pytest.approx((3 * plain.keyed.loss + others).item(), rel=1e-6)


def test_a_collator_that_does_not_look_for_keys_is_no_silent_weight_of_one() -> None:
    with pytest.raises(ValueError, match="key_tokens"):
        KeyTokens([4]).weights({"labels": torch.ones(1, 2)})


# ---- which ids -----------------------------------------------------------------------------------


def byte_level(words: list[str]) -> PreTrainedTokenizerFast:
    """GPT-2's kind, with ``words`` (a space in front or not) as single tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    vocabulary = {token: number for number, token in enumerate(["<|endoftext|>", *alphabet])}
    for word in words:
        pieces = list(word.replace(" ", "\u0120"))
        whole = pieces[0]
        for piece in pieces[1:]:
            if whole + piece not in vocabulary:
                merges.append((whole, piece))
                vocabulary[whole + piece] = len(vocabulary)
            whole += piece
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def test_both_forms_are_looked_up_and_what_is_no_token_is_left_out_with_its_pieces() -> None:
    tokenizer = byte_level([" plt", "plt", " pd"])
    keys = find_key_ids(tokenizer, ["plt", "pd", "zq", "plt"])
    numbers = tokenizer.get_vocab()
    assert keys.found == {
        "plt": {"plt": numbers["plt"], " plt": numbers["\u0120plt"]},
        "pd": {" pd": numbers["\u0120pd"]},
    }
    assert keys.ids == sorted([numbers["plt"], numbers["\u0120plt"], numbers["\u0120pd"]])
    assert keys.left_out == {"zq": ["z", "q"]}
    assert keys.lines()[1] == "left out, since they are not one token: zq is 'z' + 'q'"


def test_no_key_left_is_an_error_that_shows_the_pieces() -> None:
    with pytest.raises(UserError, match="zq is 'z' \\+ 'q'") as error:
        find_key_ids(byte_level([]), ["zq"])
    assert error.value.problems[0].flag == "--key_tokens"


def test_a_word_that_the_vocabulary_does_not_know_is_not_its_unknown_token() -> None:
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "plt": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    keys = find_key_ids(tokenizer, ["plt", "pd"])
    assert keys.ids == [1] and list(keys.left_out) == ["pd"]


def test_a_tokenizer_that_puts_spaces_in_front_itself_has_both_forms_too() -> None:
    """SentencePiece's kin read "plt" as " plt"; in the middle of a word it is another token."""
    vocabulary = [("<unk>", 0.0), ("\u2581plt", -1.0), ("plt", -2.0), ("\u2581", -3.0), ("(", -3.0)]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert find_key_ids(tokenizer, ["plt"]).found == {"plt": {" plt": 1, "plt": 2}}
