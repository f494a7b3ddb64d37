"""Chats as text: a list of messages, written out by the chat template that comes with a tokenizer."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any, Protocol

from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.data.sources.columns import spoken_of
from lmtrain.data.sources.records import Bad

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]]  # JSON schemas of functions, as transformers' templates take them


class ChatTokenizer(Protocol):
    """What of a transformers tokenizer is needed here."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...


class ChatTemplate:
    """Writes out the messages before an answer, and the answer, as the model will meet them.

    The context ends with the generation prompt, so that training sees the tokens that answering begins with.
    Raises :class:`UserError` when the tokenizer has no template.
    """

    def __init__(self, tokenizer: ChatTokenizer | None) -> None:
        if tokenizer is None or not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "the data hold chats, and the tokenizer has no chat template to write them out; take a tokenizer that "
                "has one (those of chat and instruct models do), put one into its folder as chat_template.jinja, or "
                "give texts: a prompt and a completion",
                flag="--tokenizer_name",
            )
        self._tokenizer = tokenizer

    @property
    def fingerprint(self) -> str:
        """What decides the text beside the messages: the template and the tokens it may name."""
        named = {name: str(token) for name, token in getattr(self._tokenizer, "special_tokens_map", {}).items()}
        return sha256_json([self._tokenizer.chat_template, named])

    def texts(self, context: Messages, completion: Messages, tools: Tools | None = None) -> tuple[str, str] | Bad:
        """The two texts, whose sum is the chat written out, with the ``tools`` that its assistant may call.

        A few templates begin an answer differently when they ask for it than when it is there (such as with an
        empty thought); the context then ends where the two part.
        """
        try:
            whole = self._written(context + completion, tools, add_generation_prompt=False)
            asked = self._written(context, tools, add_generation_prompt=True) if context else ""
        except Exception as error:  # templates raise what they like
            reason = str(error).strip().splitlines() or [type(error).__name__]
            return Bad(f"the chat template refuses this chat: {reason[0]}")
        if not whole.startswith(asked):
            asked = "".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, whole, strict=False)))
        if len(asked) == len(whole):
            return Bad("the completion is empty")
        return asked, whole[len(asked) :]

    def _written(self, messages: Messages, tools: Tools | None, *, add_generation_prompt: bool) -> str:
        given = {"tools": tools} if tools else {}
        written = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=add_generation_prompt, **given
        )
        return str(written)


def messages_in(value: Any, name: str) -> Messages | Bad:
    """The messages of a field: a list of ``{"role": …, "content": …}``; one that calls tools may say nothing."""
    if not isinstance(value, list):
        return Bad(f"no {name!r}" if value is None else f"{name!r} is {spoken_of(value)}, not a list of messages")
    for message in value:
        known = isinstance(message, dict) and isinstance(message.get("role"), str)
        calls = known and isinstance(message.get("tool_calls"), list) and message["tool_calls"]
        if not known or not (isinstance(message.get("content"), str) or (calls and message.get("content") is None)):
            return Bad(f'{name!r} holds something that is no message {{"role": "user", "content": "text"}}')
    return _without_nothing(value)


def tools_in(value: Any) -> Tools | Bad | None:
    """The tools of a record: a list of JSON schemas, or that as text, as data sets keep it whose rows are all alike."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            value = [None]
    if value is None or value == "" or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        return Bad("'tools' is no list of JSON schemas")
    return _without_nothing(value)


def _without_nothing(value: Any) -> Any:
    """Tables give every message, call and schema the fields that one of them has, as null; those go."""
    if isinstance(value, dict):
        return {key: _without_nothing(part) for key, part in value.items() if part is not None}
    return [_without_nothing(part) for part in value] if isinstance(value, list) else value
