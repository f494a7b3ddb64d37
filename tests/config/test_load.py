"""Defaults < file < flags; a file's mistakes are named with the file; what is saved is read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmtrain.cli.arguments import parse
from lmtrain.config.save import as_dict
from lmtrain.core.errors import UserError
from parsing import parse_command, parse_training

YAML = "model_name_or_path: m\ntrain_file: {text}\noutput_dir: {folder}\nlearning-rate: 1e-4\nblock_size: 64\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("text", encoding="utf-8")
    return path


def _write(path: Path, text: Path, kind: str) -> Path:
    values = {
        "model_name_or_path": "m",
        "train_file": str(text),
        "output_dir": str(path),
        "learning_rate": 1e-4,
    }
    file = path / f"run.{kind}"
    if kind == "json":
        file.write_text(json.dumps({**values, "block_size": 64}), encoding="utf-8")
    elif kind == "toml":
        lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        file.write_text("\n".join([*lines, "block-size = 64"]), encoding="utf-8")
    else:
        file.write_text(YAML.format(text=text, folder=path), encoding="utf-8")
    return file


@pytest.mark.parametrize("kind", ["json", "yaml", "yml", "toml"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, text: Path, kind: str) -> None:
    resolved = parse_training("clm", ["--config", str(_write(tmp_path, text, kind))])
    assert resolved.model.model_name_or_path == "m"
    assert resolved.data.train_file == [str(text)]
    assert resolved.data.block_size == 64
    assert resolved.training == {"output_dir": str(tmp_path), "learning_rate": 1e-4}
    assert resolved.given == {"model_name_or_path", "train_file", "block_size", "output_dir", "learning_rate"}


def test_flags_win_over_the_file(tmp_path: Path, text: Path) -> None:
    file = str(_write(tmp_path, text, "json"))
    for words in (["--config", file, "--block_size", "32"], ["--block_size=32", f"--config={file}"]):
        resolved = parse_training("clm", words)
        assert resolved.data.block_size == 32
        assert resolved.training["learning_rate"] == 1e-4
        assert resolved.data.append_eos is True  # a default


def test_a_json_file_alone_is_the_whole_configuration(tmp_path: Path, text: Path) -> None:
    file = str(_write(tmp_path, text, "json"))
    assert parse_training("clm", [file]).data.block_size == 64
    assert parse_training("clm", [file, "--block_size", "32"]).data.block_size == 32
    assert parse_training("clm", ["--block_size", "32", file]).data.block_size == 32
    assert parse_training("clm", ["--do_train", file]).data.block_size == 64
    Path(file).write_bytes(b"\xef\xbb\xbf" + Path(file).read_bytes())  # as Notepad writes it
    assert parse_training("clm", [file]).data.block_size == 64


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"block_size": 64,}', "not valid JSON"),
        ("a.yaml", "block_size: [1", "not valid YAML"),
        ("a.toml", "block_size 64", "not valid TOML"),
        ("a.json", "[1, 2]", "a table of option names"),
        ("a.ini", "block_size=64", "should end in"),
        ("a.json", None, "no such file"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse("clm", ["--config", str(file)])
    (problem,) = caught.value.problems  # and not all that the file might have said
    assert problem.flag == "--config"
    assert said in problem.text and name in problem.text


def test_no_file_at_all(tmp_path: Path) -> None:
    for words, said in (
        (["--config"], "needs a file"),
        (["--config", str(tmp_path)], "cannot be read: Is a directory"),
    ):
        with pytest.raises(UserError, match=said):
            parse("clm", words)


def test_mistakes_in_a_file_are_named_with_the_file(tmp_path: Path, text: Path) -> None:
    file = tmp_path / "run.json"
    values = {
        "model_name_or_path": "m",
        "train_file": str(text),
        "output_dir": "o",
        "blok_size": 64,
        "seed": "x",
        "auto_find_batch_size": True,
        "evaluation_strategy": "often",
    }
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        parse("clm", [str(file)])
    said = {problem.flag: problem.text for problem in caught.value.problems}
    wrong = ("blok_size", "seed", "auto_find_batch_size", "evaluation_strategy")
    assert set(said) == {f"{file}: {name}" for name in wrong}
    assert "did you mean --block_size?" in said[f"{file}: blok_size"]


def test_old_names_and_nulls_in_a_file(tmp_path: Path, text: Path) -> None:
    file = tmp_path / "run.json"
    values = {
        "model_name_or_path": "m",
        "train_file": [str(text)],
        "output_dir": "o",
        "no_cuda": True,
        "warmup_ratio": 0.1,
        "evaluation_strategy": "epoch",
        "block_size": None,
        "deepspeed": None,
        "adafactor": False,
    }
    file.write_text(json.dumps(values), encoding="utf-8")
    resolved = parse_training("clm", [str(file)])
    assert resolved.training["use_cpu"] is True
    assert resolved.training["warmup_steps"] == 0.1
    assert resolved.training["eval_strategy"] == "epoch"
    assert "optim" not in resolved.training
    assert resolved.data.block_size is None


def test_what_is_saved_is_read_back(tmp_path: Path, text: Path) -> None:
    words = [
        "--model_type",
        "bert",
        "--tokenizer_name",
        "t",
        "--train_file",
        str(text),
        "--output_dir",
        "o",
        "--learning_rate",
        "3e-4",
        "--mlm_probability",
        "0.2",
        "--line_by_line",
        "--eval_strategy",
        "steps",
        "--lr_scheduler_kwargs",
        '{"a": 1}',
        "--report_to",
        "tensorboard",
        "wandb",
        "--no_drop_remainder",
        "--fsdp",
        "--max_steps",
        "7",
    ]
    resolved = parse_training("mlm", words)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(as_dict(resolved)), encoding="utf-8")
    again = parse_training("mlm", ["--config", str(file)])
    for part in ("model", "data", "masking", "run", "training"):
        assert getattr(again, part) == getattr(resolved, part)
    with pytest.raises(UserError, match="options of lmtrain mlm, not clm"):
        parse_training("clm", ["--config", str(file)])


def test_tokens_are_never_saved(text: Path) -> None:
    words = [
        "--model_name_or_path",
        "m",
        "--train_file",
        str(text),
        "--output_dir",
        "o",
        "--token",
        "hf_one",
        "--push_to_hub",
        "--hub_token",
        "hf_two",
    ]
    resolved = parse_training("clm", words)
    assert resolved.model.token == "hf_one" and resolved.training["hub_token"] == "hf_two"
    saved = json.dumps(as_dict(resolved))
    assert "hf_one" not in saved and "hf_two" not in saved
    options = parse_command("evaluate", ["--model_name_or_path", "m", "--test_file", str(text), "--token", "hf_one"])
    assert "hf_one" not in json.dumps(as_dict(options))


def test_subsumed_options_leave_a_line_and_nothing_else(text: Path) -> None:
    base = ["--model_name_or_path", "m", "--train_file", str(text), "--output_dir", "o"]
    resolved = parse_training("clm", [*base, "--label_names", "labels", "--local_rank", "0"])
    assert set(resolved.training) == {"output_dir"}
    assert len(resolved.notes) == 1 and resolved.notes[0].startswith("--label_names has no effect here.")
    # the library's own default changes nothing, and asks for no line
    assert parse_training("clm", [*base, "--prediction_loss_only", "false", "--ignore_data_skip", "false"]).notes == ()


def test_a_list_given_twice_is_one_list_and_two_names_are_not(tmp_path: Path, text: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("more")
    out = ["--output_dir", str(tmp_path / "tok")]
    both = ["--train_file", str(text), "--train-file", str(other)]
    assert parse_command("tokenizer", [*both, *out]).train_file == [str(text), str(other)]
    same = ["--train_file", str(text), "--source", str(text)]  # another name of it, and the same words
    assert parse_command("tokenizer", [*same, *out]).train_file == [str(text)]
    with pytest.raises(UserError, match="says something else than --train_file"):
        parse_command("tokenizer", ["--train_file", str(text), "--source", str(other), *out])


def test_words_that_yaml_takes_for_truths(tmp_path: Path, text: Path) -> None:
    file = tmp_path / "run.yaml"
    lines = [f"model_name_or_path: m\ntrain_file: {text}\noutput_dir: o", "compile: off", "background_save: on",
             "save_strategy: no", "evaluation_strategy: no"]  # fmt: skip
    file.write_text("\n".join([*lines, "packing: off"]))
    resolved = parse_training("clm", ["--config", str(file)])
    assert (resolved.run.compile, resolved.run.background_save, resolved.run.packing) == ("off", "on", False)
    assert (resolved.training["save_strategy"], resolved.training["eval_strategy"]) == ("no", "no")
    file.write_text("\n".join([*lines, "precision: off", "run_name: 7"]))
    with pytest.raises(UserError) as caught:
        parse_training("clm", ["--config", str(file)])
    said = [problem.text for problem in caught.value.problems]
    assert said == ["False is not one of auto, fp32, bf16, fp16", "7 is not a word; put it in quotes"]
