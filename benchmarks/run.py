"""Run the benchmarks and write ``benchmarks/RESULTS.md``: what was claimed, what was measured, with which command.

python benchmarks/run.py [--only NAME …] [--repeats N]     (make bench)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COMMANDS = {
    "prepare": ["prepare.py", "--repeats", "3"],
    "prepare-memory": ["prepare.py", "--memory"],
    "prepare-workers": ["prepare_workers.py", "--megabytes", "2000", "--repeats", "3"],
    "tokenizer": ["tokenizer.py", "--repeats", "3"],
    "filter": ["filter.py", "--repeats", "5"],
    "first-step": ["first_step.py", "--repeats", "3"],
    "causal": ["causal.py", "--repeats", "3"],
    "causal-gpt2": ["causal.py", "--shape", "gpt2", "--repeats", "2", "--no-curve"],
    "masked": ["masked.py", "--repeats", "3"],
    "evaluate": ["evaluate.py", "--repeats", "3"],
    "checkpoint": ["checkpoint.py", "--repeats", "3"],
    "decode": ["decode.py", "--repeats", "3"],
    "data-to-text": ["data_to_text.py", "--no-curve", "--repeats", "2"],
    "characters": ["characters.py", "--repeats", "1"],
    "processes": ["processes.py", "--repeats", "3"],
    "plan": ["plan.py", "--repeats", "2"],
    "report": ["report.py", "--repeats", "3"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--repeats", type=int, help="runs of each side, in place of each benchmark's own number")
    args = parser.parse_args()
    names = args.only
    record = HERE / "results.json"
    results: dict[str, Any] = json.loads(record.read_text()) if record.is_file() else {}
    for name in names:
        print(f"{name} …", file=sys.stderr, flush=True)
        results[name] = measure(_with_repeats(COMMANDS[name], args.repeats))
    record.write_text(json.dumps(results, indent=2) + "\n")
    (HERE / "RESULTS.md").write_text(page(results))
    return 0 if all(results[name]["reached"] for name in names) else 1


def _with_repeats(words: list[str], repeats: int | None) -> list[str]:
    if repeats is None or "--repeats" not in words:
        return words
    at = words.index("--repeats")
    return [*words[: at + 1], str(repeats), *words[at + 2 :]]


def measure(words: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        subprocess.run([sys.executable, str(HERE / words[0]), *words[1:], "--json", str(out)], check=False,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        if not out.is_file():
            raise SystemExit(f"{words[0]} gave no result")
        result: dict[str, Any] = json.loads(out.read_text())
    result["command"] = " ".join(["python", f"benchmarks/{words[0]}", *words[1:]])
    result["machine"] = machine()
    return result


def machine() -> str:
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open() as stream:
        model = next((line.split(":", 1)[1].strip() for line in stream if line.startswith("model name")), model)
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "transformers", "datasets", "tokenizers")
    )
    return (
        f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}, {time.strftime('%Y-%m-%d')}"
    )


def page(results: dict[str, Any]) -> str:
    lines = [
        "# Measured",
        "",
        "Made by `make bench`. Each comparison times both sides alternately in one run, as whole processes, and",
        "reports the ratio of the medians (of as many runs as its command below says; one where `--repeats 1`). These",
        "machines are noisy, so the ratio counts and no single time does.",
        "",
        "| claim | lmtrain | peer | ratio | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        lines += ROWS.get(name, _rows)(result)
    lines += _anatomies(results)
    lines += ["", "## Commands and machines", ""]
    lines += [f"- `{result['command']}` on {result['machine']}" for result in results.values()]
    return "\n".join(lines) + "\n"


_PARTS = ("data", "forward", "head", "backward", "optimizer", "other")


def _anatomies(results: dict[str, Any]) -> list[str]:
    """Where the steps go of what missed a goal."""
    found = [one for result in results.values() for one in result.get("anatomies", [])]
    if not found:
        return []
    lines = [
        "",
        "## Steps of what missed a goal",
        "",
        "By `lmtrain profile`: the share of each part, and how much is reached of what the machine multiplies at most.",
        "",
        f"| | step | {' | '.join(_PARTS)} | MFU |",
        f"|---|---|{'---|' * len(_PARTS)}---|",
    ]
    for one in found:
        shares = " | ".join(f"{one['seconds'][part] / one['step_seconds']:.0%}" for part in _PARTS)
        reached = f"{one['mfu']:.0%} of {one['peak_flops'] / 1e9:,.0f} GFLOP/s ({one['precision']})"
        lines.append(f"| {one['what']} | {one['step_seconds'] * 1e3:,.0f} ms | {shares} | {reached} |")
    return lines


def _row(claim: str, ours: str, peer: str, ratio: str, goal: str, reached: bool) -> str:
    verdict = ("reached" if reached else "**missed**") if goal else ""  # without one it stands there to be read
    return f"| {claim} | {ours} | {peer} | {ratio} | {goal} | {verdict} |"


def _rows(result: dict[str, Any]) -> list[str]:
    """Of a comparison that says its own lines; see side_by_side.Row."""
    return [
        _row(row["claim"], row["lmtrain"], row["peer"], row["ratio"], row["goal"], row["reached"])
        for row in result["rows"]
    ]


def _prepare(result: dict[str, Any]) -> list[str]:
    ours, size = result["medians"]["lmtrain"], result["bytes"] / 1e6
    same = "same tokens" if result["same_tokens"] else "TOKENS DIFFER"
    return [
        _row(f"prepare {size:.0f} MB against `datasets.map` ({name}; {same})", f"{ours:.2f} s",
             f"{result['medians'][name]:.1f} s", f"{ratio:.1f}×", f"≥ {result['goal']:.0f}×", ratio >= result["goal"])
        for name, ratio in result["ratios"].items()
    ]  # fmt: skip


def _memory(result: dict[str, Any]) -> list[str]:
    claim = f"peak memory preparing {result['bytes'] / 1e9:g} GB"
    return [
        _row(f"{claim} as {name}", f"{peak / 1e6:.0f} MB", "", "", "< 1 GB", peak < result["goal"])
        for name, peak in result["peak_bytes"].items()
    ]


def _first_step(result: dict[str, Any]) -> list[str]:
    rows = []
    for size, median in result["medians"].items():
        share, goal = result["shares"][size], result["goals"][size]
        claim = f"command to first training step, {size} of text"
        ours, peer = f"{median['lmtrain']:.1f} s", f"{median['recipe']:.1f} s"
        rows.append(_row(claim, ours, peer, f"{share:.2f}", f"≤ {goal}", share <= goal))
    return rows


ROWS = {"prepare": _prepare, "prepare-memory": _memory, "first-step": _first_step}

if __name__ == "__main__":
    sys.exit(main())
