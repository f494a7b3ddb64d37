"""Adapters: what is put on which model, what it trains, what it leaves and what comes back from that."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny as models
from adapters import options, stirred, with_added_tokens
from architectures import CAUSAL, MASKED, VOCABULARY, tiny
from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.engine.speed.proof import prove_scoring
from lmtrain.engine.speed.scoring import Scoring
from lmtrain.models import load_model, load_tokenizer, save_model
from lmtrain.models.adapters.lora import adapt, adapted, trained_line
from lmtrain.models.exporting.verified_export import export_verified
from lmtrain.models.head import find_head
from lmtrain.models.loading.build import LoadedModel
from lmtrain.models.loading.vocabulary import grow_embedding
from lmtrain.objectives import Causal, Labelled
from tiny_models import PURPOSE, checkpoint

pytest.importorskip("peft")

IDS = torch.tensor([[5, 9, 33, 7, 21, 40, 12, 8], [6, 60, 11, 11, 54, 30, 29, 18]])


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


@pytest.mark.parametrize("kind", [*CAUSAL, *MASKED])
def test_frozen_weights_in_bf16_change_no_bit_under_autocast(kind: str) -> None:
    """Loss gradients of the adapter too: autocast would round the same weights at every use."""
    results = []
    for frozen in (None, torch.bfloat16):
        torch.manual_seed(0)
        model = stirred(adapt(tiny(kind), options(), frozen=frozen)).eval()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(input_ids=IDS).logits
        out.float().square().mean().backward()
        results.append((out, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (plain, right), (low, mine) = results
    assert torch.equal(plain, low)
    assert right.keys() == mine.keys() and all(torch.equal(right[name], mine[name]) for name in right)


def test_which_weights_are_rounded() -> None:
    model = adapt(tiny("gpt2"), options(), frozen=torch.bfloat16)
    dtypes = {name.split("base_model.model.")[1]: p.dtype for name, p in model.named_parameters()}
    low = {name for name, dtype in dtypes.items() if dtype == torch.bfloat16}
    assert any("mlp.c_fc.weight" in name for name in low) and any("c_attn.base_layer.bias" in name for name in low)
    assert not any(word in name for name in low for word in ("lora_", "wte", "wpe", "ln_", "lm_head"))
    dora = adapt(tiny("gpt2"), options(use_dora=True), frozen=torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in dora.parameters()), "its lengths are measured on the weights"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_rounded_weights_still_prove_the_fast_paths(kind: str) -> None:
    """The proof runs in fp32 without autocast, where bf16 weights and fp32 activations would not multiply."""
    model = stirred(adapt(tiny(kind), options(), frozen=torch.bfloat16))
    objective = Causal() if kind in CAUSAL else Labelled(shifted=False)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
    assert prove_scoring(Scoring(find_head(model)), model, batch, objective) is None


@pytest.mark.parametrize(
    ("changes", "flag", "text"),
    [
        ({"lora_target_modules": ["c_attn", "q_proj"]}, "--lora_target_modules", "transformer.h.*.attn.c_attn"),
        ({"modules_to_save": ["head"]}, "--modules_to_save", "transformer.h.*.ln_1"),
    ],
)
def test_a_name_that_matches_nothing_is_refused_with_what_there_is(
    changes: dict[str, Any], flag: str, text: str
) -> None:
    with pytest.raises(UserError) as caught:
        adapt(tiny("gpt2"), options(**changes))
    [problem] = caught.value.problems
    assert problem.flag == flag and text in problem.text
    assert problem.text.count("c_attn") <= 1, "each layer of the row is not listed by itself"


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        adapt(tiny("gpt2"), options(lora_target_modules=["a", "b"], modules_to_save=["c"]))
    assert len(caught.value.problems) == 3


def test_where_the_adapter_goes_without_being_told() -> None:
    def places(kind: str, **changes: Any) -> set[str]:
        names = dict(adapt(tiny(kind), options(**changes)).named_parameters())
        return {name.split(".lora_A")[0].split(".")[-1] for name in names if "lora_A" in name}

    assert places("gpt2") == {"c_attn"}
    assert places("llama") == {"q_proj", "v_proj"}
    assert places("phi3") == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}, "not in PEFT's table: all linear"
    everything = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert places("llama", lora_target_modules=["all-linear"]) == everything
    assert places("mamba") == {"in_proj", "x_proj"}, "its kernels read the other weights past their layers"


def test_a_router_is_no_layer_for_an_adapter() -> None:
    """Llama 4's and Phi-MoE's are linear layers that return a pair, which an adapter could not add to; Falcon's linear
    layers have a ``forward`` of their own too, which makes one product."""

    class Router(torch.nn.Linear):
        def forward(self, states: Any) -> Any:
            return super().forward(states), states

    class Product(torch.nn.Linear):
        def forward(self, states: Any) -> Any:
            return states @ self.weight.T

    model = tiny("llama")
    model.model.layers[0].mlp.gate_proj.__class__ = Router
    model.model.layers[0].mlp.up_proj.__class__ = Product
    model = adapt(model, options(lora_target_modules=["all-linear"]))
    adapted_layers = {name for name, _ in model.named_parameters() if "layers.0.mlp" in name and "lora_A" in name}
    assert {name.split(".mlp.")[1].split(".")[0] for name in adapted_layers} == {"up_proj", "down_proj"}
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 2 * 7 - 1


def test_the_line_for_the_log() -> None:
    model = adapt(tiny("gpt2"), options())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trained == 2 * (2 * 32 + 2 * 96), "A (r, d) and B (3d, r) in each of two layers"
    assert f"{trained} of" in trained_line(model)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "modernbert"])
@pytest.mark.parametrize("frozen", [None, torch.bfloat16])
def test_recomputing_activations_gives_the_same_gradients(kind: str, frozen: torch.dtype | None) -> None:
    """Nothing before the first adapter needs a gradient, which old ways of recomputing take for: nothing to do."""
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        model: Any = stirred(adapt(tiny(kind), options(), frozen=frozen)).train()
        if recompute:
            name = "activation_checkpointing_enable"  # since transformers 5.23
            getattr(model, name if hasattr(model.get_base_model(), name) else "gradient_checkpointing_enable")()
        with torch.autocast("cpu", torch.bfloat16, enabled=frozen is not None):
            model(input_ids=IDS).logits.float().square().mean().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    right, mine = found
    assert all(right[name] is not None and right[name].any() for name in right)
    for name in right:
        torch.testing.assert_close(mine[name], right[name], rtol=1e-5, atol=1e-7)


# ---- rows of new tokens ---------------------------------------------------------------------------


def grown(kind: str, tied: bool, rows: int = 3) -> tuple[Any, int]:
    model = tiny(kind, tie_word_embeddings=tied)
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        torch.nn.init.normal_(model.get_output_embeddings().bias)
    grow_embedding(model, VOCABULARY + rows)
    return model, VOCABULARY


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert", "roberta", "distilbert", "modernbert"])
def test_new_rows_learn_in_input_and_output_and_nothing_is_computed_otherwise(kind: str, tied: bool) -> None:
    model, before = grown(kind, tied)
    ids = torch.tensor([[VOCABULARY, 5, VOCABULARY + 2, 9]])
    right = logits(copy.deepcopy(model), ids)
    adapter = adapt(model, options(), rows_before=before)
    torch.testing.assert_close(logits(adapter, ids), right, rtol=1e-5, atol=1e-5)
    adapter(input_ids=ids).logits.square().mean().backward()
    rows = {n: p.grad for n, p in adapter.named_parameters() if p.requires_grad and "lora_" not in n}
    has_bias = getattr(tiny(kind, tie_word_embeddings=tied).get_output_embeddings(), "bias", None) is not None
    assert rows and all(grad is not None and grad.any() for grad in rows.values())
    assert len(rows) == (3 if has_bias else 1 if tied else 2)
    if not has_bias:
        assert {grad.shape[0] for grad in rows.values()} == {3}, "only the rows that grew"


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_head_with_new_rows_is_still_computed_where_there_is_a_label(kind: str) -> None:
    model, before = grown(kind, tied=True)
    adapter = stirred(adapt(model, options(), rows_before=before, frozen=torch.bfloat16))
    objective = Causal() if kind in CAUSAL else Labelled(shifted=False)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS}
    assert prove_scoring(Scoring(find_head(adapter)), adapter, batch, objective) is None


# ---- what is left on disk ---------------------------------------------------------------------------


@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("kind", sorted(PURPOSE))
def test_an_adapter_folder_loads_and_computes_the_same(tmp_path: Path, kind: str, added: bool) -> None:
    base, name = with_added_tokens(kind, tmp_path) if added else (checkpoint(kind, tmp_path / "base"), None)
    chosen = ModelOptions(model_name_or_path=base, tokenizer_name=name)
    tokenizer = load_tokenizer(chosen)
    loaded = adapted(load_model(chosen, PURPOSE[kind], tokenizer), options())
    assert bool(loaded.rows_before != loaded.model.get_input_embeddings().weight.shape[0]) == added
    model = stirred(loaded.model)
    ids = torch.tensor([[5, 9, 33, model.config.vocab_size - 1, 21, model.config.vocab_size - 2]])
    right = logits(model, ids)
    run = tmp_path / "run"
    save_model(model, tokenizer, run)
    assert not (run / "config.json").exists() and not (run / "README.md").exists()

    torch.manual_seed(7)  # rows that grow again may be drawn otherwise
    again = load_model(ModelOptions(model_name_or_path=str(run)), PURPOSE[kind], load_tokenizer(ModelOptions(str(run))))
    torch.testing.assert_close(logits(again.model, ids), right, rtol=1e-4, atol=1e-4)
    assert not hasattr(again.model, "peft_config") and again.adapter == str(run)
    save_model(again.model, tokenizer, tmp_path / "whole")
    plain = load_model(ModelOptions(str(tmp_path / "whole")), PURPOSE[kind], None).model
    torch.testing.assert_close(logits(plain, ids), right, rtol=1e-4, atol=1e-4)
    assert json.loads((run / "adapter_config.json").read_text())["base_model_name_or_path"] == base


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("added", [False, True])
def test_peft_alone_loads_the_folder_too(tmp_path: Path, kind: str, added: bool) -> None:
    from peft import AutoPeftModel, AutoPeftModelForCausalLM

    base, name = with_added_tokens(kind, tmp_path) if added else (checkpoint(kind, tmp_path / "base"), None)
    chosen = ModelOptions(model_name_or_path=base, tokenizer_name=name)
    tokenizer = load_tokenizer(chosen)
    model = stirred(adapted(load_model(chosen, PURPOSE[kind], tokenizer), options()).model)
    right = logits(model)
    save_model(model, tokenizer, tmp_path / "run")
    auto = AutoPeftModelForCausalLM if PURPOSE[kind] == "clm" else AutoPeftModel
    if not added:
        torch.testing.assert_close(logits(auto.from_pretrained(tmp_path / "run")), right, rtol=1e-4, atol=1e-4)
        return
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    kinds = AutoModelForCausalLM if PURPOSE[kind] == "clm" else AutoModelForMaskedLM
    whole = kinds.from_pretrained(base)
    whole.resize_token_embeddings(max(tokenizer.get_vocab().values()) + 1)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(whole, tmp_path / "run")), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["lm_head"]}])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_other_kinds_of_adapters_survive(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint(kind, tmp_path / "base"))
    tokenizer = load_tokenizer(chosen)
    model = stirred(adapted(load_model(chosen, "clm", tokenizer), options(**changes)).model)
    save_model(model, tokenizer, tmp_path / "run")
    again = load_model(ModelOptions(str(tmp_path / "run")), "clm", None).model
    torch.testing.assert_close(logits(again), logits(model), rtol=1e-4, atol=1e-4)
    save_model(again, tokenizer, tmp_path / "whole")
    whole = load_model(ModelOptions(str(tmp_path / "whole")), "clm", None).model
    torch.testing.assert_close(logits(whole), logits(model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_merged_weights_come_from_the_disk_and_not_from_the_rounded_ones(tmp_path: Path, kind: str) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint(kind, tmp_path / "base"))
    tokenizer = load_tokenizer(chosen)
    exact = stirred(adapted(load_model(chosen, PURPOSE[kind], tokenizer), options(), "fp32").model)
    rounded = adapted(load_model(chosen, PURPOSE[kind], tokenizer), options(), "bf16").model
    rounded.load_state_dict({n: v for n, v in exact.state_dict().items() if "lora_" in n}, strict=False)
    assert (logits(rounded) - logits(exact)).abs().max() > 1e-3
    export_verified(rounded, tokenizer, tmp_path / "run", PURPOSE[kind], chosen, merge=True)
    whole = load_model(ModelOptions(str(tmp_path / "run")), PURPOSE[kind], None).model
    assert not hasattr(whole, "peft_config")
    torch.testing.assert_close(logits(whole), logits(exact), rtol=1e-4, atol=1e-4)


def test_merged_weights_have_the_format_of_the_base(tmp_path: Path) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", tmp_path / "base"))
    tokenizer = load_tokenizer(chosen)
    save_model(load_model(chosen, "clm", tokenizer).model.to(torch.bfloat16), tokenizer, tmp_path / "low")
    low = ModelOptions(model_name_or_path=str(tmp_path / "low"))
    model = stirred(adapted(load_model(low, "clm", tokenizer), options()).model)
    export_verified(model, tokenizer, tmp_path / "run", "clm", low, merge=True)
    whole = load_file(tmp_path / "run" / "model.safetensors")
    assert {weight.dtype for weight in whole.values()} == {torch.bfloat16}
    exact = model.merge_and_unload().state_dict()
    for name, weight in whole.items():
        assert torch.equal(weight, exact[name].to(torch.bfloat16)), "merged in fp32, rounded once"


def test_an_adapter_takes_the_place_of_a_model_and_the_other_way_round(tmp_path: Path) -> None:
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", tmp_path / "base"))
    tokenizer = load_tokenizer(chosen)
    whole = load_model(chosen, "clm", tokenizer)
    run = tmp_path / "run"
    save_model(whole.model, tokenizer, run)
    save_model(adapted(load_model(chosen, "clm", tokenizer), options()).model, tokenizer, run)
    assert {p.name for p in run.glob("*model*")} == {"adapter_model.safetensors"} and not (run / "config.json").exists()
    save_model(whole.model, tokenizer, run)
    assert not list(run.glob("adapter*")) and (run / "model.safetensors").exists()


# ---- what is refused --------------------------------------------------------------------------------


def saved_adapter(tmp_path: Path) -> Path:
    chosen = ModelOptions(model_name_or_path=checkpoint("gpt2", tmp_path / "base"))
    tokenizer = load_tokenizer(chosen)
    save_model(adapted(load_model(chosen, "clm", tokenizer), options()).model, tokenizer, tmp_path / "run")
    return tmp_path / "run"


def test_a_base_that_is_gone(tmp_path: Path) -> None:
    run = saved_adapter(tmp_path)
    (tmp_path / "base").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="which is not there; bring that model back, or write where it lies"):
        load_model(ModelOptions(str(run)), "clm", None)


def test_a_base_of_another_shape(tmp_path: Path) -> None:
    run = saved_adapter(tmp_path)
    config = json.loads((run / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = checkpoint("llama", tmp_path / "other")
    (run / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="does not fit"):
        load_model(ModelOptions(str(run)), "clm", None)


def test_an_adapter_that_lacks_a_tensor(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    run = saved_adapter(tmp_path)
    tensors = load_file(run / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, run / "adapter_model.safetensors")
    with pytest.raises(UserError, match="1 of its tensors are missing"):
        load_model(ModelOptions(str(run)), "clm", None)


def test_another_kind_of_adapter(tmp_path: Path) -> None:
    run = saved_adapter(tmp_path)
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    with pytest.raises(UserError, match="of the kind IA3"):
        load_model(ModelOptions(str(run)), "clm", None)


def test_an_adapter_on_an_adapter(tmp_path: Path) -> None:
    run = saved_adapter(tmp_path)
    loaded = load_model(ModelOptions(str(run)), "clm", None)
    with pytest.raises(UserError, match="lmtrain export"):
        adapted(loaded, options())


def test_without_peft_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    for changes in ({}, {"lora_query_value": True}):
        with pytest.raises(UserError, match=r"--use_peft: .*pip install 'lmtrain\[lora\]'"):
            adapted(LoadedModel(models.gpt2()), options(**changes))


@pytest.mark.parametrize("name", ["wte", "lm_head"])
def test_one_matrix_in_two_places_gets_no_adapter(name: str) -> None:
    with pytest.raises(UserError, match=rf"{name} cannot have an adapter: wte and lm_head are one .*save lm_head"):
        adapt(models.gpt2(), options(lora_target_modules=["c_attn", name]))
    untied = tiny("gpt2", tie_word_embeddings=False)
    assert adapt(untied, options(lora_target_modules=["c_attn", name])) is not None
