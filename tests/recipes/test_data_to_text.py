"""E2E, WebNLG and DART from files to scores, in miniature; what is done is taken over."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from lmtrain.cli.main import main
from lmtrain.config.commands.nlg import NlgOptions, NlgTraining
from lmtrain.config.save import as_dict
from lmtrain.core.errors import Interrupted, UserError
from lmtrain.data.nlg.records import Record
from lmtrain.engine.trainer.stopping import StopWhenAsked
from lmtrain.models import save_model
from lmtrain.recipes.data_to_text import decoding, run
from lmtrain.recipes.data_to_text.data import first_of_each
from lmtrain.recipes.data_to_text.run import run_task
from lmtrain.recipes.flags import in_flags
from lmtrain.recipes.several_trainings import Trainings, look_at
from tiny_models import make

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FOOD, AREA = ("Chinese", "French", "Indian", "Thai"), ("riverside", "city centre")


def e2e(path: Path, names: list[str]) -> str:
    lines = []
    for name in names:
        for food in FOOD:
            for area in AREA:
                meaning = f"name : {name} | food : {food} | area : {area}"
                lines.append(f"{meaning}||{name} serves {food} food in the {area}.")
                if food == "Thai":
                    lines.append(f"{meaning}||In the {area}, {name} has {food} food.")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """METEOR starts a virtual machine for each scoring; tests/evaluate/nlg are about it."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    shape = "n_embd=32,n_layer=2,n_head=4,n_positions=160"
    trained, tokenizer = make("gpt2", folder, config_overrides=shape)
    save_model(trained, tokenizer, folder / "model")
    return str(folder / "model")


def options(tmp_path: Path, model: str, **changes: Any) -> NlgOptions:
    values: dict[str, Any] = {
        "task": "e2e",
        "train": e2e(tmp_path / "train.txt", ["Aroma", "Bibimbap House"]),
        "valid": None,
        "test": e2e(tmp_path / "test.txt", ["Clowns"]),
        "model_name_or_path": model,
        "output_dir": str(tmp_path / "out"),
        "max_steps": 4,
        "warmup_steps": 1,
        "max_seq_length": 96,
        "num_beams": 2,
        "max_new_tokens": 8,
        "max_test_inputs": 3,
        "bootstrap": 50,
        "use_cpu": True,
    }
    return NlgOptions(**{**values, **changes})


def test_every_stage_leaves_its_files_and_is_not_repeated(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(tmp_path, model)
    said: list[tuple[str, str]] = []
    found = run_task(asked, say=lambda topic, text: said.append((topic, text)))
    assert found.keys() == {110} and found[110].keys() == {"all"}
    scores = found[110]["all"]
    assert scores.inputs == 3 and scores.values["BLEU"] is not None and 0 <= scores.values["BLEU"] <= 100
    out = tmp_path / "out"
    records = [json.loads(line) for line in (out / "data/train.jsonl").read_text().splitlines()]
    assert records[0] == {
        "context": "name : Aroma | food : Chinese | area : riverside",
        "completion": "Aroma serves Chinese food in the riverside.",
    }
    assert set(json.loads((out / "data/train.ids.jsonl").read_text().splitlines()[0])) == {"context", "completion"}
    assert (out / "seed-110/adapter_config.json").is_file()
    rows = [json.loads(line) for line in (out / "seed-110/predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [0, 1, 2]
    assert len((out / "seed-110/hypotheses.txt").read_text().splitlines()) == 3
    assert (out / "seed-110/references.txt").read_text().split("\n\n")[
        0
    ] == "Clowns serves Chinese food in the riverside."
    table = (out / "table.txt").read_text()
    assert "gpt2-medium, LoRA r=4 (published)" in table and "70.4 ± 0.1" in table
    assert "METEOR: not computed" in table
    assert Path(asked.model_name_or_path or "").name + ", LoRA r=4, 3 of 8 inputs" in table
    assert "training: LoRA of rank 4, α 32, dropout 0.1, 4 steps, 8 examples a step, learning rate 0.0002" in table
    assert "beam search: 2 beams, length penalty 0.8, no 4 tokens in a row twice, at most 8 tokens" in table
    assert any("LoRA" in text for _, text in said)
    [warned] = [at for at, (_, text) in enumerate(said) if "scores made on this machine will lack METEOR" in text]
    assert warned < [topic for topic, _ in said].index("data"), "before anything is made"

    monkeypatch.setattr(decoding, "beam_search", None)  # neither trained nor decoded again
    monkeypatch.setattr("lmtrain.recipes.data_to_text.data.encode_file", None)
    said.clear()
    again = run_task(asked, say=lambda topic, text: said.append((topic, text)))
    assert again[110]["all"] == scores
    [line] = [text for _, text in said if "is finished" in text]
    assert "--" not in line, "the seed alone can be trained neither for longer nor anew"


def test_other_settings_of_the_search_decode_again(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run_task(options(tmp_path, model), say=lambda topic, text: None)
    calls = []
    search = decoding.beam_search
    monkeypatch.setattr(decoding, "beam_search", lambda *args, **more: calls.append(more) or search(*args, **more))
    run_task(options(tmp_path, model, num_beams=3), say=lambda topic, text: None)
    assert [call["num_beams"] for call in calls] == [3]


def test_seeds_are_trainings_of_their_own_and_the_table_has_their_spread(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a job that is queued again keeps those that it has finished, also with --overwrite_output_dir."""
    begun: list[str] = []
    asked = options(tmp_path, model, seeds=["1,2"], use_peft=False, save_steps=1, overwrite_output_dir=True)

    def stops(name: str) -> None:
        def on_step_begin(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
            begun.append(f"{Path(args.output_dir).name}, step {state.global_step}")
            if begun[-1] == name:
                raise Interrupted("SIGTERM", together=True)

        monkeypatch.setattr(StopWhenAsked, "on_step_begin", on_step_begin, raising=False)

    def steps(seed: int, *numbers: int) -> list[str]:
        return [f"seed-{seed}, step {number}" for number in numbers]

    stops("")
    run_task(replace(asked, seeds=["1"], max_steps=1), say=lambda topic, text: None)  # another command, which goes
    for first, last in ((0, 2), (2, 3)):
        begun.clear()
        stops(f"seed-2, step {last}")
        with pytest.raises(Interrupted):
            run_task(asked, say=lambda topic, text: None)
        one = steps(1, 0, 1, 2, 3) if first == 0 else []
        assert begun == one + steps(2, *range(first, last + 1))
    stops("")
    begun.clear()
    found = run_task(asked, say=lambda topic, text: None)
    assert found.keys() == {1, 2} and begun == steps(2, 3)
    before = trainings_of(tmp_path / "out", asked)
    assert before.begins_anew("seed-1") and before.begins_anew("seed-2"), "it has ended"
    assert trainings_of(tmp_path / "out", replace(asked, num_beams=3)).begins_anew("seed-1")
    assert not trainings_of(tmp_path / "out", replace(asked, overwrite_output_dir=False)).begins_anew("seed-1")
    for seed in (1, 2):
        assert (tmp_path / f"out/seed-{seed}/model.safetensors").is_file()
    table = (tmp_path / "out/table.txt").read_text()
    assert "seeds 1, 2; mean ± standard deviation" in table and " ± " in table.splitlines()[2]
    assert main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/report.html").read_text()
    for row in (f"{Path(model).name}, all weights, 3 of 8 inputs", "seed 1", "gpt2-medium, LoRA r=4 (published)"):
        assert f'<th scope="row">{row}</th>' in page


def trainings_of(folder: Path, asked: NlgOptions) -> Trainings:
    names = ["seed-1", "seed-2"]
    return look_at(folder, "nlg", as_dict(asked), sys.argv[1:], names, lambda topic, text: None)


def test_webnlg_is_scored_by_part(tmp_path: Path, model: str) -> None:
    def records(name: str, rows: list[Record]) -> str:
        (tmp_path / name).write_text("".join(row.line() for row in rows))
        return str(tmp_path / name)

    train = [Record(f"Aroma : food : {food}", f"Aroma serves {food} food.", True) for food in FOOD]
    test = [
        Record("Clowns : area : riverside", "Clowns is by the river.", True),
        Record("Clowns : area : riverside", "By the river is Clowns.", True),
        Record("Mars : moon : Phobos", "Phobos is a moon of Mars.", False),
    ]
    asked = options(
        tmp_path, model, task="webnlg", train=records("train.jsonl", train), test=records("test.jsonl", test)
    )
    found = run_task(asked, say=lambda topic, text: None)[110]
    assert {part: scores.inputs for part, scores in found.items()} == {"unseen": 1, "seen": 1, "all": 2}
    folder = tmp_path / "out/seed-110/references"
    assert sorted(path.name for path in folder.iterdir()) == [f"reference{n}" for n in range(6)]
    assert (folder / "reference1").read_text() == "by the river is clowns .\nphobos is a moon of mars .\n"
    lines = [line.split("  ") for line in (tmp_path / "out/table.txt").read_text().splitlines()]
    cells = {line[0]: [cell.strip() for cell in line[1:] if cell.strip()] for line in lines if "(published)" in line[0]}
    assert len(cells) == 12
    assert cells["gpt2-medium, LoRA r=4, unseen (published)"] == ["46.7 ± 0.4", "0.38", "0.46"]
    assert cells["gpt2-large, all weights (published)"] == ["55.5", "0.42", "0.42"]

    said: list[str] = []
    unknown = [Record(row.context, row.completion, None if row is test[2] else row.seen) for row in test]
    asked.test = records("unknown.jsonl", unknown)  # the training is found finished
    found = run_task(asked, say=lambda topic, text: said.append(text))[110]
    assert {part: scores.inputs for part, scores in found.items()} == {"all": 2}
    assert any("not all records say whether their category was seen" in text for text in said)
    assert (tmp_path / "out/table.txt").read_text().count("(published)") == 4, "those of all categories"


def test_an_input_without_room_is_dealt_with_before_anything_is_trained(tmp_path: Path, model: str) -> None:
    asked = options(tmp_path, model)
    long = "name : " + "Clowns " * 60
    Path(asked.test or "").write_text(f"{long}||Clowns.\nname : Zizzi||Zizzi.\nname : Zizzi||It is Zizzi.\n")
    with pytest.raises(UserError) as error:
        run_task(asked, say=lambda topic, text: None)
    [problem] = error.value.problems
    assert problem.flag == "--test" and "1 input of 2 longer than the 152 tokens" in problem.text
    assert "--on_long skip" in problem.text and "--max_new_tokens" not in problem.text
    assert not (tmp_path / "out/seed-110").exists()
    asked.on_long = "skip"
    assert run_task(asked, say=lambda topic, text: None)[110]["all"].inputs == 1
    assert "1 of 2 inputs" in (tmp_path / "out/table.txt").read_text()
    asked.on_long = "truncate"
    assert run_task(asked, say=lambda topic, text: None)[110]["all"].inputs == 2


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(UserError) as error:
        run_task(NlgOptions(seeds=["one", "1", "1", "4294967296"]))
    flags = [problem.flag for problem in error.value.problems]
    assert flags == [None, "--train", "--test", "--model", "--output_dir", *["--seeds"] * 3]


def test_all_that_stands_in_the_way_is_said_at_once_and_nothing_is_written(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, model, extra, format and folder together; not the second when the first is mended."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "peft" else find(name, *more))
    (tmp_path / "broken.txt").write_text("a||b\nno separator here\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"command": "clm", "options": {}}')
    asked = options(
        tmp_path, str(tmp_path / "no-model"), train=str(tmp_path / "broken.txt"), test=str(tmp_path / "none.txt"),
        precision="fp16", seeds=["1,x"],
    )  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as error:
        run_task(asked, say=lambda topic, text: None)
    found = {problem.flag: problem.text for problem in error.value.problems}
    assert found.keys() == {
        "--train", "--test", "--model_name_or_path", "--use_peft", "--precision", "--output_dir", "--seeds",
    }  # fmt: skip
    assert "broken.txt:2: no '||'" in found["--train"] and "pip install" in found["--use_peft"]
    assert sorted(tmp_path.rglob("*")) == before


def test_lengths_beyond_the_positions_and_a_text_that_is_none_are_told_with_the_rest(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "test.jsonl").write_text('{"context": "a", "completion": "\\n\\nIt is."}\n')
    asked = options(
        tmp_path, model, test=str(tmp_path / "test.jsonl"), max_seq_length=161, max_new_tokens=160, seeds=["x"]
    )
    with pytest.raises(UserError) as error:
        run_task(asked, say=lambda topic, text: None)
    found = {problem.flag: problem.text for problem in error.value.problems}
    assert found.keys() == {"--seeds", "--test", "--max_seq_length", "--max_new_tokens"}
    assert "use at most --max_seq_length 160" in found["--max_seq_length"]
    assert "the text of record 1 begins with an empty line" in found["--test"]
    assert not (tmp_path / "out").exists()
    asked.max_seq_length, asked.max_new_tokens = 160, 159
    with pytest.raises(UserError) as error:
        run_task(asked, say=lambda topic, text: None)
    assert {problem.flag for problem in error.value.problems} == {"--seeds", "--test"}


def test_a_file_that_is_none_is_named_by_its_flag(tmp_path: Path, model: str) -> None:
    (tmp_path / "broken.txt").write_text("no separator here\n")
    with pytest.raises(UserError) as error:
        run_task(options(tmp_path, model, train=str(tmp_path / "broken.txt"), test=str(tmp_path / "missing.txt")))
    assert [problem.flag for problem in error.value.problems] == ["--train", "--test"]
    assert "broken.txt:1" in error.value.problems[0].text


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_file_of_the_training_alone_is_named_by_its_flag(
    split: str, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"context": "name : Aroma", "completion": "Aroma is a place."}\n')
    files = {"train": pairs, "valid": pairs, split: tmp_path / "missing.jsonl"}
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    assert main(["nlg", "train", *words, "--model", model, "--output_dir", str(tmp_path / "run"), "--use_cpu"]) == 2
    said = capsys.readouterr().err
    assert f"--{split} " in said and "missing.jsonl" in said
    assert "--train_file" not in said and "--validation_file" not in said


def test_no_message_names_an_option_that_nlg_lacks_without_saying_so(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"context": "name : Aroma", "completion": "Aroma is a place."}\n' * 40)
    words = ["nlg", "train", "--train", str(pairs), "--model", model, "--output_dir", str(tmp_path / "run"),
             "--use_cpu", "--precision", "fp32", "--warmup_steps", "0", "--max_seq_length", "32"]  # fmt: skip
    assert main([*words, "--max_steps", "2"]) == 0
    capsys.readouterr()
    assert main([*words, "--max_steps", "2", "--learning_rate", "0.1"]) == 2
    said = capsys.readouterr().err
    assert "--learning_rate was 0.0002 and is now 0.1" in said and "--overwrite_output_dir" in said
    assert main([*words, "--max_steps", "4"]) == 2
    said += capsys.readouterr().err
    assert "--accept_changes" not in said and "--extend" not in said
    words[words.index(str(tmp_path / "run"))] = str(tmp_path / "bad")
    assert main([*words, "--max_steps", "40", "--learning_rate", "1e30"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "are no numbers" in said and "lower --learning_rate" in said, said
    assert "are options of lmtrain sft, which trains on the same pairs" in said, said


@pytest.mark.parametrize("command", ["nlg", "nlg train"])
def test_an_error_is_about_an_option_of_the_command(command: str) -> None:
    changed = "go on, say so: --accept_changes\n    --adam_epsilon was 1"
    with pytest.raises(UserError) as error, in_flags({"--train_file": "--train"}, command):
        raise UserError(changed, flag="--resume_from_checkpoint")
    [problem] = error.value.problems
    assert problem.flag is None
    assert problem.text == f"{changed} (--accept_changes is an option of lmtrain sft, which trains on the same pairs)"
    known = "torchrun --nproc_per_node 2 and --lora_r 1"
    with pytest.raises(UserError) as error, in_flags({"--train_file": "--train"}, command):
        raise UserError(known, flag="--train_file")
    assert str(error.value) == f"--train: {known}"


def test_the_settings_of_each_task_are_the_published_ones(tmp_path: Path) -> None:
    for name, smoothing, decay, dropped in (("e2e", 0.1, 0.01, 0.1), ("webnlg", 0.1, 0.01, 0.1), ("dart", 0, 0, 0)):
        resolved = run.resolved_training(NlgTraining(), run.TASKS[name], tmp_path, None, tmp_path, 110)
        alike = {
            "num_train_epochs": 5, "per_device_train_batch_size": 8, "learning_rate": 2e-4, "warmup_steps": 500,
            "lr_scheduler_type": "linear", "adam_epsilon": 1e-6, "max_grad_norm": 0,
        }  # fmt: skip
        assert alike.items() <= resolved.training.items()
        assert resolved.training["label_smoothing_factor"] == smoothing
        assert resolved.training["weight_decay"] == decay
        assert (resolved.lora.lora_dropout, resolved.lora.lora_r, resolved.lora.lora_alpha) == (dropped, 4, 32)
        assert resolved.model.dropout == 0.0 and resolved.lora.lora_query_value


def test_inputs_are_decoded_once() -> None:
    records = [Record("a", "1"), Record("b", "2"), Record("a", "3"), Record("c", "4")]
    assert first_of_each(records) == [0, 1, 3] and first_of_each(records, 2) == [0, 1]


@pytest.mark.skipif(not (SHARED / "e2e").is_dir(), reason="needs the E2E corpus and GPT-2's tokenizer")
def test_e2e_itself_from_its_lines_to_its_scores(tmp_path: Path) -> None:
    for name, count in (("valid", 300), ("test", 40)):
        lines = (SHARED / "e2e" / f"{name}.txt").read_text(encoding="utf-8").splitlines()[:count]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    words = AutoTokenizer.from_pretrained(SHARED / "gpt2")
    torch.manual_seed(1)
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=256)).save_pretrained(tmp_path / "gpt2")
    words.save_pretrained(tmp_path / "gpt2")
    asked = options(
        tmp_path, str(tmp_path / "gpt2"), train=str(tmp_path / "valid.txt"), test=str(tmp_path / "test.txt"),
        valid=str(tmp_path / "test.txt"), learning_rate=1e-2, max_steps=12, max_seq_length=192,
    )  # fmt: skip
    scores = run_task(asked, say=lambda topic, text: None)[110]["all"]
    assert scores.inputs == 3
    assert {name for name, value in scores.values.items() if value is not None} >= {"BLEU", "ROUGE_L", "CIDEr"}
    trained = json.loads((tmp_path / "out/seed-110/eval_results.json").read_text())
    assert trained["eval_loss"] < 10.9, "below ln 50,257 and some smoothing"
