"""A command line understood, for tests of options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lmtrain.cli.arguments import parse
from lmtrain.config.options import Resolved


def parse_training(command: str, argv: Sequence[str]) -> Resolved:
    """The options of ``lmtrain clm``, ``mlm`` or ``sft``."""
    options = parse(command, argv).options
    assert isinstance(options, Resolved)
    return options


def parse_command(command: str, argv: Sequence[str]) -> Any:
    """The options of any other command (``PrepareOptions``, ...)."""
    return parse(command, argv).options
