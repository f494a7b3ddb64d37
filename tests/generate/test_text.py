"""Text from tokens as they come: the same as from all of them at once, and never half a character."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lmtrain.generate.streaming import Pieces
from lmtrain.generate.text import TextSoFar, before_stop, continuation, held_back
from tiny_models import bert_style, gpt2_style

TEXTS = ["né 漢字 🙂 fox", "The quick brown fox", "  two  spaces\n\nlines\t", "🙂🙃👍🏽 flags 🇫🇷", "ﬁ ß İ"]


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama 2's: words begin with ▁, what it does not know are bytes, a space at the beginning is dropped."""
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    vocabulary += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
    vocabulary += [(piece, -4.0) for piece in ("▁", "▁fox", "▁The", "fo", "x", "e", "n", "s", "▁the", "▁brown")]
    backend = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", bos_token="<s>", unk_token="<unk>")


MAKERS = {"gpt2": gpt2_style, "sentencepiece": sentencepiece, "wordpiece": bert_style}


@pytest.fixture(scope="module", params=MAKERS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


def pieces(tokenizer: Any, prompt: list[int], new: list[int]) -> list[str]:
    text = TextSoFar(tokenizer, prompt)
    return [text.add(token) for token in new]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_the_text_and_no_character_is_broken(tokenizer: Any, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    for cut in range(min(len(ids), 6)):
        if "\ufffd" in continuation(tokenizer, [], ids[:cut]):
            continue  # a prompt is text: it does not end within a character
        found = pieces(tokenizer, ids[:cut], ids[cut:])
        assert not any("\ufffd" in piece for piece in found)
        assert "".join(found) == continuation(tokenizer, ids[:cut], ids[cut:])


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = gpt2_style()
    ids = tokenizer("a🙂b").input_ids
    assert len(ids) == 6, "four bytes, each a token"
    assert pieces(tokenizer, [], ids) == ["a", "", "", "", "🙂", "b"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_ids_give_the_text_in_the_end(data: st.DataObject) -> None:
    """Random ids are mostly broken characters; whatever the pieces were, the rest makes them the whole text.

    But with SentencePiece's byte tokens, where a wrong byte changes what was said before: those are left out.
    """
    tokenizer = _MADE[data.draw(st.sampled_from(sorted(_MADE)))]
    known = [i for i, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))) if "<0x" not in token]
    ids = data.draw(st.lists(st.sampled_from(known), max_size=30))
    prompt = tokenizer("The fox", add_special_tokens=False).input_ids
    found: list[str] = []
    stream = Pieces(tokenizer, prompt, [], [], found.append)
    _put(stream, prompt, ids)
    whole = continuation(tokenizer, prompt, ids)
    assert whole.startswith("".join(found))
    stream.finish(whole)
    assert "".join(found) == whole


_MADE = {name: make() for name, make in MAKERS.items()}


def _put(stream: Pieces, prompt: list[int], ids: list[int]) -> None:
    import torch

    stream.put(torch.tensor([prompt]))
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()


def test_what_may_begin_a_stop_string_waits() -> None:
    tokenizer = gpt2_style()
    ids = tokenizer("one.\n.two\n\nthree").input_ids
    found: list[str] = []
    stream = Pieces(tokenizer, [], [], ["\n\n", "END"], found.append)
    _put(stream, [], ids)
    assert "".join(found) == "one.\n.two"
    assert not any(piece.endswith("\n") for piece in found), "a line break could have been the first of two"
    stream.finish("one.\n.two")
    assert "".join(found) == "one.\n.two"
    waiting: list[str] = []
    stream = Pieces(tokenizer, [], [], ["END"], waiting.append)
    _put(stream, [], tokenizer("the EN").input_ids)
    assert "".join(waiting) == "the "
    stream.finish("the EN")  # it was none: the text ended there
    assert "".join(waiting) == "the EN"


def test_an_ordinary_token_that_ends_texts_is_not_shown() -> None:
    tokenizer = gpt2_style()
    dog, stop = tokenizer("a").input_ids + tokenizer(".").input_ids
    found: list[str] = []
    _put(Pieces(tokenizer, [], [stop], [], found.append), [], [dog, stop, dog])
    assert "".join(found) == "a"


def test_the_first_stop_string_counts_and_of_two_at_one_place_the_longer() -> None:
    assert before_stop("a b c", ["c", "b"]) == ("a ", "b")
    assert before_stop("a bc", ["b", "bc"]) == ("a ", "bc")
    assert before_stop("a b", ["x"]) == ("a b", None) and before_stop("a b", []) == ("a b", None)


@given(st.text("abx", max_size=8), st.lists(st.text("abx", min_size=1, max_size=4), max_size=3))
def test_held_back_is_the_longest_end_that_begins_a_stop_string(text: str, stops: list[str]) -> None:
    fits = [n for n in range(1, len(text) + 1) if any(len(s) > n and s.startswith(text[-n:]) for s in stops)]
    assert held_back(text, stops) == max(fits, default=0)
