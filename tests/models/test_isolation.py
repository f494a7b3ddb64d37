"""Which models keep packed examples apart, and in which way: shown, not assumed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Llama4ForCausalLM, Llama4TextConfig

from architectures import CAUSAL, MASKED, tiny
from lmtrain.core.types import Examples
from lmtrain.models import isolation
from lmtrain.models import isolation_proof as module
from lmtrain.models.isolation import Isolation, break_even, ways
from lmtrain.models.isolation_proof import prove_isolation

LENGTHS = np.array([40, 7, 3, 20])
EXAMPLES = Examples(np.random.default_rng(0).integers(5, 67, (4, 40)), LENGTHS, np.zeros((4, 40), bool), np.arange(4))
EXPECTED = {
    **dict.fromkeys(CAUSAL, "positions"),
    **dict.fromkeys(MASKED, "mask"),
    "opt": "mask",
    "modernbert": "masks",
    "bloom": "none",
    "mamba": "none",
    "deberta-v2": "none",
}


IN_PIECES = {
    "gpt2", "llama", "qwen2", "qwen3", "cohere", "granite", "phi3", "opt", "gpt_neox",
    "bert", "roberta", "distilbert", "electra", "albert",
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_way_of_each_architecture(kind: str) -> None:
    model = tiny(kind).train()
    found = prove_isolation(model, EXAMPLES, causal=kind in CAUSAL)
    assert found.way == EXPECTED[kind], found.reason
    assert found.possible == (found.way != "none")
    assert model.training and all(weight.grad is None for weight in model.parameters())
    assert Isolation(**found.as_json()) == found, "as the decisions keep it"


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_wide_model_on_the_cpu_attends_in_pieces_where_it_can(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(isolation, "_WIDE", 32)
    found = prove_isolation(tiny(kind), EXAMPLES, causal=kind in CAUSAL)
    assert found.way == ("pieces" if kind in IN_PIECES else EXPECTED[kind]), found.reason
    assert found.one_row == (kind in IN_PIECES)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "albert", "modernbert", "opt", "gpt2", "llama"])
def test_eager_attention_takes_masks_that_are_added(kind: str) -> None:
    model = tiny(kind)
    model.set_attn_implementation("eager")
    found = prove_isolation(model, EXAMPLES, causal=kind in CAUSAL)
    assert found.way == EXPECTED[kind], found.reason
    assert found.additive == (found.way != "positions")


def test_positions_begin_where_the_model_has_them() -> None:
    assert prove_isolation(tiny("roberta"), EXAMPLES, causal=False).first_position == 2
    assert prove_isolation(tiny("bert"), EXAMPLES, causal=False).first_position == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_of_any_precision(dtype: torch.dtype) -> None:
    assert prove_isolation(tiny("bert").to(dtype), EXAMPLES, causal=False).way == "mask"


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_adapters_change_nothing(kind: str) -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(tiny(kind), peft.LoraConfig(target_modules="all-linear"))
    assert prove_isolation(model, EXAMPLES, causal=kind in CAUSAL).way == EXPECTED[kind]


class Leaking(nn.Module):
    """A model that obeys, but for what ``leak`` adds."""

    def __init__(self, inner: Any, leak: Any) -> None:
        super().__init__()
        self.inner, self.config, self.leak = inner, inner.config, leak

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        return (self.inner(input_ids=input_ids, **inputs).logits + self.leak(input_ids, **inputs),)


def of_the_first_token(ids: torch.Tensor, **_: Any) -> torch.Tensor:
    return 1e-2 * ids[:, :1, None].float()


def of_the_width(ids: torch.Tensor, **_: Any) -> torch.Tensor:
    return torch.full((), 1e-2 * ids.shape[1])


@pytest.mark.parametrize("leak", [of_the_first_token, of_the_width])
def test_a_model_that_looks_at_its_row_is_not_trusted(leak: Any) -> None:
    inner = tiny("bert")
    assert prove_isolation(Leaking(inner, lambda ids, **_: 0), EXAMPLES, causal=False).way == "mask"
    found = prove_isolation(Leaking(inner, leak), EXAMPLES, causal=False)
    assert found.way == "none" and "mask: differs from separate runs" in found.reason


class Unmasked(Leaking):
    """A model that takes a mask and does not heed it."""

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        inputs.pop("attention_mask", None)
        return (self.inner(input_ids=input_ids, **inputs).logits,)


def test_a_leak_too_faint_for_the_comparison_is_seen_by_what_it_does_to_neighbours() -> None:
    inner = tiny("bert")
    with torch.no_grad():
        for layer in inner.bert.encoder.layer:  # as early in training: attention hardly counts yet, and will
            layer.attention.output.dense.weight.mul_(1e-5)
    assert prove_isolation(inner, EXAMPLES, causal=False).way == "mask"
    found = prove_isolation(Unmasked(inner, None), EXAMPLES, causal=False)
    assert found.way == "none" and "shows in others" in found.reason


def test_no_proof_where_a_leak_could_not_be_seen() -> None:
    model = tiny("gpt2")
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_proj.weight.zero_()  # the attention of these layers begins as nothing
    found = prove_isolation(model, EXAMPLES, causal=True)
    assert found.way == "none" and "could not be seen" in found.reason


def test_a_window_that_an_example_exceeds_is_tried() -> None:
    """One mask for all layers would show every key to ModernBERT's local layers: wrong beyond their window only."""
    wide = tiny("modernbert", local_attention=60)  # 30 to either side; the longest example has 40
    one_mask = Isolation("mask")
    pieces = module._pieces(EXAMPLES, wide)
    assert len(pieces[0]) == 40
    with torch.no_grad():
        alone = [module._logits(wide.eval(), piece[None])[0] for piece in pieces]
        difference = module._difference(module._Trial(wide, one_mask), pieces, alone, 1e-4)
    assert difference is not None and "separate runs" in difference
    assert prove_isolation(wide, EXAMPLES, causal=False).way == "masks"


def test_attention_in_chunks_of_a_row_is_not_trusted() -> None:
    """In rows shorter than a chunk it keeps examples apart, in longer ones it cuts them."""
    config = Llama4TextConfig(
        vocab_size=67, hidden_size=32, intermediate_size=32, intermediate_size_mlp=32, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
        attention_chunk_size=64, pad_token_id=0,
    )  # fmt: skip
    assert "chunked_attention" in config.layer_types
    found = prove_isolation(Llama4ForCausalLM(config), EXAMPLES, causal=True)
    assert found.way == "none", found.reason


def test_of_a_large_vocabulary_some_logits_are_compared() -> None:
    model, ids = tiny("gpt2", vocab_size=5000), torch.tensor([[5, 9, 4999]])
    some = module._logits(model, ids)
    assert torch.equal(some, model(input_ids=ids).logits[..., ::5]) and some.untyped_storage().nbytes() == 3 * 1000 * 4
    assert prove_isolation(model, EXAMPLES, causal=True).way == "positions"


def test_what_the_model_is_given() -> None:
    segments, positions = torch.tensor([[1, 1, 2, 0]]), torch.tensor([[0, 1, 0, 0]])
    seen = Isolation("mask").inputs(segments, positions)["attention_mask"]
    assert seen.int().tolist() == [[[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]
    decoder = Isolation("mask", causal=True, first_position=2).inputs(segments, positions)
    assert decoder["attention_mask"].int().tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]]
    assert decoder["position_ids"].tolist() == [[2, 3, 2, 2]] and decoder["use_cache"] is False
    added = Isolation("mask", additive=True).inputs(segments, positions)["attention_mask"]
    assert torch.equal(added == 0, seen) and (added[~seen] < -1e30).all()
    near = Isolation("masks", window=1).inputs(torch.ones(1, 4, dtype=torch.int64), torch.arange(4)[None])
    assert near["attention_mask"]["full_attention"].all()
    assert near["attention_mask"]["sliding_attention"][0, 0, 0].tolist() == [True, True, False, False]
    varlen = Isolation("varlen").inputs(segments[:, :3], positions[:, :3])
    assert varlen["cu_seq_lens_q"].tolist() == [0, 2, 3] and varlen["max_length_k"] == 2


def test_a_batch_without_segments_stays_as_it_is() -> None:
    batch = {"input_ids": torch.ones(1, 2), "labels": torch.ones(1, 2), "attention_mask": torch.ones(1, 2)}
    assert Isolation("none").isolate(batch) == batch
    packed = {**batch, "segments": torch.ones(1, 2), "position_ids": torch.zeros(1, 2)}
    isolated = Isolation("positions", causal=True).isolate(packed)
    assert isolated.keys() == {"input_ids", "labels", "attention_mask", "position_ids", "use_cache"}
    with pytest.raises(ValueError, match="cannot be kept apart: why not"):
        Isolation("none", "why not").isolate(packed)


def test_flash_kernels_are_asked_for_one_row() -> None:
    model = tiny("bert")
    model.config._attn_implementation = "flash_attention_2"
    (way,) = ways(model, causal=False)
    assert way.way == "varlen" and way.one_row
    assert ways(nn.Linear(2, 2), causal=False)[0].way == "mask", "an unknown model is tried like any other"


def test_break_even_follows_the_width_of_the_model() -> None:
    assert break_even(tiny("bert").config) == break_even(tiny("gpt2").config) == 3.6 * 32
    assert break_even(tiny("distilbert").config) == 3.6 * 32
