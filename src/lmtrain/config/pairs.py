"""Options of prompts and completions: which fields hold them, and how the two become one example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option


@dataclass
class PairOptions:
    """How records become pairs of a context and a completion."""

    title: ClassVar[str] = "Pairs"

    objective: Literal["clm", "jlm"] = option(
        "clm", "What is learned: the completion, given its context (clm), or both of them (jlm)."
    )
    context_column: str | None = option(
        None,
        "The field of a record that holds what is given: text, or a list of chat messages.",
        metavar="NAME",
        shown_default="`context`, else `prompt`; else `messages` holds both",
    )
    completion_column: str | None = option(
        None,
        "The field of a record that holds what is to be written.",
        metavar="NAME",
        shown_default="`completion`; of `messages`, the assistant's last",
    )
    separator: str | None = option(
        None,
        r"Text between the two, part of the completion; \n and \t stand for a line break and a tab.",
        metavar="TEXT",
        shown_default="a space; nothing for `prompt` and `completion`, and for chats",
    )
    add_bos: bool = option(
        False, "Put the beginning-of-text token (without one, the end-of-text token) between context and completion."
    )
    on_long: Literal["truncate", "skip", "error"] = option(
        "truncate",
        "On a pair longer than --max_seq_length: cut its end off, leave it out, or stop. Either is counted.",
    )
    chat_turns: Literal["last", "all"] = option(
        "last",
        "Which answers of a chat are learned: the last one, or each, as a pair with all that was said before it.",
    )
