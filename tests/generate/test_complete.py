"""Completions: the same whatever they are batched with, within the context, and of the right distribution."""

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmtrain.core.errors import UserError
from lmtrain.generate import Settings, complete
from lmtrain.generate.text import continuation
from tiny_models import make

PROMPTS = [
    "The fox",
    "How much wood would a woodchuck chuck",
    "S",
    "the dog sleeps on. She sells sea shells by",
    "a",
]
GREEDY = {"do_sample": False, "max_new_tokens": 12}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp("t"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return make("gpt2", tmp_path_factory.mktemp("t"))


def by_hand(model, tokenizer, prompt, steps):
    """Greedy decoding without cache, padding or library: the whole text through the model for each token."""
    ids = tokenizer(prompt).input_ids
    start = len(ids)
    for _ in range(steps):
        with torch.no_grad():
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if best == tokenizer.eos_token_id:
            break
        ids.append(best)
    return tokenizer.decode(ids[start:])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_greedy_is_decoding_by_hand_for_any_batch_size(pair, batch_size):
    model, tokenizer = pair
    found = complete(model, tokenizer, PROMPTS, Settings(**GREEDY, batch_size=batch_size))
    assert [c.text for c in found] == [by_hand(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    assert [c.index for c in found] == list(range(len(PROMPTS))) and [c.prompt for c in found] == PROMPTS


def test_a_sample_depends_on_seed_and_prompt_and_on_nothing_beside_it(pair):
    model, tokenizer = pair
    settings = {"max_new_tokens": 10, "num_return_sequences": 2, "temperature": 0.9, "top_p": 0.95, "seed": 5}
    together = complete(model, tokenizer, PROMPTS, Settings(**settings, batch_size=8))
    other_order = complete(model, tokenizer, PROMPTS[::-1], Settings(**settings, batch_size=3))
    torch.manual_seed(99)  # the global generator plays no part
    alone = [c for p in PROMPTS for c in complete(model, tokenizer, [p], Settings(**settings, batch_size=1))]
    texts = [(c.prompt, c.sample, c.text) for c in together]
    assert texts == [(c.prompt, c.sample, c.text) for c in alone]
    assert sorted(texts) == sorted((c.prompt, c.sample, c.text) for c in other_order)
    assert len({c.text for c in together}) == len(together)  # samples differ from each other
    reseeded = complete(model, tokenizer, PROMPTS, Settings(**{**settings, "seed": 6}))
    assert [c.text for c in reseeded] != [c.text for c in together]


def test_the_same_prompt_twice_gives_two_samples(gpt2):
    first, second = complete(*gpt2, ["The fox", "The fox"], Settings(max_new_tokens=12))
    assert first.text != second.text


def test_top_k_of_one_is_greedy(pair):
    model, tokenizer = pair
    drawn = complete(model, tokenizer, PROMPTS, Settings(max_new_tokens=12, top_k=1))
    assert [c.text for c in drawn] == [c.text for c in complete(model, tokenizer, PROMPTS, Settings(**GREEDY))]


def test_beam_search_is_the_librarys(pair):
    model, tokenizer = pair
    found = complete(model, tokenizer, PROMPTS[:2], Settings(**GREEDY, num_beams=3, num_return_sequences=2))
    for index, prompt in enumerate(PROMPTS[:2]):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=3, num_return_sequences=2, max_new_tokens=12,
            do_sample=False, pad_token_id=0, eos_token_id=0,
        )  # fmt: skip
        texts = [tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True) for row in expected]
        assert [c.text for c in found if c.index == index] == texts
    assert [(c.index, c.sample) for c in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_repetition_penalty_does_not_count_padding(gpt2):
    model, tokenizer = gpt2
    settings = {**GREEDY, "repetition_penalty": 3.0}
    together = complete(model, tokenizer, PROMPTS, Settings(**settings))
    alone = [complete(model, tokenizer, [p], Settings(**settings))[0] for p in PROMPTS]
    assert together == [replace(completion, index=index) for index, completion in enumerate(alone)]
    assert together != complete(model, tokenizer, PROMPTS, Settings(**GREEDY))


def test_settings_stored_with_the_model_do_not_leak_in_and_are_left_alone(gpt2):
    model, tokenizer = gpt2
    plain = complete(model, tokenizer, PROMPTS, Settings(**GREEDY))
    stored = model.generation_config
    before = stored.to_dict()
    stored.update(do_sample=True, temperature=0.1, repetition_penalty=5.0, min_new_tokens=9, num_beams=2)
    try:
        assert complete(model, tokenizer, PROMPTS, Settings(**GREEDY)) == plain
        assert model.generation_config is stored and stored.temperature == 0.1
    finally:
        model.generation_config = type(stored).from_dict(before)


def test_it_stops_at_the_end_of_text_and_says_so(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    free = complete(model, tokenizer, PROMPTS, Settings(**GREEDY))
    assert not any(c.finished for c in free) and {c.n_tokens for c in free} == {12}
    [best] = complete(model, tokenizer, ["The fox"], Settings(**GREEDY))
    third = tokenizer("The fox" + best.text).input_ids
    model.generation_config.eos_token_id = [third[len(tokenizer("The fox").input_ids) + 2]]
    [ended] = complete(model, tokenizer, ["The fox"], Settings(**GREEDY))
    assert ended.finished and ended.n_tokens <= 3 and best.text.startswith(ended.text)


def test_near_the_end_of_the_context_it_stops_and_beyond_it_is_refused(gpt2):
    model, tokenizer = gpt2
    long = "a fox and " * 40
    ids = tokenizer(long).input_ids
    fits = tokenizer.decode(ids[:45])
    assert len(tokenizer(fits).input_ids) == 45
    short, near = complete(model, tokenizer, ["The", fits], Settings(**GREEDY), context=48)
    assert (short.n_tokens, near.n_tokens) == (12, 3)
    with pytest.raises(UserError, match=f"has {len(ids)} tokens and leaves no room in the model's 48 positions"):
        complete(model, tokenizer, ["The", long], Settings(**GREEDY), context=48)
    with pytest.raises(UserError, match="has 45 tokens and leaves no room"):
        complete(model, tokenizer, [fits], Settings(**GREEDY), context=45)


def test_an_empty_prompt_starts_where_texts_start(gpt2):
    model, tokenizer = gpt2
    [found] = complete(model, tokenizer, [""], Settings(**GREEDY))
    assert found.text == by_hand(model, tokenizer, "<|endoftext|>", 12)
    tokenizer_without = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(UserError, match="empty prompt"):
        complete(model, tokenizer_without, [""], Settings(**GREEDY))


def test_the_space_before_the_first_new_word_is_kept_where_decoding_alone_drops_it():
    """SentencePiece writes words as "▁fox" and drops the space at the start of what it decodes."""
    backend = Tokenizer(models.WordLevel({"▁The": 0, "▁fox": 1, "▁ran": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    assert tokenizer.decode([1, 2]) == "fox ran"
    assert continuation(tokenizer, [0], [1, 2]) == " fox ran"


def test_whole_numbers_will_do(gpt2):
    """transformers refuses them."""
    whole, fraction = (Settings(max_new_tokens=3, temperature=two, repetition_penalty=two) for two in (2, 2.0))
    assert complete(*gpt2, ["a"], whole) == complete(*gpt2, ["a"], fraction)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"num_beams": 2}, "--num_beams"),
        ({"do_sample": False, "num_return_sequences": 2}, "--num_return_sequences"),
        ({"temperature": 0.0}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"min_p": float("nan")}, "--min_p"),
        ({"top_p": 1.5}, "--top_p"),
        ({"max_new_tokens": 0}, "--max_new_tokens"),
        ({"batch_size": 0}, "--batch_size"),
    ],
)
def test_settings_that_contradict_are_refused(gpt2, settings, flag):
    with pytest.raises(UserError) as caught:
        complete(*gpt2, ["a"], Settings(**settings))
    assert [problem.flag for problem in caught.value.problems] == [flag]


def test_ids_beyond_the_embedding_are_refused_before_the_model_sees_them(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    tokenizer.add_tokens(["<|new|>"])
    with pytest.raises(UserError, match="id 300, and the model has 300 embedding rows"):
        complete(model, tokenizer, ["a <|new|>"], Settings(**GREEDY))


def test_training_mode_and_generator_are_left_as_they_were(tmp_path):
    model, tokenizer = make("gpt2", tmp_path)
    model.train()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    complete(model, tokenizer, PROMPTS, Settings(max_new_tokens=3))
    assert model.training and torch.equal(torch.rand(3), expected)
