"""What the comparisons share: both sides as fresh processes, alternately, and the ratio of medians against a goal."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prepare import GPT2, HERE, environment, standard_library, tokenizer_folder
from prepare import ours as lmtrain

SHARED = GPT2.parent
__all__ = ["HERE", "SHARED", "lmtrain", "standard_library", "tokenizer_folder"]


@dataclass(frozen=True)
class Timing:
    """How long a training is watched: ``steps`` steps, or what fits into ``seconds``, after ``warm`` ones."""

    warm: int = 2
    steps: int = 6
    seconds: float = 60.0

    def words(self) -> list[str]:
        return [str(self.warm), str(self.steps), str(self.seconds)]


@dataclass(frozen=True)
class Row:
    """A line of RESULTS.md."""

    claim: str
    lmtrain: str
    peer: str
    ratio: str
    goal: str
    reached: bool


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=3, help="runs of each side; medians are compared")
    made.add_argument("--json", type=Path, help="write the figures to this file")
    return made


def alternate(sides: Mapping[str, Sequence[Any]], repeats: int, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Run every side once, then every side again …; each command finds ``OUT`` replaced by the file it fills."""
    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    out = work / "figures.json"
    for _ in range(repeats):
        for name, command in sides.items():
            out.unlink(missing_ok=True)
            words = [str(out) if word == "OUT" else str(word) for word in command]
            done = subprocess.run(words, env=environment(work), capture_output=True, text=True)
            if done.returncode or not out.is_file():
                raise SystemExit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
            figures[name].append(json.loads(out.read_text()))
            shown = {key: value for key, value in figures[name][-1].items() if isinstance(value, int | float)}
            print(f"{name:<28}", "  ".join(f"{key} {value:,.2f}" for key, value in shown.items()), file=sys.stderr)
    return figures


def median(runs: list[dict[str, Any]], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def tokens_per_second(runs: list[dict[str, Any]]) -> float:
    return statistics.median(run["tokens"] / run["seconds"] for run in runs)


def ours(timing: Timing, work: Path, *words: Any) -> list[Any]:
    """An ``lmtrain`` command as a side; its run folder is begun anew every time."""
    folders = ["--output_dir", work / "ours", "--overwrite_output_dir", "--data_cache_dir", work / "cache"]
    return [sys.executable, HERE.parent / "side_ours.py", "OUT", *timing.words(), "--", *words, *folders]


def stock(timing: Timing, work: Path, name: str, recipe: dict[str, Any]) -> list[Any]:
    """The stock Trainer as a side; see side_stock.py for ``recipe``."""
    file = work / f"{name}.json"
    recipe["arguments"]["output_dir"] = str(work / "stock")
    file.write_text(json.dumps(recipe))
    return [sys.executable, HERE.parent / "side_stock.py", "OUT", *timing.words(), file]


def precision() -> str:
    """The faster format of this machine, by our own measurement: what both sides multiply in."""
    import torch

    from lmtrain.engine.speed.precision import choose_precision

    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return choose_precision("auto", device).name


def save_rows(file: Path, rows: Sequence[Any], labels: Sequence[Any] | None = None) -> Path:
    """Rows of token ids, with the labels of each where those are given, for :mod:`side_stock`."""
    import numpy as np

    lengths = np.array([len(row) for row in rows])
    columns = {"ids": rows} if labels is None else {"ids": rows, "labels": labels}
    filled = {name: np.zeros((len(rows), lengths.max()), dtype=np.int64) for name in columns}
    for name, column in columns.items():
        for number, row in enumerate(column):
            filled[name][number, : len(row)] = row
    np.savez(file, lengths=lengths, **filled)
    return file


def side_evaluate(*words: Any) -> list[Any]:
    """``lmtrain evaluate`` as a side."""
    return [sys.executable, HERE.parent / "side_evaluate.py", "OUT", *words]


def our_rows(command: str, words: Sequence[Any], count: int, *, split: str = "train") -> list[Any]:
    """The first ``count`` examples that ``lmtrain COMMAND WORDS`` trains on, in its order, or those it evaluates on."""
    from itertools import islice

    from lmtrain.cli.arguments import parse
    from lmtrain.core.console import silent
    from lmtrain.engine.batches.sampling import EpochOrder
    from lmtrain.engine.parts import assemble

    layout = assemble(parse(command, [str(word) for word in words]).options, say=silent).corpus.splits[split]
    order = EpochOrder(len(layout), seed=42, shuffle=split == "train")
    return [layout[number]["input_ids"] for number in islice(order, count)]


def our_masked_rows(words: Sequence[Any], count: int) -> tuple[list[Any], list[Any]]:
    """Ids with their masks, and labels, of the first ``count`` examples that ``lmtrain mlm WORDS`` trains on."""
    from itertools import islice

    from lmtrain.cli.arguments import parse
    from lmtrain.core.console import silent
    from lmtrain.engine.batches.collate import Collate, EpochExamples
    from lmtrain.engine.batches.sampling import EpochOrder
    from lmtrain.engine.parts import assemble

    parts = assemble(parse("mlm", [str(word) for word in words]).options, say=silent)
    examples, collate = EpochExamples(parts.corpus.splits["train"], epoch=0), Collate(parts.objective)
    order = EpochOrder(len(examples), seed=42)
    made = [collate(examples[number]) for number in islice(order, count)]
    return [one["input_ids"][0].tolist() for one in made], [one["labels"][0].tolist() for one in made]


def anatomy(what: str, words: Sequence[Any], work: Path, *, steps: int = 6) -> dict[str, Any]:
    """Where a step of ``lmtrain WORDS`` goes, for what misses its goal: as ``lmtrain profile --json`` has it."""
    command = [*words, "--output_dir", work / "ours", "--overwrite_output_dir", "--data_cache_dir", work / "cache"]
    found = json.loads(lmtrain("profile", *command, "--steps", steps, "--json", work=work))
    kept = ("step_seconds", "mfu", "seconds", "flops", "padding", "precision", "memory")
    return {"what": what, **{name: found[name] for name in kept}, "peak_flops": found["peak"]["flops"]}


CURVE_STEPS, CURVE_BOUND = 50, 1e-5


def curve_row(name: str, ours: Sequence[float], peer: Sequence[float]) -> Row:
    """The largest relative difference between the losses of both sides, step by step."""
    if len(ours) != len(peer) or len(ours) < CURVE_STEPS:
        raise SystemExit(f"{len(ours)} and {len(peer)} losses were logged instead of {CURVE_STEPS}")
    worst = max(abs(a - b) / abs(b) for a, b in zip(ours, peer, strict=True))
    claim = f"{name}: largest difference of loss in {CURVE_STEPS} fp32 steps, relative"
    return Row(claim, f"{worst:.1e}", "", "", f"≤ {CURVE_BOUND:.0e}", worst <= CURVE_BOUND)


def finish(name: str, rows: Sequence[Row], details: dict[str, Any], out: Path | None) -> int:
    """Print the result, write it to ``out``; 0 when every goal was reached."""
    result = {
        "benchmark": name,
        "rows": [asdict(row) for row in rows],
        "reached": all(row.reached for row in rows),
        **details,
    }
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
    for row in rows:
        print(f"{row.claim}: {row.lmtrain} / {row.peer} = {row.ratio} (goal {row.goal}: "
              f"{'reached' if row.reached else 'MISSED'})")  # fmt: skip
    return 0 if result["reached"] else 1
