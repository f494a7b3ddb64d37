"""LoRA: freeze a model and train low-rank matrices beside its layers (Hu et al. 2021, arXiv:2106.09685).

PEFT holds the adapters. Here is chosen what it is told, and checked what it would pass over in silence: a target that
matches nothing, a head whose bias gets lost, rows of new tokens that would stay as they were drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lmtrain.config.adapter import ALL_LINEAR
from lmtrain.core.console import amount
from lmtrain.core.errors import Problems, UserError
from lmtrain.models.loading.build import LoadedModel
from lmtrain.models.loading.peft_wrapping import place_of, require_peft, wrap

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

_QUERY_AND_VALUE = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("q", "v"), ("to_q", "to_v"))
_MAMBA = frozenset({"falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h"})


def adapted(loaded: LoadedModel, options: Any, precision: str = "fp32") -> LoadedModel:
    """``loaded`` with an adapter, and a line that says what is trained. ``precision`` is the run's.

    ``options`` are ``config.adapter.LoraOptions``. Raises :class:`UserError` in flag names.
    """
    from lmtrain.models.formats import sixteen_bits

    if loaded.adapter is not None:
        raise UserError(
            f"{loaded.adapter} is an adapter already, and a second one would belong to a model that lies nowhere; "
            f"write the merged model first: lmtrain export {loaded.adapter} MERGED --to merged",
            flag="--model_name_or_path",
        )
    low = sixteen_bits(precision)
    model: Any = loaded.model
    if options.lora_query_value and model.config.model_type == "gpt2":
        model = _merged(loaded, options, low)
    else:
        model = adapt(loaded.model, options, rows_before=loaded.rows_before, frozen=low)
    return replace(loaded, model=model, lines=[*loaded.lines, trained_line(model)])


def _merged(loaded: LoadedModel, options: Any, frozen: torch.dtype | None) -> PeftModel:
    """GPT-2's query and value by themselves. Raises :class:`UserError` for what that adapter is not made for."""
    from lmtrain.models.adapters.merged_lora import merged_lora

    problems = Problems()
    for name in ("modules_to_save", "use_dora", "use_rslora"):
        if getattr(options, name):
            problems.add("cannot be had together with --lora_query_value on GPT-2", flag=f"--{name}")
    model: Any = loaded.model
    if loaded.rows_before is not None and loaded.rows_before < model.get_input_embeddings().weight.shape[0]:
        problems.add(
            "the tokenizer has new tokens, whose rows this adapter would not train; leave it out, or add the tokens to "
            "the model first",
            flag="--lora_query_value",
        )
    problems.raise_if_any()
    return merged_lora(model, options.lora_r, options.lora_alpha, options.lora_dropout, frozen=frozen)


def adapt(model: Any, options: Any, *, rows_before: int | None = None, frozen: torch.dtype | None = None) -> PeftModel:
    """Put the adapter that ``options`` (``config.adapter.LoraOptions``) describe on ``model``, whose weights freeze.

    ``rows_before``: rows of the embedding before it grew for new tokens; the rows behind it are trained too, in the
    input and in the output. ``frozen``: the format to keep frozen linear layers in, for a run whose products are made
    in it (see ``models.frozen``). The adapter itself is fp32. Raises :class:`UserError`.
    """
    require_peft()
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    from lmtrain.models.frozen import keep_frozen_low
    from lmtrain.models.loading.configuration import find_purpose

    causal = find_purpose(model.config) == "clm"
    targets: list[str] | str = ALL_LINEAR
    problems = Problems()
    with problems.collect():
        targets = _query_and_value(model) if options.lora_query_value else _targets(model, options.lora_target_modules)
    with problems.collect():
        _require_modules(model, options.modules_to_save)
    problems.raise_if_any()
    _require_untied(model, targets)
    rows = _new_rows(model, rows_before)
    config = LoraConfig(
        task_type="CAUSAL_LM" if causal else None,
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
        exclude_modules=(_not_adaptable(model) or None) if targets == ALL_LINEAR else None,
        modules_to_save=[*options.modules_to_save, *rows.whole] or None,
        trainable_token_indices=rows.indices or None,
        use_dora=options.use_dora,
        use_rslora=options.use_rslora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for _, module in _matched(model, targets)),
    )
    config.base_model_name_or_path = place_of(model.name_or_path)
    adapter = wrap(model, config)
    if frozen is not None and not options.use_dora:  # DoRA measures the lengths of the frozen columns in every pass
        keep_frozen_low(adapter.get_base_model(), frozen)
    return adapter


def trained_line(model: Any) -> str:
    """``LoRA, rank 8: 0.3 M of 124.7 M parameters are trained (0.24%)``."""
    from lmtrain.models.adapters.merged_lora import rank_of, sizes

    trained, everything = sizes(model)
    name = "DoRA" if model.peft_config["default"].use_dora else "LoRA"
    return (
        f"{name}, rank {rank_of(model)}: {amount(trained)} of {amount(everything, 'parameters')} are trained "
        f"({trained / everything:.2%})"
    )


# ---- targets --------------------------------------------------------------------------------------


def _targets(model: Any, asked: list[str]) -> list[str] | str:
    """The names to give to PEFT. Raises where one matches nothing, with what there is."""
    if asked == [ALL_LINEAR]:
        return ALL_LINEAR
    if asked:
        problems = Problems()
        for name in asked:
            if not _matched(model, [name]):
                problems.add(
                    f"no linear layer is called {name!r}; this model has {_grouped(_linear_layers(model))}",
                    flag="--lora_target_modules",
                )
        problems.raise_if_any()
        return asked
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    known = KNOWN.get(model.config.get_text_config().model_type)
    if isinstance(known, list) and _matched(model, known):
        return list(known)
    return ALL_LINEAR


def _not_adaptable(model: Any) -> list[str]:
    """Paths of the linear layers that an adapter on all of them passes over: those of Mamba whose weights its kernels
    read past the layer (an adapter there does nothing, and PEFT refuses one of them), and layers that return something
    else than one product (the routers of Llama 4 and Phi-MoE)."""
    mamba = model.config.get_text_config().model_type in _MAMBA
    return [
        path
        for path, layer in _linear_layers(model)
        if (mamba and path.endswith((".out_proj", ".dt_proj"))) or not _returns_a_product(layer)
    ]


def _returns_a_product(layer: Any) -> bool:
    import torch

    if not isinstance(layer, torch.nn.Linear) or type(layer).forward is torch.nn.Linear.forward:
        return True
    try:
        with torch.no_grad():
            product = layer(layer.weight.new_zeros(1, layer.in_features))
    except Exception:  # made for another input than a linear layer's, whatever it says of that
        return False
    return isinstance(product, torch.Tensor) and product.shape == (1, layer.out_features)


def _query_and_value(model: Any) -> list[str]:
    """The names of those layers in this model, by the words that models have for them."""
    for names in _QUERY_AND_VALUE:
        if all(_matched(model, [name]) for name in names):
            return list(names)
    raise UserError(
        f"no layers of this model are known as query and value; it has {_grouped(_linear_layers(model))}: name them "
        "with --lora_target_modules",
        flag="--lora_query_value",
    )


def _matched(model: Any, names: list[str] | str) -> list[tuple[str, Any]]:
    layers = _linear_layers(model)
    if isinstance(names, str):
        return layers
    return [(path, layer) for path, layer in layers if any(path == n or path.endswith(f".{n}") for n in names)]


def _linear_layers(model: Any) -> list[tuple[str, Any]]:
    """What can be adapted, by its path: linear layers, and embeddings."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    kinds = (nn.Linear, Conv1D, nn.Embedding, nn.Conv1d)
    return [(path, layer) for path, layer in model.named_modules() if isinstance(layer, kinds)]


def _grouped(layers: Iterable[tuple[str, Any]]) -> str:
    """Paths with their numbers left open: ``h.*.attn.c_attn`` stands for those of all layers."""
    open_numbers = (re.sub(r"(?<=\.)\d+(?=\.|$)", "*", path) for path, _ in layers)
    return ", ".join(dict.fromkeys(open_numbers))


def _require_untied(model: Any, targets: list[str] | str) -> None:
    """Merging an adapter into one of two layers that share a matrix would change both, which is another model."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if targets == ALL_LINEAR or head is None or head.weight is not embedding.weight:
        return
    names = {layer: path.rpartition(".")[2] for path, layer in model.named_modules() if layer in (embedding, head)}
    if shared := [names[layer] for _, layer in _matched(model, targets) if layer in names]:
        raise UserError(
            f"{shared[0]} cannot have an adapter: {names[embedding]} and {names[head]} are one matrix, and merging "
            f"would change both; leave it out, or train the output whole with --modules_to_save {names[head]}",
            flag="--lora_target_modules",
        )


def _require_modules(model: Any, names: list[str]) -> None:
    problems = Problems()
    paths = [path for path, _ in model.named_modules() if path]
    for name in names:
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            whole = _grouped((path, None) for path, module in model.named_modules() if list(module.parameters(False)))
            problems.add(f"no module is called {name!r}; this model has {whole}", flag="--modules_to_save")
    problems.raise_if_any()


# ---- rows of new tokens ---------------------------------------------------------------------------


class _Rows:
    """How the rows of new tokens are trained: by ``indices`` of the modules, or those modules ``whole``."""

    def __init__(self, indices: dict[str, list[int]] | None = None, whole: list[str] | None = None) -> None:
        self.indices, self.whole = indices or {}, whole or []


def _new_rows(model: Any, rows_before: int | None) -> _Rows:
    """How to train the rows from ``rows_before`` on, in input and output.

    By their indices, which costs nothing: PEFT keeps a tied output in step. But it computes an output layer without
    its bias, so where that has one (BERT and its kin) both layers are trained whole.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    rows = embedding.weight.shape[0]
    if rows_before is None or rows_before >= rows:
        return _Rows()
    paths = {module: path for path, module in model.named_modules()}
    layers = [layer for layer in (embedding, head) if layer is not None]
    if getattr(head, "bias", None) is not None:
        return _Rows(whole=[paths[layer] for layer in layers])
    if head is not None and head.weight is embedding.weight:
        layers = [embedding]
    return _Rows({paths[layer]: list(range(rows_before, rows)) for layer in layers})
