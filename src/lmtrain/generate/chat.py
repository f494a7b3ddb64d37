"""Prompts as messages of a chat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmtrain.core.errors import UserError
from lmtrain.generate.rows import require_text


def chat_ids(tokenizer: Any) -> Callable[[str], list[int]]:
    """From a prompt to the ids of a chat in which a user says it and the model is about to answer.

    The template writes special tokens itself, so the tokenizer adds none. Raises :class:`UserError` without a template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("the tokenizer has no chat template; leave --chat out, or take a chat model", flag="--chat")

    def encode(prompt: str) -> list[int]:
        require_text(prompt)
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode
