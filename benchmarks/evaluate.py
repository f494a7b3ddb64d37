"""Evaluating a causal model with a vocabulary of 50,257 against the stock ``Trainer.evaluate``: time and peak memory.

    python benchmarks/evaluate.py [--repeats 3] [--json OUT]

GPT-2 type, 4 layers × 256, batches of 8 × 256 tokens, the same blocks in the same order. Ours is ``lmtrain evaluate``;
both are fresh processes, alternating, and give the time that the evaluation itself took. Each runs on few batches and
on four times as many: the peak memory must not grow. Both must come to the same loss.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from causal import SHAPES, new_model
from side_by_side import (
    Row,
    Timing,
    alternate,
    finish,
    median,
    our_rows,
    parser,
    precision,
    save_rows,
    side_evaluate,
    standard_library,
    stock,
    tokenizer_folder,
)

SHAPE = SHAPES["4x256"]
BATCHES = 5
GOAL, FLAT, SAME = 2.5, 1.1, 1e-5  # times as fast; memory at four times the batches; relative difference of the loss
NOTHING = Timing()


def main() -> int:
    args = parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        library = standard_library(work / "library")
        new_model(SHAPE, tokenizer_folder(None, library, work / "tokenizer"), work / "model")
        number = precision()
        figures = alternate(sides(work, number), args.repeats, work)
    return finish("evaluate", rows_of(figures, number), {"figures": figures}, args.json)


def sides(work: Path, number: str) -> dict[str, list[Any]]:
    text = ["--model_name_or_path", work / "model", "--block_size", SHAPE.block]
    both = {}
    for times in (1, 4):
        count = times * BATCHES * SHAPE.batch
        words = [*text, "--validation_file", work / "library", "--max_eval_samples", count]
        rows = our_rows("clm", words, count, split="validation")
        recipe = {
            "model": str(work / "model"), "kind": "clm", "task": "evaluate",
            "data": str(save_rows(work / f"rows-{times}.npz", rows)),
            "arguments": {"per_device_eval_batch_size": SHAPE.batch, "bf16": number == "bf16"},
        }  # fmt: skip
        options = ["--per_device_eval_batch_size", SHAPE.batch, "--precision", number]
        both[f"lmtrain, {times}×"] = side_evaluate(*words, *options)
        both[f"stock, {times}×"] = stock(NOTHING, work, f"evaluate-{times}", recipe)
    return both


def rows_of(figures: dict[str, list[dict[str, Any]]], number: str) -> list[Row]:
    mine, theirs = median(figures["lmtrain, 4×"], "seconds"), median(figures["stock, 4×"], "seconds")
    ours_mb, stock_mb = (median(figures[f"{side}, 4×"], "peak_bytes") / 1e6 for side in ("lmtrain", "stock"))
    growth = ours_mb * 1e6 / median(figures["lmtrain, 1×"], "peak_bytes")
    loss, peer_loss = median(figures["lmtrain, 4×"], "loss"), median(figures["stock, 4×"], "loss")
    apart = abs(loss - peer_loss) / peer_loss
    rows = [
        Row(f"evaluation, {4 * BATCHES} batches of {SHAPE.batch} × {SHAPE.block}, against stock `evaluate`",
            f"{mine:.1f} s, {ours_mb:,.0f} MB", f"{theirs:.1f} s, {stock_mb:,.0f} MB", f"{theirs / mine:.2f}×",
            f"≥ {GOAL}×", theirs / mine >= GOAL),
        Row("evaluation: peak memory with four times the batches", f"{ours_mb:,.0f} MB", "", f"{growth:.2f}",
            f"≤ {FLAT}", growth <= FLAT),
    ]  # fmt: skip
    if number == "fp32":
        rows.append(Row("evaluation: the loss of both, relative difference", f"{loss:.6f}", f"{peer_loss:.6f}",
                        f"{apart:.1e}", f"≤ {SAME:.0e}", apart <= SAME))  # fmt: skip
    return rows


if __name__ == "__main__":
    sys.exit(main())
