"""One probability for every dropout of a model, in its modules and in what is saved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from architectures import CAUSAL, MASKED, tiny
from lmtrain.config.groups import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models import load_model
from lmtrain.models.attention_dropout import attention_dropout
from lmtrain.models.dropout import drops, set_dropout
from tiny_models import save_tokenizer

_IDS = torch.arange(5, 45)[None]
_NONE = {"mamba"}


def is_random(model: Any) -> bool:
    model.train()
    return not torch.equal(model(input_ids=_IDS).logits, model(input_ids=_IDS).logits)


@pytest.mark.parametrize("kind", sorted({*CAUSAL, *MASKED} - _NONE))
def test_it_reaches_every_place_and_the_configuration(kind: str) -> None:
    model = tiny(kind)
    assert set_dropout(model, 0.5) and is_random(model) and drops(model)
    assert is_random(type(model)(model.config)), "what is saved says the same"
    assert set_dropout(model, 0.0) and not is_random(model) and not drops(model)
    assert not is_random(type(model)(model.config))


def test_layers_are_not_left_out() -> None:
    model = tiny("opt")
    set_dropout(model, 0.5)
    assert model.config.layerdrop == 0.0


def test_the_flag_and_the_more_particular_one_beside_it(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(save_tokenizer(tmp_path, "gpt2"))
    shape = {"model_type": "gpt2", "config_overrides": "n_embd=32,n_layer=1,n_head=2"}
    model: Any = load_model(ModelOptions(**shape, dropout=0.3, attention_dropout=0.0), "clm", tokenizer).model
    assert attention_dropout(model) == 0.0 and model.config.attn_pdrop == 0.0
    assert model.config.resid_pdrop == model.config.embd_pdrop == model.transformer.drop.p == 0.3
    assert not is_random(load_model(ModelOptions(**shape, dropout=0.0), "clm", tokenizer).model)
    with pytest.raises(UserError, match="no dropout"):
        load_model(
            ModelOptions(model_type="mamba", config_overrides="hidden_size=32,num_hidden_layers=1", dropout=0.1),
            "clm", tokenizer,
        )  # fmt: skip
