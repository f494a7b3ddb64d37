"""``--train_data`` and ``--valid_data``: token ids, as gpt2_encode.py writes them, as examples."""

from __future__ import annotations

from typing import Any

from lmtrain.core.console import Say, counted
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.core.types import Tally
from lmtrain.data.layouts import Pairs
from lmtrain.data.sources import resolve_sources
from lmtrain.data.sources.pairs import PairReading, PairSource


def encoded_sources(path: str, flag: str) -> list[PairSource]:
    """Where the pairs of a file are; raises :class:`UserError` where there are none, or where they are no token ids."""
    found = []
    for source in resolve_sources([path], PairReading(), flag=flag):
        if not isinstance(source, PairSource) or source.form != "ids":
            raise UserError(
                f'{source.name} does not hold token ids: its lines should be {{"context": [ids], "completion": '
                "[ids]}; encode text first: lmtrain nlg encode",
                flag=flag,
            )
        found.append(source)
    return found


def read_pairs(
    path: str, sources: list[PairSource], length: int, config: Any, flag: str, say: Say
) -> tuple[Pairs, str]:
    """The pairs of ``sources``, which are those of ``path``, cut to ``length`` tokens, and a hash of them.

    ``config`` is the model's, for its vocabulary and positions. Raises :class:`UserError`.
    """
    pairs = [ids for source in sources for ids in source.encoded(Tally(), config.vocab_size)]
    if not pairs:
        raise UserError(f"{path} holds no pairs", flag=flag)
    empty = next((number for number, (context, _) in enumerate(pairs, start=1) if not context), None)
    if empty is not None:
        raise UserError(
            f"pair {empty:,} of {path} has no context. gpt2_ft.py would count one label too many there, the padding "
            "behind the pair; give it a context, such as the end-of-text token 50256",
            flag=flag,
        )
    layout = Pairs.from_ids((context for context, _ in pairs), (answer for _, answer in pairs), length)
    if layout.n_left_out:
        say(
            "data",
            f"{flag}: {counted(layout.n_left_out, 'pair')} whose context alone has {length} tokens or more left out; "
            "gpt2_ft.py keeps them, without a label in the completion, so its order of the examples is another",
        )
    if not len(layout):
        raise UserError(f"no pair of {path} has a token of its completion within --seq_len {length}", flag=flag)
    longest = int(layout.lengths.max())
    if longest > config.n_positions:
        raise UserError(
            f"{path} has an example of {longest} tokens, and the model has {config.n_positions} positions; "
            f"use --seq_len {config.n_positions}",
            flag="--seq_len",
        )
    learned = f"{layout.n_answer_tokens:,} of {layout.n_tokens:,} tokens in completions"
    cut = f" · {counted(layout.n_cut, 'pair')} cut to {length} tokens" if layout.n_cut else ""
    say("data", f"{flag}: {counted(len(layout), 'pair')}, {learned}{cut}")
    return layout, sha256_json([source.content_hash() for source in sources])
