"""``lmtrain``: find the command, understand its options, run it, and say plainly what went wrong.

Results go to standard output; progress, notes and errors go to standard error. Exit codes are those of
:class:`lmtrain.core.errors.ExitCode`. Neither torch nor transformers is imported before a command runs.
"""

from __future__ import annotations

import codecs
import importlib
import io
import json
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, TextIO, cast

from lmtrain.core.console import Unfailing, is_first_process, say
from lmtrain.core.errors import ExitCode, Interrupted, OwnResultWrong, UserError
from lmtrain.core.files import NO_RIGHT, NO_ROOM
from lmtrain.core.launching import by_mpi_alone, is_first_here, processes, tasks_without_srun, under_slurm
from lmtrain.core.problem_block import columns_of_the_terminal, problem_block
from lmtrain.core.ranklog import is_told

# Commands whose processes work on one thing; others that srun starts several times know nothing of each other.
SHARED = frozenset({"clm", "mlm", "sft", "evaluate", "check", "profile", "nlg", "nlg train"})
_STAGES = frozenset(f"nlg {stage}" for stage in ("demo", "convert", "encode", "decode", "text", "score"))
_ALONE = _STAGES | {"demo", "gpt2-ft", "verify-resume", "tokenizer", "filter", "export", "push"}

_BROKEN_PIPE = 128 + 13  # what a shell reports for a program that SIGPIPE ended
_REPORT = "Please report the lines above to its maintainers."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    _open_what_is_closed()
    _write_whatever_it_is()
    with redirect_stderr(cast(TextIO, Unfailing(sys.stderr))):
        return _code_of(list(sys.argv[1:] if argv is None else argv))


def _code_of(words: list[str]) -> int:
    name = ""
    try:
        name = _name_of(words)
        if name in SHARED:
            os.environ.update(under_slurm(os.environ))
        code = _main(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        if is_first_process() or error.heard is False or (error.heard is None and is_first_here()):
            before = "go on" if error.exit_code == ExitCode.NO_SAVE_SUCCEEDED else "run"
            block = problem_block(name, error.problems, before, columns=columns_of_the_terminal())
            print(block, file=sys.stderr, flush=True)
        return int(error.exit_code)
    except OwnResultWrong as error:
        if is_first_process():
            print(f"\nlmtrain {name}: {error}\n{_REPORT}", file=sys.stderr, flush=True)
        return int(error.exit_code)
    except Interrupted as stopped:
        if is_first_process():
            print(f"\nlmtrain {name}: interrupted ({stopped}); {stopped.onward}", file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        from lmtrain.config.commands import TRAINING_COMMANDS

        if is_first_process():
            hint = "; the same command goes on with the run" if name in TRAINING_COMMANDS else ""
            print(f"\n{f'lmtrain {name}'.rstrip()}: interrupted{hint}", file=sys.stderr, flush=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:
        if is_told(error):
            return ExitCode.OUR_FAULT
        if (refused := _refused_by_the_system(error)) is not None:
            print(f"\nlmtrain {name}: {_what_to_do(error, refused)}", file=sys.stderr, flush=True)
            return refused
        traceback.print_exc()
        print(
            f"\nlmtrain {name}: this is a fault of lmtrain, not of your input. {_REPORT}",
            file=sys.stderr,
        )
        return ExitCode.OUR_FAULT


def _open_what_is_closed() -> None:
    """Standard streams that whoever started us has closed (``<&-``), which Python then leaves out, are empty."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 -- until the end


def _write_whatever_it_is() -> None:
    """Show what a terminal or a pipe that is not UTF-8 has no letter for as JSON writes it, \\u221a, instead
    of ending with an error in the middle of a result."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        codecs.register_error("as JSON", _escaped)
        sys.stdout.reconfigure(errors="as JSON")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def _refused_by_the_system(error: Exception) -> ExitCode | None:
    """The exit code where a full disk or a missing right ended it, which is no fault of lmtrain; None elsewhere."""
    if not isinstance(error, OSError):
        return None
    if error.errno in NO_ROOM:
        return ExitCode.NO_SAVE_SUCCEEDED
    # Without a name it is about something else than files: a semaphore, a port, processors.
    return ExitCode.WRONG_INPUT if error.errno in NO_RIGHT and error.filename else None


def _what_to_do(error: Any, code: ExitCode) -> str:
    where = f" ({error.filename})" if error.filename else ""
    first = "make room" if code == ExitCode.NO_SAVE_SUCCEEDED else "allow it"
    return f"{error.strerror}{where}: {first}, then type the same command again"


def _name_of(words: list[str]) -> str:
    """What to call the command in messages: as it was typed, when there is no such command."""
    from lmtrain.cli.commands import find_command

    typed = words[0] if words and not words[0].startswith("-") else ""
    return find_command(words)[0] or typed


def _main(words: list[str]) -> int:
    from lmtrain.cli.commands import find_command

    if not words:
        print(_overview(), file=sys.stderr)
        return ExitCode.WRONG_INPUT
    if words[0] == "help" and len(words) > 1:
        words = [*words[1:], "--help"]
    if words[0] in ("-h", "--help", "help"):
        print(_overview())
        return ExitCode.OK
    if words[0] in ("-V", "--version"):
        from lmtrain.core.version import __version__

        print(f"lmtrain {__version__}")
        return ExitCode.OK
    name, rest = find_command(words)
    if not name:
        raise UserError(_unknown_command(words[0]))
    return _run(name, rest)


def _run(name: str, rest: list[str]) -> int:
    from lmtrain.cli.arguments import parse, split_words
    from lmtrain.cli.commands import COMMANDS
    from lmtrain.config.flags import flag_table

    if (wanted := split_words(flag_table(name), rest).help) is not None:
        from lmtrain.cli.help import command_help, found_help

        show = command_help if wanted in ("", "all") else found_help
        print(show(COMMANDS[name], wanted))
        return ExitCode.OK
    if name in _ALONE and processes() > 1:
        raise UserError(f"works in one process, and {processes()} were started: leave out the launcher (torchrun)")
    if rest and (stage := _meant_stage(name, rest[0])):
        raise UserError(f"'{name} {rest[0]}' is no command; did you mean lmtrain {stage}?")
    if name in SHARED and (count := by_mpi_alone()):
        raise UserError(
            f"mpirun started {count} processes, and nothing tells them where they meet, so each would train alone: "
            "start them by torchrun, or set RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT for each"
        )
    parsed = parse(name, rest)
    for note in parsed.notes:
        say("options", note)
    os.environ.update(parsed.environment)
    if name in SHARED and (tasks := tasks_without_srun()):
        say("attention", f"the job has {tasks} tasks, and this is one process by itself; srun in front starts {tasks}")
    return int(importlib.import_module(COMMANDS[name].module).run(parsed.options))


def _overview() -> str:
    from lmtrain.cli.help import overview

    return overview()


def _meant_stage(name: str, word: str) -> str | None:
    """``nlg score`` for ``nlg scores``: the command under ``name`` that a word is nearest to, unless it is nearer to
    what ``name`` itself takes there."""
    from lmtrain.cli.commands import commands_under
    from lmtrain.config.flags import flag_table, nearest

    stages = {stage.name.removeprefix(f"{name} "): stage.name for stage in commands_under(name)}
    if not stages or word.startswith("-"):
        return None
    tasks = [task for flag in flag_table(name).flags.values() if flag.about.positional for task in flag.choices]
    return None if word in tasks else stages.get(nearest(word, [*tasks, *stages]) or "")


def _unknown_command(name: str) -> str:
    from lmtrain.cli.commands import COMMANDS
    from lmtrain.config.flags import nearest

    if name.startswith("-"):
        return f"a command comes before {name}: one of {', '.join(COMMANDS)}"
    if name in ("train", "finetune", "pretrain"):
        three = "lmtrain clm on text, lmtrain mlm on its hidden words, lmtrain sft on prompts and answers"
        return f"{name!r} is no command; three train: {three}"
    guess = nearest(name, COMMANDS)
    if guess:
        return f"{name!r} is no command; did you mean lmtrain {guess}?"
    return f"{name!r} is no command; there are {', '.join(COMMANDS)}"
