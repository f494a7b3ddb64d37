"""Which fast paths a run takes: tried on its own model and first examples, written down, and replayed on resume."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from lmtrain.core.errors import UserError
from lmtrain.engine.batches.packed import Packing
from lmtrain.engine.speed.job import Job
from lmtrain.engine.speed.memory import free_here
from lmtrain.engine.speed.precision import compute_dtype
from lmtrain.engine.speed.proof import prove_scoring
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models.activations import fuse_activations, put_back, spell_out
from lmtrain.models.fast_dropout import drops_on_cpu
from lmtrain.models.head import find_head
from lmtrain.models.isolation import Isolation, break_even, ways
from lmtrain.models.isolation_proof import prove_isolation
from lmtrain.models.layers import leave_uncompiled
from lmtrain.models.sharding import is_sharded, put_away
from lmtrain.objectives import Objective
from lmtrain.objectives.linear_cross_entropy import DEFAULT, Choice, Kernel, choose_kernel

_FEW_POSITIONS = 50_000  # predicted in the whole run: trying kernels would take longer than the best of them saves
_PROBED = 8  # examples that packing is proven on
_DECISIONS = ("activations", "dropout", "head", "kernel", "packing", "compile")
_NOT_NEEDED = Isolation("none", "every example fills its row")


@dataclass(frozen=True)
class FastPaths:
    """What was chosen. ``decisions`` is for ``decisions.json``; ``lines`` are for the user, where something stays
    slow.

    ``packing``: how training batches are laid out without padding, None where they are padded; ``by_length``: whether
    examples of like length are then put together; ``compiled``: whether the model's layers are; ``fast_dropout``:
    whether training passes run inside :func:`~lmtrain.models.fast_dropout.dropping_fast`.
    """

    scoring: Scoring
    isolation: Isolation = _NOT_NEEDED
    packing: Packing | None = None
    by_length: bool = False
    compiled: bool = False
    fast_dropout: bool = False
    decisions: dict[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def settle(trainer: Job, decided: Mapping[str, Any]) -> FastPaths:
    """The fast paths of a trainer: those ``decided`` before, else tried by the first process for all.

    What another trainer of the same model left in it is undone first: what is tried, and what is taken over, begins
    with the model as it is made. Raises :class:`UserError` where documents are to be isolated and the model cannot.
    """
    spell_out(trainer.model)
    leave_uncompiled(trainer.model)
    if "head" in decided:
        return _again(trainer, decided)
    args = trainer.args
    if args.world_size == 1:
        return _try(trainer)
    if is_sharded(trainer.model):
        return _try_together(trainer)
    # One process tries, and all take what it found: they would measure differently. It tells them even when it fails,
    # or they would wait for ever.
    decisions: dict[str, Any] | None = None
    try:
        if args.process_index == 0:
            paths = _try(trainer)
            decisions = paths.decisions
    finally:
        decisions = broadcast_object_list([decisions])[0]
    if decisions is None:
        raise RuntimeError("the first process could not try the fast paths; it says why")
    return paths if args.process_index == 0 else _again(trainer, decisions)


def _try(trainer: Job) -> FastPaths:
    ragged = trainer.pads_training
    isolation = _choose_isolation(trainer, ragged)
    scoring, decisions, lines = _choose_scoring(trainer)
    decisions["packing"] = isolation.as_json()
    paths = _with_packing(trainer, ragged, scoring, isolation, decisions)
    if paths.by_length:
        lines.append(f"batches are padded, and examples of like length put together: {isolation.reason}")
    return replace(paths, lines=tuple(lines))


def _try_together(trainer: Job) -> FastPaths:
    """Of a sharded model every pass needs all processes: all try, on the same examples, and the first one decides."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # which nothing here writes into
        paths = _try(trainer)
    put_away(trainer.model)
    decided = broadcast_object_list([paths.decisions])[0]
    return paths if decided == paths.decisions else settle(trainer, decided)


def _again(trainer: Job, decided: Mapping[str, Any]) -> FastPaths:
    kept = {name: decided[name] for name in _DECISIONS if name in decided}
    if decided.get("activations", {}).get("choice") == "fused":
        fuse_activations(trainer.model)
    scoring = Scoring()
    if decided["head"]["choice"] == _PREDICTED:
        scoring = Scoring(find_head(trainer.model), Kernel.from_json(decided["kernel"]["choice"]))
    isolation = Isolation(**decided["packing"]) if "packing" in decided else _NOT_NEEDED
    return _with_packing(trainer, trainer.pads_training, scoring, isolation, kept)


# ---- packing -------------------------------------------------------------------------------------


def _with_packing(
    trainer: Job, ragged: bool, scoring: Scoring, isolation: Isolation, decisions: dict[str, Any]
) -> FastPaths:
    packing = None
    if ragged and isolation.possible:
        even = break_even(getattr(trainer.model, "config", None))
        packing = Packing(even, alignment=8 if trainer.args.device.type == "cuda" else 1, one_row=isolation.one_row)
    return FastPaths(
        scoring,
        isolation,
        packing,
        by_length=ragged and packing is None,
        fast_dropout=drops_fast(decisions),
        decisions=decisions,
    )


def _choose_isolation(trainer: Job, ragged: bool) -> Isolation:
    """How the model keeps apart the examples of a packed row, or the documents of a block; proven on the data."""
    examples = trainer.first_examples(_PROBED)
    if examples is None or (examples.segments is None and not ragged):
        return _NOT_NEEDED
    if not trainer.tries_passes:
        isolation = Isolation("none", "the weights are sharded")
    else:
        isolation = prove_isolation(trainer.model, examples, causal=trainer.objective.shifted)
    if examples.segments is not None:
        _require(isolation)
    return isolation


def require_isolation(model: Any, layout: Any, objective: Objective) -> None:
    """Refuse ``--isolate_documents`` for a model that is not shown to keep the documents of a block apart; where its
    attention needs a GPU, :func:`settle` does so."""
    if any(way.way == "varlen" for way in ways(model, causal=objective.shifted)):
        return
    _require(prove_isolation(model, layout.__getitems__([0]), causal=objective.shifted))


def _require(isolation: Isolation) -> None:
    if not isolation.possible:
        raise UserError(f"this model cannot keep documents apart: {isolation.reason}", flag="--isolate_documents")


# ---- the head and its kernel ---------------------------------------------------------------------

_PREDICTED, _BITS = "predicted positions", "sixteen bits a value"


def drops_fast(decisions: Mapping[str, Any]) -> bool:
    """Whether training passes are to run inside :func:`~lmtrain.models.fast_dropout.dropping_fast`."""
    return bool(decisions.get("dropout", {}).get("choice") == _BITS)


def _choose_scoring(trainer: Job) -> tuple[Scoring, dict[str, Any], list[str]]:
    args = trainer.args
    if args.torch_compile:
        return _all_positions("--torch_compile compiles the model as it is")
    if not trainer.tries_passes:
        return _all_positions("the weights are sharded")
    batch = trainer.first_batch()
    if batch is None:
        return _all_positions("there is no labelled example to try it on beforehand")
    together = args.world_size > 1 and is_sharded(trainer.model)
    if together:
        put_away(trainer.model)  # gradients are those of the pieces
    return choose_scoring(
        trainer.model,
        batch,
        trainer.objective,
        dtype=compute_dtype(args, trainer.model),
        trains=trainer.train_dataset is not None,
        label_smoothing=args.label_smoothing_factor,
        z_loss=trainer.z_loss,
        passes=trainer.planned_passes,
        seed=args.seed,
        agree=(lambda mine: broadcast_object_list([mine])[0]) if together else None,
    )


def choose_scoring(
    model: Any,
    batch: Mapping[str, Tensor],
    objective: Objective,
    *,
    dtype: torch.dtype,
    trains: bool = True,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    passes: int = 0,
    seed: int = 42,
    agree: Callable[[Choice], Choice] | None = None,
) -> tuple[Scoring, dict[str, Any], list[str]]:
    """Try the head at the predicted positions alone, with the fastest kernel for this batch's shape.

    ``batch`` is a micro-batch on the model's device, ``dtype`` what the products run in, ``passes`` how many are
    planned: measuring and compiling have to be worth it. An evaluation (``trains=False``) compares losses only.
    ``agree`` gives processes that try together the kernel that one of them chose.
    Returns how to score, the decisions and lines for the user.
    """
    try:
        head = find_head(model)
    except LookupError as error:
        return _all_positions(str(error))
    positions = int(objective.count(batch["labels"]))
    if not positions:
        return _all_positions("nothing is predicted in the first examples, so that nothing can be tried on them")
    vocabulary, width = head.output.weight.shape
    if passes * positions < _FEW_POSITIONS:
        choice = Choice(DEFAULT, f"{passes * positions:,} predicted positions are too few to try others")
    else:
        frozen = not any(part is not None and part.requires_grad for part in (head.output.weight, head.bias))
        choice = choose_kernel(
            positions, width, vocabulary, batch["labels"].device, dtype, bias=head.bias is not None, frozen=frozen,
            weighted=objective.weights(batch) is not None, label_smoothing=label_smoothing, z_loss=z_loss,
            softcap=head.softcap, planned_steps=passes, free=free_here(batch["labels"].device), seed=seed,
        )  # fmt: skip
    if agree is not None:
        choice = agree(choice)
    scoring = Scoring(head, choice.kernel)
    fused, dropout = fuse_activations(model), trains and drops_on_cpu(model)
    ways: dict[str, Any] = {"fused": fused, "fast_dropout": dropout}
    difference = prove_scoring(scoring, model, batch, objective, **ways, gradients=trains)
    if difference and (fused or dropout):  # is it these, or the head?
        put_back(fused)
        fused, dropout = (), False
        difference = prove_scoring(scoring, model, batch, objective, gradients=trains)
    if difference:
        reason = f"the shorter way gives {difference}"
        if difference.startswith("a loss") and prove_scoring(Scoring(), model, batch, objective, gradients=False):
            reason += ", and so do all logits: the model's own loss is another one, which is not trained"
        return _all_positions(reason)
    decisions = {
        "activations": {"choice": "fused" if fused else "as they are"},
        "dropout": {"choice": _BITS if dropout else "as it is"},
        "head": {"choice": _PREDICTED, "reason": f"proven equal, of {positions:,} predicted positions a batch"},
        "kernel": {"choice": choice.kernel.as_json(), "reason": choice.reason, "dropped": choice.dropped},
    }
    return scoring, decisions, []


def _all_positions(reason: str) -> tuple[Scoring, dict[str, Any], list[str]]:
    line = f"all logits of every batch are made, which costs time and memory: {reason}"
    return Scoring(), {"head": {"choice": "all positions", "reason": reason}}, [line]
