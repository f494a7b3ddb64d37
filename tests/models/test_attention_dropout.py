"""Dropout of attention weights is found and set wherever an architecture keeps it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from architectures import CAUSAL, MASKED, tiny
from lmtrain.config.groups import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models import load_model
from lmtrain.models.attention_dropout import attention_dropout, cost_of_attention_dropout, set_attention_dropout
from tiny_models import save_tokenizer

WITHOUT = {"bloom", "mamba"}
_IDS = torch.arange(5, 45)[None]


def attends_at_random(model: Any) -> bool:
    model.train()
    return not torch.equal(model(input_ids=_IDS).logits, model(input_ids=_IDS).logits)


@pytest.mark.parametrize("kind", sorted({*CAUSAL, *MASKED} - WITHOUT - {"deberta-v2"}))
def test_it_is_set_in_the_modules_and_in_the_configuration(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    assert attention_dropout(model) == 0.0 and not attends_at_random(model)
    assert set_attention_dropout(model, 0.5)
    assert attention_dropout(model) == 0.5 and attends_at_random(model)
    again = type(model)(model.config)  # what is saved says the same
    assert attention_dropout(again) == 0.5
    assert set_attention_dropout(model, 0.0) and not attends_at_random(model)


def test_the_flag_reaches_a_new_model_and_refuses_one_without(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path, "gpt2"))
    options = ModelOptions(model_type="gpt2", config_overrides="n_embd=32,n_layer=1,n_head=2", attention_dropout=0.25)
    loaded = load_model(options, "clm", tokenizer)
    loaded.model.save_pretrained(tmp_path / "saved")
    assert attention_dropout(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")) == 0.25
    options = ModelOptions(model_type="mamba", config_overrides="hidden_size=32,num_hidden_layers=1",
                           attention_dropout=0.0)  # fmt: skip
    with pytest.raises(UserError, match="no dropout of attention"):
        load_model(options, "clm", tokenizer)


def test_its_cost_is_measured_where_there_is_one() -> None:
    device, fp32 = torch.device("cpu"), torch.float32
    model = tiny("gpt2")
    assert cost_of_attention_dropout(model, 4, 48, device, fp32, causal=True) is None
    set_attention_dropout(model, 0.1)
    state = torch.get_rng_state()
    measured = cost_of_attention_dropout(model, 4, 48, device, fp32, causal=True)
    assert measured is not None and all(seconds > 0 for seconds in measured)
    assert torch.equal(torch.get_rng_state(), state), "measuring must not change what is drawn later"
    assert (
        cost_of_attention_dropout(SimpleNamespace(config=model.config, modules=list), 4, 48, device, fp32, causal=True)
        is None
    )


@pytest.mark.parametrize("causal", [True, False])
def test_what_is_timed_is_the_model_s_own_attention(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = torch.nn.functional.scaled_dot_product_attention, []

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        seen.append((options["dropout_p"], options["is_causal"]))
        return real(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model = tiny("gpt2")
    set_attention_dropout(model, 0.25)
    cost_of_attention_dropout(model, 4, 48, torch.device("cpu"), torch.float32, causal=causal)
    assert set(seen) == {(0.25, causal), (0.0, causal)}


def test_other_gpus_are_left_alone(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    """Unless it is told which ones matter, torch initializes all, and says so at length on every process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    model = tiny("gpt2")
    set_attention_dropout(model, 0.1)
    assert cost_of_attention_dropout(model, 4, 48, torch.device("cpu"), torch.float32, causal=True) is not None
    assert not recwarn.list
