"""From words on the command line, or values of a file, to the typed value of a flag."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.config.about import About
from lmtrain.core.errors import Problems, UserError

# The spellings of HfArgumentParser.
YES = frozenset({"yes", "true", "t", "y", "1"})
NO = frozenset({"no", "false", "f", "n", "0"})
NEVER = NO | {"never"}  # to --resume_from_checkpoint
PATHS = frozenset({"PATH", "FOLDER", "FOLDER|never", "FILE", "MODEL", "TOKENIZER", "IN", "OUT", "RUN"})  # metavars
_TRUTHS_OF_YAML = {True: {"on", "yes"}, False: {"off", "no"}}  # as it reads these words where they have no quotes


@dataclass(frozen=True)
class Flag:
    """One option of a command.

    ``types`` are the types its value may have, of bool, int, float, str, list (of strings), dict and none;
    ``group`` is its heading in the help; ``training`` tells a field of ``TrainingArguments`` from our own.
    """

    name: str
    types: tuple[str, ...]
    default: Any
    about: About
    group: str
    choices: tuple[str, ...] = ()
    training: bool = False

    @property
    def is_switch(self) -> bool:
        """A flag that may stand without a value."""
        return "bool" in self.types

    def fail(self, text: str) -> UserError:
        return UserError(text, flag=f"--{self.name}")


def user_path(text: str) -> Path:
    """A path as typed, ``~`` expanded where it names a home there is."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def _has_no_home(text: str) -> bool:
    """Whether a path begins with the home of somebody who has none here; a file may be called ~draft.txt."""
    first = user_path(text).parts[:1]
    return bool(first) and first[0].startswith("~") and not os.path.lexists(first[0])


def check_not_the_input(read: str, written: str, problems: Problems, flag: str = "--output") -> None:
    """Add that a command would write over what it reads, however the two are spelled."""
    if os.path.realpath(user_path(read)) == os.path.realpath(user_path(written)):
        problems.add("is the input too, which would be written over; name another file", flag=flag)


def repeatable(word: str) -> str:
    """A word that nothing takes, for a message: of ``token=abc`` only ``token=…``, since it may be a secret."""
    name, equals, _ = word.partition("=")
    return f"{name}=…" if equals else word


def is_truth_word(word: str) -> bool:
    return word.lower() in YES | NO


def from_words(flag: Flag, words: list[str]) -> Any:
    """The value of a flag that was typed with these words behind it.

    Raises :class:`UserError` in the words of the flag when they do not make a value.
    """
    if not words:
        if flag.is_switch:
            return True
        raise flag.fail(f"needs a value: {_wanted(flag)}")
    if "list" in flag.types and (len(words) > 1 or "str" not in flag.types):
        return [_checked(flag, word) for word in words]
    if len(words) > 1:
        extra = " ".join(map(repeatable, words[1:]))
        raise flag.fail(f"takes one value, and {extra!r} is left over; a value with spaces needs quotes")
    return _checked(flag, _from_text(flag, words[0]))


def from_file(flag: Flag, value: Any) -> Any:
    """The value of a flag as a JSON, YAML or TOML file gave it; strings are read as on the command line."""
    if isinstance(value, str):
        return [value] if "list" in flag.types and "str" not in flag.types else from_words(flag, [value])
    if value is None:
        if "none" in flag.types:
            return None
        raise flag.fail(f"cannot be empty (null); wanted: {_wanted(flag)}")
    if isinstance(value, bool) and flag.name == "resume_from_checkpoint":
        value, fits = str(value).lower(), True  # Trainer.train takes a truth, the flag a word
    elif isinstance(value, bool) and (words := _TRUTHS_OF_YAML[value] & set(flag.choices)):
        value, fits = words.pop(), True
    elif isinstance(value, bool):
        if not value and "bool" not in flag.types and flag.default in (None, "", []):
            return flag.default  # switched off, as earlier scripts had it: "debug": false
        fits = "bool" in flag.types
    elif isinstance(value, int):
        if "float" in flag.types and not flag.name.endswith("_steps"):
            value = float(value)
        fits = "int" in flag.types or "float" in flag.types
    elif isinstance(value, float):
        if "float" not in flag.types and value.is_integer():
            value = int(value)  # JSON writers that know no integers
        fits = math.isfinite(value) and ("float" in flag.types or ("int" in flag.types and isinstance(value, int)))
    elif isinstance(value, list):
        fits = "list" in flag.types
        value = [str(item) for item in value]
    else:
        fits = isinstance(value, dict) and "dict" in flag.types
    if not fits:
        is_word = type(value) in (int, float) and "str" in flag.types and not flag.choices
        raise flag.fail(f"{_short(value)} is not {_wanted(flag)}{'; put it in quotes' if is_word else ''}")
    return _checked(flag, value)


def _from_text(flag: Flag, word: str) -> Any:
    types = set(flag.types)
    if "none" in types and "str" not in types and word.lower() in ("none", "null"):
        return None
    if "bool" in types and is_truth_word(word):
        return word.lower() in YES
    if "int" in types or "float" in types:
        number = _number(word, whole_only="float" not in types)
        if number is not None:
            keeps_int = "float" not in types or flag.name.endswith("_steps")
            return number if keeps_int else float(number)
    if "dict" in types and word.lstrip().startswith("{"):
        return _json_object(flag, word)
    if "str" in types:
        return word
    raise flag.fail(f"{word!r} is not {_wanted(flag)}")


def _number(word: str, *, whole_only: bool) -> int | float | None:
    try:
        return int(word)
    except ValueError:
        pass
    try:
        value = float(word)
    except ValueError:
        return None
    if whole_only:
        return int(value) if math.isfinite(value) and value.is_integer() else None
    return value if math.isfinite(value) else None


def _json_object(flag: Flag, word: str) -> dict[str, Any]:
    try:
        value = json.loads(word)
    except json.JSONDecodeError as error:
        raise flag.fail(f"is not JSON: {error.msg} at character {error.pos + 1} of {word}") from None
    return dict(value)


def _checked(flag: Flag, value: Any) -> Any:
    """Hold a value against the flag's choices and bounds."""
    about = flag.about
    if isinstance(value, str) and about.metavar in PATHS and _has_no_home(value):
        raise flag.fail(f"{value} begins with a home that is nobody's here; write the folder out")
    if flag.choices and isinstance(value, str) and value not in flag.choices:
        raise flag.fail(f"{value!r} is not one of {', '.join(flag.choices)}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        unit = f" {about.unit.partition(',')[0]}" if about.unit else ""
        if about.at_least is not None and value < about.at_least:
            unit = "" if about.at_least == 1 else unit  # which is in the plural
            raise flag.fail(f"{value} is too small; at least {about.at_least:g}{unit}{_instead(flag)}")
        if about.above is not None and value <= about.above:
            raise flag.fail(f"{value} is too small; it must be above {about.above:g}{unit}{_instead(flag)}")
        if about.at_most is not None and value > about.at_most:
            most = f"{about.at_most:,}" if about.at_most >= 1e6 else f"{about.at_most:g}"
            raise flag.fail(f"{value} is too large; at most {most}{unit}")
        if about.below is not None and value >= about.below:
            raise flag.fail(f"{value} is too large; it must be below {about.below:g}{unit}")
    return value


def _instead(flag: Flag) -> str:
    """What to type who gave 0 or -1 for no number at all."""
    about = flag.about
    if about.too_small or flag.default is not None:
        return f"; {about.too_small}" if about.too_small else ""
    return "; or leave it out" + (f": {about.shown_default}" if about.shown_default else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _wanted(flag: Flag) -> str:
    if flag.choices:
        return "one of " + ", ".join(flag.choices)
    names = {
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "a word",
        "list": "one or more words",
        "dict": "a JSON object such as '{\"key\": 1}'",
    }
    covered = {"none", "int" if "float" in flag.types else "", "str" if "list" in flag.types else ""}
    kinds = [kind for kind in flag.types if kind not in covered and kind in names]
    return " or ".join(names[kind] for kind in kinds)
