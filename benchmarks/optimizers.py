"""When Muon helps: the measurements behind docs/optimizers.md.

    python benchmarks/optimizers.py scratch|pieces|finetune|lora … [--steps 300] [--first_steps 600] [--seeds 1]

The character model of side_loop.py on tiny Shakespeare (``../shared/data``), the same batches for all, cosine schedule
to a tenth after 50 steps of warm-up, one thread. ``scratch``: from random weights, over learning rates. ``finetune``
and ``lora``: from a model trained on Python's own source, once with AdamW and once with Muon; all weights, or adapters
of rank 8 on every matrix of the layers. ``pieces``: the settings inside Muon. Prints a table of held-out losses.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import side_loop
import torch
from side_by_side import SHARED
from side_loop import DECAY, Model, loss_of, windows
from torch import Tensor, nn

from lmtrain.engine.muon import muon_for

CHARACTERS = "".join(map(chr, (9, 10, *range(32, 127))))
WARMUP, LOWEST = 50, 0.1
RANK = 8
ADAM, MUON = "AdamW", "Muon"


@dataclass(frozen=True)
class Candidate:
    """An optimizer, its learning rate, and what differs from the defaults of ``muon_for``."""

    name: str
    lr: float
    more: tuple[tuple[str, Any], ...] = ()

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        if self.name == MUON:
            return muon_for(model, **{"lr": self.lr, "weight_decay": DECAY, **dict(self.more)})
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = [{"params": [p for p in trained if (p.ndim >= 2) == matrix], "weight_decay": DECAY * matrix}
                  for matrix in (True, False)]  # fmt: skip
        return torch.optim.AdamW([group for group in groups if group["params"]], lr=self.lr, fused=True,
                                 **{"betas": (0.9, 0.99), **dict(self.more)})  # fmt: skip


RATES = [Candidate(ADAM, lr) for lr in (1e-3, 3e-3, 1e-2)] + [Candidate(MUON, lr) for lr in (0.01, 0.02, 0.04)]
LOWER = [Candidate(ADAM, lr) for lr in (3e-4, 1e-3, 3e-3)] + [Candidate(MUON, lr) for lr in (2e-3, 6e-3, 0.02)]
ADAPTERS = [Candidate(ADAM, lr) for lr in (1e-3, 3e-3, 1e-2)] + [Candidate(MUON, lr) for lr in (6e-3, 0.02, 0.06)]
PIECES = [
    Candidate(MUON, 0.02),
    *(Candidate(MUON, 0.02, (("adam_ratio", ratio),)) for ratio in (0.1, 0.5)),
    *(Candidate(MUON, 0.02, (("momentum", momentum),)) for momentum in (0.9, 0.98)),
    Candidate(MUON, 0.02, (("betas", (0.9, 0.99)),)),
    Candidate(MUON, 0.02, (("weight_decay", 0.0),)),
]


CANDIDATES = {"scratch": RATES, "pieces": PIECES, "finetune": LOWER, "lora": ADAPTERS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=CANDIDATES)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--first_steps", type=int, default=600, help="of the training that fine-tuning starts from")
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, held_out = shakespeare()
    print("| | begun from | optimizer | learning rate | other settings | loss | ms a step, of it the optimizer |")
    print("|---|---|---|---|---|---|---|", flush=True)
    torch.manual_seed(1)
    new = {"random weights": Model(len(CHARACTERS))}
    trained = trained_on_code(new["random weights"], args.first_steps) if {"finetune", "lora"} & {*args.what} else {}
    for what in args.what:
        starts = trained if what in ("finetune", "lora") else new
        for (start, model), candidate in product(starts.items(), CANDIDATES[what]):
            adapted = partial(with_adapters if what == "lora" else copy.deepcopy, model)
            runs = [fit(adapted(), candidate, train, args.steps, seed) for seed in range(args.seeds)]
            print("|", " | ".join((what, start, *cells(candidate, runs, held_out))), "|", flush=True)
    return 0


def cells(candidate: Candidate, runs: list[tuple[Any, float, float]], held_out: Tensor) -> tuple[str, ...]:
    """Of a line of the table: the setting, the loss of each seed, and the time."""
    more = ", ".join(f"{key}={value}" for key, value in candidate.more)
    losses = ", ".join(f"{side_loop.held_out_loss(model, held_out):.3f}" for model, _, _ in runs)
    step, inside = (1e3 * statistics.median(run[i] for run in runs) for i in (1, 2))
    return candidate.name, f"{candidate.lr:g}", more, losses, f"{step:.0f}, {inside:.0f}"


def trained_on_code(new: nn.Module, steps: int) -> dict[str, nn.Module]:
    code = numbers(python_source())
    return {
        f"{candidate.name}'s model of code": fit(copy.deepcopy(new), candidate, code, steps, 0)[0]
        for candidate in (Candidate(ADAM, 3e-3), Candidate(MUON, 0.02))
    }


def with_adapters(model: nn.Module) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    model = copy.deepcopy(model).requires_grad_(False)
    targets = ["query_key_value", "out", "up", "down"]
    return inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=targets), model)


def fit(model: nn.Module, candidate: Candidate, train: Tensor, steps: int, seed: int) -> tuple[Any, float, float]:
    """The model after ``steps``, and the median seconds of a step and of the optimizer in it."""
    torch.manual_seed(seed)
    optimizer = candidate.optimizer(model)
    highest = [group["lr"] for group in optimizer.param_groups]
    whole, inside = [], []
    for step in range(steps):
        began = time.perf_counter()
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = lr * share(step, steps)
        loss_of(model, *windows(train)).backward()  # type: ignore[arg-type]
        nn.utils.clip_grad_norm_(model.parameters(), side_loop.CLIP)
        before = time.perf_counter()
        optimizer.step()
        inside.append(time.perf_counter() - before)
        optimizer.zero_grad(set_to_none=True)
        whole.append(time.perf_counter() - began)
    return model, statistics.median(whole), statistics.median(inside)


def share(step: int, steps: int) -> float:
    if step < WARMUP:
        return (step + 1) / WARMUP
    return LOWEST + (1 - LOWEST) * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def shakespeare() -> tuple[Tensor, Tensor]:
    ids = numbers((SHARED / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8"))
    return ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]


def python_source() -> str:
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files)


def numbers(text: str) -> Tensor:
    place = {character: number for number, character in enumerate(CHARACTERS)}
    return torch.tensor([place[character] for character in text if character in place])


if __name__ == "__main__":
    sys.exit(main())
