"""Beam search: the hypotheses of the reference search, token for token, whatever a context is batched with."""

from __future__ import annotations

import itertools
import math

import beam_by_hand
import pytest
import torch

import architectures
import tiny
from lmtrain.core.errors import UserError
from lmtrain.generate import beam_search

SETTINGS = [
    # beams, penalty, n-gram, longest, stops
    (10, 0.8, 4, 20, (3, 0)),
    (4, 1.0, 0, 12, (7,)),
    (3, 0.0, 2, 16, (5, 9, 11)),
    (5, -1.5, 3, 12, tuple(range(0, 66, 4))),  # the sharpest model: a long one with a large sum can still win
    (6, 2.0, 1, 9, tuple(range(20))),
    (1, 0.8, 2, 14, (2,)),
    (10, 0.8, 4, 1, (3,)),
    (7, 0.5, 0, 15, ()),
    (10, 0.8, 0, 18, tuple(range(0, 67, 9))),
]


def by_hand(model, contexts, beams, penalty, ngram, longest, stops, **more):
    rules = {"beams": beams, "penalty": penalty, "ngram": ngram, "longest": longest, "stops": stops, **more}
    return [beam_by_hand.search(model, context, **rules) for context in contexts]


def ours(model, contexts, beams, penalty, ngram, longest, stops, **more):
    return beam_search(
        model, contexts, num_beams=beams, length_penalty=penalty, no_repeat_ngram_size=ngram, max_new_tokens=longest,
        stop_ids=stops, eos_token_id=None, **more,
    )  # fmt: skip


def sharpened(seed):
    """Random weights; the sharper the distribution, the more often a search repeats itself and is bound by rules."""
    made = tiny.gpt2(seed=seed).eval()
    with torch.no_grad():
        made.transformer.ln_f.weight.mul_((0.5, 1.0, 2.0, 4.0)[seed % 4])
    return made


@pytest.mark.parametrize(("number", "settings"), list(enumerate(SETTINGS)), ids=str)
def test_it_is_the_search_by_hand_in_batches_of_any_size(number, settings):
    model, contexts = sharpened(number), tiny.rows(8, shortest=1, longest=18, seed=number)
    expected = by_hand(model, contexts, *settings)
    for batch_size in (1, 3, 8):
        assert ours(model, contexts, *settings, batch_size=batch_size) == expected


@pytest.mark.parametrize("seed", range(4))
def test_the_settings_do_what_they_are_there_for(seed):
    """The comparison above would prove little if no search ended early, was cut off, or met a forbidden n-gram."""
    model, contexts = sharpened(seed), tiny.rows(6, shortest=1, longest=18)
    ended = [row for settings in SETTINGS for row in ours(model, contexts, *settings) if row[-1] in settings[-1]]
    assert len(ended) > 12 and len({len(row) for row in ended}) > 5
    free = ours(model, contexts, 5, 1.0, 0, 20, ())
    bound = ours(model, contexts, 5, 1.0, 2, 20, ())
    assert all(len(row) == 20 for row in free + bound)
    pairs = [list(itertools.pairwise(row)) for row in bound]
    assert all(len(set(row)) == len(row) for row in pairs)
    assert free != bound


@pytest.mark.parametrize("step", [0.25, 1.0, 1000.0])
def test_of_equal_scores_the_better_parent_then_the_smaller_id_goes_on(step):
    """Logits rounded to few values are equal all the time; to one value, always."""
    model, contexts = sharpened(1), tiny.rows(6, shortest=2, longest=15, seed=8)
    handle = model.lm_head.register_forward_hook(lambda module, inputs, logits: (logits / step).round() * step)
    for settings in [(5, 0.8, 2, 8, (3, 40)), (9, 0.8, 0, 6, tuple(range(0, 67, 5)))]:
        expected = by_hand(model, contexts, *settings)
        for batch_size in (1, 4):
            assert ours(model, contexts, *settings, batch_size=batch_size) == expected
    handle.remove()


@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_a_repetition_penalty_weighs_what_was_generated(penalty):
    model, contexts = sharpened(2), tiny.rows(5, shortest=2, longest=15, seed=3)
    settings = (4, 0.8, 3, 12, (3,))
    found = ours(model, contexts, *settings, repetition_penalty=penalty)
    assert found == by_hand(model, contexts, *settings, repetition=penalty)
    assert found != ours(model, contexts, *settings)


@pytest.mark.parametrize("kind", architectures.CAUSAL)
def test_any_architecture_gives_the_same_with_and_without_cache_and_padding(kind):
    model = architectures.tiny(kind).eval()
    contexts = tiny.rows(5, shortest=2, longest=20, seed=5)
    settings = (4, 0.8, 3, 12, tuple(range(0, 67, 6)))
    if kind == "mamba":
        with pytest.raises(UserError, match="keeps no keys and values"):
            ours(model, contexts, *settings)
        return
    assert ours(model, contexts, *settings, batch_size=3) == by_hand(model, contexts, *settings)


def test_an_adapter_is_part_of_the_model():
    peft = pytest.importorskip("peft")
    base = tiny.gpt2()
    contexts = tiny.rows(6, shortest=2, longest=15, seed=2)
    settings = (4, 0.8, 3, 10, (3, 9, 27))
    before = ours(base, contexts, *settings)
    config = peft.LoraConfig(r=4, lora_alpha=32, target_modules=["c_attn"], fan_in_fan_out=True, lora_dropout=0.5)
    model = peft.get_peft_model(base, config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.train()
    found = ours(model, contexts, *settings, batch_size=4)
    assert model.training and all(module.training for module in model.modules())
    model.eval()
    assert found == by_hand(model, contexts, *settings) != before
    model.merge_adapter()
    assert ours(model, contexts, *settings) == found


def test_equal_contexts_are_decoded_once_and_progress_counts_them_so():
    model = tiny.gpt2()
    one, two, three = tiny.rows(3, shortest=5, longest=15)
    calls, rows = [], []
    handle = model.register_forward_pre_hook(
        lambda module, inputs, named: rows.append(named["input_ids"].shape), with_kwargs=True
    )
    found = beam_search(
        model, [one, two, one, three, one], num_beams=4, max_new_tokens=6, stop_ids=(), eos_token_id=None,
        batch_size=2, on_progress=lambda done, total: calls.append((done, total)),
    )  # fmt: skip
    handle.remove()
    assert found[0] == found[2] == found[4] and found[0] is not found[2]
    assert calls == [(1, 3), (2, 3), (3, 3)]
    # a context is one row, its beams four; nothing is run after the last token
    assert [shape[0] for shape in rows] == [2, 8, 8, 8, 8, 8, 1, 4, 4, 4, 4, 4]
    assert {shape[1] for shape in rows[1:6]} == {1}


def test_what_cannot_win_is_not_run():
    """The stops end hypotheses at any step: rows become fewer long before the last one, and in the end none is left."""
    model = tiny.gpt2(seed=3)
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, inputs, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    contexts = tiny.rows(12, shortest=9, longest=10)
    ours(model, contexts, 4, 0.8, 0, 25, tuple(range(0, 67, 3)), batch_size=12)
    handle.remove()
    assert rows[0] == 12 and max(rows[1:]) <= 48 and rows[-1] < 12
    assert len(rows) < 25 and len(set(rows)) > 4


def test_the_batch_is_what_memory_holds():
    model = tiny.gpt2()
    contexts = tiny.rows(9, shortest=8, longest=8)
    rows = []
    handle = model.register_forward_pre_hook(
        lambda module, inputs, named: rows.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    # keys and values of a position: 2 layers × 2 × 32 numbers of 4 bytes; 8 + 12 positions; 67 logits
    row = 2 * 2 * 32 * 4 * (8 + 12) * 1.25 + 12 * 67
    settings = {"num_beams": 2, "max_new_tokens": 12, "stop_ids": (), "eos_token_id": None}
    beam_search(model, contexts, **settings, memory=int(2 * row * 4.5))
    assert [shape[0] for shape in rows if shape[1] == 8] == [4, 4, 1]
    rows.clear()
    beam_search(model, contexts, **settings, memory=1)
    assert [shape[0] for shape in rows if shape[1] == 8] == [1] * 9
    rows.clear()
    beam_search(model, contexts, **settings)
    assert [shape[0] for shape in rows if shape[1] == 8] == [9]
    handle.remove()


def test_nothing_asked_nothing_run():
    assert beam_search(tiny.gpt2(), []) == []


@pytest.mark.parametrize(
    ("change", "flag", "text"),
    [
        ({"num_beams": 0}, "--num_beams", "0 is less than 1"),
        ({"num_beams": 68}, "--num_beams", "more than the 67 tokens"),
        ({"max_new_tokens": 0}, "--max_new_tokens", "less than 1"),
        ({"batch_size": 0}, "--batch_size", "less than 1"),
        ({"no_repeat_ngram_size": -1}, "--no_repeat_ngram_size", "less than 0"),
        ({"repetition_penalty": 0.0}, "--repetition_penalty", "above 0"),
        *(
            ({"length_penalty": power}, "--length_penalty", f"64 tokens to the power of {power}")
            for power in (1000, -1000, math.inf, math.nan)
        ),
        ({"contexts": [[5], []]}, None, "empty"),
        ({"contexts": [[5, 67]]}, None, "the id 67 has no place among the 67"),
        ({"contexts": [[-1]]}, None, "the id -1"),
    ],
)
def test_wrong_settings_are_named(change, flag, text):
    with pytest.raises(UserError, match=text) as caught:
        beam_search(tiny.gpt2(), **{"contexts": [[5]], **change})
    assert [problem.flag for problem in caught.value.problems] == [flag]
