"""What the LoRA paper's chain does to texts of WebNLG and DART before they are scored.

Source: microsoft/LoRA c4593f0, examples/NLG/src/gpt2_decode.py with ``--tokenize --lower --ref_num 6``, as that
example's README runs it. E2E is scored as it is.
"""

from __future__ import annotations

import re

REFERENCES = 6  # further ones are left out; fewer are filled up with the first, which changes no score


def spread_out(text: str) -> str:
    """Lower case, and spaces around every character that is no letter, digit or underscore.

    >>> spread_out("It's 3.5 km.")
    "it ' s 3 . 5 km ."
    """
    return " ".join(re.sub(r"(\W)", r" \1 ", text.lower()).split())


def as_in_lora_chain(
    task: str, predictions: list[str], references: list[list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Predictions and references as the chain hands them to the scorer. Doing it twice changes nothing."""
    if task == "e2e":
        return predictions, references
    kept = [[spread_out(text) for text in texts[:REFERENCES]] for texts in references]
    return [spread_out(text) for text in predictions], kept
