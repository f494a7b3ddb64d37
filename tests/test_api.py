"""What a Python program imports: it is there, it is described, and it costs nothing before it is used."""

import importlib
import inspect
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import lmtrain
from lmtrain.api import clm, complete, fill_mask, mlm, prepare, score, train_tokenizer
from lmtrain.core.errors import UserError
from lmtrain.core.runlog import read_events
from tiny_models import TEXT, checkpoint, gpt2_style

DOCS = Path(__file__).resolve().parents[1] / "docs" / "python.md"


def test_every_name_is_there_and_described() -> None:
    described = set(re.findall(r"`(\w+)", DOCS.read_text(encoding="utf-8")))
    for name in lmtrain.__all__:
        value = getattr(lmtrain, name)
        assert value.__doc__, name
        assert name in described, f"docs/python.md does not speak of {name}"
        assert name in dir(lmtrain)
    assert sorted(lmtrain.__all__, key=str) == sorted(lmtrain._MODULE)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        lmtrain.trian  # type: ignore[attr-defined]  # noqa: B018


def test_no_name_is_hidden_by_a_part_of_the_package() -> None:
    """``import lmtrain.generate`` sets ``lmtrain.generate``: a function of that name would be gone afterwards."""
    for name in lmtrain.__all__:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"lmtrain.{name}")


def test_importing_takes_nothing_heavy() -> None:
    code = (
        "import sys, lmtrain\n"
        "try: lmtrain.clm(trian_file='x')\n"
        "except lmtrain.UserError as error: print(error)\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, heavy = done.stdout.rsplit("\n", 2)[:2]
    assert "--trian_file: no such option; did you mean --train_file?" in message
    assert heavy == "[]"


def test_names_are_typed_for_whoever_reads_them() -> None:
    """The imports for type checkers and the table for the interpreter say the same."""
    source = Path(str(lmtrain.__file__)).read_text(encoding="utf-8")
    typed = re.findall(r"^    from ([\w.]+) import (.+)$", source, re.M)
    assert {name: module for module, names in typed for name in names.split(", ")} == lmtrain._MODULE


def test_a_notebook_is_shown_the_options() -> None:
    found = inspect.signature(clm).parameters
    assert found["max_steps"].default == -1 and found["train_file"].annotation is list and "block_size" in found
    assert found["model_name_or_path"].annotation == str | None
    assert "auto_find_batch_size" not in found, "refused"
    first, second, *others = inspect.signature(prepare).parameters
    assert (first, second) == ("tokenizer", "seed") and "train_file" in others
    assert not {"shard", "list", "clean", "tokenizer_name"} & set(others)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "fox.txt"
    path.write_text("\n".join(TEXT * 40), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A finished training, from keywords: paths, numbers, a switch that is off."""
    folder = tmp_path_factory.mktemp("runs")
    gpt2 = checkpoint("gpt2", folder / "gpt2")
    options = {
        "model_name_or_path": gpt2, "train_file": (text,), "output_dir": folder / "run", "block_size": 16,
        "max_steps": 6, "learning_rate": 1e-2, "save_strategy": "no", "use_cpu": True, "append_eos": False,
        "max_grad_norm": None, "eval_strategy": "steps", "eval_steps": 3, "sample_prompts": ["The fox"],
    }  # fmt: skip
    return clm(**options), options


def test_a_command_as_a_function(run: Any, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome, options = run
    assert outcome.folder == options["output_dir"] and (outcome.folder / "model.safetensors").is_file()
    again = clm(**options)
    assert again.was_finished
    assert again.metrics["perplexity"] == pytest.approx(
        outcome.metrics["perplexity"], rel=1e-6
    )  # files have ten digits
    assert "is finished" in capsys.readouterr().err
    words = json.dumps(json.loads((outcome.folder / "run.json").read_text()))  # as a command line would say it
    assert '"--max_steps", "6"' in words and '"--no_append_eos"' in words and '"--max_grad_norm"' not in words
    log = (outcome.folder / "logs" / "rank-0.log").read_text()
    assert re.search(r"rehearsal +save, reload, generate, gradients, evaluate: fine", log), "as the command does it"
    samples = [e for e in read_events(outcome.folder / "metrics.jsonl") if e["event"] == "sample"]
    assert [(e["step"], e["prompt"]) for e in samples] == [(3, "The fox"), (6, "The fox")]
    scores = score(model_name_or_path=outcome.folder, validation_file=text, block_size=16, use_cpu=True)
    assert 1 < scores["validation"]["perplexity"] < 300
    keyed = score(model_name_or_path=outcome.folder, validation_file=text, block_size=16, use_cpu=True, key_tokens="a")
    assert "eval_loss_with_keys" in keyed["validation"]


def test_what_it_writes(run: Any) -> None:
    folder = run[0].folder
    asked = {"max_new_tokens": 5, "do_sample": False}
    [found] = complete(folder, "The fox", **asked)
    assert found.prompt == "The fox" and 0 < found.n_tokens <= 5
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert complete(model, ["The fox"], tokenizer=tokenizer, **asked)[0].text == found.text
    for stop in ("END", ["END"]):
        assert complete(model, "The fox", tokenizer=tokenizer, stop=stop, **asked)[0].text == found.text
    with pytest.raises(UserError, match="needs its tokenizer"):
        complete(model, ["The fox"])


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        mlm(train_file=tmp_path, block_size=8, learning_rate="fast", output_dir=tmp_path / "x", optim=torch.nn.Linear)
    assert "is no option's value" in str(raised.value)
    with pytest.raises(UserError) as raised:
        mlm(train_file=tmp_path, block_size=8, learning_rate="fast", output_dir=tmp_path / "x")
    flags = {problem.flag for problem in raised.value.problems}
    assert {"--block_size", "--learning_rate"} <= flags


def test_prepared_text_is_a_data_set(text: Path) -> None:
    tokenizer = gpt2_style()
    corpus = prepare(tokenizer, train_file=text, block_size=12, validation_split_percentage=20)
    train = corpus.splits["train"]
    assert isinstance(train, lmtrain.Blocks) and train[0]["input_ids"].shape == (12,)
    assert tokenizer.decode(train[0]["input_ids"]) in text.read_text()
    for option in ({"shard": "0/2"}, {"list": True}, {"output_dir": "s3://bucket/store"}):
        with pytest.raises(UserError, match=f"--{next(iter(option))}: "):
            prepare(tokenizer, train_file=text, block_size=12, **option)
    lines = prepare(tokenizer, objective="mlm", train_file=text, max_seq_length=12, line_by_line=True).splits
    assert isinstance(lines["train"], lmtrain.Lines)


def test_a_notebook_is_shown_what_a_tokenizer_is_like(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})())
    for said in ("bytes per token", "finished before"):
        made = train_tokenizer(train_file=text, vocab_size=300, output_dir=tmp_path / "tokenizer")
        assert len(made) == 300 and said in capsys.readouterr().out


def test_masks_are_filled(tmp_path: Path) -> None:
    folder = checkpoint("bert", tmp_path / "bert")
    [found] = fill_mask(folder, "the [MASK] sleeps", top=3)
    assert len(found.masks[0]) == 3
