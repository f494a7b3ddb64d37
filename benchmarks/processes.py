"""Several processes on one machine: what two of one thread do beside one, and how soon a resumed run goes on.

    python benchmarks/processes.py [--repeats 3] [--json OUT]

Both claims compare our command with itself, on gloo, alternating. Throughput: GPT-2 type of 4 layers × 256 with 50,257
tokens, 8 blocks of 256 a process and step, so that two processes do steps of twice the size; goal: 0.9 of twice the
tokens a second. First step: four processes, from the command to the end of the first step, begun anew and resumed from
a checkpoint in a copy of a folder whose run was killed; goal: at most 1.2 times as long.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from side_by_side import (
    Row,
    Timing,
    alternate,
    finish,
    ours,
    parser,
    standard_library,
    tokenizer_folder,
    tokens_per_second,
)
from stopwatch import seconds_until

GOAL, GOAL_RESUMED = 0.9, 1.2
SAVED_AT, KILLED_AFTER = 2, 3
STEP = re.compile(r"\bstep (\d+)/")


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--only", choices=("throughput", "resume"), nargs="*", default=["throughput", "resume"])
    made.add_argument("--width", type=int, default=256)
    args = made.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows, details = [], {}
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        library = standard_library(work / "library")
        words = command(work, library, tokenizer_folder(None, library, work / "tokenizer"), args.width)
        if "throughput" in args.only:
            row, details["throughput"] = throughput(work, words, args.repeats)
            rows.append(row)
        if "resume" in args.only:
            row, details["resume"] = resuming(work, words, args.repeats)
            rows.append(row)
    return finish("processes", rows, details, args.json)


def command(work: Path, library: Path, tokenizer: Path, width: int) -> list[Any]:
    text = work / "text.txt"
    text.write_bytes(b"".join(file.read_bytes() for file in sorted(library.rglob("*.py")))[:4_000_000])
    shape = f"n_embd={width},n_layer=4,n_head={max(1, width // 64)},n_positions=256"
    return [
        *("clm", "--model_type", "gpt2", "--config_overrides", shape, "--tokenizer_name", tokenizer),
        *("--train_file", text, "--validation_split_percentage", 0, "--block_size", 256, "--logging_steps", 1),
        *("--per_device_train_batch_size", 8, "--compile", "off"),
    ]


def launcher(processes: int) -> list[Any]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]


def throughput(work: Path, words: list[Any], repeats: int) -> tuple[Row, dict[str, Any]]:
    timing = Timing(warm=3, steps=8, seconds=60)
    one = ours(timing, work, *words, "--max_steps", 1000, "--save_strategy", "no")
    figures = alternate({"one process": one, "two processes": [*launcher(2), *one[1:]]}, repeats, work)
    alone, both = (tokens_per_second(runs) for runs in figures.values())
    ratio = both / (2 * alone)
    row = Row(
        "two processes of one thread, of twice the tokens/s of one", f"{both:,.0f} tokens/s",
        f"2 × {alone:,.0f} tokens/s", f"{ratio:.2f}", f"≥ {GOAL}", ratio >= GOAL,
    )  # fmt: skip
    return row, {"one": alone, "two": both, "ratio": ratio}


def resuming(work: Path, words: list[Any], repeats: int) -> tuple[Row, dict[str, Any]]:
    out, killed = work / "out", work / "killed"
    whole = [
        *launcher(4), "-m", "lmtrain", *words, "--max_steps", 50, "--save_steps", SAVED_AT,
        *("--data_cache_dir", work / "cache", "--output_dir", out),
    ]  # fmt: skip
    until(whole, work, KILLED_AFTER, also=out / f"checkpoint-{SAVED_AT}")  # also makes the store, and warms the disk
    shutil.copytree(out, killed)
    taken: dict[str, list[float]] = {"fresh": [], "resumed": []}
    for _ in range(repeats):
        shutil.rmtree(out)
        taken["fresh"].append(until(whole, work, 1))
        shutil.rmtree(out)
        shutil.copytree(killed, out)
        taken["resumed"].append(until(whole, work, SAVED_AT + 1))
    fresh, resumed = (statistics.median(times) for times in taken.values())
    ratio = resumed / fresh
    row = Row(
        "first step of four processes, resumed against fresh", f"{resumed:.1f} s", f"{fresh:.1f} s (fresh)",
        f"{ratio:.2f}", f"≤ {GOAL_RESUMED}", ratio <= GOAL_RESUMED,
    )  # fmt: skip
    return row, taken


def until(command: list[Any], work: Path, step: int, *, also: Path | None = None) -> float:
    """Seconds from the start of the command to the line of ``step``, the first one of this process or a later one, and
    until ``also`` is there; all its processes are then killed."""

    def seen(line: str) -> bool:
        found = STEP.search(line)
        return bool(found) and int(found[1]) >= step and (also is None or also.is_dir())  # type: ignore[index]

    return seconds_until(seen, command, work)


if __name__ == "__main__":
    sys.exit(main())
