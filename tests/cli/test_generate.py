"""``lmtrain generate`` as it is typed: what it prints, and what it says to wrong input."""

import io
import json
import os
import re
import shutil

import pytest

import forked
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
    result = forked.run(["-m", "lmtrain", "generate", *options, "The quick fox"])
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


def test_streamed_or_not_the_same_is_printed(capsys, gpt2):
    for arguments in (["The fox"], ["The fox", "a", "--num_return_sequences", 2], ["a dog", "--stop", "o", "\\n"]):
        command = ("--model_name_or_path", gpt2, "--max_new_tokens", 7, *arguments)
        plain = generate(capsys, *command)
        assert generate(capsys, *command, "--stream") == plain and plain[0] == 0


def test_output_is_jsonl_written_whole_or_not_at_all(capsys, gpt2, tmp_path):
    out = tmp_path / "new" / "out.jsonl"
    arguments = ("--model_name_or_path", gpt2, "--max_new_tokens", 5, "--logprobs", 2, "The fox", "é")
    code, printed, said = generate(capsys, *arguments, "--output", out)
    assert code == 0 and printed == "" and f"2 records · {out}" in said
    assert out.read_text(encoding="utf-8") == generate(capsys, *arguments, "--json")[1]
    for record in records(out.read_text(encoding="utf-8")):
        assert len(record["logprobs"]) == record["tokens"]
        assert all(token["logprob"] <= token["top"][0]["logprob"] <= 0 for token in record["logprobs"])
        assert all(len(token["top"]) == 2 for token in record["logprobs"])
    assert [path.name for path in out.parent.iterdir()] == ["out.jsonl"]
    before = out.read_bytes()
    others = [out.with_name(f"out.jsonl{ending}") for ending in (".trial", ".tmp", ".new")]
    for other in others:
        other.write_text("precious")
    assert generate(capsys, *arguments, "a fox " * 60, "--output", out)[0] == 2 and out.read_bytes() == before
    assert generate(capsys, *arguments, "--output", out)[0] == 0
    assert [other.read_text() for other in others] == ["precious"] * 3 and len(list(out.parent.iterdir())) == 4
    (tmp_path / "p.txt").write_text("The fox\n")
    (tmp_path / "link").symlink_to(tmp_path / "p.txt")
    both = ("--model_name_or_path", gpt2, "--prompts_file", tmp_path / "p.txt", "--output", tmp_path / "link")
    code, _, said = generate(capsys, *both)
    assert code == 2 and "--output" in said and "is the input too" in said
    os.mkfifo(tmp_path / "pipe")
    code, _, said = generate(capsys, *arguments, "--output", tmp_path / "pipe")
    assert code == 2 and "--output" in said and "is no ordinary file" in said


def test_a_stop_string_ends_a_completion_and_is_named(capsys, gpt2):
    arguments = ("--model_name_or_path", gpt2, "--greedy", "--max_new_tokens", 9, "--json", "The fox")
    [free] = records(generate(capsys, *arguments)[1])
    stop = free["completion"][3:5]
    [found] = records(generate(capsys, *arguments, "--stop", "zzz", stop)[1])
    assert (found["stop"], found["finished"]) == (stop, True) and (free["stop"], free["finished"]) == (None, False)
    assert found["completion"] == free["completion"][: free["completion"].index(stop)]


def test_beams_by_their_options(capsys, gpt2):
    beams = ("--greedy", "--num_beams", 3, "--num_return_sequences", 2, "--length_penalty", 0.5, "--early_stopping")
    arguments = ("--model_name_or_path", gpt2, "--json", "--max_new_tokens", 6, "--no_repeat_ngram_size", 2, "The fox")
    for early in ("true", "never"):
        found = records(generate(capsys, *arguments, *beams, early)[1])
        assert [r["sample"] for r in found] == [0, 1] and found[0]["completion"] != found[1]["completion"]


def test_prompts_of_a_jsonl_file(capsys, gpt2, tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "two\nlines", "id": 7}) + "\n")
    arguments = ("--model_name_or_path", gpt2, "--json", "--max_new_tokens", 2, "--prompts_file", tmp_path / "p.jsonl")
    assert [r["prompt"] for r in records(generate(capsys, *arguments)[1])] == ["two\nlines"]


def test_a_chat_is_written_out_by_the_template(capsys, gpt2, tmp_path):
    folder = tmp_path / "chat"
    shutil.copytree(gpt2, folder)
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %} <a>{% endif %}"
    (folder / "chat_template.jinja").write_text(template)
    arguments = ("--greedy", "--max_new_tokens", 6, "--json", "--model_name_or_path")
    [chat] = records(generate(capsys, *arguments, folder, "--chat", "The fox")[1])
    [text] = records(generate(capsys, *arguments, folder, "<user> The fox <a>")[1])
    assert chat["completion"] == text["completion"] and chat["prompt"] == "The fox"
    code, _, said = generate(capsys, *arguments, gpt2, "--chat", "The fox")
    assert code == 2 and "--chat" in said and "no chat template" in said


def test_a_session_of_a_masked_model(capsys, monkeypatch, bert):
    monkeypatch.setattr("sys.stdin", io.StringIO("a [MASK] fox\nno gap\n[MASK] dog\n"))
    code, out, said = generate(capsys, "--model_name_or_path", bert, "--interactive", "--json", "--top", 2)
    assert code == 0 and [r["text"] for r in records(out)] == ["a [MASK] fox", "[MASK] dog"]
    assert "nothing to fill in 'no gap'" in said


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


def test_a_masked_model_ignores_no_option_in_silence(capsys, bert):
    writing = {
        "--max_new_tokens": 9, "--temperature": 0.5, "--top_k": 3, "--top_p": 0.9, "--min_p": 0.1, "--num_beams": 2,
        "--num_return_sequences": 2, "--length_penalty": 2, "--early_stopping": "never", "--repetition_penalty": 2,
        "--no_repeat_ngram_size": 2, "--logprobs": 1,
    }  # fmt: skip
    words = [word for pair in writing.items() for word in pair]
    code, _, said = generate(capsys, "--model_name_or_path", bert, "[MASK]", *words, "--greedy", "--chat", "--json")
    assert code == 2 and f"{len(writing) + 2} things to change" in said
    for flag in (*writing, "--greedy", "--chat"):
        assert re.search(rf"{flag} +is for causal models", said), flag
    assert generate(capsys, "--model_name_or_path", bert, "[MASK]", "--seed", 7)[0] == 0


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
        (["--model_name_or_path", "{gpt2}", "x", "a fox " * 60], "prompt 2 ('a fox a fox"),
        (["--model_name_or_path", "{gpt2}", "a\udcff"], "is not UTF-8 (at character 2)"),
        (["--model_name_or_path", "{bert}", "[MASK]\udcff"], "is not UTF-8 (at character 7)"),
        (["--model_name_or_path", "{bert}", "[MASK] " * 60], "prompt 1 ('[MASK] [MASK]"),
        (["--model_name_or_path", "{bert}", "--stream", "[MASK]"], "this is a masked one"),
        (["--model_name_or_path", "{bert}", "[MASK]", "--stop", "a"], "this is a masked one"),
        (["--model_name_or_path", "{bert}", "[MASK]", "--greedy"], "--greedy"),
        (["--model_name_or_path", "{gpt2}", "x", "--top", "3"], "--num_return_sequences"),
        (["--model_name_or_path", "{gpt2}", "--stop", "a", "b"], "put the prompts first"),
        (["--model_name_or_path", "{gpt2}", "x", "--stop", ""], "would end a completion before it begins"),
        (["--model_name_or_path", "{gpt2}", "x", "--logprobs", "2"], "add --json or --output FILE"),
        (["--model_name_or_path", "{gpt2}", "x", "--length_penalty", "2"], "--greedy --num_beams 4"),
        (["--model_name_or_path", "{gpt2}", "x", "--early_stopping", "never"], "--greedy --num_beams 4"),
        (["--model_name_or_path", "{gpt2}", "x", "--interactive"], "asks for prompts itself"),
        (["--model_name_or_path", "{gpt2}", "--interactive", "--output", "{tmp}/o"], "known beforehand"),
        (["--model_name_or_path", "{gpt2}", "x", "--stream", "--json"], "give one of them"),
        (["--model_name_or_path", "{gpt2}", "x", "--stream", "--greedy", "--num_beams", "2"], "nothing is certain"),
        (["--model_name_or_path", "{gpt2}", "-", "--prompts_file", "-"], "read once"),
        (["--model_name_or_path", "{gpt2}", "x", "--output", "{tmp}"], "is a folder"),
        (["--model_name_or_path", "{gpt2}", "x", "--output", "{tmp}/blank/o"], "cannot be written"),
        (["--model_name_or_path", "{gpt2}", "x", "--min_p", "1.5"], "--min_p"),
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
