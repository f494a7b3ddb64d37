"""Measures of a model: perplexity and its kin."""

from lmtrain.evaluate.measures import bits_per_byte, perplexity

__all__ = ["bits_per_byte", "perplexity"]
