"""Training a causal model against the stock Trainer at its best setting: tokens/s, peak memory, and the same losses.

    python benchmarks/causal.py [--shape 4x256|gpt2|…] [--repeats 3] [--json OUT]

Ours is ``lmtrain clm``; the peer is ``transformers.Trainer`` with fused AdamW, SDPA and no dropout, plain and, where
the table says so, with ``torch_compile``. Both are fresh processes, alternating, on the same weights and the same
blocks in the same order, both in the faster format of the machine; the first steps, in which a side compiles or warms
up, are left out. Peak memory is that of the whole process (of the GPU's allocator on a GPU).
Then 50 steps in fp32 of both on the same small batches: the losses must agree to 1e-5.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from side_by_side import (
    CURVE_STEPS,
    Row,
    Timing,
    alternate,
    anatomy,
    curve_row,
    finish,
    median,
    our_rows,
    ours,
    parser,
    precision,
    save_rows,
    standard_library,
    stock,
    tokenizer_folder,
    tokens_per_second,
)

NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@dataclass(frozen=True)
class Shape:
    """A model, a batch, and what is to be reached: the goals of each peer as a ratio of tokens/s, and of the memory."""

    kind: str
    config: dict[str, Any]
    block: int
    batch: int
    goals: dict[str, float]
    memory: float
    timing: Timing = field(default_factory=Timing)
    mfu: float | None = None
    curve_batch: int = 8  # of the 50 steps in fp32


def gpt2(layers: int, width: int, heads: int, positions: int) -> dict[str, Any]:
    return {"n_layer": layers, "n_embd": width, "n_head": heads, "n_positions": positions, **NO_DROPOUT}


_LLAMA_1B = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "max_position_embeddings": 2048,
}  # fmt: skip
_LONG = Timing(warm=1, steps=4, seconds=60)  # tens of seconds a step where bf16 is slow
_GPU = Timing(warm=10, steps=30, seconds=60)
PLAIN, COMPILED = "stock", "stock, compiled"
SHAPES = {
    "4x256": Shape("gpt2", gpt2(4, 256, 4, 256), 256, 8, {PLAIN: 2.2}, 0.6),
    "gpt2": Shape("gpt2", gpt2(12, 768, 12, 512), 512, 8, {PLAIN: 1.8, COMPILED: 1.3}, 0.5, _LONG, curve_batch=1),
    "gpu-gpt2": Shape("gpt2", gpt2(12, 768, 12, 1024), 1024, 16, {PLAIN: 1.4, COMPILED: 1.4}, 0.6, _GPU),
    "gpu-gpt2-medium": Shape("gpt2", gpt2(24, 1024, 16, 1024), 1024, 8, {PLAIN: 1.4, COMPILED: 1.4}, 0.6, _GPU),
    "gpu-llama-1b": Shape("llama", _LLAMA_1B, 2048, 4, {PLAIN: 1.4, COMPILED: 1.4}, 0.6, _GPU, mfu=0.55),
}


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--shape", choices=SHAPES, default="4x256")
    options.add_argument("--no-curve", action="store_true", help="leave out the 50 steps in fp32")
    args = options.parse_args()
    shape = SHAPES[args.shape]
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        library = standard_library(work / "library")
        tokenizer = tokenizer_folder(None, library, work / "tokenizer")
        new_model(shape, tokenizer, work / "model")
        figures = speed(shape, work, args.repeats)
        rows: list[Row] = speed_rows(args.shape, shape, figures)
        details: dict[str, Any] = {"figures": figures}
        if not args.no_curve:
            rows.append(curve(args.shape, shape, work))
        if not all(row.reached for row in rows):
            words = command(shape.block, shape.batch, 20, precision(), work)
            steps = 2 if shape.timing is _LONG else 6
            details["anatomies"] = [anatomy(f"causal {args.shape}", ["clm", *words], work, steps=steps)]
    return finish(f"causal {args.shape}", rows, details, args.json)


def new_model(shape: Shape, tokenizer: Path, folder: Path) -> None:
    """Weights for both sides, with the tokenizer beside them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    words.save_pretrained(folder)
    torch.manual_seed(0)
    end = words.eos_token_id
    config = AutoConfig.for_model(shape.kind, vocab_size=len(words), bos_token_id=end, eos_token_id=end, **shape.config)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def speed(shape: Shape, work: Path, repeats: int) -> dict[str, list[dict[str, Any]]]:
    timing, number = shape.timing, precision()
    steps = timing.warm + timing.steps
    words = command(shape.block, shape.batch, steps, number, work)
    rows = our_rows("clm", [*words, "--output_dir", work / "ours"], steps * shape.batch)
    recipe = {"model": str(work / "model"), "kind": "clm", "task": "train",
              "data": str(save_rows(work / "rows.npz", rows))}  # fmt: skip
    arguments = stock_arguments(shape.batch, steps, number)
    sides = {"lmtrain": ours(timing, work, "clm", *words)}
    for name in shape.goals:
        chosen = {**arguments, **({"torch_compile": True} if name == COMPILED else {})}
        sides[name] = stock(timing, work, name.replace(", ", "-"), {**recipe, "arguments": chosen})
    return alternate(sides, repeats, work)


def command(block: int, batch: int, steps: int, number: str, work: Path) -> list[Any]:
    return [
        *("--model_name_or_path", work / "model", "--train_file", work / "library", "--block_size", block),
        *("--per_device_train_batch_size", batch, "--max_steps", steps, "--precision", number, "--do_train"),
        *("--validation_split_percentage", 0, "--save_strategy", "no", "--logging_steps", 1, "--seed", 42),
    ]


def stock_arguments(batch: int, steps: int, number: str) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": batch, "max_steps": steps, "bf16": number == "bf16", "save_strategy": "no",
        "optim": "adamw_torch_fused", "train_sampling_strategy": "sequential", "logging_steps": 1, "seed": 42,
        "include_num_input_tokens_seen": "all",
    }  # fmt: skip


def speed_rows(name: str, shape: Shape, figures: dict[str, list[dict[str, Any]]]) -> list[Row]:
    mine = figures["lmtrain"]
    rows = []
    for peer, goal in shape.goals.items():
        theirs = figures[peer]
        ratio = tokens_per_second(mine) / tokens_per_second(theirs)
        memory = median(mine, "peak_bytes") / median(theirs, "peak_bytes")
        rows += [
            Row(f"causal {name}, {shape.batch} × {shape.block} tokens, against {peer}",
                f"{tokens_per_second(mine):,.0f} tokens/s", f"{tokens_per_second(theirs):,.0f} tokens/s",
                f"{ratio:.2f}×", f"≥ {goal}×", ratio >= goal),
            Row(f"causal {name}: peak memory against {peer}",
                f"{median(mine, 'peak_bytes') / 1e6:,.0f} MB", f"{median(theirs, 'peak_bytes') / 1e6:,.0f} MB",
                f"{memory:.2f}", f"≤ {shape.memory}", memory <= shape.memory),
        ]  # fmt: skip
    if shape.mfu is not None:
        reached = median(mine, "train_mfu") if all("train_mfu" in run for run in mine) else 0.0
        rows.append(
            Row(f"causal {name}: model FLOPs over the measured peak", f"{reached:.0%}", "", "", f"≥ {shape.mfu:.0%}",
                reached >= shape.mfu)
        )  # fmt: skip
    return rows


def curve(name: str, shape: Shape, work: Path) -> Row:
    """Both sides in fp32 on the same batches."""
    timing = Timing(warm=1, steps=CURVE_STEPS, seconds=1e9)
    words = command(shape.block, shape.curve_batch, CURVE_STEPS, "fp32", work)
    rows = our_rows("clm", [*words, "--output_dir", work / "ours"], CURVE_STEPS * shape.curve_batch)
    recipe = {"model": str(work / "model"), "kind": "clm", "task": "train",
              "data": str(save_rows(work / "curve.npz", rows)),
              "arguments": stock_arguments(shape.curve_batch, CURVE_STEPS, "fp32")}  # fmt: skip
    sides = {"lmtrain": ours(timing, work, "clm", *words), PLAIN: stock(timing, work, "curve", recipe)}
    figures = alternate(sides, 1, work)
    return curve_row(f"causal {name}", figures["lmtrain"][0]["losses"], figures[PLAIN][0]["losses"])


if __name__ == "__main__":
    sys.exit(main())
