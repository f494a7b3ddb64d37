"""Data-to-text files through the commands: a corpus' own file to records to ids to examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from world import World

from lmtrain.cli.main import main
from lmtrain.config.options import DataOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.data.pairs import prepare_pairs
from lmtrain.data.tokenizer_files import TokenizerFiles

LINES = "name : Aroma||Aroma is here .\nname : Aroma||Here is Aroma .\nname : Zizzi||Zizzi is there .\n"


def test_from_a_corpus_to_examples(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, records, ids = (str(tmp_path / name) for name in ("train.txt", "train.jsonl", "ids.jsonl"))
    Path(source).write_text(LINES)
    assert main(["nlg", "convert", "e2e", source, records]) == 0
    told = capsys.readouterr()
    assert told.out == f"{records}\n" and "3 texts for 2 inputs" in told.err
    assert main(["nlg", "encode", records, ids, "--tokenizer_name", world.gpt2, "--add_bos", "--add_eos"]) == 0
    assert capsys.readouterr().out == f"{ids}\n"

    tokenizer = TokenizerFiles.load(world.gpt2)
    examples = {}
    for name in (records, ids):
        data = DataOptions(train_file=[name], validation_split_percentage=0.0)
        corpus = prepare_pairs(data, PairOptions(add_bos=name == records), tokenizer, length=64)
        examples[name] = corpus.splits["train"].__getitems__([0, 1, 2])
    assert examples[records].ids.tolist() == examples[ids].ids.tolist(), "encoded here or before"
    decoded = tokenizer.backend.decode(examples[ids].ids[1][: examples[ids].lengths[1]].tolist())
    assert decoded.replace("<|endoftext|>", "") == "name : Aroma Here is Aroma ."
    answers = [examples[name].answer for name in (records, ids)]
    assert answers[0] is not None and answers[1] is not None
    assert (answers[0].sum(1) == answers[1].sum(1)).all()


def test_what_is_missing_or_wrong(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("a||b\nc\n")
    assert main(["nlg", "convert", "e2e", str(wrong), str(tmp_path / "out")]) == 2
    assert f"{wrong}:2: no '||'" in capsys.readouterr().err
    assert main(["nlg", "convert", "e2e", str(wrong), str(wrong)]) == 2
    assert "--output" in capsys.readouterr().err and wrong.read_text() == "a||b\nc\n"
    assert main(["nlg", "convert"]) == 2
    said = capsys.readouterr().err
    assert all(flag in said for flag in ("--format", "--input", "--output"))
    assert main(["nlg", "encode", str(wrong), str(tmp_path / "out"), "--tokenizer_name", world.gpt2]) == 2
    assert f"{wrong}:1: broken JSON" in capsys.readouterr().err
    (tmp_path / "r").write_text(json.dumps({"context": "a", "completion": "b"}))
    assert main(["nlg", "encode", str(tmp_path / "r"), str(tmp_path / "out")]) == 2
    assert "--tokenizer_name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
