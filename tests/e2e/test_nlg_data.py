"""Data-to-text files through the commands: a corpus' own file to records to ids to examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from world import World

from lmtrain.cli.main import main
from lmtrain.config.options import DataOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.data.pairs import prepare_pairs
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.evaluate.nlg import in_paper_scale

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


def test_the_chain_by_files_is_the_recipe(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """convert, encode, train, decode, text and score, as they are typed one after the other; and training on texts."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no Java: METEOR's program takes ten seconds to begin
    monkeypatch.chdir(tmp_path)

    def run(line: str) -> str:
        assert main(line.split()) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    names = ("Aroma", "Zizzi", "Cocum", "Strada", "Wildwood")
    Path("train.txt").write_text("".join(f"name : {n}||{n} is {way} .\n" for n in names for way in ("here", "there")))
    Path("test.txt").write_text(LINES)
    model = f"--model {world.gpt2} --use_cpu"
    how = f"{model} --max_steps 6 --warmup_steps 1 --max_seq_length 40 --learning_rate 1e-2 --precision fp32"
    search = "--num_beams 2 --max_new_tokens 8"
    run(f"nlg e2e --train train.txt --test test.txt --output_dir whole --bootstrap 0 {how} {search}")

    for name in ("train", "test"):
        run(f"nlg convert e2e {name}.txt {name}.jsonl")
        run(f"nlg encode {name}.jsonl {name}.ids.jsonl --tokenizer_name {world.gpt2} --add_bos --add_eos")
    run(f"nlg train e2e --train train.ids.jsonl --output_dir run {how}")
    run(f"nlg decode --model run --input test.ids.jsonl --output predictions.jsonl --use_cpu {search}")
    texts = f"--records test.jsonl --tokenizer_name {world.gpt2} --output_dir texts"
    assert run(f"nlg text e2e --predictions predictions.jsonl {texts}") == "texts/hypotheses.txt\n"
    scored = "--predictions texts/hypotheses.txt --references texts/references.txt --json --bootstrap 0"
    scores = json.loads(run(f"nlg score e2e {scored}"))["scores"]

    recipe = Path("whole/seed-110")
    for name in ("hypotheses.txt", "references.txt"):
        assert Path("texts", name).read_bytes() == (recipe / name).read_bytes()
    known = json.loads((recipe / "scores.json").read_text())["all"]["scores"]
    assert {name: value and in_paper_scale("e2e", name, value) for name, value in scores.items()} == known
    assert known["BLEU"] is not None

    run(f"nlg train e2e --train train.jsonl --output_dir from-texts {how}")
    adapters = [load_file(Path(folder) / "adapter_model.safetensors") for folder in (recipe, "run", "from-texts")]
    for other in adapters[1:]:
        assert other.keys() == adapters[0].keys()
        assert all(torch.equal(other[name], value) for name, value in adapters[0].items())
    assert any(value.any() for name, value in adapters[0].items() if "lora_B" in name)


def test_what_is_missing_or_wrong(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("a||b\nc\n")
    assert main(["nlg", "convert", "e2e", str(wrong), str(tmp_path / "out")]) == 2
    assert f"{wrong}:2: no '||'" in capsys.readouterr().err
    wrong.write_text("a||b\n")
    (tmp_path / "link").symlink_to(wrong)
    for output in (wrong, f"{tmp_path}/./wrong.txt", tmp_path / "link"):
        assert main(["nlg", "convert", "e2e", str(wrong), str(output)]) == 2
        assert "is the input too" in capsys.readouterr().err and wrong.read_text() == "a||b\n"
    assert main(["nlg", "encode", str(wrong), f"{tmp_path}/./wrong.txt", "--tokenizer_name", world.gpt2]) == 2
    assert "is the input too" in capsys.readouterr().err
    wrong.write_text("a||b\nc\n")
    assert main(["nlg", "convert"]) == 2
    said = capsys.readouterr().err
    assert all(flag in said for flag in ("--format", "--input", "--output"))
    assert main(["nlg", "encode", str(wrong), str(tmp_path / "out"), "--tokenizer_name", world.gpt2]) == 2
    assert f"{wrong}:1: broken JSON" in capsys.readouterr().err
    (tmp_path / "r").write_text(json.dumps({"context": "a", "completion": "b"}))
    assert main(["nlg", "encode", str(tmp_path / "r"), str(tmp_path / "out")]) == 2
    assert "--tokenizer_name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
