"""The count of a step's operations against what torch counts while the step runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    OPTConfig,
    OPTForCausalLM,
)

from lmtrain.models.flops import ModelFlops, Products, Work
from tiny import POSITIONS, VOCABULARY, bert, distilbert, gpt2, llama, roberta

B, T = 3, 16
WORK = Work(tokens=B * T, predicted=B * T, squares=B * T * T)
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def modernbert() -> ModernBertForMaskedLM:
    return ModernBertForMaskedLM(ModernBertConfig(**SMALL, intermediate_size=48, local_attention=2 * T, pad_token_id=0))


def albert() -> AlbertForMaskedLM:
    return AlbertForMaskedLM(AlbertConfig(**{**SMALL, "num_hidden_layers": 4}, embedding_size=16, intermediate_size=48))


def opt() -> OPTForCausalLM:
    shape = {"max_position_embeddings": POSITIONS, "dropout": 0.0, "word_embed_proj_dim": 16}
    return OPTForCausalLM(OPTConfig(**SMALL, ffn_dim=48, **shape))


def mixtral() -> MixtralForCausalLM:
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return MixtralForCausalLM(MixtralConfig(**SMALL, intermediate_size=48, **experts))


CAUSAL = {"gpt2": gpt2, "llama": llama, "opt": opt}
MASKED = {"bert": bert, "roberta": roberta, "distilbert": distilbert, "modernbert": modernbert, "albert": albert}
EVERY = {**CAUSAL, **MASKED}


def counted(model: Any, *, backward: bool = True) -> tuple[int, int]:
    """(operations of linear layers, of attention) of a step in which every position is predicted. Eager attention,
    which multiplies all pairs once in each direction; a fused kernel multiplies some of them twice."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=torch.ones(B, T, dtype=torch.long)).logits.sum()
        if backward:
            loss.backward()
    linear = attention = 0
    counts = counter.get_flop_counts()
    for operation, flops in counts["Global"].items():
        if operation in (torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            attention += flops
        else:
            linear += flops
    # Until transformers 5.2x the angles of rotary positions were a product, of one number each
    attention -= sum(sum(of.values()) for module, of in counts.items() if module.endswith("rotary_emb"))
    return linear, attention


def total(model: Any) -> Products:
    flops = ModelFlops.of(model, causal=False)
    there, back = flops.forward(WORK), flops.backward(WORK)
    return Products(there.body + back.body, there.attention + back.attention, there.head + back.head)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("backward", [False, True])
def test_as_torch_counts(name: str, backward: bool) -> None:
    model = EVERY[name]()
    flops = ModelFlops.of(model, causal=False)  # eager attention multiplies the pairs that a mask then hides
    linear, attention = counted(model, backward=backward)
    parts = [flops.forward(WORK)] + ([flops.backward(WORK)] if backward else [])
    assert sum(p.body + p.head for p in parts) == linear
    assert sum(p.attention for p in parts) == attention


def test_causal_attention_multiplies_half_the_pairs_and_the_diagonal() -> None:
    model = llama()
    causal, full = (ModelFlops.of(model, causal=c).forward(WORK) for c in (True, False))
    assert causal.attention / full.attention == (T + 1) / (2 * T)
    assert causal.body == full.body


@pytest.mark.parametrize("name", EVERY)
def test_the_head_counts_where_something_is_predicted(name: str) -> None:
    model = EVERY[name]()
    flops = ModelFlops.of(model, causal=name in CAUSAL)
    vocabulary = model.get_output_embeddings()
    some = flops.forward(Work(B * T, 5, B * T * T))
    assert some.head >= 5 * 2 * vocabulary.in_features * VOCABULARY
    assert flops.forward(Work(B * T, 0, B * T * T)).head == 0
    assert some.body == flops.forward(WORK).body


def test_a_full_step_is_three_forward_passes() -> None:
    flops = ModelFlops.of(gpt2(), causal=True)
    assert flops.step(WORK) == 3 * flops.forward(WORK).total


def test_frozen_layers_cost_nothing_backwards_until_something_below_is_trained() -> None:
    model = llama()
    model.requires_grad_(False)
    assert ModelFlops.of(model, causal=False).backward(WORK).total == 0
    model.lm_head.requires_grad_(True)
    flops = ModelFlops.of(model, causal=False)
    assert flops.backward(WORK).total == flops.backward(WORK).head == flops.forward(WORK).head
    model.model.layers[1].requires_grad_(True)
    linear, attention = counted(model)
    mine = total(model)
    assert mine.attention == attention
    # The norm before q is registered behind it, so q's product for its gradient is missed: 1 of 45 products
    assert mine.body + mine.head == linear - 2 * B * T * model.model.layers[1].self_attn.q_proj.weight.numel()


def test_lora_leaves_out_the_gradients_of_frozen_weights() -> None:
    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    model = peft.get_peft_model(llama(), options)
    linear, attention = counted(model)
    mine = total(model)
    # q, k and v stand side by side: in the first layer k and v are counted with a gradient that nothing needs
    beside = model.get_base_model().model.layers[0].self_attn
    extra = (
        beside.k_proj.weight.numel()
        + beside.v_proj.base_layer.weight.numel()
        + beside.v_proj.lora_A["default"].weight.numel()
    )
    assert mine.body + mine.head == linear + 2 * B * T * extra
    assert mine.attention == attention + 2 * B * T * T * 32  # and so is that of the first layer's keys
    full = total(llama())
    assert 0.6 < (mine.body + mine.head) / (full.body + full.head) < 0.75


def test_a_token_passes_through_some_experts() -> None:
    model = mixtral()
    dense = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    router = sum(layer.mlp.gate.weight.numel() for layer in model.model.layers)
    experts = sum(p.numel() for layer in model.model.layers for p in layer.mlp.experts.parameters())
    forward = ModelFlops.of(model, causal=True).forward(Work(1, 1, 1))
    assert forward.body + forward.head == 2 * (dense + router + experts / 2)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("window", "length"), [(1, 9), (4, 9), (8, 9), (9, 9), (100, 9), (4, 4)])
def test_windows(causal: bool, window: int, length: int) -> None:
    """Mistral's window counts the token itself; ModernBERT's is one to each side."""
    if causal:
        config = MistralConfig(**SMALL, intermediate_size=48, num_key_value_heads=2, sliding_window=window)
        model: Any = MistralForCausalLM(config)
    else:
        options = {"local_attention": 2 * window, "layer_types": ["sliding_attention"] * 2}
        model = ModernBertForMaskedLM(ModernBertConfig(**SMALL, intermediate_size=48, pad_token_id=0, **options))
    pairs = sum(
        (j <= i and i - j < window) if causal else abs(i - j) <= window for i in range(length) for j in range(length)
    )
    attention = ModelFlops.of(model, causal=causal).forward(Work(length, 0, length**2)).attention
    layers, products, width = 2, 2, 32
    assert attention == pytest.approx(layers * products * 2 * width * pairs)


def test_work_adds_up() -> None:
    work = Work(3, 2, 9) + Work(5, 4, 25)
    assert work == Work(8, 6, 34)
    assert work.length == 34 / 8
    assert Work(0, 0, 0).length == 0
