"""From the command to the end of the first training step, against run_clm's recipe on stock parts.

    python benchmarks/first_step.py [--repeats 5] [--json OUT]

Both sides are whole processes, imports included, alternating, each time with empty caches of prepared data; the
median is reported. The recipe is ``datasets`` (text loader, map to tokenize, map to group, 5 % split) and
``transformers.Trainer``. Two corpora: tiny Shakespeare from ``../shared/data`` (a megabyte of the standard library
where that is absent), and the whole standard library as one file of about 31 MB. Model: GPT-2 type,
2 layers × 128, 8 blocks of 128 tokens a step.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from prepare import GPT2, standard_library, tokenizer_folder
from stopwatch import seconds_until

SHAKESPEARE = GPT2.parent / "tinyshakespeare" / "input.txt"
GOALS = {"1 MB": 0.8, "31 MB": 0.4}  # at most this share of the recipe's time
SHAPE = {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_positions": 128}
FIRST_STEP = "step 1/"

RECIPE = """
import json, sys
from itertools import chain
from datasets import load_dataset
from transformers import (AutoTokenizer, GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments,
                          default_data_collator)
text, tokenizer_folder, cache, out, shape = sys.argv[1:]
files = {"train": text}
train = load_dataset("text", data_files=files, split="train[5%:]", cache_dir=cache)
validation = load_dataset("text", data_files=files, split="train[:5%]", cache_dir=cache)
tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **json.loads(shape)))
block = 128
def tokenize(batch):
    return tokenizer(batch["text"])
def group(batch):
    joined = {key: list(chain(*batch[key])) for key in batch}
    total = len(joined["input_ids"]) // block * block
    result = {key: [ids[i : i + block] for i in range(0, total, block)] for key, ids in joined.items()}
    result["labels"] = result["input_ids"].copy()
    return result
def prepared(data):
    return data.map(tokenize, batched=True, remove_columns=["text"]).map(group, batched=True)
class Tell(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        print("step 1/", file=sys.stderr, flush=True)
arguments = TrainingArguments(out, max_steps=1, per_device_train_batch_size=8, report_to="none", save_strategy="no",
                              disable_tqdm=True)
Trainer(model=model, args=arguments, train_dataset=prepared(train), eval_dataset=prepared(validation),
        data_collator=default_data_collator, callbacks=[Tell()]).train()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        library = standard_library(work / "library")
        tokenizer = tokenizer_folder(None, library, work / "tokenizer")
        (work / "recipe.py").write_text(RECIPE)
        texts = corpora(work, library)
        sides = {size: compare(work, text, tokenizer, args.repeats) for size, text in texts.items()}
    medians = {size: {name: statistics.median(times) for name, times in both.items()} for size, both in sides.items()}
    shares = {size: median["lmtrain"] / median["recipe"] for size, median in medians.items()}
    result = {
        "benchmark": "first_step",
        "seconds": sides,
        "medians": medians,
        "shares": shares,
        "goals": GOALS,
        "reached": all(shares[size] <= GOALS[size] for size in GOALS),
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["reached"] else 1


def corpora(work: Path, library: Path) -> dict[str, Path]:
    whole = work / "31mb.txt"
    with whole.open("wb") as stream:
        for file in sorted(library.rglob("*.py")):
            stream.write(file.read_bytes())
    small = work / "1mb.txt"
    if SHAKESPEARE.is_file():
        shutil.copy(SHAKESPEARE, small)
    else:
        small.write_bytes(whole.read_bytes()[:1_100_000].rpartition(b"\n")[0])
    return {"1 MB": small, "31 MB": whole}


def compare(work: Path, text: Path, tokenizer: Path, repeats: int) -> dict[str, list[float]]:
    sides: dict[str, list[float]] = {"lmtrain": [], "recipe": []}
    for number in range(repeats + 1):
        for name, command in (("lmtrain", ours(work, text, tokenizer)), ("recipe", recipe(work, text, tokenizer))):
            for leftover in ("out", "cache"):
                shutil.rmtree(work / leftover, ignore_errors=True)
            seconds = seconds_until(lambda line: FIRST_STEP in line, command, work)
            if number:  # the first of each writes byte code and warms the disk cache
                sides[name].append(seconds)
    for name, times in sides.items():
        print(f"{text.name:<10} {name:<8} {', '.join(f'{t:.2f}' for t in times)} s", file=sys.stderr)
    return sides


def ours(work: Path, text: Path, tokenizer: Path) -> list[Any]:
    shape = ",".join(f"{key}={value}" for key, value in SHAPE.items())
    return [
        *(sys.executable, "-m", "lmtrain", "clm", "--model_type", "gpt2", "--config_overrides", shape),
        *("--tokenizer_name", tokenizer, "--train_file", text, "--block_size", 128, "--max_steps", 1),
        *("--per_device_train_batch_size", 8, "--logging_steps", 1, "--save_strategy", "no"),
        *("--data_cache_dir", work / "cache", "--output_dir", work / "out"),
    ]


def recipe(work: Path, text: Path, tokenizer: Path) -> list[Any]:
    return [sys.executable, work / "recipe.py", text, tokenizer, work / "cache", work / "out", json.dumps(SHAPE)]


if __name__ == "__main__":
    sys.exit(main())
