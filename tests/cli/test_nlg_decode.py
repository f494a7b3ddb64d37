"""``lmtrain nlg decode`` as it is typed: the file that it writes, and what it says to wrong input."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest

import tiny
from forked import Forked
from lmtrain.cli.main import main
from lmtrain.core.console import silent
from lmtrain.core.errors import ExitCode
from lmtrain.generate import beam_search
from lmtrain.recipes.data_to_text import decoding

STOPS = [3, 9, 27]
WORDS = ["--num_beams", 4, "--max_new_tokens", 8, "--stop_token_ids", *STOPS]


def expected(model, contexts):
    return beam_search(model, contexts, num_beams=4, max_new_tokens=8, stop_ids=STOPS, eos_token_id=0)


@pytest.fixture(scope="module")
def model():
    return tiny.gpt2(seed=2)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    model.save_pretrained(path)
    return path


@pytest.fixture
def inputs(tmp_path):
    """Five lines, the second and the fourth with the same context, as E2E has one for each of its references."""
    contexts = tiny.rows(4, shortest=3, longest=12, seed=4)
    contexts.insert(3, contexts[1])
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"context": row, "completion": [1, 2]}) + "\n" for row in contexts))
    return contexts, path


def decode(capsys, *words):
    """Run the command; its exit code, standard output and standard error."""
    code = main(["nlg", "decode", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_gets_its_prediction(capsys, model, folder, inputs, tmp_path):
    contexts, path = inputs
    out = tmp_path / "deep" / "out.jsonl"
    code, printed, said = decode(capsys, "--model", folder, "--input", path, "--output", out, *WORDS, "--use_cpu")
    assert (code, printed) == (0, f"{out}\n")
    results = expected(model, contexts)
    assert lines(out) == [{"id": number, "predict": row} for number, row in enumerate(results)]
    assert "5 inputs, 4 of them distinct" in said and "decoded" in said
    assert [file.name for file in out.parent.iterdir()] == ["out.jsonl"]


def test_the_originals_padding_and_the_figures_as_json(capsys, model, folder, inputs, tmp_path):
    contexts, path = inputs
    out = tmp_path / "out.jsonl"
    code, printed, _ = decode(
        capsys, "--model", folder, "--input", path, "--output", out, *WORDS, "--use_cpu", "--pad_predictions", "--json",
        "--batch_size", 2, "--max_context_length", 100,
    )  # fmt: skip
    results = expected(model, contexts)
    assert [row["predict"] for row in lines(out)] == [row + [0] * (8 - len(row)) for row in results]
    figures = json.loads(printed)
    unfinished = sum(row[-1] not in (*STOPS, 0) for row in results)
    assert code == 0 and 0 < unfinished < 5
    assert {key: figures[key] for key in ("inputs", "distinct", "skipped", "truncated", "unfinished")} == {
        "inputs": 5, "distinct": 4, "skipped": 0, "truncated": 0, "unfinished": unfinished,
    }  # fmt: skip


@pytest.mark.parametrize(("limit", "room"), [([], 32), (["--max_context_length", 10], 10)])
def test_inputs_without_room_keep_their_ends_or_are_left_out_or_stop_it(capsys, model, folder, tmp_path, limit, room):
    contexts = [[5, 6, 7], *tiny.rows(1, shortest=38, longest=38), [8] * room]
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(json.dumps({"context": row}) for row in contexts) + "\n\n")
    words = ["--model", folder, "--input", path, "--output", out, *WORDS, *limit, "--use_cpu", "--overwrite_output"]
    code, _, said = decode(capsys, *words)
    cut = [contexts[0], contexts[1][-room:], contexts[2]]
    assert code == 0 and f"1 input of 3 longer than the {room} tokens" in said
    assert [row["predict"] for row in lines(out)] == expected(model, cut)
    code, _, said = decode(capsys, *words, "--on_long", "skip")
    assert code == 0 and "left out" in said
    assert [row["id"] for row in lines(out)] == [0, 2]
    before = out.read_bytes()
    code, _, said = decode(capsys, *words, "--on_long", "error")
    assert code == 2 and "the longest has 38; the first is number 1" in said
    assert out.read_bytes() == before


def test_stop_ids_are_gpt2s_only_with_its_vocabulary(capsys, model, folder, inputs, tmp_path):
    contexts, path = inputs
    out = tmp_path / "out.jsonl"
    words = ["--model", folder, "--input", path, "--output", out, "--max_new_tokens", 8, "--num_beams", 3, "--use_cpu"]
    words.append("--overwrite_output")
    for more in ([], ["--stop_token_ids", "none"]):
        assert decode(capsys, *words, *more)[0] == 0
        found = [row["predict"] for row in lines(out)]
        assert found == beam_search(model, contexts, num_beams=3, max_new_tokens=8, stop_ids=(), eos_token_id=0)
    assert decode(capsys, *words, "--eos_token_id", 9)[0] == 0
    found = [row["predict"] for row in lines(out)]
    assert found == beam_search(model, contexts, num_beams=3, max_new_tokens=8, stop_ids=(), eos_token_id=9)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('{"context": [5', "in.jsonl:2: not JSON (Expecting ',' delimiter at character "),
        ('{"prompt": [5]}', 'in.jsonl:2: no record with a "context"'),
        ("[5, 6]", 'in.jsonl:2: no record with a "context"'),
        ('{"context": "name : x"}', "is text; token ids are wanted"),
        ('{"context": [5, 1.5]}', "no list of token ids"),
        ('{"context": [true]}', "no list of token ids"),
        ('{"context": []}', "is empty"),
        ('{"context": [5, 67]}', "the id 67 in number 1 (counted from 0), of 67 tokens"),
        ('{"context": [-2, 6]}', "the id -2 in number 1"),
    ],
)
def test_a_bad_line_is_named(capsys, folder, tmp_path, line, text):
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"context": [5]}}\n{line}\n{{"context": [6]}}\n')
    words = ["--model", folder, "--input", path, "--output", tmp_path / "out.jsonl", "--use_cpu", *WORDS]
    code, printed, said = decode(capsys, *words)
    assert (code, printed) == (2, "") and text in said and "Traceback" not in said
    assert not (tmp_path / "out.jsonl").exists()


def test_many_bad_lines_are_counted(capsys, folder, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x\n" * 8 + b'{"context": "\xff"}\n')
    code, _, said = decode(capsys, "--model", folder, "--input", path, "--output", tmp_path / "o.jsonl")
    assert code == 2 and "in.jsonl:5:" in said and "in.jsonl:6:" not in said and "and 4 more such lines" in said


def test_all_that_is_missing_is_said_at_once(capsys, tmp_path):
    code, _, said = decode(capsys)
    assert code == 2 and "3 things" in said
    assert all(flag in said for flag in ("--input", "--output", "--model_name_or_path"))
    (tmp_path / "file").write_text("x")
    code, _, said = decode(
        capsys, "--model", tmp_path / "no-such-model", "--input", tmp_path / "none.jsonl",
        "--output", tmp_path / "file" / "out.jsonl", "--stop_token_ids", "eos",
    )  # fmt: skip
    assert code == 2 and "No such file" in said and "cannot be written" in said and "'eos' is not a token id" in said


def test_a_model_that_is_not_there_is_named(capsys, inputs, tmp_path):
    missing = tmp_path / "no-such-model"
    code, _, said = decode(capsys, "--model", missing, "--input", inputs[1], "--output", tmp_path / "o.jsonl")
    assert code == 2 and str(missing) in said and "Traceback" not in said


def test_no_room_for_an_input_is_said(capsys, folder, inputs, tmp_path):
    words = ["--model", folder, "--input", inputs[1], "--output", tmp_path / "o.jsonl", "--max_new_tokens", 40]
    code, _, said = decode(capsys, *words)
    assert code == 2 and "leave no room for an input in the model's 40 positions" in said


def test_a_broken_model_is_said_to_be_one(capsys, inputs, tmp_path):
    broken = tiny.gpt2()
    broken.transformer.ln_f.weight.data.fill_(float("nan"))
    broken.save_pretrained(tmp_path / "m")
    words = ["--model", tmp_path / "m", "--input", inputs[1], "--output", tmp_path / "o.jsonl", "--use_cpu"]
    code, _, said = decode(capsys, *words, *WORDS)
    assert code == 2 and "not numbers (nan) after 5 inputs" in said and not (tmp_path / "o.jsonl").exists()


# ---- what is there already, and what is there in part ----------------------------------------------


def test_results_are_not_written_over_unless_it_is_said(capsys, folder, inputs, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("of another day\n")
    words = ["--model", folder, "--input", inputs[1], "--output", out, *WORDS, "--use_cpu"]
    code, printed, said = decode(capsys, *words)
    assert (code, printed) == (2, "") and "is there already" in said and "--overwrite_output" in said
    assert out.read_text() == "of another day\n"
    assert decode(capsys, *words, "--overwrite_output")[0] == 0 and len(lines(out)) == 5


def searched(model, contexts, target, stop_after=None, beams=4):
    """As the command decodes; asked to stop when so many distinct inputs are done."""

    def on_progress(done, everything):
        if done == stop_after:
            raise KeyboardInterrupt

    search = decoding.Search(beams, 0.8, 4, 8)
    return decoding.decode(
        model, dict(enumerate(contexts)), search, target, ends=[*STOPS, 0], use_cpu=True, say=silent,
        on_progress=on_progress,
    )  # fmt: skip


def test_one_that_is_stopped_goes_on_with_what_it_has(model, inputs, tmp_path, monkeypatch):
    contexts, target, begun = inputs[0], tmp_path / "out.jsonl", tmp_path / ".out.jsonl.unfinished"
    with pytest.raises(KeyboardInterrupt):
        searched(model, contexts, target, stop_after=2)
    assert not target.exists() and len(begun.read_text().splitlines()) == 3
    with begun.open("a") as stream:
        stream.write('{"id": 3, "predi')  # killed while it wrote
    kept = begun.read_text()
    asked = []
    search = decoding.beam_search
    monkeypatch.setattr(
        decoding, "beam_search", lambda model, rows, **more: asked.append(len(rows)) or search(model, rows, **more)
    )
    done = searched(model, contexts, target)
    assert asked == [2] and (done.distinct, done.known) == (4, 2)
    assert [row["predict"] for row in lines(target)] == expected(model, contexts)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out.jsonl"]
    other = [[5, 6], *contexts[1:]]
    for changed in ({"beams": 3}, {"contexts": other}, {"model": tiny.gpt2(seed=7)}):
        begun.write_text(kept)
        given = {"model": model, "contexts": contexts, "target": target, **changed}
        assert searched(**given).known == 0, "it is of something else"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_a_signal_to_the_command_and_the_same_command_again(capsys, folder, model, tmp_path):
    contexts = tiny.rows(300, shortest=3, longest=12, seed=4)  # seconds, so that the signal does not come too late
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text("".join(json.dumps({"context": row}) + "\n" for row in contexts))
    words = ["nlg", "decode", "--model", folder, "--input", path, "--output", out, *WORDS, "--use_cpu"]
    words = [*map(str, words), "--batch_size", "4"]
    begun = tmp_path / ".out.jsonl.unfinished"
    process = Forked(["-m", "lmtrain", *words], env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    until = time.monotonic() + 120
    while not (begun.is_file() and begun.read_text().count("\n") > 20):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == ExitCode.INTERRUPTED and "the same command goes on" in said and not out.exists()
    assert main(words) == 0
    assert "were done before" in capsys.readouterr().err
    straight = tmp_path / "straight.jsonl"
    assert main([str(straight) if word == str(out) else word for word in words]) == 0
    assert out.read_bytes() == straight.read_bytes()
    assert [row["predict"] for row in lines(out)[:100]] == expected(model, contexts[:100])
