"""Load a model from a checkpoint or make a new one, so that it fits its tokenizer and its objective."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.console import amount, counted
from lmtrain.core.errors import UserError, first_line
from lmtrain.models.loading.adapter_folder import is_adapter, merge, read_adapter
from lmtrain.models.loading.checkpoint_folder import check_folder
from lmtrain.models.loading.configuration import (
    check_purpose,
    find_purpose,
    max_positions,
    read_config,
)
from lmtrain.models.loading.hub import hub_problem, locate
from lmtrain.models.loading.loaded import LoadedModel, attention_keywords, auto_class, speaks_of_attention
from lmtrain.models.loading.new_model import make_new
from lmtrain.models.loading.tokenizer import Purpose
from lmtrain.models.loading.vocabulary import agree_on_special_ids, fit_vocabulary, rows_of
from lmtrain.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_model(options: Any, purpose: Purpose, tokenizer: Any | None, length: int | None = None) -> LoadedModel:
    """The model that ``options`` (a ``config.options.ModelOptions``) describe, for causal or masked training.

    From ``--model_name_or_path``, or new from ``--config_name`` or ``--model_type``. Weights are fp32
    whatever the checkpoint holds: lower precision is the run's choice, made by autocast. With a tokenizer the
    embedding grows to its ids and the special ids agree; None leaves a checkpoint as it is. ``length``: tokens of an
    example, where the user says. New weights are drawn from torch's global generator, which the caller seeds. Raises
    :class:`UserError` in flag names.
    """
    with quiet_libraries():
        if options.model_name_or_path:
            if options.config_overrides:
                raise UserError(
                    "changes the shape of a new model and cannot be used with --model_name_or_path",
                    flag="--config_overrides",
                )
            loaded = _load_checkpoint(options, purpose)
        elif tokenizer is None:
            raise UserError("a new model needs a tokenizer, which sets its vocabulary", flag="--tokenizer_name")
        else:
            loaded = make_new(options, purpose, tokenizer, length)
        _set_dropout(loaded.model, options)
        if tokenizer is not None:
            loaded.rows_before = rows_of(loaded.model)
            loaded.lines += fit_vocabulary(loaded.model, tokenizer, options.resize_embeddings)
            loaded.lines += agree_on_special_ids(loaded.model, tokenizer)
    return loaded


def check_kind(options: Any, purpose: Purpose) -> None:
    """Refuse a checkpoint of the other kind, from its configuration alone: an encoder in clm, a decoder in mlm."""
    if not options.model_name_or_path:
        return
    config = _config_of(options)
    check_purpose(config, purpose, options.model_name_or_path, "--model_name_or_path")


def purpose_of(options: Any) -> Purpose:
    """Whether ``--model_name_or_path`` is causal ("clm") or masked ("mlm"), from its configuration alone."""
    config = _config_of(options)
    purpose = find_purpose(config)
    if purpose is None:  # says what it is instead
        check_purpose(config, "clm", options.model_name_or_path, "--model_name_or_path")
    assert purpose is not None
    return purpose


def positions_of(options: Any) -> int | None:
    """:func:`max_positions` of ``--model_name_or_path``, from its configuration alone."""
    return max_positions(_config_of(options))


def _config_of(options: Any) -> Any:
    name, flag = options.model_name_or_path, "--model_name_or_path"
    if not name:
        raise UserError("name the model: a run's folder, a checkpoint, or a name on the hub", flag=flag)
    with quiet_libraries():
        origin = locate(name, options, flag)
        if origin.path is not None:
            check_folder(origin.path, flag)
            if is_adapter(origin.path):
                return _config_of(read_adapter(origin.path, flag).base_options(options))
        return read_config(origin, options, flag)


def describe(model: PreTrainedModel) -> str:
    """A model in one line: ``gpt2, 6 layers × 256, 6.9 M parameters``. Tied weights count once."""
    from lmtrain.models.sharding import count_of

    config = model.config.get_text_config()
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    shape = f"{layers} layers × {width}, " if layers and width else ""
    return f"{config.model_type}, {shape}{amount(count_of(model), 'parameters')}"


def _load_checkpoint(options: Any, purpose: Purpose) -> LoadedModel:
    import torch

    name, flag = options.model_name_or_path, "--model_name_or_path"
    origin = locate(name, options, flag)
    if origin.path is not None:
        check_folder(origin.path, flag)
        if is_adapter(origin.path):
            return _load_adapted(origin.path, options, purpose, flag)
    if options.config_name:
        config = read_config(locate(options.config_name, options, "--config_name"), options, "--config_name")
    else:
        config = read_config(origin, options, flag)
    check_purpose(config, purpose, name, flag)
    if options.model_type and options.model_type != config.model_type:
        raise UserError(
            f"{name} is of the type {config.model_type}; leave this out, or leave out {flag} for a new "
            f"{options.model_type}",
            flag="--model_type",
        )
    own = getattr(config, "dtype", None)
    try:
        model, info = auto_class(purpose).from_pretrained(
            origin.name,
            config=config,
            dtype=torch.float32,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with names and shapes
            **attention_keywords(options),
            **origin.keywords,
        )
    except Exception as error:
        raise hub_problem(error, name, flag) or _loading_problem(error, name, options) from error
    lines = [f"loaded from {name}", *_check_loaded(model, info, name, flag)]
    return LoadedModel(model, lines, dtype=own if isinstance(own, torch.dtype) else None)


def _load_adapted(path: Path, options: Any, purpose: Purpose, flag: str) -> LoadedModel:
    """The base model that an adapter folder names, the adapter merged into it."""
    adapter = read_adapter(path, flag)
    base = _load_checkpoint(adapter.base_options(options), purpose)
    lines = [*base.lines, f"with the adapter {path}"]
    return LoadedModel(merge(base.model, adapter, flag), lines, adapter=str(path), dtype=base.dtype)


def _check_loaded(model: PreTrainedModel, info: dict[str, Any], name: str, flag: str) -> list[str]:
    """Refuse a body that was not loaded whole; say which tensors of the head are new, which were not used.

    A silently unloaded body trains, badly, and nothing tells: microsoft/LoRA#138 scored BLEU 0.0 that way.
    """
    prefix = model.base_model_prefix + "."
    missing, unused = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    body = [key for key in missing if key.startswith(prefix)]
    wrong = []
    if mismatched := sorted(info["mismatched_keys"], key=str):
        key, there, here = mismatched[0]
        wrong.append(
            f"{counted(len(mismatched), 'tensor')} of another shape ({key} is {_shape(there)} in the checkpoint and "
            f"{_shape(here)} in the model)"
        )
    if body:
        total = sum(key.startswith(prefix) for key in model.state_dict())
        wrong.append(
            f"{len(body)} of the {total} tensors of the model's body are not in the checkpoint ({_some(body)})"
        )
    no_place = []
    if unused:
        verb = "has" if len(unused) == 1 else "have"
        no_place.append(
            f"{counted(len(unused), 'tensor')} of the checkpoint {verb} no place in this model ({_some(unused)})"
        )
    if wrong:
        raise UserError(
            f"{name} does not fit its configuration: {'; '.join(wrong + no_place)}. Training would start from random "
            "weights without saying so; check that its config.json belongs to its weights",
            flag=flag,
        )
    lines = []
    if missing:
        count = counted(len(missing), "tensor")
        verb = "is" if len(missing) == 1 else "are"
        lines.append(f"{count} of the output head {verb} not in the checkpoint and must be learned ({_some(missing)})")
    return lines + no_place


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size))


def _some(keys: list[str], at_most: int = 3) -> str:
    return ", ".join(keys[:at_most]) + (", ..." if len(keys) > at_most else "")


def _set_dropout(model: PreTrainedModel, options: Any) -> None:
    from lmtrain.models.attention_dropout import set_attention_dropout
    from lmtrain.models.dropout import set_dropout

    if options.dropout is not None and not set_dropout(model, options.dropout) and options.dropout > 0:
        raise UserError(f"a {model.config.model_type} has no dropout", flag="--dropout")
    probability = options.attention_dropout
    if probability is not None and not set_attention_dropout(model, probability):
        raise UserError(f"a {model.config.model_type} has no dropout of attention weights", flag="--attention_dropout")


def _loading_problem(error: Exception, name: str, options: Any) -> Exception:
    """Words for what ``from_pretrained`` raises; an error that no input explains stays itself."""
    flag = "--model_name_or_path"
    kind = type(error).__name__
    if options.attn_implementation and speaks_of_attention(error):
        return UserError(first_line(error), flag="--attn_implementation")
    if "Weights only load failed" in str(error):
        return UserError(
            f"the weights of {name} are a pickle that holds more than tensors, and reading it could run code of its "
            "maker's; it was not read. Take them as model.safetensors",
            flag=flag,
        )
    if kind in {
        "SafetensorError",
        "UnpicklingError",
        "EOFError",
        "JSONDecodeError",
    } or "PytorchStreamReader" in str(error):
        return UserError(f"the weights of {name} cannot be read: {first_line(error)}", flag=flag)
    if isinstance(error, OSError | ValueError):
        return UserError(f"{name} cannot be loaded: {first_line(error)}", flag=flag)
    return error
