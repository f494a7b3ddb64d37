"""The fields of TrainingArguments: read without importing, each with its treatment, and really honored."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lmtrain.config.flags import flag_table
from lmtrain.config.training_arguments import installed_fields, installed_version, read_fields, training_flags
from lmtrain.config.treatment import GROUPS, TREATMENT
from lmtrain.config.wording import BOUNDS, CHOICES, HELP, METAVARS, SECRET, UNITS
from parsing import parse_training

# Field names of the oldest and the newest supported version, as read_fields() saw them in their wheels.
SNAPSHOTS = sorted(Path(__file__).parent.glob("training_arguments_*.txt"))


def _names(snapshot: Path) -> set[str]:
    return set(snapshot.read_text(encoding="utf-8").split())


def test_every_installed_field_has_a_treatment() -> None:
    assert {field.name for field in installed_fields()} - set(TREATMENT) == set()


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.stem.rsplit("_", 1)[1])
def test_every_field_of_the_supported_versions_has_a_treatment(snapshot: Path) -> None:
    assert _names(snapshot) - set(TREATMENT) == set()
    if snapshot.stem.endswith(f"_{installed_version()}"):
        assert _names(snapshot) == {field.name for field in installed_fields()}


def test_there_are_no_entries_for_fields_that_no_version_has() -> None:
    assert len(SNAPSHOTS) == 2
    known = {field.name for field in installed_fields()}.union(*map(_names, SNAPSHOTS))
    for table in (TREATMENT, HELP, UNITS, BOUNDS, CHOICES, METAVARS, SECRET):
        assert set(table) <= known


def test_every_refusal_and_every_takeover_gives_its_reason() -> None:
    for name, treatment in TREATMENT.items():
        assert treatment.group in GROUPS
        if treatment.kind != "honored":
            assert treatment.reason.endswith("."), f"{name} is {treatment.kind} without a sentence"


def test_the_source_is_read_as_the_import_has_it() -> None:
    """Names, order and plain defaults equal those of the class itself."""
    from transformers import TrainingArguments

    real = [field for field in dataclasses.fields(TrainingArguments) if field.init and not field.name.startswith("_")]
    read = installed_fields()
    assert [field.name for field in read] == [field.name for field in real]
    for ours, theirs in zip(read, real, strict=True):
        if theirs.default is not dataclasses.MISSING and ours.name != "optim":
            assert ours.default == theirs.default
        elif theirs.default is dataclasses.MISSING:
            assert ours.default == []
    # only the optimizer's default is worked out at import time
    assert [f.name for f in read if f.default is None and f.default_source != "None"] == ["optim"]


def test_enums_are_read_from_the_modules_that_define_them() -> None:
    from transformers.trainer_utils import SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    fields = {field.name: field for field in installed_fields()}
    assert fields["lr_scheduler_type"].choices == tuple(member.value for member in SchedulerType)
    assert fields["save_strategy"].choices == tuple(member.value for member in SaveStrategy)
    assert fields["optim"].choices == tuple(member.value for member in OptimizerNames)
    assert CHOICES["log_level"] == _log_levels()


def _log_levels() -> tuple[str, ...]:
    from transformers.training_args import trainer_log_levels

    return tuple(trainer_log_levels)


def test_annotations_of_every_style(tmp_path: Path) -> None:
    (tmp_path / "kinds.py").write_text('class Kind:\n    A = "a"\n    B = "b"\n', encoding="utf-8")
    (tmp_path / "training_args.py").write_text(
        "from .kinds import Kind\n"
        "class TrainingArguments:\n"
        "    framework = 'pt'\n"
        "    _hidden: int = 1\n"
        "    a: Optional[int] = field(default=None, metadata={'help': 'one ' 'two 5%%'})\n"
        "    b: Union[str, List[str]] = field(default_factory=list)\n"
        "    c: 'Kind | str' = 'a'\n"
        "    d: None | dict[str, Any] = field(default=None, metadata={'nargs': '?', 'const': True})\n"
        "    e: Something = field(default=make())\n",
        encoding="utf-8",
    )
    read = {field.name: field for field in read_fields(tmp_path)}
    assert list(read) == ["a", "b", "c", "d", "e"]
    assert read["a"].types == ("int", "none") and read["a"].help == "one two 5%"
    assert read["b"].types == ("str", "list") and read["b"].default == []
    assert read["c"].types == ("str",) and read["c"].choices == ("a", "b") and read["c"].default == "a"
    assert set(read["d"].types) == {"none", "dict", "bool"}
    assert read["e"].types == ("object",) and read["e"].default_source == "make()"


# Fields that need hardware, further packages, a file or other processes before TrainingArguments takes them, and older
# names of one thing. How others are acted on is in tests/engine/test_training_fields.py.
NEED_MORE = {
    "tf32",
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "ddp_backend",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
}
TOGETHER = {
    "dataloader_prefetch_factor": ["--dataloader_num_workers", "1"],
    "dataloader_persistent_workers": ["--dataloader_num_workers", "1"],
    "load_best_model_at_end": ["--eval_strategy", "steps", "--eval_steps", "500"],
    "save_strategy": ["--eval_strategy", "steps", "--eval_steps", "500"],
    "hub_model_id": ["--push_to_hub"],
    "hub_revision": ["--push_to_hub"],
    "hub_private_repo": ["--push_to_hub"],
}
_COMPILER = ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE")  # set by TrainingArguments for the whole process
# Not any word will do.
WORDS = {"debug": "underflow_overflow", "optim_args": "beta1=0.8", "metric_for_best_model": "accuracy"}


def _another_value(name: str) -> tuple[list[str], Any]:
    """Words for a legal value that is not the default, and the value that should arrive."""
    flag = training_flags()[name]
    if flag.choices:
        value = next(choice for choice in reversed(flag.choices) if choice not in (flag.default, "greedy", "muon"))
        return [value], value
    if "bool" in flag.types:
        return [], True
    if "dict" in flag.types:
        return ['{"key": 2}'], {"key": 2}
    if "float" in flag.types:
        return ["0.25"], 0.25
    if "int" in flag.types:
        return ["7"], 7
    word = WORDS.get(name, "word")
    return [word], word if "str" in flag.types else [word]


HONORED = [name for name in training_flags() if TREATMENT[name].kind == "honored" and name not in NEED_MORE]


@pytest.mark.parametrize("name", HONORED)
def test_an_honored_field_arrives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import TrainingArguments

    for variable in _COMPILER:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    flag = training_flags()[name]
    words, value = (["false"], False) if flag.default is True else _another_value(name)
    text = tmp_path / "a.txt"
    text.write_text("text", encoding="utf-8")
    base = ["--model_name_or_path", "m", "--train_file", str(text)]
    base += [] if name == "output_dir" else ["--output_dir", str(tmp_path)]
    resolved = parse_training("clm", [*base, *TOGETHER.get(name, []), f"--{name}", *words])
    assert resolved.training[name] == value
    arguments = TrainingArguments(**{"output_dir": str(tmp_path), "use_cpu": True, **resolved.training})
    arrived = getattr(arguments, name)
    assert arrived == value or getattr(arrived, "value", None) == value or arrived == [value]


def test_fields_of_another_version_are_named_as_such() -> None:
    from lmtrain.config.load import unknown_option

    table = flag_table("clm")
    without = dataclasses.replace(table, flags={k: v for k, v in table.flags.items() if k != "save_on_each_node"})
    assert "other versions do" in unknown_option(without, "save_on_each_node")
