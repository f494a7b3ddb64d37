"""``lmtrain generate`` as it is typed: what it prints, and what it says to wrong input."""

import io
import json
import subprocess
import sys

import pytest

from lmtrain.cli.main import main
from lmtrain.config.options import ModelOptions
from lmtrain.generate import Settings, complete
from lmtrain.models import load_model, load_tokenizer
from tiny_models import checkpoint, save_tokenizer


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return checkpoint("gpt2", tmp_path_factory.mktemp("gpt2") / "c")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return checkpoint("bert", tmp_path_factory.mktemp("bert") / "c")


def generate(capsys, *arguments):
    """Run the command; its exit code, standard output and standard error."""
    code = main(["generate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_completion_follows_its_prompt_and_only_results_go_to_standard_output(gpt2):
    """In a process of its own, because the library writes its warnings to the real standard error."""
    options = ["--model_name_or_path", gpt2, "--max-new-tokens", "9", "--use_cpu"]
    command = [sys.executable, "-m", "lmtrain", "generate", *options, "The quick fox"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    options = ModelOptions(model_name_or_path=gpt2)
    tokenizer = load_tokenizer(options)
    model = load_model(options, "clm", tokenizer).model
    [expected] = complete(model, tokenizer, ["The quick fox"], Settings(max_new_tokens=9), 48)
    assert result.stdout == f"The quick fox{expected.text}\n"
    assert all(line.startswith(("● ", " " * 13)) for line in result.stderr.splitlines())


def test_prompts_from_arguments_file_and_standard_input_in_json(capsys, monkeypatch, gpt2, tmp_path):
    (tmp_path / "prompts.txt").write_text("one é\n\ntwo\n", encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("first line\nsecond line\n"))
    code, out, _ = generate(
        capsys, "--model_name_or_path", gpt2, "--prompts_file", tmp_path / "prompts.txt", "--greedy",
        "--json", "--max_new_tokens", 5, "given", "-",
    )  # fmt: skip
    found = records(out)
    assert code == 0
    assert [r["prompt"] for r in found] == ["given", "first line\nsecond line", "one é", "two"]
    assert [r["index"] for r in found] == [0, 1, 2, 3]
    assert all(r["tokens"] == 5 and not r["finished"] and isinstance(r["completion"], str) for r in found)


def test_several_completions_are_told_apart(capsys, gpt2):
    arguments = (
        "--model_name_or_path",
        gpt2,
        "--num_return_sequences",
        2,
        "--max_new_tokens",
        6,
        "The",
        "A fox",
    )
    code, out, _ = generate(capsys, *arguments)
    headings = [line for line in out.splitlines() if line.startswith("── ")]
    assert code == 0 and [h.split(" ─")[0] for h in headings] == [
        f"── prompt {prompt}, completion {sample}" for prompt in (1, 2) for sample in (1, 2)
    ]
    assert generate(capsys, *arguments)[1] == out  # the seed decides
    assert generate(capsys, *arguments, "--seed", 7)[1] != out


def test_without_a_prompt_it_writes_from_nothing(capsys, gpt2):
    code, out, _ = generate(capsys, "--model_name_or_path", gpt2, "--json", "--max_new_tokens", 4)
    assert code == 0 and [r["prompt"] for r in records(out)] == [""]


def test_a_masked_model_ranks_fillings(capsys, bert):
    text = "the [MASK] fox and the [MASK]"
    code, out, _ = generate(capsys, "--model_name_or_path", bert, "--top", 3, "--json", text)
    [record] = records(out)
    assert code == 0 and record["text"] == text and len(record["masks"]) == 2
    for candidates in record["masks"]:
        probabilities = [c["probability"] for c in candidates]
        assert len(candidates) == 3 and probabilities == sorted(probabilities, reverse=True)
    _, page, _ = generate(capsys, "--model_name_or_path", bert, "--top", 3, text)
    lines = page.splitlines()
    assert lines[0] == text and [line.strip() for line in lines if "mask" in line and "%" not in line] == [
        "mask 1", "mask 2",
    ]  # fmt: skip
    best = record["masks"][0][0]
    assert lines[2].split() == [f"{best['probability']:.2%}", best["token"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "--model_name_or_path"),
        (["--model_name_or_path", "{tmp}/nowhere", "x"], "no such folder"),
        (["--model_name_or_path", "{tmp}", "x"], "no config.json"),
        (["--model_name_or_path", "{bert}", "no gap"], "write [MASK] where"),
        (["--model_name_or_path", "{bert}"], "give a text with a mask"),
        (["--model_name_or_path", "{gpt2}", "a fox " * 60], "leaves no room in the model's 48 positions"),
        (["--model_name_or_path", "{gpt2}", "--prompts_file", "{tmp}/none"], "No such file"),
        (["--model_name_or_path", "{gpt2}", "--prompts_file", "{tmp}/blank"], "holds no prompt"),
        (["--model_name_or_path", "{gpt2}", "--prompts_file", "{tmp}/latin1"], "not UTF-8 (at byte 2)"),
        (["--model_name_or_path", "{gpt2}", "--num_beams", "2", "x"], "--greedy"),
        (
            ["--model_name_or_path", "{gpt2}", "--tokenizer_name", "{tokenizer}", "[MASK] a"],
            "--tokenizer_name",
        ),
    ],
)
def test_wrong_input_is_one_message_and_exit_code_2(capsys, gpt2, bert, tmp_path, arguments, words):
    (tmp_path / "blank").write_text("\n  \n")
    (tmp_path / "latin1").write_bytes("na\xefve".encode("latin-1"))
    places = {"tmp": tmp_path, "gpt2": gpt2, "bert": bert, "tokenizer": ""}
    if "{tokenizer}" in arguments:
        places["tokenizer"] = save_tokenizer(tmp_path / "t", "bert") + "/no.txt"
    code, out, err = generate(capsys, *(argument.format(**places) for argument in arguments))
    assert code == 2 and out == "" and words in err and "Traceback" not in err
