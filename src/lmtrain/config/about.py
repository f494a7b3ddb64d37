"""How an option describes itself: text, unit, bounds and other names of a flag, in one place."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any, Final

SEEDS: Final[dict[str, Any]] = {"at_least": 0, "at_most": 2**32 - 1}  # those that numpy's global generator takes


@dataclass(frozen=True, slots=True)
class About:
    """What an option says about itself, beyond its name, type and default.

    ``help`` is a sentence or two; ``unit`` what a number counts; ``aliases`` are other names of the flag;
    ``off`` is a flag that switches a boolean off (``--greedy``); ``at_least``, ``above``, ``at_most`` and
    ``below`` bound a number; ``positional`` takes the words without a flag; ``secret`` is never written
    anywhere; ``shown_default`` describes a default that is worked out later; ``too_small`` is what to type instead of a
    number below the bounds.
    """

    help: str = ""
    unit: str = ""
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    off: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    positional: bool = False
    secret: bool = False
    shown_default: str = ""
    too_small: str = ""


def option(default: Any = MISSING, help: str = "", **about: Any) -> Any:
    """A dataclass field that carries an :class:`About`; a list as default is copied for each object."""
    metadata = {"about": About(help, **about)}
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
