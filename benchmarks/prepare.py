"""Preparation against the recipe on stock parts: ``datasets.map`` to tokenize, ``datasets.map`` to group.

    python benchmarks/prepare.py [--repeats 5] [--corpus FOLDER] [--tokenizer FOLDER] [--json OUT]
    python benchmarks/prepare.py --memory        # peak memory of our command, its processes together, on 1 GB of text

Each side is a whole process, imports included, on the same files with the same tokenizer, alternating, every
time from an empty cache; the median is reported. Both must come to the same tokens. Without ``--corpus`` the
corpus is the running interpreter's own standard library; without ``--tokenizer`` GPT-2's vocabulary from
``../shared/data``, else a byte-level BPE of 50,257 tokens trained on the corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve()
GPT2 = HERE.parents[2] / "shared" / "data" / "gpt2"
BLOCK = 1024
GOAL, GOAL_MEMORY = 25.0, 1e9

# The recipe in the manner of run_clm: documents are files (sample_by="document"), tokenized with an
# end-of-text token after each as our command lays them out, then grouped into blocks.
RECIPE = """
import glob, sys
from itertools import chain
from datasets import load_dataset
from transformers import AutoTokenizer
folder, tokenizer_folder, cache, workers, block, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
files = sorted(glob.glob(folder + "/**/*.py", recursive=True))
data = load_dataset("text", data_files={"train": files}, split="train", sample_by="document",
                    keep_linebreaks=True, cache_dir=cache)
workers = int(workers) if int(workers) > 1 else None
def tokenize(batch):
    return tokenizer([text + "<|endoftext|>" for text in batch["text"]])
def group(batch):
    joined = {key: list(chain(*batch[key])) for key in batch}
    total = len(joined["input_ids"]) // block * block
    result = {key: [ids[i : i + block] for i in range(0, total, block)] for key, ids in joined.items()}
    result["labels"] = result["input_ids"].copy()
    return result
block = int(block)
tokenized = data.map(tokenize, batched=True, num_proc=workers, remove_columns=["text"])
blocks = tokenized.map(group, batched=True, num_proc=workers)
if out != "-":
    import numpy as np
    rows = tokenized.with_format("numpy")["input_ids"]
    np.concatenate([np.asarray(row, np.uint16) for row in rows]).tofile(out)
print(len(blocks))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--megabytes", type=int, default=1000, help="of text, for --memory")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        corpus = args.corpus or standard_library(work / "corpus")
        tokenizer = tokenizer_folder(args.tokenizer, corpus, work / "tokenizer")
        if args.memory:
            result = memory(work, corpus, tokenizer, args.megabytes * 1_000_000)
        else:
            result = speed(work, corpus, tokenizer, args.repeats)
    result["machine"] = {"cpus": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    result["python"] = platform.python_version()
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 0 if result["reached"] else 1


def standard_library(folder: Path) -> Path:
    """The interpreter's own Python files that are UTF-8 text: the same for both sides."""
    root = Path(os.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if "site-packages" in file.parts:
            continue
        data = file.read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        # the recipe's loader makes every line break "\\n" and drops empty files; ours keeps the bytes
        if text.strip() and "\r" not in text and "\0" not in text and not text.startswith("\ufeff"):
            target = folder / file.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    return folder


def tokenizer_folder(given: Path | None, corpus: Path, target: Path) -> Path:
    """GPT-2's vocabulary where it is, with a configuration that names its end-of-text token."""
    target.mkdir()
    source = given or (GPT2 if GPT2.is_dir() else None)
    if source is None:
        ours("tokenizer", "--train_file", corpus, "--vocab_size", 50_257, "--output_dir", target / "made")
        source = target / "made"
    shutil.copy(source / "tokenizer.json", target)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def environment(work: Path) -> dict[str, str]:
    """As a user has it: no network is asked, byte code is kept."""
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true",
    }
    values = {**os.environ, **quiet, "PYTHONPYCACHEPREFIX": str(work / "bytecode")}
    values.pop("PYTHONDONTWRITEBYTECODE", None)
    return values


def ours(*words: Any, work: Path | None = None) -> str:
    command = [sys.executable, "-m", "lmtrain", *map(str, words)]
    env = environment(work) if work else None
    return subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout


def speed(work: Path, corpus: Path, tokenizer: Path, repeats: int) -> dict[str, Any]:
    program = work / "recipe.py"
    program.write_text(RECIPE)

    def run_ours(keep: Path | None = None) -> float:
        cache = work / "cache"
        shutil.rmtree(cache, ignore_errors=True)
        began = time.perf_counter()
        account = ours(
            *("prepare", "--train_file", corpus, "--tokenizer_name", tokenizer, "--data_cache_dir", cache),
            *("--block_size", BLOCK, "--validation_split_percentage", 0, "--json"),
            work=work,
        )
        seconds = time.perf_counter() - began
        if keep:
            shutil.copytree(json.loads(account)["stores"]["train"]["folder"], keep)
        return seconds

    def run_recipe(workers: int, keep: Path | None = None) -> float:
        cache = work / "recipe-cache"
        shutil.rmtree(cache, ignore_errors=True)
        words = [corpus, tokenizer, cache, workers, BLOCK, keep or "-"]
        began = time.perf_counter()
        subprocess.run([sys.executable, str(program), *map(str, words)], check=True, capture_output=True,
                       env=environment(work))  # fmt: skip
        return time.perf_counter() - began

    run_ours(work / "store")  # also writes the byte code that both sides then find
    run_recipe(1, work / "recipe.bin")
    same = same_tokens(work / "store", work / "recipe.bin", tokenizer)
    sides: dict[str, list[float]] = {"lmtrain": [], "recipe": [], "recipe, 2 workers": []}
    for _ in range(repeats):
        sides["lmtrain"].append(run_ours())
        sides["recipe"].append(run_recipe(1))
        sides["lmtrain"].append(run_ours())
        sides["recipe, 2 workers"].append(run_recipe(2))
    medians = {name: statistics.median(times) for name, times in sides.items()}
    ratios = {name: medians[name] / medians["lmtrain"] for name in medians if name != "lmtrain"}
    size = sum(file.stat().st_size for file in corpus.rglob("*") if file.is_file())
    for name, times in sides.items():
        print(
            f"{name:<20} median {medians[name]:6.2f} s  of {', '.join(f'{t:.2f}' for t in times)}",
            file=sys.stderr,
        )
    return {
        "benchmark": "prepare",
        "bytes": size,
        "seconds": sides,
        "medians": medians,
        "ratios": ratios,
        "goal": GOAL,
        "same_tokens": same,
        "reached": same and min(ratios.values()) >= GOAL,
    }


def same_tokens(store: Path, recipe: Path, tokenizer: Path) -> bool:
    """Our documents with an end-of-text token after each against all tokens of the recipe."""
    import numpy as np

    from lmtrain.data.layouts import Blocks
    from lmtrain.data.store import TokenStore
    from lmtrain.data.tokenizer_files import TokenizerFiles

    opened = TokenStore.open(store)
    around = TokenizerFiles.load(tokenizer).around_document("clm")
    blocks = Blocks(opened, np.arange(len(opened)), 1 << 16, *around, drop_remainder=False)
    digest = hashlib.sha256()
    for number in range(len(blocks)):
        digest.update(blocks[number]["input_ids"].astype(np.uint16).tobytes())
    return digest.hexdigest() == hashlib.sha256(recipe.read_bytes()).hexdigest()


def memory(work: Path, corpus: Path, tokenizer: Path, size: int) -> dict[str, Any]:
    """Peak memory on ``size`` bytes of text, as one file and as many."""
    text = b"".join(file.read_bytes() for file in sorted(corpus.rglob("*.py")))
    peaks: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for name, parts in (("one file", 1), ("100 files", 100)):
        folder = work / name.replace(" ", "-")
        folder.mkdir()
        for part in range(parts):
            with (folder / f"{part:03d}.txt").open("wb") as stream:
                while stream.tell() < size // parts:
                    stream.write(text)
                stream.truncate(size // parts)
        began = time.perf_counter()
        command = [sys.executable, "-m", "lmtrain", "prepare", "--train_file", str(folder)]
        command += ["--tokenizer_name", str(tokenizer), "--data_cache_dir", str(work / "cache")]
        command += ["--encoding_errors", "replace"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(work))
        peaks[name] = peak_of(process)
        seconds[name] = time.perf_counter() - began
        shutil.rmtree(folder)
        shutil.rmtree(work / "cache")
    return {
        "benchmark": "prepare --memory",
        "bytes": size,
        "seconds": seconds,
        "peak_bytes": peaks,
        "goal": GOAL_MEMORY,
        "reached": max(peaks.values()) < GOAL_MEMORY,
    }


def peak_of(process: subprocess.Popen[bytes]) -> int:
    """The most memory of a process and those that it starts, together. Looked at four times a second: the kernel walks
    through all of their pages for it."""
    peak = 0
    while True:
        try:
            code = process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            peak = max(peak, together(process.pid))
            continue
        if code != 0:
            raise SystemExit(f"lmtrain prepare failed with {code}")
        return peak


def together(pid: int) -> int:
    """Bytes resident of a process and of all below it; what several of them share (code, forked memory) counts once."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for one in (first, *first.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                held = one.memory_full_info()
                total += getattr(held, "pss", held.uss)  # only Linux tells each process's part of what is shared
    return total


if __name__ == "__main__":
    sys.exit(main())
