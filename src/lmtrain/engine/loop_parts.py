"""For a training loop of one's own: the loss as :class:`LMTrainer` computes it, and checkpoints as it writes them.

``examples/accelerate_loop.py`` is such a loop; it makes the trainer's steps, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lmtrain.core.streams import derive
from lmtrain.engine.checkpoints.read import newest, put_weights, read_tensors
from lmtrain.engine.checkpoints.write import Contents, write_checkpoint
from lmtrain.engine.runs.versions import machine, versions
from lmtrain.engine.speed.fast_paths import choose_scoring, drops_fast
from lmtrain.models import save_model
from lmtrain.models.fast_dropout import dropping_fast
from lmtrain.objectives import LossSums, Objective


class StepLoss:
    """The summed loss of a batch, by the fastest way that is proven equal on ``batch``, a first micro-batch.

    ``model`` is on its device and not wrapped for several processes yet; ``dtype`` is what its products will run in.
    ``lines`` say what stays slow, ``decisions`` what was chosen. Where positions are predicted the output head is
    computed, and nowhere else.

    Dropout follows from (``seed``, step, micro-batch, rank), and from nothing that was drawn before.

    >>> loss = StepLoss(model, objective, batch, seed=42)                     # doctest: +SKIP
    >>> sums = loss(model, batch, step=0)                                     # doctest: +SKIP
    >>> (sums.loss / sums.count).backward()                                   # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        batch: Mapping[str, Tensor],
        *,
        seed: int = 42,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.objective = objective
        self.seed = seed
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            self.scoring, self.decisions, self.lines = choose_scoring(model, batch, objective, dtype=dtype, seed=seed)
        model.zero_grad(set_to_none=True)

    def __call__(
        self, model: Any, batch: Mapping[str, Tensor], *, step: int | None = None, micro: int = 0, rank: int = 0
    ) -> LossSums:
        """Loss in nats and number of the predicted positions of ``batch``; ``model`` may be wrapped.

        With ``step``, counted from 0, this is the training pass of that step's micro-batch ``micro`` on process
        ``rank``: with dropout and the objective's weights, summed in fp32. Without, it is an evaluation: summed in
        fp64, unweighted, the model as its mode is.
        """
        if step is None:
            exact = torch.float32 if batch["labels"].device.type == "mps" else torch.float64
            return self.scoring(model, batch, self.objective, weighted=False, dtype=exact)
        torch.manual_seed(derive(self.seed, "dropout", step, micro, rank) % 2**63)
        with dropping_fast() if drops_fast(self.decisions) else nullcontext():
            return self.scoring(model, batch, self.objective)


def save_checkpoint(folder: str | Path, step: int, model: Any, tokenizer: Any = None, **parts: Any) -> Path:
    """Write ``folder/checkpoint-STEP``: whole, hashed and flushed, or not at all. Returns it.

    ``model`` (not wrapped) and ``tokenizer`` are written as ``from_pretrained`` reads them; ``parts`` are whatever has
    a ``state_dict()`` of tensors and plain values: ``optimizer=…, scheduler=…``. Call it on one process. Raises
    ``OSError``.
    """
    target = Path(folder) / f"checkpoint-{step}"
    states = {f"{name}.pt": part.state_dict() for name, part in parts.items()}
    about = {"versions": versions(), "machine": machine()}

    def write_weights(place: Path) -> None:
        save_model(model, tokenizer, place)

    write_checkpoint(target, Contents(step, write_weights, states, {}, "optimizer.pt" in states, about))
    return target


def load_checkpoint(folder: str | Path, model: Any, **parts: Any) -> int:
    """Put the newest checkpoint of ``folder`` that verifies into ``model`` and ``parts``; its step, or 0 without one.

    Raises :class:`UserError` for a file that holds more than tensors.
    """
    found = newest(Path(folder))
    if found.checkpoint is None:
        return 0
    if wrong := put_weights(model, found.checkpoint / "model.safetensors"):
        raise ValueError(f"{found.checkpoint} is another model's: {wrong}")
    for name, part in parts.items():
        part.load_state_dict(read_tensors(found.checkpoint / f"{name}.pt"))
    return found.step
