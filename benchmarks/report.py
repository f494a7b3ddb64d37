"""The report of a run of 100,000 steps: from the command to the page on disk.

    python benchmarks/report.py [--steps 100000] [--repeats 3] [--json OUT]

A whole process, imports included; the median of the wall times. The log is made here, a line a step, as the engine
writes them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 5.0  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "metrics.jsonl"
        write_log(log, args.steps)
        seconds = [measure(folder) for _ in range(args.repeats)]
        page = (Path(folder) / "report.html").stat().st_size
        size = log.stat().st_size
    median = statistics.median(seconds)
    row = {
        "claim": f"report of {args.steps:,} steps ({size / 1e6:.0f} MB of log, a page of {page / 1e3:.0f} kB)",
        "lmtrain": f"{median:.1f} s",
        "peer": "",
        "ratio": "",
        "goal": f"< {GOAL:.0f} s",
        "reached": median < GOAL,
    }
    print(f"{row['claim']}: {row['lmtrain']}, goal {row['goal']}; all {[round(s, 2) for s in seconds]}")
    if args.json:
        args.json.write_text(json.dumps({"rows": [row], "seconds": seconds, "reached": row["reached"]}))
    return 0 if row["reached"] else 1


def write_log(path: Path, steps: int) -> None:
    with path.open("w") as stream:
        for step in range(1, steps + 1):
            event = {
                "event": "train", "time": 1.795e9 + 0.4 * step, "step": step, "epoch": step / steps,
                "tokens": 8192 * step, "loss": 3 + 8 * math.exp(-step / 3000) + 0.05 * math.sin(step * 1.7),
                "learning_rate": 3e-4 * (1 - step / steps), "grad_norm": 0.8 + 0.1 * math.cos(step * 2.3),
                "tokens_per_second": 20480.0 + step % 97, "tflops": 15.1, "mfu": 0.41, "waiting_for_data": 0.01,
                "time_left": 0.4 * (steps - step), "memory": 11_200_000_000 + step % 1000,
            }  # fmt: skip
            stream.write(json.dumps(event) + "\n")
            if step % 1000 == 0:
                loss = 3.1 + 8 * math.exp(-step / 3000)
                scores = {"eval_loss": loss, "eval_perplexity": math.exp(loss)}
                evaluation = {"event": "evaluation", "time": 1.795e9 + 0.4 * step, "step": step, **scores}
                stream.write(json.dumps(evaluation) + "\n")


def measure(folder: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lmtrain", "report", folder], check=True, capture_output=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
