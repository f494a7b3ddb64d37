"""Twins of many architectures at their published sizes: small, of the same parts, with the same ties."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from architectures import CAUSAL, MASKED
from lmtrain.models.exporting.same_weights import tied
from lmtrain.rehearsal import twin as twins
from lmtrain.rehearsal.twin import make_twin
from tiny import gpt2

HEAVY = {"bloom": {"hidden_size": 1024, "n_layer": 24, "n_head": 16}}  # its default is small
VOCABULARY = {"vocab_size": 997, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def published(kind: str) -> Any:
    """The model of that architecture's default size, without memory for it."""
    config = AutoConfig.for_model(kind, **VOCABULARY, **HEAVY.get(kind, {}))
    auto: Any = AutoModelForCausalLM if kind not in MASKED else AutoModelForMaskedLM
    with torch.device("meta"):
        return auto.from_config(config)


# Kinds that follow from a layer's number, heads in fours, widths that hang together, several models in one.
OTHERS = ("codegen", "deepseek_v3", "gemma3", "jamba", "mamba2", "recurrent_gemma", "rwkv", "zamba2")


def parts(model: Any) -> set[str]:
    return {re.sub(r"\.\d+\.", ".*.", name) for name in model.state_dict()}


@pytest.mark.parametrize("kind", [*CAUSAL, *MASKED, *OTHERS])
def test_a_twin_of_the_same_parts(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = published(kind)
    monkeypatch.setattr(twins, "_alike", lambda twin, *_: twin)  # it would follow the model to no device
    twin = make_twin(model).model
    assert type(twin) is type(model) and parts(twin) == parts(model)
    most = 9_000_000 if kind in OTHERS else 1_000_000
    assert sum(p.numel() for p in twin.parameters()) < most < sum(p.numel() for p in model.parameters())
    assert twin.config.vocab_size == model.config.vocab_size and not twin.training
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        logits = twin(input_ids=ids).logits
    assert torch.isfinite(logits).all() and logits.std() > 0


def test_a_head_that_is_not_tied_is_not_tied_in_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "SMALL", 0)
    model = gpt2()
    assert tied(make_twin(model).model) == tied(model) and tied(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    assert tied(make_twin(model).model) == tied(model) == set()


def test_every_weight_of_a_twin_is_drawn() -> None:
    """A bias that is zero in a new model would not be missed when it is left out."""
    twin = make_twin(gpt2()).model
    assert not any((weight == 0).any() for weight in twin.parameters())


def test_what_has_no_twin_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "_LARGEST", 10)
    monkeypatch.setattr(twins, "SMALL", 0)
    with pytest.raises(LookupError, match="no small twin of this GPT2LMHeadModel"):
        make_twin(gpt2())
