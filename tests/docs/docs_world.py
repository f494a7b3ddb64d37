"""The scratch folder in which the docs' commands are executed: a little of everything that they name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmtrain.cli.main import main
from lmtrain.models import save_model
from tiny_models import make

BOOK = "".join(f"It was a dark night, number {n}. She said that the result was good.\n" for n in range(120))
RECORDS = [{"content": f"import pandas as pd\nplt.fit(pd, {n})  # predict {n}\n" * 4} for n in range(30)]
PAIRS = [{"context": f"How many is {n}?", "completion": f" It is {n}."} for n in range(30)]
E2E = "name : Blue Spice {n} | area : riverside||Blue Spice {n} lies by the river .\n"
ROOM = {
    "gpt2": "n_embd=32,n_layer=2,n_head=4,n_positions=1024",
    "bert": "hidden_size=32,intermediate_size=48,num_hidden_layers=2,num_attention_heads=4,max_position_embeddings=128",
}


def build(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill ``root``, by our own commands where there is one."""
    write_texts(root)
    for kind, overrides in ROOM.items():
        model, tokenizer = make(kind, root / "made", config_overrides=overrides)
        save_model(model, tokenizer, root / kind)
        shutil.rmtree(root / "made")
    shutil.copytree(root / "gpt2", root / "gpt2-medium")
    monkeypatch.chdir(root)
    common = ["--max_steps", "1", "--per_device_train_batch_size", "2", "--use_cpu", "--skip_check"]
    for name in ("runs/book", "runs/notes"):
        words = ["clm", "--model_name_or_path", "gpt2", "--train_file", "book.txt", "--block_size", "32"]
        assert main([*words, *common, "--output_dir", name]) == 0
    shutil.copytree(root / "bert", root / "runs/reports")
    for name in ("run", "runs/tok", "tok"):
        shutil.copytree(root / "gpt2", root / name)


def write_texts(root: Path) -> None:
    """The files that commands read, without models and runs."""
    for folder in ("corpus", "code", "src", "books", "notes", "data/e2e"):
        (root / folder).mkdir(parents=True)
    for name in ("book.txt", "other.txt", "lines.txt", "notes/a.md", "books/a.txt"):
        (root / name).write_text(BOOK)
    for name in ("code/a.py", "code/b.py", "src/a.py"):
        (root / name).write_text("\n".join(record["content"] for record in RECORDS))
    (root / "src/b.py").write_text("print(23)\n" * 400)  # the demo holds files out by their hash, and this is one
    (root / "corpus/a.jsonl").write_text(_lines(RECORDS))
    (root / "reports.jsonl").write_text(_lines([{"text": line} for line in BOOK.splitlines()]))
    (root / "pairs.jsonl").write_text(_lines(PAIRS))
    (root / "p.jsonl").write_text(_lines([{"prompt": "It was"}]))
    (root / "run.json").write_text(
        json.dumps({"model_name_or_path": "gpt2", "train_file": "book.txt", "output_dir": "runs/configured"})
    )
    ids = [{"context": [70, 71, 72], "completion": [80, 81, n + 10]} for n in range(12)]
    for name in ("train", "valid", "test"):
        (root / f"{name}.txt").write_text("".join(E2E.format(n=n) for n in range(8)))
        (root / f"{name}.jsonl").write_text(_lines([{**pair, "context": pair["context"][:12]} for pair in PAIRS[:12]]))
        (root / f"{name}.ids.jsonl").write_text(_lines(ids))
        (root / f"data/e2e/{name}.jsonl").write_text(_lines(ids))
        (root / f"data/e2e/{name}.txt").write_text("".join(E2E.format(n=n) for n in range(8)))
    for name in ("hypotheses", "references", "new", "old", "a", "b"):
        text = "the fox ran .\n\nthe dog slept .\n" if name == "references" else "the fox ran .\nthe dog ran .\n"
        (root / f"{name}.txt").write_text(text)


def _lines(records: list[dict]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)
