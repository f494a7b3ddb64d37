"""The help texts: what the flag table says, laid out for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

from lmtrain.cli.commands import COMMANDS, Command, commands_under
from lmtrain.config.commands import ABOUT_A_RUN, TRAINING_COMMANDS
from lmtrain.config.flags import flag_table, nearest
from lmtrain.config.legacy import LEGACY, TWINS
from lmtrain.config.treatment import GROUPS, TREATMENT
from lmtrain.config.values import Flag
from lmtrain.core.errors import UserError

_GROUPS = {  # of the overview
    "Train": ("clm", "mlm", "sft"),
    "Text for it": ("tokenizer", "filter", "prepare"),
    "Use what was trained": ("generate", "evaluate", "report", "export", "push"),
    "Look before a long run": ("check", "profile", "verify-resume"),
    "Whole recipes": ("demo", "nlg", "gpt2-ft"),
}
_COMMON = {  # the options of a training that its help begins with
    "model_name_or_path", "model_type", "model_size", "tokenizer_name", "train_file", "validation_file", "text_column",
    "block_size", "max_seq_length", "line_by_line", "mlm_probability", "mask_whole_words", "context_column",
    "completion_column", "objective", "precision", "global_batch_size", "max_minutes", "overwrite_output_dir",
    "use_peft", "lora_r", "output_dir", "num_train_epochs", "max_steps", "per_device_train_batch_size", "seed",
    "learning_rate", "warmup_steps", "eval_strategy", "eval_steps", "save_steps", "report_to",
}  # fmt: skip
_SPELLING = (
    "Dashes and underscores are alike. A switch stands alone or takes true or false (--no_x is false). --config "
    "FILE.yaml, .json or .toml holds any of these options by name; flags on top of it win."
)
_NAME_COLUMN = 17
_FLAG_COLUMN = 34
_NARROWEST = 40  # characters that the right column has at least
_LONGEST_HELP = 240  # characters; the library's own texts run to several hundred


def overview() -> str:
    """``lmtrain --help``."""
    width = _width()
    lines = [*textwrap.wrap("lmtrain: text in; a trained, measured, usable language model out.", width), ""]
    lines += ["usage: lmtrain COMMAND [--option value ...]", ""]
    for title, names in _GROUPS.items():
        lines += [title]
        for name in names:
            lines += _two_columns(f"  {name}", COMMANDS[name].summary, _NAME_COLUMN, width)
            if stages := ", ".join(stage.name.removeprefix(f"{name} ") for stage in commands_under(name)):
                stages += f": see lmtrain {name} --help."
                lines += _two_columns(f"  {name} STAGE", stages, _NAME_COLUMN, width)
        lines += [""]
    lines += [
        "First steps:",
        *_command_line("lmtrain demo", width),
        *_command_line("lmtrain clm --model_name_or_path ./gpt2 --train_file YOUR.txt --output_dir runs/mine", width),
        "",
    ]
    more = (
        "lmtrain COMMAND --help tells the options of a command; lmtrain --version tells the version.",
        "Several processes: torchrun --nproc_per_node 2 -m lmtrain clm ... (or accelerate launch).",
    )
    lines += [wrapped for line in more for wrapped in textwrap.wrap(line, width)]
    return "\n".join(lines)


def command_help(command: Command, wanted: str = "") -> str:
    """``lmtrain COMMAND --help``; of a training the options that most runs need, and all where ``wanted`` is "all"."""
    width = _width()
    table = flag_table(command.name)
    words = "".join(_positional(flag) for flag in table.flags.values() if flag.about.positional)
    if command.name in ABOUT_A_RUN:
        words = " " + "|".join(TRAINING_COMMANDS)
    synopsis = f"usage: lmtrain {command.name}{words} [--option value ...]"
    lines = [*textwrap.wrap(synopsis, width, subsequent_indent="    ", break_on_hyphens=False), ""]
    lines += textwrap.wrap(command.summary, width)
    for stage in commands_under(command.name):
        lines += _two_columns(f"  lmtrain {stage.name}", stage.summary, _FLAG_COLUMN, width)
    lines += ["", "Examples" if len(command.examples) > 1 else "Example"]
    for purpose, line in command.examples:
        lines += textwrap.wrap(f"{purpose}:", width, initial_indent="  ", subsequent_indent="  ")
        lines += _command_line(line, width)
    lines += ["", *textwrap.wrap(_SPELLING, width)]
    flags = list(table.flags.values())
    shortened = table.is_training and wanted != "all"
    lines += _sections([flag for flag in flags if flag.name in _COMMON] if shortened else flags, width)
    if command.name in ABOUT_A_RUN:
        more = "Beside these, the options of the run in question: see lmtrain clm --help and the like."
        lines += ["", *textwrap.wrap(more, width)]
    if shortened:
        count = sum(len(members) for _, members in grouped(flags))
        more = f"These are what most runs need. lmtrain {command.name} --help all tells all {count} options, and"
        lines += ["", *textwrap.wrap(f"{more} --help WORD those with the word in them, such as --help save.", width)]
    elif table.is_training:
        more = "Other options of TrainingArguments have no effect here or are refused: see docs/options.md."
        lines += ["", *textwrap.wrap(more, width)]
    return "\n".join(lines)


def found_help(command: Command, word: str) -> str:
    """``lmtrain COMMAND --help WORD``: the options with that word in name or text, of an old name today's.

    Raises :class:`UserError` where there is none.
    """
    sought = word.lower().strip("-").replace("-", "_")
    tables = (command.name, *TRAINING_COMMANDS) if command.name in ABOUT_A_RUN else (command.name,)
    flags = {name: flag for table in tables for name, flag in flag_table(table).flags.items()}
    if sought in LEGACY and sought not in flags:
        sought = LEGACY[sought].new or sought
    found = [flag for flag in flags.values() if sought in f"{flag.name} {describe(flag)}".lower().replace("-", "_")]
    if not (lines := _sections(found, _width())):
        raise UserError(_not_found(command.name, word, sought, flags), flag="--help")
    return "\n".join(lines).strip("\n")


def _not_found(command: str, word: str, sought: str, flags: Iterable[str]) -> str:
    if sought in flags and (treatment := TREATMENT.get(sought)):
        return f"--{sought} is {treatment.kind}. {treatment.reason}"
    guess = nearest(sought, flags)
    more = f"did you mean --help {guess}?" if guess else f"lmtrain {command} --help all tells all options"
    return f"no option of lmtrain {command} has {word!r} in its name or text; {more}"


def _sections(flags: list[Flag], width: int) -> list[str]:
    lines = []
    for title, members in grouped(flags):
        lines += ["", title]
        for flag in members:
            lines += _two_columns(f"  {usage(flag)}", describe(flag), _FLAG_COLUMN, width)
    return lines


def _positional(flag: Flag) -> str:
    """`` TASK``, or `` [PROMPT ...]`` where any number of words may stand."""
    name = flag.about.metavar or "|".join(flag.choices)
    return f" [{name} ...]" if "list" in flag.types else f" {name}"


def grouped(flags: list[Flag]) -> list[tuple[str, list[Flag]]]:
    """Flags under their headings: our own in the order they are declared, then those of TrainingArguments."""
    names = {flag.name for flag in flags}
    shown = [flag for flag in flags if not flag.training or _is_honored(flag)]
    shown = [flag for flag in shown if TWINS.get(flag.name) not in names]  # the old name of something shown
    titles = list(dict.fromkeys(flag.group for flag in shown if not flag.training))
    titles += [title for title in (*GROUPS, "Other") if title not in titles]
    sections = [(title, [flag for flag in shown if flag.group == title]) for title in titles]
    return [(title, members) for title, members in sections if members]


def _is_honored(flag: Flag) -> bool:
    return flag.name not in TREATMENT or TREATMENT[flag.name].kind == "honored"


def usage(flag: Flag) -> str:
    """``--block_size N``: a flag and what stands behind it."""
    name = f"--{flag.name}"
    if set(flag.types) <= {"bool", "none"}:
        return name
    return f"{name} {_metavar(flag)}"


def _metavar(flag: Flag) -> str:
    if flag.about.metavar:
        return flag.about.metavar + (" ..." if "list" in flag.types else "")
    if flag.choices and len("|".join(flag.choices)) <= 24:
        return "|".join(("true", "false", *flag.choices) if "bool" in flag.types else flag.choices)
    names = {"int": "N", "float": "X", "dict": "JSON", "str": "NAME", "list": "NAME ..."}
    kinds = [kind for kind in ("list", "dict", "float", "int", "str") if kind in flag.types]
    return names[kinds[0]] if kinds else "VALUE"


def describe(flag: Flag) -> str:
    """The help sentence with choices, unit, default and other names behind it."""
    about, remarks = flag.about, []
    if 24 < len("|".join(flag.choices)) < 260:
        remarks.append("one of " + ", ".join(flag.choices))
    if about.unit:
        remarks.append(f"in {about.unit}")
    default = default_text(flag)
    if default:
        remarks.append(f"default: {default}")
    if about.aliases:
        remarks.append("also " + ", ".join(f"--{name}" for name in about.aliases))
    if off := about.off or ("no_" + flag.name if flag.default is True else ""):
        remarks.append(f"off: --{off}")
    text = _shorten(about.help)
    return f"{text} ({'; '.join(remarks)})" if remarks else text


def default_text(flag: Flag) -> str:
    """The default as a reader wants it; empty when there is none."""
    if flag.about.shown_default:
        return flag.about.shown_default
    return plain(flag.default)


def plain(value: Any) -> str:
    if value is None or value == [] or value == "":
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _shorten(text: str) -> str:
    """The first sentences of a long text."""
    if len(text) <= _LONGEST_HELP:
        return text
    end = text.rfind(". ", 0, _LONGEST_HELP)
    return text[: end + 1] if end > 0 else text[:_LONGEST_HELP].rsplit(" ", 1)[0] + " ..."


def _two_columns(left: str, right: str, column: int, width: int) -> list[str]:
    column = min(column, width - _NARROWEST)
    wrapped = textwrap.wrap(right, width - column, break_long_words=False, break_on_hyphens=False)
    if len(left) + 2 > column:
        return [left, *(" " * column + line for line in wrapped)]
    first, *rest = wrapped or [""]
    return [(left.ljust(column) + first).rstrip(), *(" " * column + line for line in rest)]


def _command_line(line: str, width: int) -> list[str]:
    """A long command line over several lines, as one would type it."""
    parts = textwrap.wrap(line, max(40, width - 8), break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(" \\\n  ".join(parts), "    ").splitlines()


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((100, 24)).columns, 110))
