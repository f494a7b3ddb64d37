"""The help: complete, grouped, in time, and the page in docs/ is the same table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lmtrain.cli import options_page
from lmtrain.cli.commands import COMMANDS, find_command
from lmtrain.cli.help import command_help, found_help, grouped, overview
from lmtrain.config.commands import TRAINING_COMMANDS
from lmtrain.config.flags import flag_table
from lmtrain.config.training_arguments import installed_version
from lmtrain.config.treatment import TREATMENT
from lmtrain.core.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "options.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_shown_once_under_a_heading(name: str) -> None:
    text = command_help(COMMANDS[name], "all")
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  --")]
    expected = [
        f"--{flag.name}"
        for flag in flag_table(name).flags.values()
        if not (flag.training and TREATMENT[flag.name].kind != "honored")
    ]
    older = {"--gradient_checkpointing", "--gradient_checkpointing_kwargs"}  # shown under their new names
    if "activation_checkpointing" in flag_table(name).flags:
        expected = [flag for flag in expected if flag not in older]
    assert sorted(shown) == sorted(expected)
    for title, members in grouped(list(flag_table(name).flags.values())):
        assert f"\n\n{title}\n" in text and members
    assert "Example" in text and f"    lmtrain {name}" in text


def test_units_defaults_and_other_names_are_said() -> None:
    text = " ".join(command_help(COMMANDS["clm"], "all").split())
    assert "(in tokens; default: the smaller of 1024 and the model's positions)" in text
    assert "(in per cent; default: 5)" in text
    assert "also --max_val_samples" in text
    assert "None is switched on unless named. (default: none)" in text
    assert "--packing Lay" in text and "(default: on; off: --no_packing)" in text, "a switch stands alone"
    generate = " ".join(command_help(COMMANDS["generate"]).split())
    assert "--do_sample Draw" in generate and "off: --greedy)" in generate
    assert "--early_stopping true|false|never When" in generate


@pytest.mark.parametrize("name", TRAINING_COMMANDS)
def test_the_help_of_a_training_begins_with_what_most_runs_need(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    first, everything = command_help(COMMANDS[name]).splitlines(), command_help(COMMANDS[name], "all").splitlines()
    shown = {line.split()[0] for line in first if line.startswith("  --")}
    assert {"--model_name_or_path", "--train_file", "--output_dir", "--learning_rate", "--max_steps"} <= shown
    assert ("--block_size" in shown, "--mlm_probability" in shown, "--context_column" in shown) == (
        name == "clm", name == "mlm", name == "sft"
    )  # fmt: skip
    assert len(first) < 100 < len(everything) and "--help all" in first[-2] + first[-1]


def test_options_are_found_by_a_word() -> None:
    found = found_help(COMMANDS["clm"], "save")
    shown = [line.split()[0] for line in found.splitlines() if line.startswith("  --")]
    assert {"--save_steps", "--background_save", "--max_failed_saves"} <= set(shown) and len(shown) < 40
    assert "--seed" not in shown and found_help(COMMANDS["clm"], "save-steps").count("  --") == 1
    assert "\n  --eval_strategy " in found_help(COMMANDS["clm"], "evaluation_strategy")
    assert "--mask_whole_words" in found_help(COMMANDS["check"], "mask") and found_help(COMMANDS["check"], "mtbf")


@pytest.mark.parametrize(
    ("command", "word", "said"),
    [
        ("clm", "xyzzy", "no option of lmtrain clm has 'xyzzy' in its name or text; lmtrain clm --help all tells all"),
        ("clm", "lerning-rate", "did you mean --help learning_rate?"),
        ("clm", "auto_find_batch_size", "is refused. The size found would be searched for again on resuming"),
    ],
)
def test_a_word_that_no_option_has(command: str, word: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        found_help(COMMANDS[command], word)
    assert caught.value.problems[0].flag == "--help"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_the_help_keeps_to_the_width(name: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = [*command_help(COMMANDS[name], "all").splitlines(), *overview().splitlines()]
    longest = max(lines, key=len)
    assert len(longest) <= min(int(columns), 110), longest


def test_the_examples_are_commands_that_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from lmtrain.cli.arguments import parse

    monkeypatch.chdir(tmp_path)
    for name in ("book.txt", "reports.jsonl", "other.txt", "pairs.jsonl"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    for name in ("src", "corpus"):
        (tmp_path / name).mkdir()
    (tmp_path / "run.yaml").write_text("{model_name_or_path: m, train_file: book.txt, output_dir: o}")
    for command in COMMANDS.values():
        for _, line in command.examples:
            program, *typed = shlex.split(line)
            name, words = find_command(typed)
            assert (program, name) == ("lmtrain", command.name)
            parse(name, words)


def test_the_overview_names_every_command() -> None:
    shown = overview()
    for name, command in COMMANDS.items():
        first, _, stage = name.partition(" ")
        if stage:
            assert stage in shown.partition(f"\n  {first} STAGE ")[2].partition(": see")[0].replace(",", "").split()
        else:
            assert f"\n  {name} " in shown and command.summary.split()[0] in shown


def test_the_page_in_docs_is_current() -> None:
    """``python -m lmtrain.cli.options_page > docs/options.md`` after a change of an option."""
    written = PAGE.read_text(encoding="utf-8")
    if f"with transformers {installed_version()};" not in written:
        pytest.skip("docs/options.md was generated with another version of transformers")
    assert written == options_page.page()


# Processor time is what the command costs; the clock would measure the other work of the machine too.
_MEASURE = """
import json, resource, sys
from lmtrain.cli.main import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = sorted({"torch", "transformers", "numpy", "datasets", "rich"} & set(sys.modules))
print(json.dumps([code, used.ru_utime + used.ru_stime, heavy]), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["clm", "--help"], ["clm", "--lerning_rate", "1"], ["--version"]])
def test_help_and_the_answer_to_a_mistake_come_at_once(words: list[str]) -> None:
    """Within half a second, and without the libraries that take seconds to import."""
    for _ in range(10):  # a processor with other work is a slower one
        done = subprocess.run([sys.executable, "-c", _MEASURE, *words], capture_output=True, text=True, check=True)
        code, seconds, heavy = json.loads(done.stderr.splitlines()[-1])
        assert (code, heavy) == (2 if "--lerning_rate" in words else 0, [])
        if seconds < 0.5:
            break
    assert seconds < 0.5
