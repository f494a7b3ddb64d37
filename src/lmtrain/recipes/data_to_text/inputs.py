"""What a model is given to write for: inputs that leave room for a text, of ids that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from lmtrain.core.console import Say, counted
from lmtrain.core.errors import UserError

OnLong = Literal["truncate", "skip", "error"]


def room_in(positions: int | None, max_new_tokens: int) -> int | None:
    """Tokens that an input may have where ``max_new_tokens`` follow it; None: any number. Raises :class:`UserError`."""
    room = None if positions is None else positions - max_new_tokens
    if room is not None and room < 1:
        raise UserError(
            f"{max_new_tokens} leave no room for an input in the model's {positions} positions",
            flag="--max_new_tokens",
        )
    return room


def fitting(
    contexts: Mapping[int, list[int]],
    positions: int | None,
    max_new_tokens: int,
    *,
    longest: int | None = None,
    on_long: OnLong = "error",
    flag: str = "--input",
    say: Say,
) -> dict[int, list[int]]:
    """The ``contexts`` that leave room for ``max_new_tokens`` in a model's ``positions`` (None: without end), and are
    not longer than ``longest``.

    Others are cut to their ends, left out, or refused, as ``on_long`` says. Raises :class:`UserError` then, and where
    none would be left.
    """
    room = room_in(positions, max_new_tokens)
    limits = [limit for limit in (room, longest) if limit is not None]
    if not limits:
        return dict(contexts)
    most = min(limits)
    lengths = {number: len(context) for number, context in contexts.items() if len(context) > most}
    if not lengths:
        return dict(contexts)
    seen = (
        f"{counted(len(lengths), 'input')} of {len(contexts):,} longer than the {most} tokens that there is room for "
        f"(the longest has {max(lengths.values())}; the first is number {next(iter(lengths))}, counted from 0)"
    )
    if on_long == "error":
        ways = "--on_long truncate keeps their ends, --on_long skip leaves them out"
        binds = positions is None or most != room or (longest is not None and max(lengths.values()) > longest)
        left = 0 if positions is None or binds else positions - max(lengths.values())
        more = f", --max_new_tokens {left} makes room for them" if left >= 1 else ""
        raise UserError(f"{seen}; {ways}{more}", flag=flag)
    if on_long == "skip":
        if len(lengths) == len(contexts):
            raise UserError(
                f"{seen}, and --on_long skip would leave none; --on_long truncate keeps their ends", flag=flag
            )
        say("input", f"{seen}: left out")
        return {number: context for number, context in contexts.items() if number not in lengths}
    say("input", f"{seen}: only their ends are read")
    return {number: context[-most:] for number, context in contexts.items()}


def require_known(contexts: Mapping[int, Sequence[int]], model: Any, flag: str) -> None:
    """Raise :class:`UserError` about ``flag`` for ids that ``model`` has no embedding of."""
    known = int(model.get_input_embeddings().weight.shape[0])
    wrong = {number: max(row, key=lambda i: i if i >= 0 else known - i) for number, row in contexts.items()}
    wrong = {number: token for number, token in wrong.items() if not 0 <= token < known}
    if wrong:
        number, token = next(iter(wrong.items()))
        raise UserError(
            f"{counted(len(wrong), 'input')} with ids that the model has no place for, as the id {token} in number "
            f"{number} (counted from 0), of {known:,} tokens: the file was encoded for another vocabulary",
            flag=flag,
        )
