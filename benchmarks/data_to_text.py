"""Fine-tuning GPT-2 with LoRA on E2E: ``lmtrain gpt2-ft`` against the original's recipe and against stock PEFT.

    python benchmarks/data_to_text.py [--shape gpt2|tiny] [--no-curve] [--repeats 3] [--json OUT]

GPT-2 of 124 M random weights, LoRA of rank 4 in query and value, label smoothing, batches of 8, as the README of
microsoft/LoRA trains. The data are E2E's validation pairs encoded with GPT-2's tokenizer where ../shared/data has them
(58 tokens a pair, 28 of them predicted), else pairs of such lengths with random ids. The peers are

- the original's recipe: examples padded to 512, logits of all positions, loralib, fp32 (the code is that of our parity
  test, after its formulas);
- ``transformers.Trainer`` with a PEFT adapter, batches padded to their longest, fused AdamW, SDPA.

We and the latter multiply in the faster format of the machine. Fresh processes, alternating, the same examples in the
same order; the first steps are left out. Then the losses: in fp32 without dropout ours have to be the original's, to
1e-5, over 50 steps; and in the format and with the dropout of the timing the mean of the last 20 of 60 steps has to be
stock PEFT's, to 2 %: its adapter has another shape and another start.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from side_by_side import HERE, SHARED, Row, Timing, alternate, finish, median, parser, precision

GOALS = {"original": 30.0, "stock": 2.2}
NAMES = {"original": "the original's recipe", "stock": "stock PEFT"}
CURVE_BOUND, LOSS_BOUND = 1e-5, 0.02


@dataclass(frozen=True)
class Shape:
    """A model; the ``length`` to which the original pads; the steps whose losses are compared, the last third of them
    with stock PEFT's."""

    config: dict[str, Any]
    timing: Timing
    length: int = 512
    curve: int = 50
    losses: int = 60
    batch: int = 8
    goals: dict[str, float] = field(default_factory=lambda: dict(GOALS))


_GPU, _GPU_GOALS = Timing(warm=10, steps=100, seconds=60), {"stock": 1.5}
SHAPES = {
    "gpt2": Shape({"n_layer": 12, "n_embd": 768, "n_head": 12}, Timing(warm=2, steps=40, seconds=90)),
    "tiny": Shape({"n_layer": 1, "n_embd": 32, "n_head": 2}, Timing(warm=2, steps=2, seconds=30), 96, 6, 9),
    "gpu-gpt2": Shape({"n_layer": 12, "n_embd": 768, "n_head": 12}, _GPU, batch=32, goals=_GPU_GOALS),
    "gpu-gpt2-medium": Shape({"n_layer": 24, "n_embd": 1024, "n_head": 16}, _GPU, batch=32, goals=_GPU_GOALS),
}
VOCABULARY = 50257
CORPUS, TOKENIZER = SHARED / "e2e" / "valid.txt", SHARED / "gpt2"


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--shape", choices=SHAPES, default="gpt2", help="tiny shows that it works, and times nothing")
    options.add_argument(
        "--no-curve", action="store_true",
        help="leave out the 50 losses in fp32 beside the original's (an hour on two cores; see tests/parity)",
    )  # fmt: skip
    args = options.parse_args()
    shape = SHAPES[args.shape]
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        new_model(shape.config, work / "model")
        data = pairs(work)
        base = {
            "model": str(work / "model"), "data": str(data), "valid": str(data), "batch": shape.batch,
            "length": shape.length, "rank": 4, "alpha": 32, "dropout": 0.1, "smoothing": 0.1, "lr": 2e-4, "warmup": 5,
            "seed": 110, "log": 100,
            "precision": precision(),
        }  # fmt: skip
        figures = alternate(
            {side: command(work, shape.timing, side, base) for side in ("ours", *shape.goals)}, args.repeats, work
        )
        exact = {**base, "precision": "fp32", "dropout": 0.0, "log": 1}
        long = Timing(warm=1, steps=shape.curve - 1, seconds=1e9)
        sides = () if args.no_curve else ("ours", "original")
        curves = alternate({side: command(work, long, side, exact) for side in sides}, 1, work)
        long = Timing(warm=1, steps=shape.losses - 1, seconds=1e9)
        losses = {side: command(work, long, side, {**base, "log": 1}) for side in ("ours", "stock")}
        reached = alternate(losses, 1, work)
    rows = [*speed_rows(args.shape, figures), *loss_rows(shape, curves, reached)]
    return finish(f"data to text {args.shape}", rows, {"figures": figures}, args.json)


def command(work: Path, timing: Timing, side: str, recipe: dict[str, Any]) -> list[Any]:
    file = work / f"{side}-{timing.steps}-{recipe['log']}-{recipe['precision']}.json"
    file.write_text(json.dumps({**recipe, "work_dir": str(work / side)}))
    return [sys.executable, HERE.parent / "side_data_to_text.py", "OUT", *timing.words(), side, file]


def new_model(config: dict[str, Any], folder: Path) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    none = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **config, **none)).save_pretrained(folder)


def pairs(work: Path) -> Path:
    """E2E as the README encodes it (``--add_bos --add_eos``), or pairs of its lengths."""
    file = work / "pairs.jsonl"
    if has_e2e():
        from lmtrain.data.nlg.encoding import encode_file
        from lmtrain.data.nlg.formats import convert
        from lmtrain.data.tokenizer_files import TokenizerFiles

        convert("e2e", CORPUS, work / "records.jsonl")
        words = TokenizerFiles.load(TOKENIZER)
        count, tokens = encode_file(work / "records.jsonl", file, words, add_bos=True, add_eos=True)
        print(f"E2E: {count} pairs, {tokens / count:.1f} tokens each", file=sys.stderr)
        return file
    import numpy as np

    random = np.random.default_rng(0)
    with file.open("w") as stream:
        for _ in range(4000):
            context, answer = (random.integers(0, VOCABULARY, random.integers(least, most)).tolist()
                               for least, most in ((15, 46), (14, 43)))  # fmt: skip
            stream.write(json.dumps({"context": context, "completion": answer}) + "\n")
    return file


def has_e2e() -> bool:
    return CORPUS.is_file() and TOKENIZER.is_dir()


def learned() -> str:
    """What the rows call it."""
    return "LoRA on E2E" if has_e2e() else "LoRA on random pairs of E2E's lengths"


def examples_per_second(shape: Shape, runs: list[dict[str, Any]]) -> float:
    return statistics.median(run["steps"] * shape.batch / run["seconds"] for run in runs)


def speed_rows(name: str, figures: dict[str, list[dict[str, Any]]]) -> list[Row]:
    shape, rows = SHAPES[name], list[Row]()
    mine = examples_per_second(shape, figures["ours"])
    model = "" if name == "gpt2" else f" ({name})"
    for side, goal in shape.goals.items():
        theirs = examples_per_second(shape, figures[side])
        memory = " and ".join(f"{median(figures[name], 'peak_bytes') / 1e6:,.0f} MB" for name in ("ours", side))
        rows.append(
            Row(f"{learned()}{model}, batches of {shape.batch}, against {NAMES[side]} (memory {memory})",
                f"{mine:.1f} examples/s", f"{theirs:.1f} examples/s", f"{mine / theirs:.1f}×", f"≥ {goal}×",
                mine / theirs >= goal)
        )  # fmt: skip
    return rows


def loss_rows(
    shape: Shape, curves: dict[str, list[dict[str, Any]]], reached: dict[str, list[dict[str, Any]]]
) -> list[Row]:
    rows = []
    if curves:
        ours, original = (curves[side][0]["losses"] for side in ("ours", "original"))
        if not len(ours) == len(original) == shape.curve:
            raise SystemExit(f"{len(ours)} and {len(original)} losses were logged instead of {shape.curve}")
        worst = max(abs(a - b) / abs(b) for a, b in zip(ours, original, strict=True))
        rows.append(
            Row(f"{learned()}: largest difference from the original's loss in {shape.curve} fp32 steps, relative",
                f"{worst:.1e}", "", "", f"≤ {CURVE_BOUND:.0e}", worst <= CURVE_BOUND)
        )  # fmt: skip
    last = shape.losses // 3
    mine, stock = (statistics.mean(reached[side][0]["losses"][-last:]) for side in ("ours", "stock"))
    off = abs(mine - stock) / stock
    return [
        *rows,
        Row(f"{learned()}: loss of the last {last} of {shape.losses} steps beside stock PEFT's",
            f"{mine:.3f}", f"{stock:.3f}", f"{off:.1%} apart", f"≤ {LOSS_BOUND:.0%}", off <= LOSS_BOUND),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
