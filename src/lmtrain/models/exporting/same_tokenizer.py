"""A tokenizer reloaded, compared with the one it was saved from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtrain.core.errors import OwnResultWrong
from lmtrain.models.comparison import TEXT
from lmtrain.models.exporting.same_weights import differs, loading

_ADDED = 20  # added tokens that the two are tried with


def same_tokenizer(tokenizer: Any | None, place: Path, *, trust_remote_code: bool = False) -> Any | None:
    """The tokenizer that lies in ``place``, once it was found to be ``tokenizer``; None where there is none.

    Raises :class:`OwnResultWrong` with what differs.
    """
    from transformers import AutoTokenizer

    if tokenizer is None:
        return None
    with loading("its tokenizer"):
        again = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    text = TEXT + " ".join(sorted(tokenizer.get_added_vocab())[:_ADDED])
    for what, mine, other in (
        ("vocabulary", tokenizer.get_vocab(), again.get_vocab()),
        ("ids", tokenizer(text).input_ids, again(text).input_ids),
        ("text", tokenizer.decode(tokenizer(text).input_ids), again.decode(again(text).input_ids)),
        ("special tokens", tokenizer.special_tokens_map, again.special_tokens_map),
        ("longest input", tokenizer.model_max_length, again.model_max_length),
        ("chat template", getattr(tokenizer, "chat_template", None), getattr(again, "chat_template", None)),
    ):
        if mine != other:
            raise OwnResultWrong(differs(f"its tokenizer gives another {what}"))
    return again
