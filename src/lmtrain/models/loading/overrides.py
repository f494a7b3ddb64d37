"""``--config_overrides``: settings of a configuration as words, typed as the configuration has them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from typing import Any

from lmtrain.core.errors import Problems


def parse_overrides(overrides: str | None, config: Any, model_type: str) -> dict[str, Any]:
    """``n_embd=256,attn_pdrop=0`` → {"n_embd": 256, "attn_pdrop": 0.0}, typed as the values in ``config``."""
    if not overrides:
        return {}
    from transformers import PreTrainedConfig

    flag = "--config_overrides"
    known = [key for key in config.to_dict() if key not in {"transformers_version", "model_type"}]
    problems, values = Problems(), {}
    for part in _split(overrides):
        key, equals, text = (word.strip() for word in part.partition("="))
        name = config.attribute_map.get(key, key)
        if not equals or not key:
            problems.add(f"{part.strip()!r} is not of the form key=value", flag=flag)
        elif name not in known:
            shared = PreTrainedConfig().to_dict()  # fields of every configuration, such as id2label: not shown
            usual = ", ".join(sorted(k for k in known if k not in shared))
            near = nearest_names(key, [*known, *config.attribute_map])
            problems.add(f"{model_type} has no setting {key!r}{near.removesuffix('?')}; it has: {usual}", flag=flag)
        else:
            try:
                values[name] = _typed(text, getattr(config, name))
            except ValueError as error:
                problems.add(f"{key}={text}: {error}", flag=flag)
    problems.raise_if_any()
    return values


def _split(overrides: str) -> list[str]:
    """Split at commas outside brackets, so that lists can be given: layer_types=["a","b"],n_layer=2."""
    return [part for part in re.split(r",(?![^\[{]*[\]}])", overrides) if part.strip()]


def _typed(text: str, example: Any) -> Any:
    """``text`` as a value of the type that ``example``, the setting's present value, has."""
    if text.lower() in {"none", "null"}:
        return None
    readers: dict[type, tuple[Callable[[str], Any], str]] = {
        bool: (_boolean, "true or false"),
        int: (int, "a whole number"),
        float: (float, "a number"),
        str: (str, "text"),
    }
    read, wanted = readers.get(type(example), (_literal, "a value"))
    try:
        return read(text)
    except ValueError:
        raise ValueError(f"must be {wanted}, like its present value {example}") from None


def _boolean(text: str) -> bool:
    if text.lower() in {"true", "1", "yes"}:
        return True
    if text.lower() in {"false", "0", "no"}:
        return False
    raise ValueError(text)


def _literal(text: str) -> Any:
    try:
        return json.loads(text.lower() if text.lower() in {"true", "false"} else text)
    except json.JSONDecodeError:
        return text


def nearest_names(name: str, known: list[str]) -> str:
    """What may have been meant, as the end of a sentence; empty where nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
