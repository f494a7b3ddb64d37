"""Log-probabilities are the model's own, of each token that was written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from number_words import number_words, words

import architectures
import tiny
from lmtrain.generate import Settings, complete

WAYS: list[dict[str, Any]] = [
    {"do_sample": False},
    {"temperature": 0.4, "top_k": 5, "num_return_sequences": 2},
    {"do_sample": False, "num_beams": 3, "repetition_penalty": 1.3},
]


@pytest.mark.parametrize("kind", ["gpt2", "mistral", "bloom", "mamba"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_they_are_the_models_own_by_hand(kind: str, way: dict[str, Any]) -> None:
    """One position at a time without a cache, in padded batches, and whatever made the choice."""
    model = architectures.tiny(kind).eval()
    prompts = tiny.rows(3, shortest=2, longest=9)
    settings = Settings(max_new_tokens=7, logprobs=3, **way)
    found = complete(model, number_words(2), [words(prompt) for prompt in prompts], settings)
    for completion in found:
        assert completion.logprobs is not None
        assert tuple(token.id for token in completion.logprobs) == completion.ids
        text = list(prompts[completion.index])
        for token in completion.logprobs:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([text]), use_cache=False).logits[0, -1]
            expected = logits.double().log_softmax(-1)
            assert token.logprob == pytest.approx(float(expected[token.id]), abs=2e-5)
            best = expected.topk(3)
            assert [i for i, _ in token.top] == best.indices.tolist()
            assert [value for _, value in token.top] == pytest.approx(best.values.tolist(), abs=2e-5)
            text.append(token.id)


def test_without_top_only_the_chosen_and_without_asking_none() -> None:
    model, prompts = architectures.tiny("llama").eval(), [words([5, 6, 7])]
    [bare] = complete(model, number_words(2), prompts, Settings(max_new_tokens=3, logprobs=0))
    assert bare.logprobs is not None and all(token.top == () for token in bare.logprobs)
    [none] = complete(model, number_words(2), prompts, Settings(max_new_tokens=3))
    assert none.logprobs is None


def test_half_precision_products_give_full_precision_logprobs() -> None:
    """log softmax in bf16 would have three digits: the probabilities of all tokens would not add up."""
    model = architectures.tiny("llama").eval()
    settings = Settings(max_new_tokens=4, do_sample=False, logprobs=architectures.VOCABULARY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [found] = complete(model, number_words(2), [words([5, 6, 7])], settings)
    assert found.logprobs is not None
    for token in found.logprobs:
        assert torch.tensor([value for _, value in token.top]).double().exp().sum() == pytest.approx(1, abs=1e-5)
