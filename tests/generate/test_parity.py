"""What ``complete`` writes is what ``model.generate`` of transformers writes for each prompt alone, token for token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from number_words import number_words, words
from transformers import GenerationConfig

import architectures
import tiny
from lmtrain.generate import Settings, complete
from lmtrain.generate.decoding import processors

BEAMS = [
    {"num_beams": 3, "num_return_sequences": 2},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, "length_penalty": -0.5, "early_stopping": "never", "no_repeat_ngram_size": 2},
    {"num_beams": 2, "length_penalty": 0.3, "repetition_penalty": 1.4, "num_return_sequences": 2},
]
_EOS = 2


def by_the_library(model: Any, prompt: list[int], **settings: Any) -> list[list[int]]:
    """The new ids of each sequence, up to the end of text; the prompt stands alone, without padding."""
    ids = torch.tensor([prompt])
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=_EOS, **settings)
    model.generation_config = GenerationConfig()
    found = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)[:, len(prompt) :]
    return [row[: row.index(_EOS) + 1] if _EOS in row else row for row in found.tolist()]


def ours(model: Any, prompts: list[list[int]], **settings: Any) -> list[list[list[int]]]:
    tokenizer = number_words(_EOS)
    chosen = Settings(max_new_tokens=12, do_sample=False, **{"batch_size": 3, **settings})
    found = complete(model, tokenizer, [words(prompt) for prompt in prompts], chosen)
    for completion in found:
        assert completion.text.strip() == words(i for i in completion.ids if i != _EOS)
        assert completion.finished == (completion.ids[-1] == _EOS)
    return [[list(c.ids) for c in found if c.index == index] for index in range(len(prompts))]


@pytest.mark.parametrize("kind", architectures.CAUSAL)
def test_greedy_of_any_architecture_in_padded_batches(kind: str) -> None:
    model = architectures.tiny(kind).eval()
    prompts = tiny.rows(5, shortest=1, longest=20, seed=3)
    for settings in ({}, {"no_repeat_ngram_size": 2}, {"repetition_penalty": 1.5}):
        expected = [by_the_library(model, prompt, **settings) for prompt in prompts]
        assert ours(model, prompts, **settings) == expected


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "bloom"])
@pytest.mark.parametrize("settings", BEAMS, ids=str)
def test_beam_search_of_several_architectures_in_padded_batches(kind: str, settings: dict[str, Any]) -> None:
    model = architectures.tiny(kind, seed=4).eval()
    prompts = tiny.rows(4, shortest=1, longest=16, seed=6)
    assert ours(model, prompts, **settings) == [by_the_library(model, prompt, **settings) for prompt in prompts]


def test_the_settings_of_beams_do_what_they_are_there_for() -> None:
    """The comparison above would prove little if they changed nothing."""
    model = architectures.tiny("llama", seed=4).eval()
    prompts = tiny.rows(12, shortest=1, longest=16, seed=6)
    plain = ours(model, prompts, num_beams=4)
    assert any(row[0][-1] == _EOS for row in plain) and any(row[0][-1] != _EOS for row in plain)
    for change in ({"length_penalty": -2.0}, {"early_stopping": True}, {"no_repeat_ngram_size": 1}):
        assert ours(model, prompts, num_beams=4, **change) != plain, change


FILTERS = [
    {"temperature": 0.7},
    {"top_k": 9},
    {"top_p": 0.8},
    {"min_p": 0.15},
    {"temperature": 1.7, "top_k": 20, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 0.3, "min_p": 0.4},
    {"temperature": 2.5, "top_p": 0.6, "min_p": 0.3, "repetition_penalty": 1.8},
]


@pytest.mark.parametrize("settings", FILTERS, ids=str)
def test_what_is_drawn_from_is_what_the_librarys_sampling_draws_from(settings: dict[str, Any]) -> None:
    """The scores after its own processors and after ours but for the draw, of the same logits: equal to the bit."""
    model = architectures.tiny("llama").eval()
    ids = torch.tensor(tiny.rows(6, shortest=7, longest=7))
    config = GenerationConfig(
        max_new_tokens=1, do_sample=True, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        output_logits=True, **{"top_k": 0, **settings},
    )  # fmt: skip
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    penalty = settings.get("repetition_penalty", 1.0)
    filters = {name: value for name, value in settings.items() if name != "repetition_penalty"}
    made = processors([0] * len(ids), Settings(**{"top_k": 0, **filters}))
    scores = output.logits[0].clone()
    if penalty != 1.0:  # the library's own comes first, in its generate as in ours
        said = scores.gather(1, ids)
        scores = scores.scatter(1, ids, torch.where(said < 0, said * penalty, said / penalty))
    for processor in made[:-1]:
        scores = processor(ids, scores)
    assert type(made[-1]).__name__ == "GumbelNoise"
    assert torch.equal(scores, output.scores[0])
    assert settings == {"temperature": 0.7} or bool((scores == -torch.inf).any())


def test_only_what_the_filters_leave_is_drawn_and_all_of_it() -> None:
    """2,000 draws from at most 9 tokens, the rarest with a probability above 0.02: one missing in 1e17 times."""
    model = architectures.tiny("llama").eval()
    settings = {"top_k": 9, "top_p": 0.9, "min_p": 0.2, "temperature": 1.3}
    [prompt] = tiny.rows(1, shortest=7, longest=7)
    config = GenerationConfig(
        max_new_tokens=1, do_sample=True, pad_token_id=0, return_dict_in_generate=True, output_scores=True, **settings
    )
    scores = model.generate(torch.tensor([prompt]), generation_config=config).scores[0][0]
    allowed = {i for i, score in enumerate(scores.tolist()) if score > -float("inf")}
    assert 2 < len(allowed) <= 9 and float(scores.softmax(0)[list(allowed)].min()) > 0.02
    chosen = Settings(max_new_tokens=1, num_return_sequences=2000, batch_size=500, **settings)
    drawn = complete(model, number_words(_EOS), [words(prompt)], chosen)
    assert {c.ids[0] for c in drawn} == allowed
