"""The measured figures of docs/scale.md: text prepared, disk, memory, start of a program, gloo between two processes.

    python benchmarks/scale.py [--tries 5] [--out benchmarks/scale.json]        then: make scale

Takes a minute or two on a machine that does nothing else. Each rate is the median of the tries.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prepare import HERE, environment, standard_library, tokenizer_folder
from run import machine

_WARM = 4
_SIZES = tuple(4 << (2 * power) for power in range(5, 13))  # 4 kB to 64 MB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parent / "scale.json")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)  # a process of the pair, started below
    args = parser.parse_args()
    if args.exchange:
        return exchange(args.exchange, args.tries)
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        record = measure(Path(scratch), args.tries)
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
    return 0


def measure(work: Path, tries: int) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    from lmtrain.rehearsal.other_machines import copy_speed, text_speed
    from lmtrain.rehearsal.place import write_speed

    library = standard_library(work / "library")
    text = "".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(library.rglob("*.py"))[:200])
    folder = tokenizer_folder(None, library, work / "tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sample = text[: 1 << 20]

    def median(measured: Callable[[], float]) -> float:
        return float(statistics.median(measured() for _ in range(tries)))

    return {
        "machine": machine(),
        "tokenizer": f"a byte-level BPE of {len(tokenizer):,} tokens",
        "prepare_with": _engine(),
        "prepare_mbps": median(lambda: text_speed(sample, tokenizer) / 1e6),
        "bytes_per_token": len(sample.encode()) / len(tokenizer(sample)["input_ids"]),
        "disk_mbps": median(lambda: write_speed(work) / 1e6),
        "copy_mbps": median(lambda: copy_speed(torch.device("cpu")) / 1e6),
        "start_seconds": median(lambda: start(work, folder)),
        "gloo": gloo(work, tries),
    }


def _engine() -> str:
    try:
        import fastokens  # noqa: F401
    except ImportError:
        return "tokenizers"
    return "fastokens"


def start(work: Path, tokenizer: Path) -> float:
    """Seconds until ``lmtrain check`` of a small model has model and data in memory."""
    (work / "text.txt").write_text("It was a dark and stormy night.\n" * 2000)
    words = [
        *("check", "clm", "--model_type", "gpt2", "--config_overrides", "n_embd=64,n_layer=2,n_head=2"),
        *("--tokenizer_name", tokenizer, "--train_file", work / "text.txt", "--block_size", 64, "--max_steps", 8),
        *("--data_cache_dir", work / "cache", "--output_dir", work / "out", "--devices", 1, "--json"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lmtrain", *map(str, words)], env=environment(work), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found = json.loads(done.stdout)["outlook"]
    return float(found["restart"])


def gloo(work: Path, tries: int) -> dict[str, Any]:
    """Seconds of an all-reduce between two processes of this machine, and the link that explains them."""
    out = work / "gloo.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [*torchrun, __file__, "--exchange", str(out), "--tries", str(tries)], env=environment(work), check=True
    )
    times = json.loads(out.read_text())
    return {"bytes": list(_SIZES), "seconds": times, **link_of(times)}


def link_of(times: list[float]) -> dict[str, float]:
    """Of two processes an exchange is 2 messages of half the tensor, latency + half / rate each. The rate is what the
    largest adds to the smallest; the latency the median of what the smaller half needs beside it: one is often late."""
    rate = (_SIZES[-1] - _SIZES[0]) / (times[-1] - times[0])
    small = [(seconds - size / rate) / 2 for size, seconds in zip(_SIZES, times, strict=True)][: len(_SIZES) // 2]
    return {"rate": rate, "latency": max(0.0, statistics.median(small))}


def exchange(out: Path, tries: int) -> int:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    medians = []
    for size in _SIZES:
        tensor = torch.ones(size // 4)
        taken = []
        for _ in range(_WARM + tries):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(tensor)
            taken.append(time.perf_counter() - began)
        medians.append(statistics.median(taken[_WARM:]))
    if dist.get_rank() == 0:
        out.write_text(json.dumps(medians))
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads need not be waited for


if __name__ == "__main__":
    sys.exit(main())
