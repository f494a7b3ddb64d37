"""What is exported is reloaded and compared: all kinds pass, whatever is wrong with one is an error."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapters import options as lora
from adapters import stirred, with_added_tokens
from architectures import CAUSAL, MASKED, tiny
from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import OwnResultWrong
from lmtrain.models import load_model, load_tokenizer, save_model
from lmtrain.models.activations import fuse_activations
from lmtrain.models.adapters.lora import adapted
from lmtrain.models.adapters.merged_lora import adapted_attention
from lmtrain.models.comparison import difference
from lmtrain.models.exporting.export import REJECTED
from lmtrain.models.exporting.same_weights import rounded_like
from lmtrain.models.exporting.verified_export import MERGED, _bytes_of_the_copy, export_verified
from tiny_models import PURPOSE, checkpoint, make

IDS = torch.tensor([[5, 9, 33, 7, 21, 40, 12, 8], [6, 60, 11, 11, 54, 30, 29, 18]])


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def with_adapter(
    kind: str,
    folder: Path,
    precision: str = "fp32",
    *,
    grown: bool = False,
    dtype: torch.dtype | None = None,
    **changes: Any,
) -> tuple[Any, Any, ModelOptions]:
    """A model with an adapter as a run ends with it, its tokenizer, and how it was loaded."""
    if grown:
        base, name = with_added_tokens(kind, folder)
        chosen = ModelOptions(model_name_or_path=base, tokenizer_name=name)
    else:
        chosen = ModelOptions(model_name_or_path=checkpoint(kind, folder / "base"))
    if dtype is not None:
        model = load_model(chosen, PURPOSE[kind], None).model.to(dtype)
        save_model(model, load_tokenizer(chosen), folder / "low")
        chosen = ModelOptions(model_name_or_path=str(folder / "low"))
    tokenizer = load_tokenizer(chosen)
    loaded = load_model(chosen, PURPOSE[kind], tokenizer)
    return stirred(adapted(loaded, lora(**changes), precision).model), tokenizer, chosen


@pytest.mark.parametrize("kind", [*CAUSAL, *MASKED])
def test_whole_models_of_every_architecture(tmp_path: Path, kind: str) -> None:
    model = tiny(kind).train()
    before = torch.get_rng_state()
    found = export_verified(model, None, tmp_path / "run", "clm" if kind in CAUSAL else "mlm")
    assert found.kind == "model" and found.difference == 0.0
    assert found.tensors == len(model.state_dict()) and found.logits == 2 * 24 * 67
    assert model.training and all(module.training for module in model.modules()), "left as it was"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", sorted(PURPOSE))
def test_with_its_tokenizer(tmp_path: Path, kind: str) -> None:
    model, tokenizer = make(kind, tmp_path / "t")
    tokenizer.add_tokens(["<a>"])
    model.resize_token_embeddings(len(tokenizer))
    found = export_verified(model, tokenizer, tmp_path / "run", PURPOSE[kind])
    assert found.difference == 0.0
    assert {file.name for file in found.files} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert str(found.tensors) in found.line and "allowed 1e-05" in found.line
    assert json.loads(json.dumps(found.as_dict()))["allowed"] == 1e-5


@pytest.mark.parametrize("tie", [True, False])
def test_tied_and_untied_weights(tmp_path: Path, tie: bool) -> None:
    model = tiny("llama", tie_word_embeddings=tie)
    assert export_verified(model, None, tmp_path / "run", "clm").difference == 0.0
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tie


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_weights_of_16_bits_are_compared_as_strictly(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    model = tiny(kind)
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    found = export_verified(model, None, tmp_path / "run", "clm" if kind in CAUSAL else "mlm")
    assert found.difference == 0.0 and found.dtype == str(dtype).removeprefix("torch.")
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert {value.dtype for value in load_file(tmp_path / "run" / "model.safetensors").values()} == {dtype}


def test_fused_activations_and_accelerates_autocast_make_no_difference(tmp_path: Path) -> None:
    model = tiny("gpt2")
    assert fuse_activations(model)
    model._original_forward = model.forward
    model.forward = lambda *args, **kw: pytest.fail("the comparison is in fp32")
    prepared = model.forward
    assert export_verified(model, None, tmp_path / "run", "clm").difference == 0.0
    assert model.forward is prepared


def test_a_gathered_state_is_compared_by_its_tensors(tmp_path: Path) -> None:
    """Of a sharded model no process holds the weights: here they are emptied."""
    model = tiny("llama")
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    found = export_verified(model, None, tmp_path / "run", "clm", state=state)
    assert found.tensors == len(state) and found.logits == 0 and "sharded" in found.line
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run").state_dict()
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_a_model_that_diverged_is_exported_as_it_is(tmp_path: Path) -> None:
    model = tiny("gpt2")
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    assert export_verified(model, None, tmp_path / "run", "clm").difference == 0.0


# ---- adapters --------------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {},
    {"precision": "bf16"},
    {"grown": True},
    {"grown": True, "precision": "bf16"},
    {"use_dora": True},
    {"use_rslora": True},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_adapters(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter(kind, tmp_path, **changes)
    found = export_verified(model, tokenizer, tmp_path / "run", PURPOSE[kind], chosen)
    assert found.kind == "adapter" and found.difference <= 1e-6
    assert (found.rounded > 1e-4) == ("precision" in changes), "what bf16 for frozen layers costs is told"
    assert ("bfloat16" in found.line) == ("precision" in changes)
    assert not (tmp_path / "run" / "config.json").exists()


def test_the_memory_that_is_asked_for_is_what_the_comparison_holds(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, copy = (with_adapter("gpt2", tmp_path, precision)[0] for precision in ("bf16", "fp32"))
    held = {weight.data_ptr(): weight.nbytes for weight in copy.parameters()}
    with rounded_like(copy, model):  # which keeps the exact ones, too
        held |= {weight.data_ptr(): weight.nbytes for weight in copy.parameters()}
    assert sum(held.values()) == _bytes_of_the_copy(model) > 4 * sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize(
    "changes", [*KINDS, {"dtype": torch.bfloat16}, {"dtype": torch.bfloat16, "precision": "bf16"}], ids=str
)
@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_merged(tmp_path: Path, kind: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter(kind, tmp_path, **changes)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "too small"))
    found = export_verified(model, tokenizer, tmp_path / "run", PURPOSE[kind], chosen, merge=True)
    assert found.kind == "merged" and found.difference <= MERGED == found.allowed
    assert (found.rounded > 0) == ("dtype" in changes) and not list((tmp_path / "run").glob(".*"))
    if "precision" not in changes and "dtype" not in changes:
        whole = load_model(ModelOptions(str(tmp_path / "run")), PURPOSE[kind], None).model
        assert difference(logits(model), logits(whole)) < 1e-4
    stored = {value.dtype for value in load_file(tmp_path / "run" / "model.safetensors").values()}
    assert stored == {changes.get("dtype", torch.float32)}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("module", ["lm_head", "ln_f", "wte"])
def test_modules_that_are_trained_whole(tmp_path: Path, module: str, merge: bool) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter("gpt2", tmp_path, modules_to_save=[module])
    assert export_verified(model, tokenizer, tmp_path / "run", "clm", chosen, merge=merge).difference <= MERGED


@pytest.mark.parametrize("merge", [False, True])
def test_query_and_value_of_gpt2_by_themselves(tmp_path: Path, merge: bool) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter("gpt2", tmp_path, "bf16", lora_query_value=True)
    with torch.no_grad():
        for layer in adapted_attention(model):  # training leaves the zeros between the blocks as they are
            layer.lora_B["default"].weight.mul_(layer.lora_B["default"].blocks)
    assert export_verified(model, tokenizer, tmp_path / "run", "clm", chosen, merge=merge).difference <= MERGED


@pytest.mark.parametrize("merge", [False, True])
def test_an_adapter_that_diverged_is_exported_as_it_is(tmp_path: Path, merge: bool) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter("gpt2", tmp_path)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    assert export_verified(model, tokenizer, tmp_path / "run", "clm", chosen, merge=merge).difference == 0.0


def test_code_that_came_with_the_model(tmp_path: Path) -> None:
    """A model whose class lies in the folder, trusted by the user."""
    base = tmp_path / "own"
    model, tokenizer = make("gpt2", tmp_path / "t")
    save_model(model, tokenizer, base)
    (base / "own_gpt2.py").write_text(
        "from transformers import GPT2Config, GPT2LMHeadModel\n\n\n"
        "class OwnConfig(GPT2Config):\n    model_type = 'own-gpt2'\n\n\n"
        "class OwnModel(GPT2LMHeadModel):\n    config_class = OwnConfig\n\n"
        "    def forward(self, *args, **kwargs):\n"
        "        out = super().forward(*args, **kwargs)\n        out.logits = out.logits * 2\n        return out\n"
    )
    config = json.loads((base / "config.json").read_text())
    places = {"AutoConfig": "own_gpt2.OwnConfig", "AutoModelForCausalLM": "own_gpt2.OwnModel"}
    config |= {"model_type": "own-gpt2", "architectures": ["OwnModel"], "auto_map": places}
    (base / "config.json").write_text(json.dumps(config))
    own = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=True)
    trusting = ModelOptions(model_name_or_path=str(base), trust_remote_code=True)
    found = export_verified(own, tokenizer, tmp_path / "run", "clm", trusting)
    assert found.difference == 0.0 and "own_gpt2.py" in {file.name for file in found.files}


# ---- what is wrong is an error ---------------------------------------------------------------------


def changed(place: Path, change: Any, file: str = "model.safetensors") -> None:
    tensors = load_file(place / file)
    change(tensors)
    save_file(tensors, place / file, metadata={"format": "pt"})


def one_value(tensors: dict[str, torch.Tensor]) -> None:
    name = sorted(name for name in tensors if "weight" in name)[-1]
    flat = tensors[name].view(-1)
    flat[3] = torch.nextafter(flat[3], torch.tensor(9.0))


def edited(file: str, **values: Any) -> Any:
    def edit(place: Path) -> None:
        config = json.loads((place / file).read_text())
        (place / file).write_text(json.dumps(config | values))

    return edit


def other_tokenizer(place: Path) -> None:
    tokenizer = json.loads((place / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, two = list(vocabulary)[40:42]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    (place / "tokenizer.json").write_text(json.dumps(tokenizer))


WRONG: dict[str, tuple[Any, str]] = {
    "one bit of one weight": (lambda p: changed(p, one_value), "has other values"),
    "a key is dropped": (lambda p: changed(p, lambda t: t.pop("transformer.h.1.mlp.c_fc.weight")), "missing"),
    "a key too many": (lambda p: changed(p, lambda t: t.update(extra=torch.ones(2))), "have no place"),
    "another shape": (
        lambda p: changed(p, lambda t: t.update({"transformer.wpe.weight": torch.ones(5, 32)})),
        "cannot be loaded|another shape"),
    "tied weights untied": (edited("config.json", tie_word_embeddings=False), "tied|missing"),
    "another activation": (edited("config.json", activation_function="relu"), "computes other logits"),
    "another epsilon": (edited("config.json", layer_norm_epsilon=1e-2), "computes other logits"),
    "a truncated file": (lambda p: (p / "model.safetensors").write_bytes(b"1234"), "cannot be loaded"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "cannot be loaded"),
    "another tokenizer": (other_tokenizer, "its tokenizer gives another vocabulary"),
    "no tokenizer": (lambda p: [f.unlink() for f in p.glob("tokenizer*")], "tokenizer"),
    "another special token": (edited("tokenizer_config.json", eos_token="a"), "its tokenizer gives another"),
    "a lost chat template": (lambda p: (p / "chat_template.jinja").unlink(), "chat template"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_written_wrong_is_refused_and_the_earlier_model_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    spoil, text = WRONG[what]
    run = tmp_path / "run"
    old, tokenizer = make("gpt2", tmp_path / "t", seed=1)
    tokenizer.chat_template = "{{ messages }}"
    export_verified(old, tokenizer, run, "clm")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    new, _ = make("gpt2", tmp_path / "t", seed=2)
    save = type(tokenizer).save_pretrained

    def saved_wrong(self: Any, place: Path, **kwargs: Any) -> None:
        save(self, place, **kwargs)
        spoil(Path(place))

    with monkeypatch.context() as patch:
        patch.setattr(type(tokenizer), "save_pretrained", saved_wrong)
        with pytest.raises(OwnResultWrong, match=text) as caught:
            export_verified(new, tokenizer, run, "clm")
    assert caught.value.exit_code == 1 and "not the one that was trained" in str(caught.value)
    rejected = run / REJECTED
    assert rejected.is_dir(), "the weights are not lost"
    shutil.rmtree(rejected)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    rejected.mkdir()
    export_verified(new, tokenizer, run, "clm")
    assert not rejected.exists()
    assert AutoTokenizer.from_pretrained(run).chat_template == "{{ messages }}"


ADAPTER = "adapter_model.safetensors"
WRONG_ADAPTER: dict[str, tuple[Any, str]] = {
    "one bit": (lambda p: changed(p, one_value, ADAPTER), "has other values"),
    "a key is dropped": (lambda p: changed(p, lambda t: t.pop(sorted(t)[0]), ADAPTER), "other values"),
    "another alpha": (edited("adapter_config.json", lora_alpha=5), "computes other logits"),
    "another rank": (edited("adapter_config.json", r=3), "cannot be loaded"),
    "another scale": (edited("adapter_config.json", use_rslora=True), "computes other logits"),
    "no base": (edited("adapter_config.json", base_model_name_or_path="/nowhere"), "cannot be loaded"),
}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("what", WRONG_ADAPTER)
def test_an_adapter_that_is_written_wrong_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, merge: bool
) -> None:
    pytest.importorskip("peft")
    spoil, text = WRONG_ADAPTER[what]
    model, tokenizer, chosen = with_adapter("gpt2", tmp_path)
    save = type(model).save_pretrained

    def saved_wrong(self: Any, place: Path, **kwargs: Any) -> None:
        save(self, place, **kwargs)
        spoil(Path(place))

    monkeypatch.setattr(type(model), "save_pretrained", saved_wrong)
    with pytest.raises(OwnResultWrong, match=text):
        export_verified(model, tokenizer, tmp_path / "run", "clm", chosen, merge=merge)
    assert not any((tmp_path / "run").glob("*.json")), "nothing that loads"


def test_an_adapter_whose_base_changed_meanwhile_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model, tokenizer, chosen = with_adapter("gpt2", tmp_path, "bf16")
    changed(tmp_path / "base", lambda t: t["transformer.h.0.mlp.c_fc.weight"].mul_(1.01))
    with pytest.raises(OwnResultWrong, match=r"c_fc\.weight has other values"):
        export_verified(model, tokenizer, tmp_path / "run", "clm", chosen)


def test_a_wrong_merge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    from peft.tuners.lora import Linear

    model, tokenizer, chosen = with_adapter("gpt2", tmp_path)
    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: right(self, name) * 0.9)
    with pytest.raises(OwnResultWrong, match="merged model computes other logits"):
        export_verified(model, tokenizer, tmp_path / "run", "clm", chosen, merge=True)
    assert not any((tmp_path / "run").glob("*.json")) if (tmp_path / "run").exists() else True


def test_a_row_missing_for_an_id_is_refused(tmp_path: Path) -> None:
    model, tokenizer = make("gpt2", tmp_path / "t")
    tokenizer.add_tokens(["<a>", "<b>"])
    with pytest.raises(OwnResultWrong, match="rows for the tokenizer's ids"):
        export_verified(model, tokenizer, tmp_path / "run", "clm")
