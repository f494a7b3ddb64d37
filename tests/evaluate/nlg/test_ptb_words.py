"""The port of Stanford's tokenizer against the jar, on our own texts, at random and on the E2E data."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from evaluate_nlg import AWKWARD, HAS_JAVA_SCORERS, PUBS, templates

from lmtrain.evaluate.nlg import java
from lmtrain.evaluate.nlg.ptb import captions
from lmtrain.evaluate.nlg.ptb_words import PUNCTUATION, words

needs_java = pytest.mark.skipif(not HAS_JAVA_SCORERS, reason="needs Java and the extra `nlg`")
E2E_DATA = Path(__file__).parents[4] / "shared" / "data" / "e2e"

PIECES = [
    "a", "The", "Café", "é", "pub", "isn't", "don't", "Zizzi's", "Zizzi", "they're", "I", "co", "St", "no", "etc",
    "5", "20", "25", "1,000", "3.5", "£", "$", "€", "%", "-", "-", "--", "---", "-----", ".", "..", "...", "....",
    ",", ";", ":", "!", "?", "?!", "'", "'", "’", "‘", "“", "”", '"', "(", ")", "/", "&", "–", "—", "cannot",
    "gonna", "Wanna", "n't", "'s", "'ll", "'re", "'em", "'Em", "'Till", "o'clock", "d'Or", "xx", "D", "P", "high",
    "kid-friendly", "and/or", "5-star", "A1", "b2b", "pro", "anti", "10:30", "2/5", "1-3", "U.S", "com", "org",
    "O", "s", "t", "n", "m", "ve", "LL", "S", "ma'am", "Ol", "Mr", "p.m", "N'T", "'S", "’s", "n’t", "fig", "0800",
    "123", "4567", "ps",
]  # fmt: skip
SIGNS = "aeTnst'’.,-/() 5209:!?&£%\"—éSDLl"


def _lines(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)

    def pieces() -> str:
        return "".join(draw.choice(PIECES) + " " * (draw.random() < 0.4) for _ in range(draw.randint(1, 9)))

    def signs() -> str:
        return "".join(draw.choice(SIGNS) for _ in range(draw.randint(1, 14)))

    return [(pieces() if number % 2 else signs()).strip() for number in range(count)]


def _differences(lines: list[str]) -> tuple[int, list[tuple[str, list[str], list[str]]]]:
    """How many lines the port takes on, and where it differs from the jar."""
    ours = [(line, cut) for line in lines if (cut := words(line)) is not None]
    theirs = java.stanford_words([line for line, _ in ours])
    cut_by_jar = [[word for word in line.split(" ") if word and word not in PUNCTUATION] for line in theirs]
    bad = [(line, own, other) for (line, own), other in zip(ours, cut_by_jar, strict=True) if own != other]
    return len(ours), bad


@needs_java
def test_port_equals_the_jar_on_random_lines() -> None:
    taken, bad = _differences(_lines(20_000, seed=11))
    assert taken > 8_000  # the rest is left to the jar
    assert bad == []


@needs_java
def test_port_equals_the_jar_on_our_texts_and_takes_all_plain_ones() -> None:
    plain = [text for corpus in (PUBS, templates(200, seed=4)) for one, more in corpus for text in (one, *more)]
    taken, bad = _differences(plain)
    assert (taken, bad) == (len(plain), [])


@needs_java
@pytest.mark.skipif(not E2E_DATA.is_dir(), reason="needs shared/data/e2e beside the checkout")
@pytest.mark.parametrize("name", ["test.txt", "valid.txt"])
def test_port_equals_the_jar_on_e2e(name: str) -> None:
    text = (E2E_DATA / name).read_text(encoding="utf-8")
    lines = [line.split("||", 1)[1].strip() for line in text.splitlines()]
    taken, bad = _differences(lines)
    assert bad == []
    assert taken >= len(lines) - 2  # of 9,365 lines two need the jar


@needs_java
def test_blank_and_awkward_lines_keep_their_places() -> None:
    texts = ["", "Mr. Smith of St. Ives", "", "a b", ""]
    assert captions(texts) == ["", "mr. smith of st. ives", "", "a b", ""]


def test_what_is_outside_of_the_port_is_said_to_be() -> None:
    outside = [text for text, _ in AWKWARD]
    assert [words(text) for text in outside] == [None] * len(outside)
    for text in ("etc.", "Plan B.", "see www.a.b", "x.com", "call 020 7946 0123", "a\tb", "R&D", "東京", ":)", "’tis"):
        assert words(text) is None, text


def test_one_text_outside_sends_all_to_the_jar() -> None:
    asked: list[list[str]] = []

    def by_jar(lines: list[str]) -> list[str]:
        asked.append(lines)
        return ["mr. x .", "a , b"]

    assert captions(["Mr. X.", "a, b"], by_jar=by_jar) == ["mr. x", "a b"]
    assert asked == [["Mr. X.", "a, b"]]
