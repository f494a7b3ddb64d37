"""How a model is told to keep the examples of a packed row apart.

There is no one way. Five are known, and which of them a model obeys is found by trying (``isolation_proof.py``); as
tried with transformers 5.17 and 5.23:

=========  ==========================================  ===========================================================
way        what the model is given                     obeyed by
=========  ==========================================  ===========================================================
positions  positions that restart, no mask, no cache:  Llama and its kin, Mistral, Qwen, Gemma, GPT-2, GPT-J, GPT-NeoX;
           the model makes each layer's mask itself    not OPT nor Falcon, and no encoder
mask       one mask (R, 1, W, W) for all layers        BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, MPNet; OPT, Falcon
masks      one for full and one for local layers       ModernBERT, whose windows a single mask would open
varlen     one row, and where its examples begin       flash kernels of GPUs; tried with plain attention in their place
pieces     one row, and the lengths of its examples:   on the CPU, wide models of "positions" and "mask" whose attention
           ``attention_in_pieces.py``                  comes from the library's table: not GPT-J nor Falcon
=========  ==========================================  ===========================================================

Convolutions and recurrences (ConvBERT, Mamba), distances counted along the row (BLOOM), attention in chunks of the row
(Llama 4) and masks of another shape (DeBERTa) obey none; their batches stay padded.

Shapes: ``R`` rows, ``W`` positions of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lmtrain.models.attention_in_pieces import PIECES, heed_pieces, piece_lengths

Way = Literal["positions", "mask", "masks", "varlen", "pieces", "none"]

_WIDE = 256  # hidden size from which attention in pieces is the fastest; measured in attention_in_pieces.py


@dataclass(frozen=True, slots=True)
class Isolation:
    """One way, with what it needs to know of the model; ``reason`` is for people.

    ``causal``: a decoder. ``first_position``: where positions start (RoBERTa's at 2). ``window``: how far a
    sliding-window layer looks to either side. ``additive``: masks are added to scores, as eager attention does, rather
    than true where a key is seen.
    """

    way: Way
    reason: str = ""
    causal: bool = False
    first_position: int = 0
    window: int | None = None
    additive: bool = False

    @property
    def possible(self) -> bool:
        return self.way != "none"

    @property
    def one_row(self) -> bool:
        """Whether all examples of a batch lie in one row at best."""
        return self.way in ("varlen", "pieces")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def isolate(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor | Any]:
        """A batch with ``segments`` and ``position_ids``, as the collator made it, in the words of the model.

        A batch without ``segments`` needs nothing and stays as it is.
        """
        if "segments" not in batch:
            return dict(batch)
        others = {name: value for name, value in batch.items() if name not in ("segments", "position_ids")}
        return others | self.inputs(batch["segments"], batch["position_ids"])

    def inputs(self, segments: Tensor, positions: Tensor) -> dict[str, Any]:
        """What the model takes beside ``input_ids``.

        ``segments`` (R, W) int64 number the examples of a row, 0 is padding. ``positions`` (R, W) int64 restart at 0
        with every segment. Masks are made on their device: R·W² bytes, four times that when additive.
        """
        if self.way == "none":
            raise ValueError(f"the examples of a row cannot be kept apart: {self.reason}")
        inputs: dict[str, Any] = {"position_ids": positions + self.first_position}
        if self.causal:
            inputs["use_cache"] = False  # with a cache the restarts of positions are not looked for
        if self.way == "varlen":
            return inputs | _borders(positions)
        if self.way == "pieces":
            heed_pieces()
            # A mask of four axes is taken for finished: none is made, which would be R·W² bytes that nobody reads.
            seen = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=segments.device)
            return inputs | {"attention_mask": seen, PIECES: piece_lengths(segments)}
        if self.way in ("mask", "masks"):
            seen = segments[:, None, :, None] == segments[:, None, None, :]
            places = torch.arange(segments.shape[1], device=segments.device)
            if self.causal:
                seen &= places[:, None] >= places
            inputs["attention_mask"] = self._mask(seen)
            if self.way == "masks":
                assert self.window is not None
                near = (places[:, None] - places).abs() <= self.window
                inputs["attention_mask"] = {
                    "full_attention": inputs["attention_mask"],
                    "sliding_attention": self._mask(seen & near),
                }
        return inputs

    def _mask(self, seen: Tensor) -> Tensor:
        if not self.additive:
            return seen
        # fp32 whatever the model computes in: scores take the wider type, and the softmax is in fp32 anyway.
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, lowest)


def _borders(positions: Tensor) -> dict[str, Any]:
    """Where each example of the one row begins, as variable-length flash kernels take it. Waits for the device."""
    starts = (positions.flatten() == 0).nonzero().squeeze(-1)
    borders = torch.cat([starts, starts.new_tensor([positions.numel()])]).to(torch.int32)
    longest = int(borders.diff().max())
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}


def ways(model: nn.Module, *, causal: bool) -> list[Isolation]:
    """The ways worth trying with ``model``, a decoder if ``causal``; its own way first."""
    config: Any = getattr(model, "config", None)
    if "chunked_attention" in (getattr(_text(config), "layer_types", None) or ()):
        return []  # a row shorter than a chunk would not show it
    attention = getattr(config, "_attn_implementation", None) or "eager"
    first = _first_position(model)
    if "flash" in attention:
        return [Isolation("varlen", causal=causal, first_position=first)]
    found = [Isolation("positions", causal=True, first_position=first)] if causal else []
    window = getattr(config, "sliding_window", None)
    if attention == "sdpa" and not window and _pays_in_pieces(model):
        found.insert(0, Isolation("pieces", causal=causal, first_position=first))
    if attention in ("sdpa", "eager"):
        additive = attention == "eager"
        if not causal and window and "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            found.append(Isolation("masks", first_position=first, window=int(window), additive=additive))
        else:
            found.append(Isolation("mask", causal=causal, first_position=first, additive=additive))
    return found


def _pays_in_pieces(model: nn.Module) -> bool:
    """Whether every example's attention by itself is faster than all with a mask: on the CPU, in a wide model."""
    weight = next(model.parameters(), None)
    on_cpu = weight is not None and weight.device.type == "cpu"
    return on_cpu and getattr(_text(model.config), "hidden_size", 0) >= _WIDE


def break_even(config: Any) -> float:
    """Positions of a row at which attention costs as much as all else; see :func:`lmtrain.data.packing.plan`.

    By operations it is 6 times the hidden size: a position takes 24·D² in a layer's products and 4·W·D in attention
    over W positions. Measured, attention does its share 0.6 times as fast (``lmtrain/data/packing.py``).
    """
    hidden = getattr(_text(config), "hidden_size", None)
    return 3.6 * hidden if hidden else 1400.0


def _text(config: Any) -> Any:
    """The part of a configuration that is about text, where it has parts."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _first_position(model: nn.Module) -> int:
    """Where position embeddings start: after the padding's own, in models that keep one for it."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and "position" in name.rpartition(".")[2]:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
