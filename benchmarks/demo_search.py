"""Which model and schedule reach the lowest bits per byte in the demo's time on this machine.

    python benchmarks/demo_search.py [--minutes 3] [CONFIG:BLOCK:BATCH:OPTIM:LEARNING_RATE[:OPTIM_ARGS] …]

Each candidate is a whole demo, one after another on a quiet machine. Without candidates, those that stood in question
when the demo's shapes were chosen.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from lmtrain.config.commands.demo import DemoOptions
from lmtrain.core.console import silent
from lmtrain.recipes.demo import Shape, run_demo

CANDIDATES = (
    "n_embd=128,n_layer=4,n_head=2,n_positions=64:64:12:muon:0.02:adam_ratio=0.5",
    "n_embd=128,n_layer=4,n_head=2,n_positions=64:64:12:muon:0.02:adam_ratio=0.5,momentum=0.9",
    "n_embd=128,n_layer=4,n_head=2,n_positions=64:64:12:muon:0.03:adam_ratio=0.5,momentum=0.9",
    "n_embd=128,n_layer=4,n_head=2,n_positions=256:256:4:muon:0.02:adam_ratio=0.5",
    "n_embd=192,n_layer=3,n_head=3,n_positions=256:256:4:muon:0.02:adam_ratio=0.4",
    "n_embd=256,n_layer=4,n_head=4,n_positions=256:256:4:muon:0.02:adam_ratio=0.2",
    "n_embd=128,n_layer=4,n_head=2,n_positions=256:256:4:adamw_torch:4e-3",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="*", default=CANDIDATES)
    parser.add_argument("--minutes", type=float, default=3.0)
    args = parser.parse_args()
    print("| candidate | steps | tokens/s | validation loss | bits per byte |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for candidate in args.candidates:
            folder = Path(scratch) / "demo"
            options = DemoOptions(output_dir=str(folder), minutes=args.minutes)
            scores = run_demo(options, say=silent, shape=parse(candidate), show=False).metrics
            steps = round(scores["train_steps_per_second"] * scores["train_runtime"])
            print(
                f"| {candidate} | {steps} | {scores['train_tokens_per_second']:.0f} | {scores['eval_loss']:.4f} | "
                f"{scores['bits_per_byte']:.4f} |",
                flush=True,
            )
            shutil.rmtree(folder)
    return 0


def parse(candidate: str) -> Shape:
    config, block, batch, optim, rate, *settings = candidate.split(":")
    return Shape(config, int(block), int(batch), optim, float(rate), settings[0] if settings else None)


if __name__ == "__main__":
    sys.exit(main())
