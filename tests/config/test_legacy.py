"""Old names are understood or refused with today's name; none of them shadows an option of today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmtrain.cli.arguments import parse
from lmtrain.config.flags import flag_table
from lmtrain.config.legacy import LEGACY, TWINS
from lmtrain.core.errors import UserError
from parsing import parse_command, parse_training


@pytest.fixture
def base(tmp_path: Path) -> list[str]:
    text = tmp_path / "a.txt"
    text.write_text("text", encoding="utf-8")
    return ["--model_name_or_path", "m", "--train_file", str(text), "--output_dir", str(tmp_path / "run")]


# Every option of run_clm.py and run_mlm.py of transformers 4.4 that is not one of TrainingArguments, and where it goes.
BOTH = {
    "--config_name c": ("model", "config_name", "c"),
    "--tokenizer_name t": ("model", "tokenizer_name", "t"),
    "--cache_dir hub": ("model", "cache_dir", "hub"),
    "--use_fast_tokenizer False": ("model", "use_fast_tokenizer", False),
    "--model_revision v1": ("model", "model_revision", "v1"),
    "--use_auth_token": ("model", "token", None),
    "--max_train_samples 5": ("data", "max_train_samples", 5),
    "--max_val_samples 6": ("data", "max_eval_samples", 6),
    "--overwrite_cache": ("data", "overwrite_cache", True),
    "--validation_split_percentage 7": ("data", "validation_split_percentage", 7.0),
    "--preprocessing_num_workers 2": ("data", "preprocessing_num_workers", 2),
}
SCRIPTS = {
    "clm": {**BOTH, "--block_size 64": ("data", "block_size", 64)},
    "mlm": {
        **BOTH,
        "--max_seq_length 64": ("data", "max_seq_length", 64),
        "--mlm_probability 0.2": ("masking", "mlm_probability", 0.2),
        "--line_by_line": ("data", "line_by_line", True),
        "--pad_to_max_length": ("data", "pad_to_max_length", True),
    },
}


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_option_of_the_scripts_is_taken(base: list[str], command: str) -> None:
    options = SCRIPTS[command]
    given = [*base, "--validation_file", base[3], "--do_train", "--do_eval", "--overwrite_output_dir"]
    resolved = parse_training(command, [*given, *" ".join(options).split()])
    found = {
        words: (group, name, getattr(getattr(resolved, group), name)) for words, (group, name, _) in options.items()
    }
    assert found == options
    from_hub = ["--dataset_name", "wikitext", "--dataset_config_name", "wikitext-2-raw-v1"]
    data = parse_training(command, [*base[:2], *from_hub, *base[4:]]).data
    assert (data.dataset_name, data.dataset_config_name) == ("wikitext", "wikitext-2-raw-v1")


def test_old_names_lead_to_options_of_today() -> None:
    today = {name: flag for command in ("clm", "mlm", "sft") for name, flag in flag_table(command).flags.items()}
    for name, old in LEGACY.items():
        assert name not in today, f"--{name} is an option of today"
        assert not old.new or old.new in today, f"--{name} leads to --{old.new}, which does not exist"
        assert old.new or old.why, f"--{name} leads nowhere and says nothing"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--evaluation_strategy", "steps"], "eval_strategy", "steps"),
        (["--per_gpu_train_batch_size", "4"], "per_device_train_batch_size", 4),
        (["--per-gpu-eval-batch-size=2"], "per_device_eval_batch_size", 2),
        (["--warmup_ratio", "0.06"], "warmup_steps", 0.06),
        (["--no_cuda"], "use_cpu", True),
        (["--no_cuda", "true"], "use_cpu", True),
        (["--adafactor"], "optim", "adafactor"),
        (["--evaluate_during_training"], "eval_strategy", "steps"),
        (["--torchdynamo", "inductor"], "torch_compile_backend", "inductor"),
        (["--num_warmup_steps", "100"], "warmup_steps", 100),
        (["--push_to_hub", "--push_to_hub_model_id", "me/m"], "hub_model_id", "me/m"),
    ],
)
def test_renamed_training_arguments(base: list[str], words: list[str], name: str, value: Any) -> None:
    resolved = parse_training("clm", [*base, *words])
    assert resolved.training[name] == value
    assert name in resolved.given
    (note,) = resolved.notes
    assert note.startswith(tuple(word.split("=")[0] for word in words)) and f"now written --{name}" in note


@pytest.mark.parametrize("words", [["--no_cuda", "false"], ["--warmup_ratio", "0"], ["--adafactor", "no"]])
def test_old_switches_that_are_off_set_nothing(base: list[str], words: list[str]) -> None:
    assert set(parse_training("clm", [*base, *words]).training) == {"output_dir"}


def test_what_an_old_file_leaves_empty_or_switches_off_sets_nothing(base: list[str], tmp_path: Path) -> None:
    """As the fields of earlier scripts stand in a file that was written from their defaults."""
    (tmp_path / "old.json").write_text(
        '{"tpu_num_cores": null, "tpu_metrics_debug": false, "sharded_ddp": "", "debug": false, '
        '"per_gpu_eval_batch_size": null, "mlm": false, "with_tracking": false, "adafactor": false, "no_cuda": false}'
    )
    resolved = parse_training("clm", [*base, "--config", str(tmp_path / "old.json"), "--tpu_metrics_debug", "False"])
    assert {name for name, value in resolved.training.items() if value} == {"output_dir"} and resolved.notes == ()
    assert parse_training("mlm", [*base, "--mlm"]).notes == (), "which says what the command is"


def test_a_contradiction_is_about_the_name_that_was_given(base: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"push_to_hub_model_id": "me/m"}')
    for words, flag in (
        (["--push_to_hub_model_id", "me/m"], "--push_to_hub_model_id"),
        (["--hub_model_id", "me/m"], "--hub_model_id"),
        (["--config", str(tmp_path / "old.json")], "old.json: push_to_hub_model_id"),
    ):
        with pytest.raises(UserError) as told:
            parse_training("clm", [*base, *words])
        (problem,) = told.value.problems
        assert str(problem.flag).endswith(flag) and problem.text == "has no effect without --push_to_hub"


def test_values_of_then_are_those_of_today(base: list[str], tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"optim": "adamw_hf"}')
    for words, label in ((["--optim", "adamw_hf"], "--optim"), (["--config", str(tmp_path / "old.json")], "old.json")):
        resolved = parse_training("clm", [*base, *words])
        assert resolved.training["optim"] == "adamw_torch"
        assert label in resolved.notes[0] and "adamw_hf is now written --optim adamw_torch" in resolved.notes[0]


def test_options_of_trl(base: list[str]) -> None:
    pairs = parse_training("sft", [*base, "--completion_only_loss", "--assistant_only_loss", "--padding_free"]).pairs
    assert (pairs.objective, pairs.chat_turns) == ("clm", "all")
    assert parse_training("sft", [*base, "--completion_only_loss", "False"]).pairs.objective == "jlm"
    assert parse_training("sft", [*base, "--assistant_only_loss", "False"]).pairs.chat_turns == "last"
    assert parse_training("clm", [*base, "--dataset_text_field", "body"]).data.text_column == "body"
    with pytest.raises(UserError, match=r"--eos_token: .*the end of a text is the tokenizer's own"):
        parse_training("sft", [*base, "--eos_token", "<|im_end|>"])


def test_renamed_script_options(base: list[str]) -> None:
    resolved = parse_training("mlm", [*base, "--whole_word_mask", "--use_slow_tokenizer", "--max_val_samples", "9"])
    assert resolved.masking.mask_whole_words is True
    assert resolved.model.use_fast_tokenizer is False
    assert resolved.data.max_eval_samples == 9
    assert parse_training("clm", [*base, "--use_auth_token", "hf_x"]).model.token == "hf_x"
    assert parse_training("clm", [*base[:2], "--train_data_file", base[3], *base[4:]]).data.train_file == [base[3]]


@pytest.mark.parametrize(
    ("words", "token"),
    [
        (["--use_auth_token"], None),
        (["--use_auth_token", "true"], None),
        (["--use_auth_token=False"], None),
        (["--use-auth-token", "hf_x"], "hf_x"),
        (["--config", '{"use_auth_token": true}'], None),
        (["--config", '{"use_auth_token": false}'], None),
        (["--config", '{"use_auth_token": null}'], None),
        (["--config", '{"use_auth_token": "hf_x"}'], "hf_x"),
    ],
)
def test_the_earlier_switch_of_a_token(base: list[str], words: list[str], token: str | None, tmp_path: Path) -> None:
    """In earlier scripts it is a switch, which means the stored login; some took the token itself."""
    if words[0] == "--config":
        (tmp_path / "run.json").write_text(words[1])
        words = ["--config", str(tmp_path / "run.json")]
    resolved = parse_training("clm", [*words, *base])
    assert resolved.model.token == token
    assert all("hf_x" not in note for note in resolved.notes)


def test_the_earlier_switch_of_a_token_beside_words_without_a_flag(tmp_path: Path) -> None:
    model = ["--model_name_or_path", "m"]
    for behind, token, prompts in ((["hf_x", "It"], "hf_x", ["It"]), (["true", "It"], None, ["It"])):
        options = parse_command("generate", [*model, "--use_auth_token", *behind])
        assert (options.token, options.prompt) == (token, prompts)
    push = parse_command("push", ["runs/mine", "--use_auth_token", "hf_x", "--hub_model_id", "me/m"])
    assert (push.folder, push.hub_token) == ("runs/mine", "hf_x")
    (tmp_path / "run.json").write_text('{"block_size": 8}')
    text = tmp_path / "a.txt"
    text.write_text("text")
    words = [*model, "--train_file", str(text), "--output_dir", "x", "--use_auth_token", str(tmp_path / "run.json")]
    resolved = parse_training("clm", words)
    assert resolved.model.token is None and resolved.data.block_size == 8


def test_the_folder_of_tensorboard_goes_into_the_environment(base: list[str]) -> None:
    parsed = parse("clm", [*base, "--logging_dir", "tb", "--report_to", "tensorboard"])
    assert parsed.environment == {"TENSORBOARD_LOGGING_DIR": "tb"}
    assert "logging_dir" not in parsed.options.training


@pytest.mark.parametrize(
    "words",
    [
        ["--save_safetensors"],
        ["--group_by_length", "false"],
        ["--fp16_opt_level", "O1"],
        ["--half_precision_backend", "auto"],
        ["--low_cpu_mem_usage"],
        ["--include_tokens_per_second", "true"],
        ["--torch_dtype", "float32"],
        ["--past_index", "-1"],
    ],
)
def test_names_no_longer_needed_are_passed_over_with_a_line(base: list[str], words: list[str]) -> None:
    resolved = parse_training("clm", [*base, *words])
    assert set(resolved.training) == {"output_dir"}
    assert len(resolved.notes) == 1 and resolved.notes[0].startswith(words[0])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--group_by_length"], "a function of the seed"),
        (["--save_safetensors", "false"], "safetensors"),
        (["--fp16_opt_level", "O2"], "--fp16"),
        (["--warmup_ratio", "1"], "--warmup_steps"),
        (["--warmup_ratio", "much"], "--warmup_steps"),
        (["--no_cuda", "perhaps"], "true or false"),
        (["--sharded_ddp", "simple"], "--fsdp"),
        (["--tpu_num_cores", "8"], "TPU"),
        (["--torch_dtype", "bfloat16"], "--precision bf16"),
        (["--mlm"], "lmtrain mlm"),
        (["--past_index", "2"], "hidden states"),
        (["--evaluation_strategy", "sometimes"], "no, steps, epoch"),
    ],
)
def test_what_has_no_equivalent_is_refused_with_todays_way(base: list[str], words: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_training("clm", [*base, *words])
    (problem,) = caught.value.problems
    assert problem.flag == words[0]
    assert said in problem.text


def test_an_old_token_is_not_repeated_in_the_notes(base: list[str]) -> None:
    resolved = parse_training("clm", [*base, "--push_to_hub", "--push_to_hub_token", "hf_secret"])
    assert resolved.training["hub_token"] == "hf_secret"
    assert not any("hf_secret" in note for note in resolved.notes)


def test_two_names_of_one_thing_that_differ(base: list[str]) -> None:
    with pytest.raises(UserError, match=r"--eval_strategy: says something else than --evaluation_strategy"):
        parse_training("clm", [*base, "--evaluation_strategy", "steps", "--eval_strategy", "epoch"])
    same = [*base, "--evaluation_strategy", "steps", "--eval_strategy", "steps"]
    assert parse_training("clm", same).training["eval_strategy"] == "steps"


@pytest.mark.parametrize(("older", "newer"), TWINS.items())
def test_either_name_of_a_twin_reaches_the_one_there_is(base: list[str], older: str, newer: str) -> None:
    words = ['{"use_reentrant": false}'] if older.endswith("kwargs") else []
    first = parse_training("clm", [*base, f"--{older}", *words]).training
    second = parse_training("clm", [*base, f"--{newer}", *words]).training
    assert first == second
    there = newer if newer in flag_table("clm").flags else older
    assert there in first
