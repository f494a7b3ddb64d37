"""The resolved configuration as plain values: written into the run, and readable again with ``--config``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from lmtrain.config.flags import flag_table
from lmtrain.config.legacy import LEGACY
from lmtrain.config.options import TRAINING_GROUPS, DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.core.addresses import shown as without_signature

_HIDDEN = "..."


def as_dict(options: Any) -> dict[str, Any]:
    """All options of a command by flag name, ready for JSON; secrets (tokens) are left out.

    Addresses lose their passwords and signatures (:func:`~lmtrain.core.addresses.shown`).

    For :class:`Resolved`: the command, our own options with their values, and the fields of
    ``TrainingArguments`` that the user set. ``lmtrain COMMAND --config`` reads the result back.
    """
    if not isinstance(options, Resolved):
        return {f.name: _shown(getattr(options, f.name)) for f in fields(options) if not _is_secret(f.metadata)}
    flags = flag_table(options.command).flags
    values: dict[str, Any] = {"command": options.command}
    for group in TRAINING_GROUPS:
        values.update({k: v for k, v in as_dict(getattr(options, group)).items() if k in flags})
    values.update(
        {name: value for name, value in options.training.items() if not (name in flags and flags[name].about.secret)}
    )
    return values


def defaults(command: str) -> dict[str, Any]:
    """What :func:`as_dict` gives for a command line that sets nothing."""
    return as_dict(Resolved(command, ModelOptions(), DataOptions(), MaskingOptions(), RunOptions()))


def without_secrets(command: str, argv: Sequence[str]) -> list[str]:
    """A command line to write down: the values of secret options (tokens) are left out, and what opens an address."""
    table = flag_table(command)
    shown: list[str] = []
    hides = False  # whether this word is the value of a secret option
    for word in argv:
        if word.startswith("--"):
            label, equals, _ = word.partition("=")
            name = label.removeprefix("--").replace("-", "_")
            found = table.find(LEGACY[name].new if name in LEGACY else name)
            hides = found is not None and found[0].about.secret
            shown.append(f"{label}={_HIDDEN}" if hides and equals else without_signature(word))
        else:
            shown.append(_HIDDEN if hides else without_signature(word))
    return shown


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return without_signature(value)
    return [_shown(each) for each in value] if isinstance(value, list) else value


def _is_secret(metadata: Any) -> bool:
    about = metadata.get("about")
    return about is not None and about.secret
