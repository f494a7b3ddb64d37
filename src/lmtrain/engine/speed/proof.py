"""A fast path proves itself on the user's own model and data before the run uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lmtrain.core.errors import first_line
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models.activations import Replaced, fuse_activations, put_back
from lmtrain.models.comparison import attending_in_fp32
from lmtrain.models.fast_dropout import dropping_fast
from lmtrain.models.head import Head, logits_of_values
from lmtrain.models.still import format_held, still
from lmtrain.objectives import IGNORED, LossSums, Objective, loss_sums
from lmtrain.objectives.base import inputs_of
from lmtrain.objectives.loss import logits_in, with_router_loss

_ROWS, _POSITIONS = 2, 128  # of the batch that is tried: enough to tell, little enough to cost nothing
# Relative differences that rounding explains: of the loss, and of a gradient's norm.
_BOUNDS = {torch.float32: (1e-5, 1e-3), torch.float64: (1e-10, 1e-8)}
_COARSE = (2e-2, 1e-1)  # weights kept in bf16 or fp16
_FAILURES = (LookupError, RuntimeError, TypeError, ValueError, AttributeError)  # of models whose parts are others


def prove_scoring(
    scoring: Scoring,
    model: Any,
    batch: Mapping[str, Tensor],
    objective: Objective,
    *,
    fused: Replaced = (),
    fast_dropout: bool = False,
    gradients: bool = True,
) -> str | None:
    """Compare ``scoring`` with the model's own loss on ``batch``: the loss, and the gradient of every weight.

    Returns None when they agree, else how they differ. Both sides run without dropout, in the precision of the
    weights. The model is left as it was, without gradients. Without ``gradients`` only the losses are compared.
    ``fused`` activations are put back for the model's own side; ``fast_dropout``'s attention is tried on the other.
    """
    batch = _part(batch, objective)

    def own() -> Tensor:
        put_back(fused)
        try:
            return _own_loss(model, batch, objective)
        finally:
            if fused:
                fuse_activations(model)

    def other() -> Tensor:
        with dropping_fast(trying=True) if fast_dropout else nullcontext():
            return _mean(scoring(model, batch, objective))

    with attending_in_fp32(model):
        difference = _difference(model, own, other, gradients=gradients)
        return difference or _after_the_head(scoring.head, model, batch, objective)


def prove_compiled(scoring: Scoring, model: Any, batch: Mapping[str, Tensor], objective: Objective) -> str | None:
    """Compare the compiled layers of ``model`` with what they were compiled from, on the whole of ``batch``: on a part
    they would have to be compiled anew. As :func:`prove_scoring`."""

    def eager() -> Tensor:
        with torch.compiler.set_stance("force_eager"):
            return _mean(scoring(model, batch, objective))

    return _difference(model, eager, lambda: _mean(scoring(model, batch, objective)))


def _mean(sums: LossSums) -> Tensor:
    return sums.loss / sums.count.clamp(min=1)


def _difference(
    model: Any, own: Callable[[], Tensor], other: Callable[[], Tensor], *, gradients: bool = True
) -> str | None:
    loss_bound, bound = _BOUNDS.get(format_held(model), _COARSE)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and gradients}
    for weight in weights.values():
        weight.grad = None
    with still(model), torch.set_grad_enabled(gradients):
        try:
            right = own()
            if gradients:
                right.backward()
            sizes = {name: _norm(weight.grad) for name, weight in weights.items()}
            loss = other()
            if gradients:
                (-loss).backward()  # what is left in each gradient is the difference: no second copy of them
            left = {name: _norm(weight.grad) for name, weight in weights.items()}
        except _FAILURES as error:
            return f"{type(error).__name__}: {first_line(error)}"
        finally:
            for weight in weights.values():
                weight.grad = None
    if not abs(loss.item() - right.item()) <= loss_bound * max(1.0, abs(right.item())):
        return f"a loss of {loss.item():.6f} for {right.item():.6f}"
    largest = max(sizes.values(), default=0.0)
    for name, size in sizes.items():
        if not left[name] <= bound * (size + 1e-3 * largest):
            return f"another gradient of {name} (by {left[name] / (size or 1.0):.1e})"
    return None


def _after_the_head(head: Head | None, model: Any, batch: Mapping[str, Tensor], objective: Objective) -> str | None:
    """What the model makes of its output layer's values otherwise than ``head`` says, large ones among them: a new
    model has none, so a cap that nobody looked for would not be seen in its loss."""
    if head is None:
        return None
    dtype = format_held(model)
    vocabulary = head.output.weight.shape[0]  # which may be offloaded: the device is the batch's
    values = torch.linspace(-10, 10, vocabulary, device=batch["labels"].device).pow(3).to(dtype)
    with still(model), torch.no_grad():
        try:
            made = logits_in(logits_of_values(head, model, inputs_of(batch), values)).flatten(0, -2)
            found = made[objective.targets(batch["labels"]).flatten().ne(IGNORED)][0].cpu().double()
        except _FAILURES as error:
            return f"{type(error).__name__}: {first_line(error)}"
    expected = head.logits(values.cpu().double())
    bound, _ = _BOUNDS.get(dtype, _COARSE)
    if found.shape == expected.shape and (found - expected).abs().max() <= bound * expected.abs().max():
        return None
    return "other logits once they are large"


def _part(batch: Mapping[str, Tensor], objective: Objective) -> dict[str, Tensor]:
    """The rows of a batch in which most is predicted, and their beginning where something is predicted in that; whom a
    token sees is no matter here."""
    batch = {name: value for name, value in batch.items() if name not in ("segments", "position_ids")}
    shape = batch["labels"].shape
    for width in (_POSITIONS, shape[1]):
        predicted = objective.targets(batch["labels"][:, :width]).ne(IGNORED).sum(1)
        if predicted.any():
            break
    rows = predicted.argsort(descending=True, stable=True)[:_ROWS]
    of_rows = {name: value[rows] if value.shape[:1] == shape[:1] else value for name, value in batch.items()}
    return {name: value[:, :width] if value.shape[1:] == shape[1:] else value for name, value in of_rows.items()}


def _own_loss(model: Any, batch: Mapping[str, Tensor], objective: Objective) -> Tensor:
    """The model's own mean loss; over its logits where it does not make one, or none with these weights."""
    weights = objective.weights(batch)
    outputs = model(**inputs_of(batch), **({"labels": batch["labels"]} if weights is None else {}))
    if getattr(outputs, "loss", None) is not None:
        own: Tensor = outputs.loss
        return own
    sums = loss_sums(logits_in(outputs), batch["labels"], objective, weights=weights)
    return _mean(with_router_loss(sums, model, outputs))


def _norm(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else gradient.norm().item()
