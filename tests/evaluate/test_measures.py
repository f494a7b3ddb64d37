from __future__ import annotations

import math

from lmtrain.evaluate import bits_per_byte, perplexity


def test_perplexity_of_a_uniform_guess_is_the_vocabulary() -> None:
    assert math.isclose(perplexity(math.log(50_257)), 50_257, rel_tol=1e-12)


def test_perplexity_is_infinite_on_overflow_and_nan_stays() -> None:
    assert perplexity(1e4) == math.inf
    assert math.isnan(perplexity(math.nan))


def test_bits_per_byte_of_uniform_bytes_is_eight() -> None:
    # one token a byte, each guessed among 256
    assert math.isclose(bits_per_byte(math.log(256), tokens=1000, n_bytes=1000), 8.0)


def test_bits_per_byte_does_not_depend_on_the_tokenizer() -> None:
    # the same text in half as many tokens, each twice as hard
    fine = bits_per_byte(1.0, tokens=400, n_bytes=1000)
    coarse = bits_per_byte(2.0, tokens=200, n_bytes=1000)
    assert math.isclose(fine, coarse)
    assert math.isnan(bits_per_byte(1.0, tokens=4, n_bytes=0))
