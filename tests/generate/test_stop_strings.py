"""Stop strings: the text ends before the first of them, whatever it is batched with, in beams too."""

from __future__ import annotations

from typing import Any

import pytest

from lmtrain.core.errors import UserError
from lmtrain.generate import Settings, complete
from lmtrain.generate.text import before_stop, continuation
from tiny_models import make

PROMPTS = ["The fox", "How much wood would a woodchuck chuck", "S", "the dog sleeps on. She sells", "a"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return make(request.param, tmp_path_factory.mktemp("t"))


def texts(pair: tuple[Any, Any], **settings: Any) -> list[Any]:
    return complete(*pair, PROMPTS, Settings(**{"max_new_tokens": 16, "do_sample": False, **settings}))


def chosen_stops(pair: tuple[Any, Any], **settings: Any) -> tuple[str, ...]:
    """Of what is written without any stop string: a piece across tokens in the middle of two of the texts."""
    found = [completion.text for completion in texts(pair, **settings)]
    return tuple(dict.fromkeys([found[0][4:7], found[3][5:8]]))


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "temperature": 1.3, "num_return_sequences": 2}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_text_is_that_without_stop_strings_cut_before_the_first(
    pair: tuple[Any, Any], settings: dict[str, Any], batch_size: int
) -> None:
    stops = chosen_stops(pair, **settings)
    free = texts(pair, **settings)
    found = texts(pair, **settings, stop=stops, batch_size=batch_size)
    assert sum(completion.stop is not None for completion in found) >= 2
    tokenizer = pair[1]
    for one, whole in zip(found, free, strict=True):
        assert (one.text, one.stop) == before_stop(whole.text, stops)
        assert one.ids == whole.ids[: len(one.ids)]
        assert one.finished == (whole.finished or one.stop is not None)
        assert one.stop is not None or one.ids == whole.ids
        if one.stop is not None:  # the last token is the one that completed it
            prompt = tokenizer(one.prompt).input_ids
            assert one.stop in continuation(tokenizer, prompt, one.ids)
            assert not any(stop in continuation(tokenizer, prompt, one.ids[:-1]) for stop in stops)


def test_a_stop_string_in_the_prompt_does_not_count(pair: tuple[Any, Any]) -> None:
    [free] = complete(*pair, ["dog sleeps"], Settings(max_new_tokens=5, do_sample=False))
    settings = Settings(max_new_tokens=5, do_sample=False, stop=("dog sleeps", "sleeps"))
    [found] = complete(*pair, ["dog sleeps"], settings)
    assert found.ids == free.ids and "sleeps" not in free.text


def test_beams_end_at_stop_strings_too(pair: tuple[Any, Any]) -> None:
    beams = {"num_beams": 3, "num_return_sequences": 2}
    free = texts(pair, **beams)
    stop = free[0].text[2:4]
    found = texts(pair, **beams, stop=(stop,))
    assert any(completion.stop == stop for completion in found)
    for completion in found:
        whole = continuation(pair[1], pair[1](completion.prompt).input_ids, completion.ids)
        assert (stop in whole) == (completion.stop == stop) and stop not in completion.text
        assert before_stop(whole, [stop])[0] == completion.text
    assert [c.ids for c in found] == [c.ids for c in texts(pair, **beams, stop=(stop,), batch_size=1)]


def test_whoever_asks_gets_what_there_is(pair: tuple[Any, Any]) -> None:
    """Asked once before each batch and once after each token; the longest prompt is the first."""
    calls = iter(range(1000))
    whole = texts(pair)[1]
    settings = Settings(max_new_tokens=16, do_sample=False, batch_size=1)
    [only] = complete(*pair, PROMPTS[:2], settings, asked=lambda: next(calls) >= 4)
    assert only.index == 1 and only.ids == whole.ids[:4] and not only.finished
    assert next(calls) == 6, "and once for the batch that was not begun"


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"stop": ("",)}, "--stop"),
        ({"min_p": 1.5}, "--min_p"),
        ({"min_p": -0.1}, "--min_p"),
        ({"no_repeat_ngram_size": -1}, "--no_repeat_ngram_size"),
        ({"length_penalty": float("nan")}, "--length_penalty"),
        ({"logprobs": -1}, "--logprobs"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings(**settings).check()
    assert [problem.flag for problem in caught.value.problems] == [flag]
