"""The command line taken apart: spellings, lists, switches, and every mistake in one error."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtrain.cli.arguments import parse, split_words
from lmtrain.config.commands.evaluate import EvaluateOptions
from lmtrain.config.commands.generate import GenerateOptions
from lmtrain.config.flags import flag_table
from lmtrain.config.options import Resolved
from lmtrain.core.errors import UserError
from parsing import parse_command, parse_training


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    names = [tmp_path / name for name in ("a.txt", "b.txt")]
    for name in names:
        name.write_text("text", encoding="utf-8")
    return [str(name) for name in names]


@pytest.fixture
def base(files: list[str]) -> list[str]:
    return ["--model_name_or_path", "m", "--train_file", files[0], "--output_dir", "o"]


@pytest.mark.parametrize(
    "words", [["--block_size", "64"], ["--block-size", "64"], ["--block_size=64"], ["--block-size=64"]]
)
def test_dashes_underscores_and_equals_signs(base: list[str], words: list[str]) -> None:
    assert parse_training("clm", [*base, *words]).data.block_size == 64
    assert parse_training("clm", [*words, *base]).data.block_size == 64


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--bf16"], True),
        (["--bf16", "true"], True),
        (["--bf16=1"], True),
        (["--bf16", "no"], False),
        (["--no_bf16"], False),
        (["--no-bf16"], False),
        (["--no_bf16", "false"], True),
        (["--bf16", "--no_bf16"], False),  # the last one counts, as in argparse
    ],
)
def test_switches(base: list[str], words: list[str], value: bool) -> None:
    assert parse_training("clm", [*base, *words]).training["bf16"] is value


def test_another_name_says_no_as_well(base: list[str]) -> None:
    assert parse_training("clm", [*base, "--use_lora", "--no_use_lora"]).lora.use_peft is False


def test_lists_take_every_word_up_to_the_next_flag(files: list[str]) -> None:
    resolved = parse_training(
        "clm",
        ["--train-file", *files, "--model_name_or_path", "m", "--output_dir", "o", "--report_to", "a", "b"],
    )
    assert resolved.data.train_file == files
    assert resolved.training["report_to"] == ["a", "b"]


def test_a_flag_that_may_stand_alone_or_take_a_word(base: list[str]) -> None:
    assert parse_training("clm", [*base, "--fsdp"]).training["fsdp"] is True
    assert parse_training("clm", [*base, "--fsdp", "full_shard"]).training["fsdp"] == "full_shard"


def test_negative_numbers_and_standard_input_are_values(base: list[str]) -> None:
    resolved = parse_training("clm", [*base[:2], "--train_file", "-", "--max_steps", "-1", "--output_dir", "o"])
    assert resolved.data.train_file == ["-"]
    assert resolved.training["max_steps"] == -1


def test_prompts_are_the_words_without_a_flag() -> None:
    options = parse_command(
        "generate",
        ["--model_name_or_path", "m", "--greedy", "def f", "--max_new_tokens", "4", "two", "--", "--x"],
    )
    assert isinstance(options, GenerateOptions)
    assert options.prompt == ["def f", "two", "--x"]
    assert options.do_sample is False and options.max_new_tokens == 4


def test_options_of_a_command_serve_wherever_a_group_is_wanted(files: list[str]) -> None:
    options = parse_command("evaluate", ["--model_name_or_path", "m", "--validation_file", *files, "--json"])
    assert isinstance(options, EvaluateOptions)
    assert options.validation_file == files and options.json is True
    assert options.mlm_probability == 0.15 and options.model_type is None


def test_defaults_are_those_of_the_scripts(base: list[str]) -> None:
    resolved = parse_training("mlm", base)
    assert isinstance(resolved, Resolved)
    assert (resolved.data.validation_split_percentage, resolved.masking.mlm_probability) == (5.0, 0.15)
    assert resolved.model.model_revision == "main" and resolved.model.use_fast_tokenizer
    assert not (resolved.data.line_by_line or resolved.data.pad_to_max_length or resolved.data.streaming)
    assert resolved.training == {"output_dir": "o"}  # the rest is the library's to fill in
    assert resolved.given == {"model_name_or_path", "train_file", "output_dir"}


def test_every_mistake_is_in_one_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.txt")
    words = ["--lerning_rate", "1e-4", "--train_file", missing, "--block_size", "tall", "--bf16", "--fp16",
             "--max_seq_length=9", "--use_liger_kernel", "--model_name_or_path", "m",
             "--tf32", "stray", "--output_dir", __file__]  # fmt: skip
    with pytest.raises(UserError) as caught:
        parse("clm", words)
    said = {problem.flag: problem.text for problem in caught.value.problems}
    assert set(said) == {"--lerning_rate", "--train_file", "--block_size", "--bf16", "--tf32",
                         "--max_seq_length", "--use_liger_kernel", "--output_dir"}  # fmt: skip
    assert said["--lerning_rate"] == "no such option; did you mean --learning_rate?"
    assert said["--tf32"] == "'stray' is not true or false"
    assert said["--output_dir"] == f"{__file__} is a file; give the name of a folder"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--lerning_rate", "--learning_rate"),
        ("--train_fil", "--train_file"),
        ("--trainfile", "--train_file"),
        ("--per_device_train_batch", "--per_device_train_batch_size"),
        ("--config_override", "--config_overrides"),
        ("--evaluation_stratgy", "--evaluation_strategy"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(base: list[str], typed: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"did you mean {meant}\\?"):
        parse("clm", [*base, typed, "1"])


def test_a_name_of_another_command_is_recognized(base: list[str]) -> None:
    with pytest.raises(UserError, match="it belongs to lmtrain generate"):
        parse("clm", [*base, "--top_k", "5"])


def test_a_name_like_nothing_else(base: list[str]) -> None:
    with pytest.raises(UserError, match="--zzz: no such option; lmtrain clm --help all lists them"):
        parse("clm", [*base, "--zzz"])
    with pytest.raises(UserError, match="-x: no such option"):
        parse("clm", [*base, "-x"])
    with pytest.raises(UserError, match=r"-seed: no such option; did you mean --seed\?"):
        parse("clm", [*base, "-seed", "1"])
    with pytest.raises(UserError, match="--command: no such option"):
        parse("clm", [*base, "--command", "clm"])  # as a file of options has it


def test_a_word_that_names_a_text_or_a_model(files: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for command, word, meant in (
        ("clm", files[0], f"--train_file {files[0]}"),
        ("evaluate", str(tmp_path), f"--model_name_or_path {tmp_path}"),
        ("evaluate", files[0], f"--validation_file {files[0]}"),
    ):
        with pytest.raises(UserError, match=rf"belongs to no option; did you mean {meant}\?"):
            parse(command, [word])
    with pytest.raises(UserError, match="belongs to no option; options begin with --"):
        parse("clm", ["x" * 5000])


def test_a_home_that_is_nobodys_is_no_place(base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a result would lie in a folder of that name, where nobody looks for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~draft.txt").write_text("text")
    with pytest.raises(UserError) as caught:
        parse("clm", [*base, "--train_file", "~nobody-here/a.txt", "--output_dir", "~nobody-here", "--seed", "x"])
    told = {problem.flag: problem.text for problem in caught.value.problems}
    assert list(told) == ["--train_file", "--output_dir", "--seed"]
    assert told["--output_dir"] == "~nobody-here begins with a home that is nobody's here; write the folder out"
    assert "~draft.txt" in parse("clm", [*base, "--train_file", "~draft.txt"]).options.data.train_file
    assert parse("generate", ["~nobody-here", "--model", "m"]).options.prompt == ["~nobody-here"]


# No word may name a file or a glob: files that exist would be opened.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="/.~*?["), max_size=12).filter(
    lambda word: "=" not in word and word not in ("--", "-h", "--help") and not word.startswith("--config")
)
FLAGS = st.sampled_from(["--train_file", "--bf16", "--seed", "--fsdp", "--no_cuda", "--unheard_of"])


@given(st.lists(st.one_of(WORDS, FLAGS)))
def test_every_word_has_one_place_and_none_crashes(words: list[str]) -> None:
    """Whatever is typed is understood or becomes a problem in words; no word is lost or read twice."""
    taken = split_words(flag_table("clm"), words)
    behind_flags = sum(len(setting.words or []) for setting in taken.settings)
    assert len(taken.settings) + behind_flags + len(taken.positionals) == len(words)
    try:
        parse("clm", words)
    except UserError as error:
        assert all(problem.text for problem in error.problems)


@pytest.mark.parametrize("name", ["s3://bucket/a.txt", "-"])
def test_nothing_far_away_is_waited_for(base: list[str], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sources_of(*_: object) -> None:
        raise AssertionError("looked at")

    monkeypatch.setattr("lmtrain.data.named_text.sources_of", sources_of)
    for words, error in (([name], UserError), ([], AssertionError)):
        with pytest.raises(error):
            parse("clm", [*base, "--lerning_rate", "1", "--train_file", base[3], *words])


def test_a_configuration_that_is_none_is_left_to_the_run(tmp_path: Path, base: list[str]) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(UserError) as caught:
        parse("clm", [*base[2:], "--model_name_or_path", str(tmp_path), "--block_size", "8", "--lerning_rate", "1"])
    assert [problem.flag for problem in caught.value.problems] == ["--lerning_rate"]
