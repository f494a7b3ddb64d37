"""A shrunken twin of a model: the same classes, vocabulary, ties and adapter, few and narrow layers, small weights.

What costs memory or disk is tried on it. What depends on the class, the configuration or the vocabulary goes wrong
with the twin as it would with the model: a tensor that saving leaves out, a tie that loading loses, a setting that
``config.json`` does not keep. Its weights are drawn at random, all of them: a bias that is zero, as in a new model,
would not be missed.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lmtrain.core.errors import one_line
from lmtrain.models.comparison import plain_attention

SMALL = 4_000_000  # parameters: a model that is so small is copied as it is
_LARGEST = 100_000_000  # of a twin: beyond that it would cost what it is meant to save
_HEAD = 16  # width of an attention head
_WITHOUT_HEADS = 32  # width of a model that has none
_WIDTHS = (
    "intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "hidden_dim", "embedding_size", "pooler_hidden_size",
    "word_embed_proj_dim", "moe_intermediate_size", "shared_expert_intermediate_size", "time_step_rank",
    "attention_hidden_size", "lru_width", "intermediate_size_mlp",
)  # fmt: skip
_KEY_VALUE_HEADS = ("num_key_value_heads", "num_kv_heads")
_HEADS = (2, 4)  # heads that are tried: CodeGen shares its out in fours
_MORE_LAYERS = (4, 8)  # tried after that: Jamba's fifth is its first with attention, DeepSeek's fourth has experts
# How state-space layers name expansion, heads, width of a head and groups; expansion · hidden = heads · width.
_STATE_SPACES = (
    ("expand", "num_heads", "head_dim", "n_groups"),
    ("mamba_expand", "mamba_n_heads", "mamba_d_head", "mamba_n_groups"),
    ("mamba_expand", "n_mamba_heads", "mamba_headdim", "mamba_ngroups"),
)
_STIR = 0.1
# PEFT's words in the names of what it wraps, and of what it adds
_WRAPPERS = re.compile(r"\.(token_adapter|base_layer|original_module)(?=\.)")
_OF_AN_ADAPTER = ("lora_", "trainable_tokens_", ".modules_to_save.")


@dataclass(frozen=True)
class Twin:
    """``model`` is in evaluation mode. ``base``: of an adapter, the model that it stands on, as it was before."""

    model: Any
    base: Any | None = None


def make_twin(model: Any) -> Twin:
    """The twin of a model of ``transformers``, also of one with an adapter of PEFT, on its device.

    Draws from torch's generator. Raises LookupError with the reason where none can be made.
    """
    inner = getattr(model, "get_base_model", lambda: model)()
    small = sum(p.numel() for p in inner.parameters()) <= SMALL
    if inner is model:
        twin = copy.deepcopy(model) if small else _shrunk(model)
        if (plain := plain_attention(twin.config)) != twin.config._attn_implementation:
            twin.set_attn_implementation(plain)
        return Twin(_stirred(twin).eval())
    base = _stirred(_shrunk(inner, as_it_is=small))
    twin = _stirred(_adapted(model, copy.deepcopy(base)), only_trained=True)
    for layer in twin.modules():
        if isinstance(blocks := getattr(layer, "blocks", None), Tensor):  # models.adapters.merged_lora: zero elsewhere
            layer.weight.data.mul_(blocks)
    return Twin(twin.eval(), base)


def _open(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)


def _shrunk(model: Any, *, as_it_is: bool = False) -> Any:
    """A new model of the class of ``model``, which has no adapter or one that was put into it."""
    state = _bare(model)
    wanted = {_open(name) for name in state}
    reason = "no smaller shape of it could be found"
    for changes in [{}] if as_it_is else _smaller(model.config):
        try:
            config = _made(model.config, changes)
            with torch.device("meta"):
                plan = type(model)(config)
            if {_open(name) for name in plan.state_dict()} != wanted:
                reason = "a smaller one has other parts"
                continue
            if sum(p.numel() for p in plan.parameters()) > _LARGEST:
                continue
            twin = type(model)(config)
            _check_runs(twin)
        except Exception as error:  # each class has its own ways to refuse a shape
            reason = f"{type(error).__name__}: {one_line(error)[:200]}"
            continue
        return _alike(twin, model, state)
    raise LookupError(f"no small twin of this {type(model).__name__} could be made: {reason}")


def _bare(model: Any) -> dict[str, Tensor]:
    """The state of ``model`` without the adapter that was put into it, by the names that it had before."""
    return {
        _WRAPPERS.sub("", name): value
        for name, value in model.state_dict(keep_vars=True).items()
        if not any(part in name for part in _OF_AN_ADAPTER)
    }


def _smaller(config: Any) -> Iterator[dict[str, Any]]:
    """What to change for fewer layers: with narrow heads, with heads of their own width, with all of their width."""
    parts = [name for name in getattr(config, "sub_configs", {}) if getattr(config, name, None) is not None]
    if config.get_text_config() is not config and parts:
        yield from _smaller_parts({name: getattr(config, name) for name in parts})
        return
    own = getattr(config, "head_dim", None) or _whole(_get(config, "hidden_size"), _get(config, "num_attention_heads"))
    for layers in _fewer_layers(config):
        for head in dict.fromkeys((min(_HEAD, own or _HEAD), own)):
            for heads in _HEADS:
                if (narrow := _narrower(config, head, heads)) is not None:
                    yield {**layers, **narrow}
    yield from filter(None, _fewer_layers(config))


def _smaller_parts(parts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What to change in a model of several, such as one for text and one for images: in all, or in all but widths."""
    for which in (_narrowest, _shallowest):
        changes = {name: which(part) for name, part in parts.items()}
        if any(changes.values()):
            yield {name: {**parts[name].to_dict(), **found} for name, found in changes.items()}


def _narrowest(config: Any) -> dict[str, Any]:
    return next(_smaller(config), {})


def _shallowest(config: Any) -> dict[str, Any]:
    return next(_fewer_layers(config))


def _made(config: Any, changes: dict[str, Any]) -> Any:
    values = {**config.to_dict(), **changes}
    twin = type(config).from_dict(values)
    twin._attn_implementation = plain_attention(config)  # it computes in fp32, and not on a GPU at first
    return twin


def _get(config: Any, name: str) -> Any:
    return getattr(config, name, None)


def _key(config: Any, name: str) -> str:
    return str(config.attribute_map.get(name, name))


def _whole(number: Any, divisor: Any) -> int | None:
    if not isinstance(number, int) or not isinstance(divisor, int) or not divisor or number % divisor:
        return None
    return number // divisor


def _fewer_layers(config: Any) -> Iterator[dict[str, Any]]:
    """One layer of each kind that the configuration names, two where there is one kind; then more, for kinds that
    follow from a layer's number. Lists with an entry a layer are cut alike."""
    layers = _get(config, "num_hidden_layers")
    if not isinstance(layers, int) or layers < 2:
        yield {}
        return
    kinds = _get(config, "layer_types")
    first = [0, 1]
    if isinstance(kinds, list) and len(kinds) == layers and len(set(kinds)) > 1:
        first = sorted(kinds.index(kind) for kind in set(kinds))
    for kept in (first, *(list(range(count)) for count in _MORE_LAYERS if len(first) < count < layers)):
        changes: dict[str, Any] = {_key(config, "num_hidden_layers"): len(kept)}
        for name, value in config.to_dict().items():
            if isinstance(value, list) and len(value) == layers:
                changes[name] = [value[i] for i in kept]
        yield changes


def _narrower(config: Any, head: int | None, most: int) -> dict[str, Any] | None:
    """``most`` heads of the width ``head``, and everything else in proportion; None where it has another kind of
    width."""
    hidden, heads = _get(config, "hidden_size"), _get(config, "num_attention_heads")
    if not isinstance(hidden, int):
        return None
    if isinstance(heads, int) and head:
        groups = next((n for n in _KEY_VALUE_HEADS if isinstance(_get(config, n), int)), None)
        few = min(heads, most)
        changes: dict[str, Any] = {_key(config, "num_attention_heads"): few}
        if groups:
            changes[_key(config, groups)] = few if _get(config, groups) == heads else 1
        for name in ("head_dim", "rotary_dim", "qk_rope_head_dim"):
            if isinstance(config.to_dict().get(name), int):  # and no property that follows from others
                changes[name] = min(getattr(config, name), head)
        width = few * head
    else:
        changes, width = {}, _WITHOUT_HEADS
    if width >= hidden:
        return None
    changes[_key(config, "hidden_size")] = width
    for name in _WIDTHS:
        value = _get(config, name)
        if isinstance(value, int) and value > 1:
            changes[_key(config, name)] = width if value == hidden else 8 * max(1, round(value * width / hidden / 8))
    for expand, heads_, width_, groups_ in _STATE_SPACES:
        if all(isinstance(_get(config, name), int | float) for name in (expand, heads_, groups_)):
            few = max(2, int(_get(config, groups_)))
            changes |= {heads_: few, width_: int(width * _get(config, expand)) // few}
    return changes


def _check_runs(twin: Any) -> None:
    with torch.no_grad():
        logits = twin.eval()(input_ids=torch.zeros((1, 4), dtype=torch.long)).logits
    if logits.shape[-1] < 1:
        raise ValueError("it gives no logits")


def _alike(twin: Any, model: Any, state: dict[str, Tensor]) -> Any:
    """What a configuration does not say: generation settings, a head that is not tied after all, the device.

    ``state`` is that of ``model``, by the names of the twin's.
    """
    if getattr(model, "generation_config", None) is not None:
        twin.generation_config = copy.deepcopy(model.generation_config)
    table, head = twin.get_input_embeddings(), twin.get_output_embeddings()
    if head is not None and head.weight is table.weight:
        names = [name for name, value in twin.state_dict(keep_vars=True).items() if value is table.weight]
        if len({state[name].data_ptr() for name in names if name in state}) > 1:
            head.weight = nn.Parameter(head.weight.detach().clone())
    return twin.to(next(model.parameters()).device)


def _adapted(model: Any, base: Any) -> Any:
    """``base`` with the adapter that ``model`` has, made by the run's own functions."""
    from lmtrain.models.adapters.merged_lora import adapted_attention, merged_lora
    from lmtrain.models.loading.peft_wrapping import wrap

    config = copy.deepcopy(model.peft_config["default"])
    if any(hasattr(layer.lora_B["default"], "blocks") for layer in adapted_attention(model)):
        return merged_lora(base, config.r // 2, config.lora_alpha / 2, config.lora_dropout)
    return wrap(base, config)


def _stirred(model: Any, *, only_trained: bool = False) -> Any:
    """``model`` with noise added to its weights, those that are tied once."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point() and (weight.requires_grad or not only_trained):
                weight.add_(torch.empty_like(weight).uniform_(-_STIR, _STIR))
    return model
