"""What microsoft/LoRA's gpt2_ft.py computes, once more: loralib and plain PyTorch, padding to the full length, all
logits, one example at a time. Written after its formulas (c4593f0, examples/NLG/src); nothing of it is in here."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import loralib
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

Pair = tuple[list[int], list[int]]


# ---- the model -----------------------------------------------------------------------------------


class Transposed(nn.Module):
    """A linear layer whose weight is (inputs, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, rank: int, alpha: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = loralib.MergedLinear(
            width, 3 * width, r=rank, lora_alpha=alpha, lora_dropout=dropout, enable_lora=[True, False, True],
            fan_in_fan_out=True, merge_weights=False,
        )  # fmt: skip
        self.c_proj = Transposed(width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        query, key, value = (
            part.view(rows, length, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=-1)
        )
        scores = query @ key.transpose(-2, -1) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(torch.ones(length, length, device=x.device).triu(1).bool(), -1e10)
        mixed = scores.softmax(-1) @ value
        return self.c_proj(mixed.transpose(1, 2).reshape(rows, length, width))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, rank: int, alpha: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, rank, alpha, dropout)
        self.mlp = nn.ModuleDict({"c_fc": Transposed(width, 4 * width), "c_proj": Transposed(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        inner = functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](inner)


class Body(nn.Module):
    def __init__(self, config: Any, rank: int, alpha: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(
            [Block(config.n_embd, config.n_head, rank, alpha, dropout) for _ in range(config.n_layer)]
        )
        self.ln_f = nn.LayerNorm(config.n_embd)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


class Reference(nn.Module):
    """GPT-2 with loralib's layers, under the original's names; ``weights`` are those of a GPT2LMHeadModel."""

    def __init__(self, config: Any, weights: dict[str, Tensor], rank: int, alpha: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.transformer = Body(config, rank, alpha, dropout)
        self.lm_head = nn.ModuleDict({"decoder": nn.Linear(config.n_embd, config.vocab_size, bias=False)})
        self.lm_head["decoder"].weight = self.transformer.wte.weight
        own = self.state_dict()
        taken = {name: value.clone() for name, value in weights.items() if name in own}
        missing = self.load_state_dict(taken, strict=False).missing_keys
        assert all("lora_" in name or name.startswith("lm_head") for name in missing), missing
        if rank:
            loralib.mark_only_lora_as_trainable(self)
        else:
            self.requires_grad_(True)

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head["decoder"](self.transformer(ids))

    def loss(self, batch: dict[str, Tensor], smoothing: float = 0.0) -> Tensor:
        logs = self(batch["input"]).log_softmax(-1)
        losses = -logs.gather(-1, batch["target"][..., None])[..., 0]
        if smoothing > 0.0001:
            losses = (1 - smoothing) * losses - smoothing * logs.mean(-1)
        return (losses * batch["mask"]).sum() / (batch["mask"].sum() + 0.0001)


# ---- the data ------------------------------------------------------------------------------------


class Padded(Dataset[dict[str, Tensor]]):
    """Pairs padded to ``length``, their number to a multiple of ``batch`` with random ones."""

    def __init__(self, pairs: list[Pair], batch: int, length: int, *, joint: bool = False) -> None:
        self.pairs, self.length, self.joint = pairs, length, joint
        self.batches = math.ceil(len(pairs) / batch)
        self.size = self.batches * batch
        self.random = random.Random(911)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if number >= len(self.pairs):
            number = self.random.randint(0, len(self.pairs) - 1)
        context, completion = self.pairs[number]
        ids = context + completion
        real = min(len(ids), self.length)
        mask = [0.0] * self.length
        for place in range(0 if self.joint else len(context) - 1, real - 1):
            mask[place] = 1.0
        row, target = ([*part[: self.length], *[0] * self.length][: self.length] for part in (ids, ids[1:]))
        return {"input": torch.tensor(row), "target": torch.tensor(target), "mask": torch.tensor(mask)}


# ---- the training --------------------------------------------------------------------------------


@dataclass
class Settings:
    rank: int = 4
    alpha: int = 32
    joint: bool = False
    smoothing: float = 0.0
    accumulation: int = 1
    clip: float = 0.0
    rate: float = 0.01
    decay: float = 0.01
    correct_bias: bool = False
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    no_decay_bias: bool = False
    schedule: Callable[[int], float] = lambda done: 0.01
    seed: int = 10
    batch: int = 4
    valid_batch: int = 4
    length: int = 24
    micro_batches: int = 50
    evaluate_every: int = 20


@dataclass
class Trace:
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)  # after each micro-batch
    validations: list[float] = field(default_factory=list)
    updates: int = 0


def train(model: Reference, pairs: list[Pair], valid: list[Pair], settings: Settings) -> Trace:
    data = Padded(pairs, settings.batch, settings.length, joint=settings.joint)
    checked = Padded(valid, settings.valid_batch, settings.length)
    sampler = DistributedSampler(data, num_replicas=1, rank=0, seed=settings.seed)
    loader = DataLoader(data, batch_size=settings.batch, sampler=sampler, drop_last=True)
    order = DistributedSampler(checked, num_replicas=1, rank=0, seed=settings.seed)
    held_out = DataLoader(checked, batch_size=settings.valid_batch, sampler=order)
    adam, trace = Adam(model, settings), Trace()
    rate = settings.schedule(0)
    for done, batch in enumerate(_batches(loader, sampler, settings.micro_batches), start=1):
        loss = model.loss(batch, settings.smoothing)
        trace.losses.append(loss.item())
        (loss / settings.accumulation).backward()
        if done % settings.accumulation == 0:
            if settings.clip > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            adam.step(rate)
            model.zero_grad()
            trace.updates += 1
        rate = settings.schedule(done)
        trace.rates.append(rate)
        if done % settings.evaluate_every == 0:
            with torch.no_grad():
                means = [model.loss(part).item() for part in held_out]
            trace.validations.append(sum(means) / len(means))
    return trace


def _batches(loader: Any, sampler: Any, count: int) -> Iterator[dict[str, Tensor]]:
    epoch = 0
    while True:
        epoch += 1
        sampler.set_epoch(epoch)
        for batch in loader:
            yield batch
            count -= 1
            if not count:
                return


class Adam:
    """Adam without torch's, one weight at a time."""

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        self.settings = settings
        self.weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.first = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.second = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.steps = 0

    @torch.no_grad()
    def step(self, rate: float) -> None:
        self.steps += 1
        (one, two), eps = self.settings.betas, self.settings.eps
        for name, weight in self.weights.items():
            assert weight.grad is not None
            self.first[name] = one * self.first[name] + (1 - one) * weight.grad
            self.second[name] = two * self.second[name] + (1 - two) * weight.grad**2
            size = rate
            if self.settings.correct_bias:
                size = rate * math.sqrt(1 - two**self.steps) / (1 - one**self.steps)
            weight -= size * self.first[name] / (self.second[name].sqrt() + eps)
            spared = self.settings.no_decay_bias and ("bias" in name or "layer_norm.weight" in name)
            if not spared:
                weight -= rate * self.settings.decay * weight
