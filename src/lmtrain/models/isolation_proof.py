"""Whether a model keeps packed examples apart: shown on the model itself, before a run relies on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from lmtrain.core.errors import first_line
from lmtrain.core.types import Examples
from lmtrain.models.isolation import Isolation, ways
from lmtrain.models.still import format_held, still

_LENGTHS: Final = (24, 9, 17, 1, 13)
"""Tokens of the examples tried: uneven, one of a single token; long enough for all to matter to each other."""

_BOUNDS: Final = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""What rounding explains, relative to the largest logit: separate runs multiply matrices of other shapes, whose sums
are in another order. Measured on models of 2-3 layers: 2e-7 to 8e-7 in fp32; in fp64 some compute parts in fp32."""

_COMPARED: Final = 1024  # logits of a position at most: of 256,000, behind a long window, all would be 20 GB

_LEAK: Final = 1e-3
"""Of what a change does to its own example. Runs of the same shape round alike: in all models tried, nothing leaks."""


def prove_isolation(model: nn.Module, examples: Examples, *, causal: bool) -> Isolation:
    """The first way in which packed examples come out of ``model`` as they do alone; else way "none".

    Two things are shown with tokens of ``examples``, on logits, without dropout: each of five examples packed into
    rows with padding equals its separate run, and changing one example leaves the others as they were. A third keeps
    the proof honest: the change shows within its own example, else a leak could not be seen (layers that begin as
    zeros hide it). Where a layer has a sliding window, one example is longer than that, if examples ever are. The
    model is left as it was. Costs about 150 tokens forward.
    """
    pieces, bound, failed = _pieces(examples, model), _bound(model), []
    uncached = {"use_cache": False} if causal else {}
    with still(model), torch.no_grad():
        for way in ways(model, causal=causal):
            try:
                alone = [_logits(model, piece[None], **uncached)[0] for piece in pieces]
                difference = _difference(_Trial(model, way), pieces, alone, bound)
            except Exception as error:  # whatever a model of someone's own raises, the padded way is left
                difference = f"{type(error).__name__}: {first_line(error)}"
            if difference is None:
                return replace(way, reason=_REASONS[way.way])
            failed.append(f"{way.way}: {difference}")
    return Isolation("none", "; ".join(failed) or "its attention takes no mask of ours", causal=causal)


_REASONS: Final = {
    "positions": "positions that restart; equal to separate runs",
    "mask": "a mask of blocks; equal to separate runs",
    "masks": "a mask of blocks for each kind of layer; equal to separate runs",
    "varlen": "variable-length kernels; equal to separate runs",
    "pieces": "attention of one example after the other; equal to separate runs",
}


@dataclass
class _Trial:
    """Packed runs of a model in one way."""

    model: nn.Module
    way: Isolation

    def __call__(self, pieces: list[Tensor]) -> list[Tensor]:
        """The logits of each piece, run packed: two rows with padding at the end, or all in one."""
        split = len(pieces) if self.way.way == "varlen" else (len(pieces) + 1) // 2
        rows = [row for row in (pieces[:split], pieces[split:]) if row]
        width = max(sum(map(len, row)) for row in rows)
        ids, segments, positions = pieces[0].new_zeros(3, len(rows), width)
        for number, row in enumerate(rows):
            at = 0
            for segment, piece in enumerate(row, start=1):
                here = slice(at, at := at + len(piece))
                ids[number, here], segments[number, here] = piece, segment
                positions[number, here] = torch.arange(len(piece), device=piece.device)
        logits = _logits(self.model, ids, **self.way.inputs(segments, positions))
        sizes = [[len(piece) for piece in row] for row in rows]
        return [part for number, row in enumerate(sizes) for part in logits[number, : sum(row)].split(row)]


def _difference(trial: _Trial, pieces: list[Tensor], alone: list[Tensor], bound: float) -> str | None:
    """None when the pieces are kept apart, else what differs."""
    scale = max(float(piece.abs().max()) for piece in alone)
    packed = trial(pieces)
    off = max(_distance(one, other) for one, other in zip(packed, alone, strict=True)) / scale
    if not off <= bound:
        return f"differs from separate runs by {off:.0e} of the largest logit"
    changed, half = _changed(pieces[0]), len(pieces[0]) // 2
    again = trial([changed, *pieces[1:]])
    leaked = max(_distance(one, other) for one, other in zip(again[1:], packed[1:], strict=True))
    meant = _distance(again[0][half:], packed[0][half:])
    if not meant > 0:
        return "no token shows in another, so a leak could not be seen"
    if not leaked <= _LEAK * meant:
        return f"a change in one example shows in others, {leaked / meant:.0e} times as much as in its own"
    return None


def _pieces(examples: Examples, model: nn.Module) -> list[Tensor]:
    """Runs of the batch's own tokens, of the lengths above; the first longer than a sliding window, if examples are."""
    real = np.concatenate([ids[:n] for ids, n in zip(examples.ids, examples.lengths, strict=True)])
    longest = int(examples.lengths.max())
    window = getattr(getattr(model, "config", None), "sliding_window", None) or 0
    first = min(longest, window + _LENGTHS[0]) if window < longest else _LENGTHS[0]
    lengths = [min(length, max(longest, 1)) for length in (first, *_LENGTHS[1:])]
    tokens = torch.from_numpy(np.resize(real, sum(lengths)).astype(np.int64))
    return list(tokens.to(next(model.parameters()).device).split(lengths))


def _changed(piece: Tensor) -> Tensor:
    """The same piece, every token of its first half another one: one of two ids that it has."""
    one = piece[0]
    others = piece[piece != one]
    other = others[0] if len(others) else (one - 1).abs()
    half = max(len(piece) // 2, 1)
    return torch.cat([torch.where(piece[:half] == one, other, one), piece[half:]])


def _logits(model: nn.Module, ids: Tensor, **inputs: Any) -> Tensor:
    outputs = model(input_ids=ids, **inputs)
    logits: Tensor = outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
    logits = logits[..., :: -(-logits.shape[-1] // _COMPARED)].contiguous()  # all that is kept of them
    return logits if logits.dtype == torch.float64 else logits.float()


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference; infinite where there is no number."""
    return float((one - other).abs().nan_to_num(nan=float("inf")).max())


def _bound(model: nn.Module) -> float:
    return _BOUNDS.get(format_held(model), _BOUNDS[torch.bfloat16])
