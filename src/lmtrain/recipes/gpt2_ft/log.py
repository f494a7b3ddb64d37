"""The original's lines, word for word and number for number, for whoever reads them with a program.

Formats of microsoft/LoRA at c4593f0, ``examples/NLG/src/gpt2_ft.py``. Losses are in nats; ``avg loss`` is the plain
mean of the micro-batches' losses since the last line of the same epoch, ``ppl`` its exponential, ``lr`` the rate that
the next micro-batch would be taken with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmtrain.core.console import note
from lmtrain.evaluate.measures import perplexity

RULE = "-" * 100


def show(line: str) -> None:
    """On standard output, as the original prints it, and at once, for whoever follows a file."""
    print(line, flush=True)
    note(line)


class Losses:
    """The losses of micro-batches since the last line. They stay on the device until they are looked at: reading each
    would have the device wait for Python every time."""

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []
        self._read: list[float] = []

    def add(self, loss: Tensor) -> None:
        self._waiting.append(loss.detach().float())

    def read(self) -> list[float]:
        if self._waiting:
            self._read += torch.stack(self._waiting).tolist()
            self._waiting = []
        return self._read

    def start_over(self, losses: list[float] | None = None) -> None:
        """Forget them; or go on from those of an earlier part of the run."""
        self._waiting, self._read = [], list(losses or [])


def mean(losses: list[float]) -> float:
    return sum(losses) / len(losses)


def training_line(epoch: int, step: int, batches: int, rate: float, milliseconds: float, losses: list[float]) -> str:
    """``| epoch   1 step      100 |    100 batches | lr 0.0002 | ms/batch 52.10 | loss  3.21 | avg loss …``"""
    average = mean(losses)
    return (
        f"| epoch {epoch:3d} step {step:>8d} | {batches:>6d} batches | lr {rate:.3g} | ms/batch {milliseconds:5.2f} | "
        f"loss {losses[-1]:5.2f} | avg loss {average:5.2f} | ppl {perplexity(average):5.2f}"
    )


def evaluation_line(number: int, step: int, seconds: float, loss: float, best_perplexity: float) -> str:
    """``| Eval   1 at step     2000 | time: 12.30s | valid loss  1.31 | valid ppl  3.71 | best ppl  3.71 ``

    The best is that of the epoch: the original forgets it with every new one.
    """
    return (
        f"| Eval {number:3d} at step {step:>8d} | time: {seconds:5.2f}s | valid loss {loss:5.2f} | "
        f"valid ppl {perplexity(loss):5.2f} | best ppl {best_perplexity:5.2f} "
    )
