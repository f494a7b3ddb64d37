"""A plain PyTorch training loop over characters, in the shape of nanoGPT's README, as one writes it by hand.

python benchmarks/side_loop.py OUT TEXT [RATE STEPS]

The settings are those of nanoGPT's README for a CPU (https://github.com/karpathy/nanoGPT, config/train_shakespeare_char
with --device=cpu --compile=False --eval_iters=20 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128
--max_iters=2000 --lr_decay_iters=2000 --dropout=0.0); the code is our own. Random windows of the first 90 %, an
evaluation of both parts every 250 steps over 20 batches, fp32. In the end, outside the time that counts, the loss on
all held-out blocks of 64 characters, as ``lmtrain evaluate`` takes them. RATE and STEPS are others than the README's.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS, HEADS, WIDTH, BLOCK, BATCH, STEPS = 4, 4, 128, 64, 12, 2000
HIGHEST, LOWEST, WARMUP, DECAY, BETAS, CLIP = 1e-3, 1e-4, 100, 0.1, (0.9, 0.99), 1.0
EVALUATE_EVERY, EVALUATION_BATCHES = 250, 20


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(WIDTH, bias=False)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.before_mlp = nn.LayerNorm(WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = self.query_key_value(self.before_attention(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*split, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(functional.gelu(self.up(self.before_mlp(x))))


class Model(nn.Module):
    def __init__(self, characters: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(characters, WIDTH)
        self.positions = nn.Embedding(BLOCK, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.last = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                into_the_stream = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if into_the_stream else 0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return functional.linear(self.last(x), self.tokens.weight)  # tied, as nanoGPT's


def rate(step: int, highest: float, steps: int) -> float:
    if step < WARMUP:
        return highest * (step + 1) / (WARMUP + 1)
    lowest = highest * LOWEST / HIGHEST
    return lowest + 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP))) * (highest - lowest)


def windows(part: Tensor) -> tuple[Tensor, Tensor]:
    starts = torch.randint(len(part) - BLOCK, (BATCH,)).tolist()
    return (torch.stack([part[s : s + BLOCK] for s in starts]),
            torch.stack([part[s + 1 : s + 1 + BLOCK] for s in starts]))  # fmt: skip


def loss_of(model: Model, ids: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())


@torch.no_grad()
def held_out_loss(model: Model, held_out: Tensor) -> float:
    blocks = held_out[: len(held_out) // BLOCK * BLOCK].view(-1, BLOCK)
    sums = [loss_of(model, part[:, :-1], part[:, 1:]).item() * len(part) for part in blocks.split(64)]
    return sum(sums) / len(blocks)


def main() -> None:
    out, path, *others = sys.argv[1:]
    highest, last = (float(others[0]), int(others[1])) if others else (HIGHEST, STEPS)
    began = time.perf_counter()
    torch.manual_seed(1337)
    text = Path(path).read_text(encoding="utf-8")
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    ids = torch.tensor([number[character] for character in text])
    train, held_out = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
    model = Model(len(number))
    groups = [{"params": [p for p in model.parameters() if (p.ndim >= 2) == matrix], "weight_decay": DECAY * matrix}
              for matrix in (True, False)]  # fmt: skip
    optimizer = torch.optim.AdamW(groups, lr=highest, betas=BETAS, fused=True)
    steps = []
    for step in range(last + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, highest, last)
        if step % EVALUATE_EVERY == 0:
            with torch.no_grad():
                for part in (train, held_out):
                    torch.stack([loss_of(model, *windows(part)) for _ in range(EVALUATION_BATCHES)]).mean().item()
        if step == last:
            break
        started = time.perf_counter()
        loss_of(model, *windows(train)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps.append(time.perf_counter() - started)
    trained = time.perf_counter()
    figures = {
        "loss": held_out_loss(model, held_out),
        "step_seconds": sorted(steps)[last // 2],
        "loop_seconds": trained - began,
        "scoring_seconds": time.perf_counter() - trained,
    }
    Path(out).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
