"""Words and file values become typed values, or a sentence that says what was wanted."""

from __future__ import annotations

from typing import Any

import pytest

from lmtrain.config.about import SEEDS, About
from lmtrain.config.training_arguments import training_flags
from lmtrain.config.values import Flag, from_file, from_words
from lmtrain.core.errors import UserError


def flag(*types: str, choices: tuple[str, ...] = (), name: str = "x", **about: Any) -> Flag:
    return Flag(name, types, None, About(**about), "Test", choices)


@pytest.mark.parametrize(
    ("types", "words", "value"),
    [
        (("bool",), [], True),
        *((("bool",), [word], True) for word in ("true", "True", "yes", "y", "t", "1")),
        *((("bool",), [word], False) for word in ("false", "FALSE", "no", "n", "f", "0")),
        (("bool", "none"), ["none"], None),
        (("int",), ["12"], 12),
        (("int",), ["-1"], -1),
        (("int",), ["1e3"], 1000),
        (("int", "none"), ["null"], None),
        (("float",), ["5e-5"], 5e-5),
        (("float",), ["5"], 5.0),
        (("str",), ["none"], "none"),
        (("str", "none"), ["none"], "none"),
        (("list",), ["a"], ["a"]),
        (("list",), ["a", "b"], ["a", "b"]),
        (("none", "str", "list"), ["a"], "a"),
        (("none", "str", "list"), ["a", "b"], ["a", "b"]),
        (("dict", "str", "none"), ['{"a": 1}'], {"a": 1}),
        (("dict", "str", "none"), ["ds.json"], "ds.json"),
        (("str", "bool"), ["true"], True),
        (("str", "bool"), ["all"], "all"),
    ],
)
def test_words(types: tuple[str, ...], words: list[str], value: Any) -> None:
    result = from_words(flag(*types), words)
    assert result == value and type(result) is type(value)


def test_numbers_of_steps_stay_whole() -> None:
    """TrainingArguments tells 500 steps from half of them by the number; 500.0 in the log would look odd."""
    assert isinstance(from_words(flag("float", name="save_steps"), ["500"]), int)
    assert from_words(flag("float", name="save_steps"), ["0.5"]) == 0.5


@pytest.mark.parametrize(
    ("what", "words", "said"),
    [
        (flag("int"), [], "a whole number"),
        (flag("int"), ["1.5"], "'1.5' is not a whole number"),
        (flag("int"), ["1", "2"], "'2' is left over"),
        (flag("float"), ["fast"], "'fast' is not a number"),
        (flag("float"), ["nan"], "'nan' is not a number"),
        (flag("float"), ["inf"], "'inf' is not a number"),
        (flag("bool"), ["maybe"], "'maybe' is not true or false"),
        (flag("dict"), ['{"a": }'], "is not JSON"),
        (flag("dict", "none"), ["a.json"], "a JSON object"),
        (flag("str", choices=("a", "b")), ["c"], "'c' is not one of a, b"),
        (flag("int", at_least=2, unit="tokens"), ["1"], "1 is too small; at least 2 tokens"),
        (flag("int", at_least=2, shown_default="all"), ["-1"], "; or leave it out: all"),
        (flag("float", above=0), ["0"], "above 0"),
        (training_flags()["save_steps"], ["-1"], "above 0 optimizer steps; --save_strategy no saves no checkpoint"),
        (flag("float", at_most=100), ["100.5"], "at most 100"),
        (flag("float", below=1), ["1"], "below 1"),
        (flag("int", **SEEDS), ["4294967296"], "at most 4,294,967,295"),
    ],
)
def test_what_is_said_about_wrong_words(what: Flag, words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        from_words(what, words)
    assert said in caught.value.problems[0].text
    assert caught.value.problems[0].flag == f"--{what.name}"


@pytest.mark.parametrize(
    ("types", "given", "value"),
    [
        (("bool",), True, True),
        (("bool",), "yes", True),
        (("int",), 3, 3),
        (("int",), 3.0, 3),
        (("int",), "3", 3),
        (("float",), 3, 3.0),
        (("float",), "1e-4", 1e-4),  # YAML 1.1 reads 1e-4 as a string
        (("str", "none"), None, None),
        (("list",), "one.txt", ["one.txt"]),
        (("list",), ["a", "b"], ["a", "b"]),
        (("dict", "none"), {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_file_values(types: tuple[str, ...], given: Any, value: Any) -> None:
    result = from_file(flag(*types), given)
    assert result == value and type(result) is type(value)


@pytest.mark.parametrize(
    ("what", "given"),
    [
        (flag("int"), True),
        (flag("int"), 1.5),
        (flag("int"), None),
        (flag("bool"), 1),
        (flag("str"), ["a"]),
        (flag("str"), {"a": 1}),
        (flag("list"), {"a": 1}),
        (flag("int", at_least=2), 1),
        *((flag(kind), float(number)) for kind in ("int", "float") for number in ("nan", "inf")),
        (flag("str", choices=("a",)), "b"),
    ],
)
def test_wrong_file_values(what: Flag, given: Any) -> None:
    with pytest.raises(UserError):
        from_file(what, given)


@pytest.mark.parametrize(("given", "quotes"), [(7, True), (7.5, True), (True, False)])
def test_what_only_lacks_its_quotes(given: Any, quotes: bool) -> None:
    with pytest.raises(UserError) as caught:
        from_file(flag("str"), given)
    assert ("put it in quotes" in str(caught.value)) == quotes
