"""What `lmtrain check` foretells of a 124 M GPT-2 against what a run of 20 steps then takes: time and memory.

    python benchmarks/plan.py [--repeats 2] [--model_size 124m] [--json OUT]

The same options for both, each a fresh process, alternately. Time runs from the first step's beginning to the finished
run: training, the last checkpoint, the model and its evaluation. Memory is the most that the process ever held.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from prepare import environment, standard_library, tokenizer_folder
from side_by_side import Row, finish, parser

STEPS, BATCH, CONTEXT = 20, 4, 128  # the course's context; its batches of 32 would take an hour here
GOAL = 0.15


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--model_size", default="124m")
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        text = one_megabyte(work)
        words: list[Any] = [
            "clm", "--model_type", "gpt2", "--model_size", args.model_size, "--tokenizer_name",
            tokenizer_folder(None, text, work / "tokenizer"), "--train_file", text, "--block_size", CONTEXT,
            "--per_device_train_batch_size", BATCH, "--max_steps", STEPS, "--max_eval_samples", 40,
            "--output_dir", work / "out",
        ]  # fmt: skip
        plans, runs = list[dict[str, float]](), list[dict[str, float]]()
        for _ in range(args.repeats):
            plans.append(planned(words, work))
            runs.append(taken(words, work))
            print(f"planned {plans[-1]}\ntaken   {runs[-1]}", file=sys.stderr)
    rows = [
        row(f"{what} of {STEPS} steps of a {args.model_size} GPT-2, planned by `lmtrain check` and taken",
            statistics.median(plan[key] for plan in plans), statistics.median(run[key] for run in runs), unit, scale)
        for what, key, unit, scale in (("time", "seconds", "s", 1.0), ("memory", "memory", "GB", 1e9))
    ]  # fmt: skip
    return finish("plan", rows, {"plans": plans, "runs": runs}, args.json)


def row(claim: str, plan: float, run: float, unit: str, scale: float) -> Row:
    apart = abs(plan / run - 1)
    shown = [f"{value / scale:.2f} {unit}" if scale > 1 else f"{value:.0f} {unit}" for value in (plan, run)]
    return Row(claim, *shown, f"{apart:.0%} apart", f"≤ {GOAL:.0%}", apart <= GOAL)


def one_megabyte(work: Path) -> Path:
    text = work / "text.py"
    text.write_bytes(
        b"".join(file.read_bytes() for file in sorted(standard_library(work / "corpus").rglob("*.py"))[:60])
    )
    return text


def planned(words: list[Any], work: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "lmtrain", "check", *map(str, words), "--json"]
    done = subprocess.run(command, env=environment(work), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    plan = json.loads(done.stdout)
    return {"seconds": plan["seconds"], "memory": plan["memory"], "step_seconds": plan["step_seconds"]}


def taken(words: list[Any], work: Path) -> dict[str, float]:
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    with (work / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "lmtrain", *map(str, words)], env=environment(work), stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)  # the one call that tells what this child alone held
    if status:
        raise SystemExit((work / "said").read_text()[-4000:])
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    begin = next(event["time"] for event in events if event["event"] == "begin")
    trained = next(event for event in events if event["event"] == "trained")
    end = next(event["time"] for event in events if event["event"] == "status" and event["state"] == "finished")
    return {
        "seconds": end - begin,
        "memory": usage.ru_maxrss * 1024,
        "step_seconds": trained["train_runtime"] / STEPS,
    }


if __name__ == "__main__":
    sys.exit(main())
