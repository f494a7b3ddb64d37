"""Run folders as the engine writes them, without a training: a few files, small or long."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPTIONS = {
    "command": "clm",
    "model_type": "gpt2",
    "config_overrides": "n_embd=32,n_layer=2",
    "tokenizer_name": "tok",
    "train_file": ["book.txt"],
    "output_dir": "runs/book",
    "block_size": 64,
    "learning_rate": 3e-4,
}
BEGAN = 1_795_000_000.0


def record(**options: Any) -> dict[str, Any]:
    chosen = {**OPTIONS, **options}
    return {
        "lmtrain": "0.1.0",
        "command": "clm",
        "argv": f"clm --model_type gpt2 --train_file book.txt --learning_rate {chosen['learning_rate']}".split(),
        "options": chosen,
        "versions": {"python": "3.11.7", "torch": "2.13.0"},
        "machine": {"cpu": "A Fast One", "cores": 2},
        "started": "2026-11-22T00:26:24+0000",
        "working_folder": "/home/me",
    }  # fmt: skip


SOURCE = {"name": "book.txt", "sha256": "ab" * 32, "bytes": 4000}
LEDGER = {
    "files": 1, "bytes_read": 4000, "documents": 3, "tokens": 1000, "skipped": {"blank lines": 7}, "notes": ["a note"],
    "splits": {"train": {"documents": 3, "bytes": 4000, "tokens": 1000, "specials": 3, "examples": 15, "placed": 960,
                         "dropped": 43, "fill": None}},
}  # fmt: skip


def loss_at(step: int) -> float:
    return 3.0 + 4.0 * math.exp(-step / 30)


def train(step: int, **more: Any) -> dict[str, Any]:
    values = {
        "loss": loss_at(step), "learning_rate": 3e-4 / step, "grad_norm": 1.0 + 1 / step, "tokens": 512 * step,
        "tokens_per_second": 1000.0 + step, "mfu": 0.4, "waiting_for_data": 0.01, "time_left": 1.0,
        "memory": 5e8 + step,
    }  # fmt: skip
    return {"event": "train", "time": BEGAN + step, "step": step, **values, **more}


def evaluation(step: int) -> dict[str, Any]:
    loss = loss_at(step) + 0.1
    scores = {
        "eval_loss": loss,
        "eval_perplexity": math.exp(loss),
        "eval_bits_per_byte": loss / 3,
        "eval_accuracy": 0.3,
    }
    return {"event": "evaluation", "time": BEGAN + step + 0.5, "step": step, **scores}


def ranks(step: int, slow: int | None = 1, count: int = 2, **more: Any) -> dict[str, Any]:
    """Processes of which ``slow`` computes half as long again as the others, who wait for it."""
    computing = [0.3 if rank == slow else 0.2 for rank in range(count)]
    held = {} if slow is None else {"held_up_by": {"why": "computing", "rank": slow, "share": 0.3, "times": 1.5}}
    return {
        "event": "ranks", "time": BEGAN + step, "step": step, "steps": 1, "processes": count, "seconds": 0.33,
        "rank": list(range(count)), "computing": computing, "data": [0.01] * count,
        "collectives": [0.32 - seconds for seconds in computing], "memory": [int(1e9) + rank for rank in range(count)],
        "transfers": 0.02, **held, **more,
    }  # fmt: skip


def status(state: str, time: float, **more: Any) -> dict[str, Any]:
    return {"event": "status", "time": BEGAN + time, "state": state, **more}


def sample(step: int, prompt: str = "Once", completion: str = " upon a time", **more: Any) -> dict[str, Any]:
    return {
        "event": "sample",
        "time": BEGAN + step + 0.6,
        "step": step,
        "prompt": prompt,
        "completion": completion,
        **more,
    }


def steady(steps: int, every: int = 10) -> Iterator[dict[str, Any]]:
    """The events of a run that nothing happened to."""
    yield status("preparing", 0, step=0)
    yield status("training", 0.5, step=0)
    yield {"event": "begin", "time": BEGAN + 0.6, "step": 0, "steps": steps, "parameters": 1_234_567}
    for step in range(1, steps + 1):
        yield train(step)
        if step % every == 0:
            yield evaluation(step)
            yield {"event": "save", "time": BEGAN + step + 0.7, "step": step, "bytes": 1000, "pause_seconds": 0.01,
                   "write_seconds": 0.2, "in_background": True}  # fmt: skip
    yield status("finished", steps + 1, step=steps)


def text_of(events: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> str:
    return "".join(json.dumps(event) + "\n" for event in events)


def run_folder(folder: Path, log: str, *, state: str = "finished", step: int = 40, **options: Any) -> Path:
    folder.mkdir(parents=True)
    parts = {
        "run.json": record(**options),
        "decisions.json": {"precision": {"choice": "fp32", "reason": "no bf16 here"}, "device": "cpu"},
        "data.json": {"stores": {"train": {"sources": [SOURCE]}}, "ledger": LEDGER},
        "status.json": {"state": state, "pid": 0, "updated": BEGAN, "step": step},
    }  # fmt: skip
    for name, value in parts.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "metrics.jsonl").write_text(log)
    return folder


def finished(folder: Path, steps: int = 40, **options: Any) -> Path:
    return run_folder(folder, text_of(steady(steps)), step=steps, **options)


TABLE = {
    "columns": ["BLEU", "NIST", "METEOR", "ROUGE_L", "CIDEr"],
    "rows": [
        {"name": "gpt2-medium, LoRA r=4, 3 of 630 inputs", "kind": "ours", "below": [],
         "cells": ["69.81 ± 0.42", "8.79 ± 0.03", "", "71.30 ± 0.25", "2.49 ± 0.02"]},
        *({"name": f"seed {seed}", "kind": "seed", "below": [], "cells": ["69.51", "8.77", "", "71.12", "2.47"]}
          for seed in (110, 111)),
        {"name": "gpt2-medium, LoRA r=4 (published)", "kind": "published", "below": [],
         "cells": ["70.4 ± 0.1", "8.85 ± 0.02", "46.8 ± 0.2", "71.8 ± 0.1", "2.53 ± 0.02"]},
    ],
    "notes": ["seeds 110, 111; mean ± standard deviation", "METEOR: not computed, Java is not installed"],
    "runs": ["seed-110", "seed-111"],
}  # fmt: skip


def recipe(folder: Path, **table: Any) -> Path:
    """The folder of ``lmtrain nlg e2e --seeds 110,111``, with the second training still under way."""
    finished(folder / "seed-110", train_file=["e2e/data/train.ids.jsonl"])
    run_folder(folder / "seed-111", text_of(list(steady(20))[:-1]), state="interrupted", step=20)
    (folder / "run.json").write_text(json.dumps({"command": "nlg", "options": {}}))
    (folder / "metrics.jsonl").write_text(text_of([status("training", 0)]))
    (folder / "scores.json").write_text(json.dumps({"scores": {}, "table": {**TABLE, **table}}))
    return folder
