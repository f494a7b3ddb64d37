"""From defaults, a file and flags to the options of a command, with every problem found on the way.

Later wins: defaults < file < flags. Nothing here imports torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from lmtrain.config.commands import OTHER_COMMANDS, TRAINING_COMMANDS, options_of
from lmtrain.config.flags import NOT_IN, FlagTable, flag_table, nearest
from lmtrain.config.legacy import LEGACY, TWINS, VALUES, Old
from lmtrain.config.treatment import TREATMENT
from lmtrain.config.values import NO, Flag, from_file, from_words, user_path
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.missing import no_such


@dataclass(frozen=True)
class Setting:
    """One option as the user wrote it.

    ``label`` is what messages call it: ``--block_size``, or ``run.yaml: block_size``. From the command line
    come ``words``; from a file comes ``value``, and ``words`` is None.
    """

    name: str
    label: str
    words: list[str] | None = None
    value: Any = None

    def as_words(self) -> list[str]:
        if self.words is not None:
            return self.words
        items = self.value if isinstance(self.value, list) else [self.value]
        return [str(item) for item in items]


@dataclass
class Gathered:
    """Typed values by today's names, and what there is to say about how they were understood."""

    table: FlagTable
    problems: Problems
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)  # options that were meant, but not understood
    typed: dict[str, str] = field(default_factory=dict)  # options given by another name than today's, and that name


def read_settings(path: str, *, label: str = "--config") -> list[Setting]:
    """The settings of a JSON, YAML or TOML file: a flat table of option names and values.

    Raises :class:`UserError` for a file that is missing, broken or something else than such a table.
    """
    if not path:
        raise UserError("needs a file of options in JSON, YAML or TOML, such as run.yaml", flag=label)
    file = user_path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise UserError(no_such(path, file), flag=label) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}", flag=label) from None
    suffix = file.suffix.lower()
    try:
        if suffix == ".json":
            content = json.loads(text)
        elif suffix in (".yaml", ".yml"):
            import yaml

            try:
                content = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ValueError(_yaml_problem(error)) from None
        elif suffix == ".toml":
            import tomllib

            content = tomllib.loads(text)
        else:
            raise UserError(f"{path} should end in .json, .yaml, .yml or .toml", flag=label)
    except ValueError as error:
        raise UserError(f"{path} is not valid {suffix[1:].upper()}: {error}", flag=label) from None
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}; wanted is a table of option names and values",
            flag=label,
        )
    return [Setting(str(key).replace("-", "_"), f"{path}: {key}", value=value) for key, value in content.items()]


def _yaml_problem(error: Any) -> str:
    """What and where, without the line itself, which may hold a token."""
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or 'it cannot be understood'}{where}"


def gather(command: str, settings: Iterable[Setting], problems: Problems) -> Gathered:
    """Understand settings of one source (a file, or the command line)."""
    gathered = Gathered(flag_table(command), problems)
    seen: dict[str, tuple[Setting, Any]] = {}
    for setting in settings:
        if setting.words is None and setting.name == "command":
            if setting.value != command:
                problems.add(f"these are options of lmtrain {setting.value}, not {command}", flag=setting.label)
            continue
        name = _understand(gathered, setting)
        if name is None:
            continue
        earlier, said = seen.get(name, (setting, None))
        value = gathered.values.get(name)
        if earlier.name != setting.name:
            if earlier.as_words() != setting.as_words():
                problems.add(f"says something else than {earlier.label}; give one of them", flag=setting.label)
        elif isinstance(said, list) and isinstance(value, list):  # --mix code=0.7 --mix prose=0.3 is one list
            gathered.values[name] = value = said + value
        seen[name] = setting, value
        if name not in (setting.name, setting.name.removeprefix("no_")):
            gathered.typed[name] = setting.label
    return gathered


def resolve(command: str, sources: list[Gathered]) -> Any:
    """The options of a command from its sources, the last one strongest: ``Resolved`` for clm, mlm and sft."""
    values: dict[str, Any] = {}
    for source in sources:
        values.update(source.values)
    if command not in TRAINING_COMMANDS:
        return options_of(command)(**values)
    from lmtrain.config.options import TRAINING_GROUPS, Resolved

    groups: dict[str, Any] = {}
    ours: set[str] = set()
    for attribute, owner in TRAINING_GROUPS.items():
        names = {item.name for item in fields(owner)}
        groups[attribute] = owner(**{name: value for name, value in values.items() if name in names})
        ours |= names
    return Resolved(
        command,
        **groups,
        training={name: value for name, value in values.items() if name not in ours},
        given=frozenset(values),
        notes=tuple(note for source in sources for note in source.notes),
    )


def check_understood(options: Any, sources: list[Gathered], problems: Problems) -> None:
    """Contradictions, less those that only follow from an option that was not understood; each about the name that was
    given."""
    found = Problems()
    if getattr(options, "command", None) in TRAINING_COMMANDS:
        from lmtrain.config.checks.training import check_training

        check_training(options, found)
    elif hasattr(options, "check"):
        options.check(found)
    failed = {f"--{name}" for source in sources for name in source.failed}
    typed = {f"--{name}": source.typed.get(name, f"--{name}") for source in sources for name in source.values}
    for problem in found:
        if problem.flag not in failed:
            problems.add(problem.text, flag=typed.get(problem.flag or "", problem.flag))


def _understand(gathered: Gathered, setting: Setting) -> str | None:
    """Take one setting into ``gathered.values``; its name of today, or None when there is nothing to set."""
    found = gathered.table.find(_today(gathered.table, setting.name))
    old = LEGACY.get(setting.name)
    if found is None and old is not None and (not old.new or gathered.table.find(old.new)):
        return _take_old(gathered, setting, old)
    if found is None:
        guess = nearest(setting.name, gathered.table.names())
        gathered.failed.update([guess] if guess else [])
        gathered.problems.add(unknown_option(gathered.table, setting.name), flag=setting.label)
        return None
    flag, negated = found
    return _take(gathered, setting, flag, negated=negated)


def _today(table: FlagTable, name: str) -> str:
    """Of two names of one field, the newest that the installed transformers knows."""
    for older, newer in TWINS.items():
        if name in (older, newer):
            return newer if newer in table.flags else older
    return name


def _take(gathered: Gathered, setting: Setting, flag: Flag, *, negated: bool = False) -> str | None:
    given = " ".join(setting.as_words())
    if (new := VALUES.get(flag.name, {}).get(given)) and given not in flag.choices:
        gathered.notes.append(f"{setting.label} {given} is now written --{flag.name} {new}")
        setting = Setting(setting.name, setting.label, [new])
    try:
        if setting.words is not None:
            value = from_words(flag, setting.words)
        else:
            value = from_file(flag, setting.value)
    except UserError as error:
        gathered.failed.add(flag.name)
        hides = flag.about.secret and setting.words != []
        text = "takes one word; what was given is not repeated here" if hides else error.problems[0].text
        gathered.problems.add(text, flag=setting.label)
        return None
    if negated:
        if not isinstance(value, bool):
            gathered.problems.add("switches something off and takes no such value", flag=setting.label)
            return None
        value = not value
    treatment = TREATMENT.get(flag.name) if flag.training else None
    if treatment and treatment.kind != "honored":
        if value != flag.default and treatment.kind == "refused":
            gathered.problems.add(f"not offered here. {treatment.reason}", flag=setting.label)
        elif value != flag.default and flag.name != "local_rank":
            gathered.notes.append(f"{setting.label} has no effect here. {treatment.reason}")
        return None
    gathered.values[flag.name] = value
    return flag.name


def _take_old(gathered: Gathered, setting: Setting, old: Old) -> str | None:
    if setting.words is None and setting.value in (None, "", []):
        return None  # an empty value in a file sets nothing
    words: list[str] | None = setting.as_words()
    if old.refused:
        is_off = old.is_switch and words and words[0].lower() in NO
        if not is_off and setting.name != gathered.table.command:  # lmtrain mlm --mlm
            gathered.problems.add(f"is an option of the past: {old.why}", flag=setting.label)
        return None
    try:
        if old.value is not None:
            words = old.value(setting.as_words())
    except UserError as error:
        gathered.failed.add(old.new)
        gathered.problems.add(error.problems[0].text, flag=setting.label)
        return None
    if old.environment:
        if len(setting.as_words()) != 1:
            gathered.problems.add("needs one value", flag=setting.label)
            return None
        gathered.environment[old.environment] = setting.as_words()[0]
        gathered.notes.append(f"{setting.label}: {old.why} {old.environment}, which is set for this run")
        return None
    if not old.new:
        gathered.notes.append(f"{setting.label} is no longer needed: {old.why}")
        return None
    if words is None:
        return None
    found = gathered.table.find(old.new)
    assert found is not None, "asked before"
    flag, _ = found
    shown = f"--{old.new}" + ("" if flag.about.secret else "".join(f" {word}" for word in words))
    why = f" ({old.why})" if old.why else ""
    gathered.notes.append(f"{setting.label} is now written {shown}{why}")
    as_it_is = old.value is None and isinstance(setting.value, bool)  # `no` in YAML
    return _take(gathered, setting if as_it_is else Setting(setting.name, setting.label, words), flag)


def unknown_option(table: FlagTable, name: str) -> str:
    """What to say about a name that is no option of this command."""
    hint = NOT_IN.get(table.command, {}).get(name)
    if hint:
        return hint
    if table.is_training and name in TREATMENT:
        from lmtrain.config.training_arguments import installed_version

        return f"the installed transformers {installed_version()} has no such option; other versions do"
    if owners := [c for c in (*TRAINING_COMMANDS, *OTHER_COMMANDS) if name in flag_table(c).flags]:
        return f"no such option of {table.command}; it belongs to lmtrain {', '.join(owners)}"
    guess = nearest(name, [*table.names(), *_old_names(table)])
    if guess is None:
        return f"no such option; lmtrain {table.command} --help all lists them"
    return f"no such option; did you mean --{guess}?"


def _old_names(table: FlagTable) -> list[str]:
    return [name for name, old in LEGACY.items() if old.new and old.new in table.flags]
