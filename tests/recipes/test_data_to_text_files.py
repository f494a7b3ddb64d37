"""The stages' files: how they are told apart, which inputs have room, and texts as the official scorers read them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from lmtrain.cli.main import main
from lmtrain.config.commands.nlg_data import NlgTextOptions
from lmtrain.core.console import silent
from lmtrain.core.errors import UserError
from lmtrain.data.nlg.records import Record
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.recipes.data_to_text import run
from lmtrain.recipes.data_to_text.data import as_ids, form_of, prepare, records_of
from lmtrain.recipes.data_to_text.inputs import fitting
from lmtrain.recipes.data_to_text.texts import text_of, texts_of_files
from tiny_models import gpt2_style, roberta_style

RECORDS = [
    Record("a", "First A.", True),
    Record("b", "Only B-side.", False),
    Record("a", "Second A.", True),
    Record("a", "Third A.", True),
]


def written(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


# ---- which file is which -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ('{"context": "a", "completion": "b"}\n', "texts"),
        ('\n{ "completion": "b", "context": "a" }\n', "texts"),
        ('\ufeff{"cate": true, "context": "a", "completion": "b"}\n', "texts"),
        ('{"completion": [2], "context": [1]}\n', "ids"),
        ("name : a||It is a.\n", None),
        ('{"entries": []}', None),
        ('[{"tripleset": []}]', None),
        ('{"context": 5', None),
    ],
)
def test_records_are_known_by_their_first_line(text: str, form: str | None, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text(text, encoding="utf-8")
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode()))
    assert [form_of(str(tmp_path / name)) for name in ("plain", "packed.gz")] == [form, form]


def test_records_in_any_order_of_fields_are_read_as_records(tmp_path: Path) -> None:
    name = written(tmp_path / "r.jsonl", [{"completion": "It is a.", "context": "a"}])
    assert records_of("e2e", name) == [Record("a", "It is a.")]


def test_what_a_training_began_with_is_not_made_of_other_text(tmp_path: Path, vocabulary: str) -> None:
    tokenizer = TokenizerFiles.from_transformers(gpt2_style())
    one, other = (
        written(tmp_path / name, [{"context": name, "completion": "It is."}]) for name in ("one.jsonl", "other.jsonl")
    )
    data = tmp_path / "run" / "data"
    made = prepare("e2e", {"train": one, "test": one}, tokenizer, data, silent)
    before = made.ids["train"].read_bytes()
    assert prepare("e2e", {"train": one, "test": other}, tokenizer, data, silent, begun=True) == made
    for again in (
        lambda: prepare("e2e", {"train": other}, tokenizer, data, silent, begun=True),
        lambda: as_ids({"train": other}, lambda: tokenizer, data, silent, begun=True),
    ):
        with pytest.raises(UserError, match=r"made of another text .* choose another --output_dir") as error:
            again()
        assert error.value.problems[0].flag == "--train" and made.ids["train"].read_bytes() == before
    prepare("e2e", {"train": other}, tokenizer, data, silent)
    assert made.ids["train"].read_bytes() != before


# ---- which inputs have room --------------------------------------------------------------------------


def test_a_number_is_proposed_only_where_it_helps() -> None:
    contexts = {0: [1] * 5, 1: list(range(30)), 7: [1] * 12}
    with pytest.raises(UserError) as error:
        fitting(contexts, 40, 20, flag="--test", say=silent)
    said = str(error.value)
    assert "--test: 1 input of 3 longer than the 20 tokens" in said and "the first is number 1," in said
    assert "--max_new_tokens 10 makes room for them" in said
    assert fitting(contexts, 40, 10, say=silent) == contexts
    with pytest.raises(UserError) as error:
        fitting(contexts, 30, 8, say=silent)
    assert "--max_new_tokens" not in str(error.value) and "--on_long truncate" in str(error.value)
    assert fitting(contexts, 30, 8, on_long="truncate", say=silent)[1] == list(range(8, 30)), "its end"
    assert fitting(contexts, 30, 8, on_long="skip", say=silent).keys() == {0, 7}
    with pytest.raises(UserError, match="would leave none"):
        fitting({1: [1] * 30}, 30, 8, on_long="skip", say=silent)


# ---- from ids to texts -------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [gpt2_style(), roberta_style()], ids=["<|endoftext|>", "</s>"])
def test_a_text_ends_at_the_tokenizer_s_own_end(tokenizer: Any) -> None:
    ids = tokenizer("a fox ran", add_special_tokens=False)["input_ids"]
    assert text_of(tokenizer, [*ids, tokenizer.eos_token_id, 0, 0]) == "a fox ran" == text_of(tokenizer, ids)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    gpt2_style().save_pretrained(folder)
    return str(folder)


def asked(tmp_path: Path, vocabulary: str, results: dict[int, str], **changes: Any) -> NlgTextOptions:
    encode = gpt2_style()
    lines = [
        {"id": n, "predict": [*encode(text, add_special_tokens=False)["input_ids"], encode.eos_token_id, 0]}
        for n, text in results.items()
    ]
    (tmp_path / "records.jsonl").write_text("".join(record.line() for record in RECORDS))
    values: dict[str, Any] = {
        "task": "webnlg", "predictions": written(tmp_path / "ids.jsonl", lines),
        "records": str(tmp_path / "records.jsonl"), "tokenizer_name": vocabulary, "output_dir": str(tmp_path / "out"),
    }  # fmt: skip
    return NlgTextOptions(**{**values, **changes})


WRITTEN = {0: " It's A", 1: " B!", 3: " It's A, again"}


def contents(path: Path) -> list[str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file.read_text() for file in files]


def test_texts_and_references_of_each_kind(tmp_path: Path, vocabulary: str) -> None:
    texts, references = texts_of_files(asked(tmp_path, vocabulary, WRITTEN), silent)
    assert texts.read_text() == "it ' s a , again\nb !\n", "of several results for an input the last"
    assert contents(references)[:3] == ["first a .\nonly b - side .\n", "second a .\nonly b - side .\n",
                                        "third a .\nonly b - side .\n"]  # fmt: skip
    assert len(contents(references)) == 6
    plain = {"tokenize": False, "lower": False, "ref_num": 2, "filter": "seen"}
    texts, references = texts_of_files(asked(tmp_path, vocabulary, WRITTEN, **plain), silent)
    assert texts.read_text() == "It's A, again\n"
    assert contents(references) == ["First A.\n", "Second A.\n"], "four files of the first call are gone"
    texts, references = texts_of_files(asked(tmp_path, vocabulary, WRITTEN, filter="unseen"), silent)
    assert texts.read_text() == "b !\n"
    texts, references = texts_of_files(asked(tmp_path, vocabulary, WRITTEN, task="e2e", lower=True), silent)
    assert texts.read_text() == "it's a, again\nb!\n"
    assert contents(references) == ["first a.\nsecond a.\nthird a.\n\nonly b-side.\n\n"]


def test_what_does_not_fit_is_refused_or_left_out(tmp_path: Path, vocabulary: str) -> None:
    def refused(text: str, results: dict[int, str] = WRITTEN, **changes: Any) -> None:
        with pytest.raises(UserError) as error:
            texts_of_files(asked(tmp_path, vocabulary, results, **changes), silent)
        assert text in str(error.value)
        assert not (tmp_path / "out").exists()

    refused("--predictions: 1 input of 2 without a result, first 'b'; --on_missing skip", {0: " A"})
    refused("--predictions: there is a prediction for record 4, and the records are 0 to 3", {4: " A"})
    refused("--tokenizer_name: 1 result with ids that the tokenizer does not have",
            predictions=written(tmp_path / "far.jsonl", [{"id": 0, "predict": [5, 4096]}]))  # fmt: skip
    refused("records.jsonl:1: not a line of lmtrain nlg decode", predictions=str(tmp_path / "records.jsonl"))
    refused("--ref_num: E2E's scorer takes all references", task="e2e", ref_num=2)
    plain = written(tmp_path / "plain.jsonl", [{"context": "a", "completion": "b"}])
    refused("--filter: only records of WebNLG", {0: " A"}, records=plain, filter="seen")
    empty = written(tmp_path / "empty.jsonl", [{"context": "a", "completion": text} for text in ("b", "\n\nc")])
    refused("--records: the text of record 2 begins with an empty line", {0: " A"}, records=empty, task="e2e")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"--output_dir: .* cannot be written"):
        texts_of_files(asked(tmp_path, vocabulary, WRITTEN), silent)
    (tmp_path / "out").unlink()
    said: list[str] = []
    some = asked(tmp_path, vocabulary, {0: " A"}, on_missing="skip")
    texts, references = texts_of_files(some, lambda topic, text: said.append(text))
    assert texts.read_text() == "a\n" and contents(references)[1] == "second a .\n"
    assert "1 input of 2 without a result" in said[0]


# ---- what is typed -----------------------------------------------------------------------------------


def test_training_alone_has_the_settings_of_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked_for: list[Any] = []

    class Done:
        folder = tmp_path

    monkeypatch.setattr(run, "train", lambda resolved, *args, **more: asked_for.append(resolved) or Done)
    ids = written(tmp_path / "ids.jsonl", [{"context": [5], "completion": [6]}])
    words = ["--train", ids, "--model", "anything", "--output_dir", str(tmp_path / "out")]
    for task, smoothing in ((["dart"], 0.0), (["webnlg"], 0.1), ([], 0.1)):
        assert main(["nlg", "train", *task, *words]) == 0
        assert asked_for[-1].training["label_smoothing_factor"] == smoothing
        assert ("settings of E2E" in capsys.readouterr().err) == (not task)
    other = written(tmp_path / "other.jsonl", [{"prompt": "a", "completion": "b"}])
    assert main(["nlg", "train", *words, "--train", other]) == 2
    assert "lmtrain sft trains on pairs in other forms" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["nlg e2e", "nlg train"])
def test_options_of_lora_without_lora_are_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*command.split(), "--train", "a", "--test", "b", "--model", "m", "--output_dir", "o"]
    if command == "nlg train":
        words = [word for word in words if word not in ("--test", "b")]
    assert main([*words, "--no_use_peft", "--lora_r", "8", "--lora_dropout", "0.1"]) == 2
    said = capsys.readouterr().err
    assert ("2 things" if command == "nlg train" else "5 things") in said, "with files and model that are not there"
    assert "--lora_r" in said and "--lora_dropout" in said and "trains all weights" in said
