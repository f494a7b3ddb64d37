"""Configurations from the command line: typed, checked, and of the right kind for the objective."""

import pytest
from transformers import AutoConfig

from lmtrain.core.errors import UserError
from lmtrain.models.loading.configuration import check_purpose, find_purpose, max_positions, new_config


def test_overrides_take_the_type_of_the_setting_they_change():
    config = new_config(
        "gpt2", "clm", "hidden_size=64, n_layer=3,n_head=4,attn_pdrop=0,scale_attn_weights=no,n_inner=none,"
        "activation_function=relu"
    )  # fmt: skip
    values = (config.n_embd, config.n_layer, config.attn_pdrop, config.scale_attn_weights, config.n_inner)
    assert values == (64, 3, 0.0, False, None) and type(config.attn_pdrop) is float
    assert config.activation_function == "relu" and new_config("gpt2", "clm", "n_inner=96").n_inner == 96


def test_lists_may_hold_commas():
    config = new_config(
        "mistral",
        "clm",
        'hidden_size=64,num_attention_heads=4,num_key_value_heads=2,architectures=["A","B"],head_dim=8',
    )
    assert config.architectures == ["A", "B"] and config.head_dim == 8


def test_derived_settings_follow_the_override():
    assert new_config("llama", "clm", "hidden_size=64,num_attention_heads=8,num_key_value_heads=2").head_dim == 8


@pytest.mark.parametrize(
    ("model_type", "overrides", "words"),
    [
        ("gpt2", "n_embdd=3", r"no setting 'n_embdd'; did you mean n_embd .*it has: .*n_layer, n_positions"),
        ("gpt2", "n_layer=two", "n_layer=two: must be a whole number, like its present value 12"),
        ("gpt2", "n_layer=2.5", "must be a whole number"),
        ("gpt2", "attn_pdrop=little", "must be a number"),
        ("gpt2", "use_cache=perhaps", "must be true or false"),
        ("gpt2", "n_layer", "not of the form key=value"),
        ("gpt2", "n_inner=many", "expected int"),
        ("gpt2", "n_layer=0", "n_layer=0 must be at least 1"),
        ("gpt2", "n_head=-4", "n_head=-4 must be at least 1"),
        ("gpt2", "n_embd=100,n_head=12", "n_embd=100 does not divide by n_head=12; choose .* such as 108"),
        ("llama", "hidden_size=64,num_attention_heads=5", "not a multiple of the number of attention heads"),
        (
            "llama",
            "num_attention_heads=8,num_key_value_heads=3",
            "8 attention heads cannot be shared by 3 key-value",
        ),
        ("distilbert", "dim=64,n_heads=5", "64.*5"),
    ],
)
def test_what_cannot_be_built_is_one_line_about_config_overrides(model_type, overrides, words):
    with pytest.raises(UserError, match=words) as caught:
        new_config(model_type, "mlm" if model_type == "distilbert" else "clm", overrides)
    assert {problem.flag for problem in caught.value.problems} == {"--config_overrides"}
    assert "\n" not in str(caught.value)


def test_all_wrong_overrides_are_named_at_once():
    with pytest.raises(UserError) as caught:
        new_config("gpt2", "clm", "n_layer=x,foo=1,n_head")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(("typo", "meant"), [("gptt2", "gpt2"), ("lama", "llama"), ("gpt-neox", "gpt_neox")])
def test_an_unknown_type_gets_the_nearest_names(typo, meant):
    with pytest.raises(UserError, match=f"--model_type: '{typo}' is not a model type; did you mean .*{meant}"):
        new_config(typo, "clm", None)


@pytest.mark.parametrize(
    ("model_type", "changes", "purpose"),
    [
        ("gpt2", {}, "clm"), ("llama", {}, "clm"), ("bert", {}, "mlm"), ("bert", {"is_decoder": True}, "clm"),
        ("roberta", {}, "mlm"), ("distilbert", {}, "mlm"), ("modernbert", {}, "mlm"), ("bart", {}, None),
        ("t5", {}, None), ("vit", {}, None),
    ],
)  # fmt: skip
def test_encoders_and_decoders_are_told_apart(model_type, changes, purpose):
    config = AutoConfig.for_model(model_type, **changes)
    assert find_purpose(config) == purpose
    for asked, other in (("clm", "mlm"), ("mlm", "clm")):
        if asked == purpose:
            check_purpose(config, asked, "X", "--model_type")
            continue
        words = f"train it with: lmtrain {other}" if purpose else "neither a causal .* nor a masked"
        with pytest.raises(UserError, match=words):
            check_purpose(config, asked, "X", "--model_type")


@pytest.mark.parametrize(
    ("model_type", "changes", "positions"),
    [
        ("gpt2", {}, 1024), ("llama", {"max_position_embeddings": 77}, 77), ("bert", {}, 512),
        ("distilbert", {}, 512), ("opt", {}, 2048), ("bloom", {}, None), ("mpt", {}, None),
        ("mamba", {}, None),
        ("falcon", {"alibi": True}, None), ("falcon", {}, 2048),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 3}, 510),
        ("camembert", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
    ],
)  # fmt: skip
def test_positions(model_type, changes, positions):
    assert max_positions(AutoConfig.for_model(model_type, **changes)) == positions
