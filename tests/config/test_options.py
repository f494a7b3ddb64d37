"""The options describe themselves completely, and agree with their own types and bounds."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from lmtrain.config import options
from lmtrain.config.commands import OTHER_COMMANDS, TRAINING_COMMANDS, options_of
from lmtrain.config.flags import NOT_IN, flag_table, option_flags
from lmtrain.config.options import TRAINING_GROUPS, DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.config.training_arguments import installed_fields
from lmtrain.config.values import from_file

OWNERS = [*TRAINING_GROUPS.values(), *map(options_of, OTHER_COMMANDS)]


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_every_option_has_a_sentence_and_a_legal_default(owner: type) -> None:
    for flag in option_flags(owner).values():
        assert flag.about.help.endswith((".", "scripts.")), f"{flag.name} has no help sentence"
        assert from_file(flag, flag.default) == flag.default  # the default passes its own choices and bounds
        assert set(flag.types) <= {"bool", "int", "float", "str", "list", "none"}


@pytest.mark.parametrize("owner", OWNERS, ids=lambda owner: owner.__name__)
def test_what_a_command_leaves_out_exists(owner: type) -> None:
    left_out: frozenset[str] = getattr(owner, "without", frozenset())
    assert left_out <= {field.name for field in fields(owner)}


def test_lists_are_not_shared_between_objects() -> None:
    first = DataOptions()
    first.train_file.append("a.txt")
    assert DataOptions().train_file == []


def test_no_name_means_two_things() -> None:
    """Our options, TrainingArguments and all aliases of a training command are different words."""
    seen: dict[str, str] = {field.name: "TrainingArguments" for field in installed_fields()}
    for owner in TRAINING_GROUPS.values():
        for flag in option_flags(owner).values():
            for name in (flag.name, *flag.about.aliases):
                assert name not in seen, f"{name} is in {owner.__name__} and {seen[name]}"
                seen[name] = owner.__name__


def test_the_hints_name_real_options() -> None:
    ours = {name for owner in TRAINING_GROUPS.values() for name in option_flags(owner)}
    for command in TRAINING_COMMANDS:
        assert set(NOT_IN[command]) <= ours
        assert not set(NOT_IN[command]) & set(flag_table(command).flags)


def test_all_groups_are_exported() -> None:
    classes = {name for name, value in vars(options).items() if inspect.isclass(value) and name.endswith("Options")}
    assert classes <= set(options.__all__)


def _resolved(data: DataOptions, **training: object) -> Resolved:
    return Resolved("clm", ModelOptions(), data, MaskingOptions(), RunOptions(), training=dict(training))


@pytest.mark.parametrize(
    ("data", "training", "do_train", "do_eval"),
    [
        (DataOptions(train_file=["a"]), {}, True, True),
        (DataOptions(train_file=["a"], validation_split_percentage=0), {}, True, False),
        (DataOptions(validation_file=["a"]), {}, False, True),
        (DataOptions(dataset_name="a"), {}, True, True),
        (DataOptions(train_file=["a"]), {"do_train": True}, True, False),
        (DataOptions(train_file=["a"]), {"do_eval": True}, False, True),
        (DataOptions(train_file=["a"]), {"do_eval": False}, True, False),
        (DataOptions(train_file=["a"]), {"do_train": False, "do_eval": False}, False, False),
        (DataOptions(train_file=["a"]), {"do_train": True, "eval_strategy": "steps"}, True, True),
    ],
)
def test_what_is_done(data: DataOptions, training: dict[str, object], do_train: bool, do_eval: bool) -> None:
    resolved = _resolved(data, **training)
    assert (resolved.do_train, resolved.do_eval) == (do_train, do_eval)
