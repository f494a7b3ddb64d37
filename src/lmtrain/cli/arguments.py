"""From the words of a command line to options: dashes or underscores, ``--name value`` or ``--name=value``.

A switch may stand alone (``--do_train``), take true or false, or be turned off as ``--no_do_train``; a list
takes all words up to the next flag. All problems are found before one error shows them together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lmtrain.config.commands import ABOUT_A_RUN, TRAINING_COMMANDS
from lmtrain.config.flags import FlagTable, flag_table
from lmtrain.config.legacy import LEGACY
from lmtrain.config.load import Gathered, Setting, check_understood, gather, read_settings, resolve
from lmtrain.config.values import is_truth_word, repeatable, user_path
from lmtrain.core.errors import Problems, UserError

_CONFIG_ENDINGS = (".json", ".yaml", ".yml", ".toml")


@dataclass
class Words:
    """A command line taken apart, before any value is understood."""

    settings: list[Setting] = field(default_factory=list)
    positionals: list[str] = field(default_factory=list)
    config: list[str] = field(default_factory=list)
    help: str | None = None  # what is wanted of it: "" where nothing is said


@dataclass
class Parsed:
    """A command's options, lines worth saying about how they were understood, and variables to set for it."""

    options: Any
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def split_words(table: FlagTable, argv: Sequence[str]) -> Words:
    """Take a command line apart into flags with their words, and words without a flag."""
    words, at = Words(), 0
    while at < len(argv):
        word = argv[at]
        at += 1
        if word in ("-h", "--help"):
            said = at < len(argv) and not _ends_values(argv[at], first=False)
            words.help, at = argv[at] if said else "", at + said
        elif word == "--":
            words.positionals += argv[at:]
            break
        elif _is_flag(word) or _is_short(word):
            label, equals, attached = word.partition("=")
            # a single dash is no spelling of ours; kept in the name, it gets the nearest real one as answer
            name = label.removeprefix("--").replace("-", "_")
            if equals:
                values = [attached]
            else:
                values = _values(table, name, argv[at:])
                at += len(values)
            if name == "config":
                words.config += values or [""]
            else:
                words.settings.append(Setting(name, label, values))
        else:
            words.positionals.append(word)
    return words


def _is_flag(word: str) -> bool:
    return word.startswith("--") and len(word) > 2


def _is_short(word: str) -> bool:
    """``-x`` where a flag may stand; ``-`` (standard input) and ``-1`` are values."""
    return len(word) > 1 and word[0] == "-" and word[1].isalpha()


def _ends_values(word: str, *, first: bool) -> bool:
    """Right behind a flag ``-x`` may be its value; further on it is a flag, and ``-h`` is one everywhere."""
    return _is_flag(word) or word == "-h" or (not first and _is_short(word))


def _values(table: FlagTable, name: str, rest: Sequence[str]) -> list[str]:
    """The words that belong to a flag."""
    until = next((i for i, word in enumerate(rest) if _ends_values(word, first=i == 0)), len(rest))
    following = list(rest[:until])
    if name == "config":
        return following[:1]
    found = table.find(name)
    old = LEGACY.get(name) if found is None else None
    if (found and found[0].is_switch) or (old and old.is_switch):
        # `--fsdp full_shard` and the like take a word too; a plain switch takes only true or false
        takes_words = found is not None and "str" in found[0].types
        new = table.find(old.new) if old else None
        hides = new is not None and new[0].about.secret  # a token behind the old switch is no prompt
        alone = _has_positional(table) and not hides
        stray = not alone and not following[0].endswith(_CONFIG_ENDINGS) if following else False
        return following[:1] if following and (takes_words or stray or is_truth_word(following[0])) else []
    takes_many = found is not None and "list" in found[0].types
    if not takes_many and _has_positional(table):
        return following[:1]
    if not takes_many and len(following) > 1 and following[-1].endswith(_CONFIG_ENDINGS):
        return following[:-1]  # `--block_size 64 run.json`
    return following


def _has_positional(table: FlagTable) -> bool:
    return any(flag.about.positional for flag in table.flags.values())


def parse(command: str, argv: Sequence[str]) -> Parsed:
    """The options of ``lmtrain COMMAND`` from its command line.

    Raises :class:`lmtrain.core.errors.UserError` with every problem found.
    """
    if command in ABOUT_A_RUN:
        return _parse_about(command, argv)
    table = flag_table(command)
    return _understood(table, split_words(table, argv), Problems())


def _parse_about(command: str, argv: Sequence[str]) -> Parsed:
    """``profile clm --train_file …``: the command's own options and those of the run stand side by side."""
    if not argv or argv[0] not in TRAINING_COMMANDS:
        kinds = " or ".join(f"lmtrain {command} {kind} ..." for kind in TRAINING_COMMANDS)
        raise UserError(f"say of which training, with its options behind it: {kinds}")
    from lmtrain.config.options import AboutRun

    own, table, problems = flag_table(command), flag_table(argv[0]), Problems()
    words = split_words(FlagTable(argv[0], {**own.flags, **table.flags}), argv[1:])
    mine = [setting for setting in words.settings if own.find(setting.name)]
    words.settings = [setting for setting in words.settings if setting not in mine]
    leaves_none = command in ("profile", "verify-resume")
    if leaves_none and not any(setting.name == "output_dir" for setting in words.settings):
        words.settings.insert(0, Setting("output_dir", "--output_dir", ["unwritten"]))
    options = resolve(command, [gather(command, mine, problems)])
    parsed = _understood(table, words, problems)
    return Parsed(AboutRun(options, parsed.options), parsed.notes, parsed.environment)


def _understood(table: FlagTable, words: Words, problems: Problems) -> Parsed:
    command = table.command
    words.config += _positionals(table, words, problems)
    sources: list[Gathered] = []
    unread = Problems()
    for path in words.config:
        with unread.collect():
            sources.append(gather(command, read_settings(path), problems))
    sources.append(gather(command, words.settings, problems))
    options = resolve(command, sources)
    for problem in unread:
        problems.add(problem.text, flag=problem.flag)
    if not unread:  # without the file, everything it says would be reported as missing
        check_understood(options, sources, problems)
    if problems and not unread:
        from lmtrain.cli.look_ahead import look_ahead

        look_ahead(options, problems)
    problems.raise_if_any()
    environment = {name: value for source in sources for name, value in source.environment.items()}
    return Parsed(options, tuple(note for source in sources for note in source.notes), environment)


def _positionals(table: FlagTable, words: Words, problems: Problems) -> list[str]:
    """Give words without a flag to the options that take them: each the next, one for lists all that are left.

    Without such an option, return the files among them.
    """
    left = words.positionals
    takers = [flag for flag in table.flags.values() if flag.about.positional]
    for flag in takers:
        taken, left = (left, []) if "list" in flag.types else (left[:1], left[1:])
        if taken:
            words.settings.append(Setting(flag.name, flag.about.metavar or flag.name.upper(), taken))
    files = [] if takers else [word for word in left if word.endswith(_CONFIG_ENDINGS)]
    for word in left:
        if word not in files:
            more = _meant(table, word) or "options begin with --, values with spaces need quotes"
            problems.add(f"{repeatable(word)!r} belongs to no option; {more}")
    return files


def _meant(table: FlagTable, word: str) -> str | None:
    """What to type for a word that is the name of a text or of a model."""
    path = user_path(word)
    if not word.strip() or not os.path.exists(path):  # noqa: PTH110 -- False of impossible names
        return None
    is_model = (path / "config.json").is_file()
    names = ("model_name_or_path",) if is_model else ("train_file", "validation_file")
    name = next((name for name in names if table.find(name)), None)
    return name and f"did you mean --{name} {word}?"
