"""What saving costs a training against the stock Trainer, the pause and the steps meanwhile; how a resumed run starts.

    python benchmarks/checkpoint.py [--repeats 3] [--shape gpt2] [--json OUT]

The same model, data, batches and precision on both sides, each a fresh process, alternating; a save every 6 steps.
*Pause* is how long the training thread is in a save, the median of them. *Lost* is what a training of ours or of the
stock Trainer took longer than its steps would have taken without saving (the median step times their number): pauses
and slower steps together. *Kept* is what lies in the checkpoints at the end, with no limit of their number, as both
sides come.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import Row, alternate, finish, median, parser

SHAPES = {
    "tiny": {"n_layer": 2, "n_embd": 64, "n_head": 2, "vocab_size": 500, "n_positions": 32},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 128},
}
BATCH, STEPS, EVERY = 2, 24, 6
GOAL, FLAT = 0.25, 0.1  # of the stock Trainer's pause; seconds more to go on at step 100,000 than at step 10


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--shape", choices=SHAPES, default="gpt2")
    options.add_argument("--side", nargs=2, metavar=("KIND", "OUT"), help="be one side (started by the benchmark)")
    args = options.parse_args()
    if args.side:
        Path(args.side[1]).write_text(json.dumps(side(args.side[0], args.shape)))
        return 0
    me = [sys.executable, Path(__file__).resolve(), "--shape", args.shape, "--side"]
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        kinds = ("ours", "stock", "early", "late")
        figures = alternate({kind: [*me, kind, "OUT"] for kind in kinds}, args.repeats, Path(scratch))
    lost = {kind: median(figures[kind], "lost_seconds") for kind in ("ours", "stock")}
    pause = {kind: median(figures[kind], "pause_seconds") for kind in ("ours", "stock")}
    kept = {kind: median(figures[kind], "kept_bytes") for kind in ("ours", "stock")}
    begin = {kind: median(figures[kind], "seconds") for kind in ("early", "late")}
    saves, more = STEPS // EVERY, begin["late"] - begin["early"]
    ratio = pause["ours"] / pause["stock"]
    rows = [
        Row(f"{args.shape}: pause of a save, against stock", f"{pause['ours']:.2f} s", f"{pause['stock']:.2f} s",
            f"{ratio:.2f}", f"≤ {GOAL}", ratio <= GOAL),
        Row(f"{args.shape}: time lost to {saves} saves, against stock", f"{lost['ours']:.2f} s",
            f"{lost['stock']:.2f} s", f"{lost['ours'] / lost['stock']:.2f}", "", True),
        Row(f"{args.shape}: kept of {saves} checkpoints, against stock", f"{kept['ours'] / 1e9:.2f} GB",
            f"{kept['stock'] / 1e9:.2f} GB", f"{kept['ours'] / kept['stock']:.2f}", "", True),
        Row("first batch of a run resumed at step 100,000, against step 10", f"{begin['late']:.2f} s",
            f"{begin['early']:.2f} s", f"{more:+.2f} s", f"≤ {FLAT} s more", more <= FLAT),
    ]  # fmt: skip
    return finish(f"checkpoint {args.shape}", rows, {"figures": figures}, args.json)


def side(kind: str, shape: str) -> dict[str, Any]:
    return first_batch(100_000 if kind == "late" else 10) if kind in ("early", "late") else training(kind, shape)


def training(kind: str, shape: str) -> dict[str, Any]:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    from lmtrain.engine.checkpoints.policy import Saving
    from lmtrain.engine.trainer import LMTrainer
    from lmtrain.objectives import Causal

    config = GPT2Config(**SHAPES[shape])
    torch.manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (BATCH * STEPS, config.n_positions)).tolist()
    data: Any = [{"input_ids": row, "labels": row} for row in ids]
    pauses, starts, ends = list[float](), list[float](), list[float]()

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            starts.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, max_steps=STEPS, per_device_train_batch_size=BATCH, save_steps=EVERY, report_to="none",
            disable_tqdm=True,
        )  # fmt: skip
        if kind == "ours":
            trainer: Any = LMTrainer(
                GPT2LMHeadModel(config), args, data, objective=Causal(), callbacks=[Clock()],
                saving=Saving(background="on"),
            )  # fmt: skip
            _ = trainer.fast_paths, trainer.peak
        else:
            trainer = Trainer(GPT2LMHeadModel(config), args, train_dataset=data, callbacks=[Clock()])
        save = trainer._save_checkpoint

        def timed(*given: Any) -> None:
            began = time.perf_counter()
            save(*given)
            pauses.append(time.perf_counter() - began)

        trainer._save_checkpoint = timed
        trainer.train()
        done = time.perf_counter()
        kept = sum(file.stat().st_size for file in Path(folder).glob("checkpoint-*/**/*") if file.is_file())
    # The first two steps warm up; a usual step is one in whose time nothing is written.
    quiet = [end - start for n, (start, end) in enumerate(zip(starts, ends, strict=True)) if 2 <= n < EVERY]
    usual = sorted(quiet)[len(quiet) // 2]
    return {"lost_seconds": done - starts[2] - usual * (STEPS - 2), "pause_seconds": statistics.median(pauses[1:]),
            "step_seconds": usual, "kept_bytes": kept}  # fmt: skip


def first_batch(step: int) -> dict[str, Any]:
    """From where a run that goes on asks for its first batch until it has it: 8 examples a step, 810,000 in all."""
    from accelerate import Accelerator
    from accelerate.data_loader import skip_first_batches
    from torch.utils.data import BatchSampler, DataLoader

    from lmtrain.engine.batches.sampling import BatchesFrom, EpochOrder

    order = EpochOrder(810_000, 1)
    loader = Accelerator(cpu=True).prepare(DataLoader(range(810_000), sampler=order, batch_size=8))  # type: ignore[arg-type]
    loader = skip_first_batches(loader, 0)
    batches = BatchSampler(order, 8, drop_last=False)
    loader.batch_sampler.batch_sampler = BatchesFrom(batches, order, step, step * 8)
    began = time.perf_counter()
    next(iter(skip_first_batches(loader, step)))
    return {"seconds": time.perf_counter() - began}


if __name__ == "__main__":
    sys.exit(main())
