"""Load a model from a checkpoint or make a new one, so that it fits its tokenizer and its objective."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.config.model_size import parameters
from lmtrain.core.console import amount
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json
from lmtrain.models.adapter_folder import is_adapter, merge, read_adapter
from lmtrain.models.configuration import (
    POSITIONS_AFTER_PAD,
    check_purpose,
    find_purpose,
    first_line,
    last_line,
    new_config,
    overridden,
    read_config,
    require_type,
    set_positions,
)
from lmtrain.models.hub import TENSORFLOW_REMEDY, hub_problem, locate
from lmtrain.models.quiet import quiet_libraries
from lmtrain.models.size import FLAG as SIZE_FLAG
from lmtrain.models.size import KINDS, solve, told
from lmtrain.models.tokenizer import Purpose
from lmtrain.models.vocabulary import SPECIAL_ROLES, agree_on_special_ids, fit_vocabulary, rows_needed, rows_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip


@dataclass
class LoadedModel:
    """``model`` in fp32; ``lines`` say where it comes from and what was done; ``new``: not loaded.

    ``rows_before``: rows of the embedding before it grew to the tokenizer's ids. ``adapter``: the adapter folder that
    was merged into it. ``dtype``: what the checkpoint is written in, None where it does not say.
    """

    model: PreTrainedModel
    lines: list[str] = field(default_factory=list)
    new: bool = False
    rows_before: int | None = None
    adapter: str | None = None
    dtype: torch.dtype | None = None


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
            loaded = _make_new(options, purpose, tokenizer, length)
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


def _config_of(options: Any) -> Any:
    name, flag = options.model_name_or_path, "--model_name_or_path"
    if not name:
        raise UserError("name the model: a run's folder, a checkpoint, or a name on the hub", flag=flag)
    with quiet_libraries():
        origin = locate(name, options, flag)
        if origin.path is not None:
            _check_folder(origin.path, flag)
            if is_adapter(origin.path):
                return _config_of(read_adapter(origin.path, flag).base_options(options))
        return read_config(origin, options, flag)


def describe(model: PreTrainedModel) -> str:
    """A model in one line: ``gpt2, 6 layers × 256, 6.9 M parameters``. Tied weights count once."""
    config = model.config.get_text_config()
    layers, width = (getattr(config, name, None) for name in ("num_hidden_layers", "hidden_size"))
    shape = f"{layers} layers × {width}, " if layers and width else ""
    return f"{config.model_type}, {shape}{amount(sum(p.numel() for p in model.parameters()), 'parameters')}"


def _auto_class(purpose: Purpose) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM if purpose == "clm" else transformers.AutoModelForMaskedLM


def _load_checkpoint(options: Any, purpose: Purpose) -> LoadedModel:
    import torch

    name, flag = options.model_name_or_path, "--model_name_or_path"
    origin = locate(name, options, flag)
    if origin.path is not None:
        _check_folder(origin.path, flag)
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
        model, info = _auto_class(purpose).from_pretrained(
            origin.name,
            config=config,
            dtype=torch.float32,
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with names and shapes
            **_attention(options),
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


def _check_folder(path: Path, flag: str) -> None:
    """Refuse a folder that holds no model, in words for what it does hold."""
    if path.is_file():
        if ".ckpt" in path.name or path.suffix in {".h5", ".index"}:
            raise UserError(f"{path} is a TensorFlow checkpoint; {TENSORFLOW_REMEDY}", flag=flag)
        raise UserError(f"{path} is a file; give the folder that holds it and its config.json", flag=flag)
    names = {entry.name for entry in path.iterdir()}
    weights = names.intersection(_WEIGHTS)
    tensorflow = sorted(n for n in names if ".ckpt" in n or n.startswith("tf_model") or n == "saved_model.pb")
    if tensorflow and not weights:
        raise UserError(f"{path} holds a TensorFlow checkpoint ({tensorflow[0]}); {TENSORFLOW_REMEDY}", flag=flag)
    for index in sorted(name for name in names if name.endswith(".index.json")):
        _check_index(path / index, flag)
    if is_adapter(path):
        return
    if "config.json" not in names:
        inside = [entry for entry in path.iterdir() if (entry / "config.json").is_file()]
        newest = max(inside, key=lambda entry: entry.stat().st_mtime, default=None)
        hint = f"; did you mean {newest}?" if newest else ""
        raise UserError(f"{path} has no config.json, so it holds no model{hint}", flag=flag)
    if not weights:
        if "flax_model.msgpack" in names:
            raise UserError(
                f"{path} holds Flax weights only, which today's libraries do not read; convert them to "
                "safetensors with transformers 4.x (from_flax=True)",
                flag=flag,
            )
        raise UserError(
            f"{path} has a config.json but no weights ({' or '.join(_WEIGHTS[:3:2])}); to make a new model "
            "of this shape use --config_name",
            flag=flag,
        )


def _check_index(index: Path, flag: str) -> None:
    """Shards are files beside their index; the library would read whatever file it names."""
    try:
        shards = set(read_json(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{index} cannot be read, so the weights cannot be found: {error}", flag=flag) from error
    wrong = sorted(str(shard) for shard in shards if not isinstance(shard, str) or Path(shard).name != shard)
    if wrong:
        raise UserError(f"{index} names {wrong[0]!r} for weights, which is no file beside it", flag=flag)


def _check_loaded(model: PreTrainedModel, info: dict[str, Any], name: str, flag: str) -> list[str]:
    """Refuse a body that was not loaded whole; say which tensors of the head are new, which were not used.

    A silently unloaded body trains, badly, and nothing tells: microsoft/LoRA#138 scored BLEU 0.0 that way.
    """
    prefix = model.base_model_prefix + "."
    missing = sorted(info["missing_keys"])
    body = [key for key in missing if key.startswith(prefix)]
    if info["mismatched_keys"]:
        key, there, here = sorted(info["mismatched_keys"], key=str)[0]
        raise UserError(
            f"{name} does not fit its configuration: {key} is {_shape(there)} in the checkpoint and "
            f"{_shape(here)} in the model ({len(info['mismatched_keys'])} such tensors)",
            flag=flag,
        )
    if body:
        total = sum(key.startswith(prefix) for key in model.state_dict())
        raise UserError(
            f"{len(body)} of the {total} tensors of the model's body are not in the checkpoint {name} "
            f"({_some(body)}); training would start from random weights without saying so. Check that its "
            "config.json belongs to its weights",
            flag=flag,
        )
    lines = []
    if missing:
        count = _tensors(missing)
        verb = "is" if len(missing) == 1 else "are"
        lines.append(f"{count} of the output head {verb} not in the checkpoint and must be learned ({_some(missing)})")
    if info["unexpected_keys"]:
        unused = sorted(info["unexpected_keys"])
        verb = "has" if len(unused) == 1 else "have"
        lines.append(f"{_tensors(unused)} of the checkpoint {verb} no place in this model ({_some(unused)})")
    return lines


def _tensors(keys: list[str]) -> str:
    return f"{len(keys)} tensor" + ("s" if len(keys) != 1 else "")


def _shape(size: Iterable[int]) -> str:
    return "×".join(map(str, size))


def _some(keys: list[str], at_most: int = 3) -> str:
    return ", ".join(keys[:at_most]) + (", ..." if len(keys) > at_most else "")


def _make_new(options: Any, purpose: Purpose, tokenizer: Any, length: int | None) -> LoadedModel:
    import torch

    lines: list[str] = []
    if options.config_name:
        name, flag = options.config_name, "--config_name"
        origin = locate(name, options, flag)
        if origin.path is not None and origin.path.is_dir() and not (origin.path / "config.json").exists():
            raise UserError(f"{name} has no config.json", flag=flag)
        config = read_config(origin, options, flag, options.config_overrides)
    elif options.model_type:
        name, flag = options.model_type, "--model_type"
        fields, lines = _sized(options, purpose, tokenizer, length) if options.model_size else ({}, [])
        config = new_config(options.model_type, purpose, options.config_overrides, fields)
    else:
        raise UserError(
            "name a checkpoint to start from, or the --model_type of a new model", flag="--model_name_or_path"
        )
    check_purpose(config, purpose, name, flag)
    lines += _fit_config(config, tokenizer, options, flag, length)
    pad = config.pad_token_id
    if pad is not None and pad in (config.eos_token_id, config.bos_token_id):
        config.pad_token_id = None  # classes zero and freeze the pad's embedding; this token is also a real one
    shape_flag = "--config_overrides" if options.config_overrides else flag
    try:
        with torch.device("meta"):  # shapes without memory: a misfit shows before gigabytes are drawn
            _from_config(config, purpose, options)
    except Exception as error:
        raise _building_problem(error, name, shape_flag, options) from error
    model = _from_config(config, purpose, options)
    model.config.pad_token_id = pad
    return LoadedModel(model, [f"new, with random weights, after {name}", *lines], new=True)


def _sized(options: Any, purpose: Purpose, tokenizer: Any, length: int | None) -> tuple[dict[str, int], list[str]]:
    """The settings that give a new ``--model_type`` its ``--model_size``, and the line that says so."""
    import torch

    name, vocabulary = options.model_type, rows_needed(tokenizer)
    require_type(name, purpose)
    if name not in KINDS:
        raise UserError(
            f"there is no rule for the sizes of {name}, only of {', '.join(KINDS)}; leave it out, and give the shape "
            "with --config_overrides",
            flag=SIZE_FLAG,
        )

    def made(fields: Mapping[str, int]) -> Any:
        config = new_config(name, purpose, options.config_overrides, fields)
        check_purpose(config, purpose, name, "--model_type")
        _fit_config(config, tokenizer, options, "--model_type", length)
        with torch.device("meta"):
            return _from_config(config, purpose, options)

    def count(fields: Mapping[str, int]) -> int:
        return sum(weight.numel() for weight in made(fields).parameters())

    fixed = overridden(name, options.config_overrides)
    shape = solve(parameters(options.model_size), KINDS[name], count, fixed)
    few = made({**shape.fields, "num_hidden_layers": 2})
    ends = {id(end.weight): end.weight.numel() for end in (few.get_input_embeddings(), few.get_output_embeddings())}
    return shape.fields, [told(shape, options.model_size, vocabulary, sum(ends.values()))]


def _from_config(config: Any, purpose: Purpose, options: Any) -> PreTrainedModel:
    import torch

    return _auto_class(purpose).from_config(
        config, dtype=torch.float32, trust_remote_code=options.trust_remote_code, **_attention(options)
    )


def _fit_config(config: Any, tokenizer: Any, options: Any, flag: str, length: int | None) -> list[str]:
    """Give a new model's configuration the tokenizer's vocabulary and special ids and, where only a type says
    otherwise, its context length; return the line for that."""
    text = config.get_text_config()
    needed = rows_needed(tokenizer)
    asked = "vocab_size" in (options.config_overrides or "")
    if not asked:
        text.vocab_size = needed
    elif text.vocab_size < needed:
        raise UserError(
            f"vocab_size={text.vocab_size} is less than the tokenizer's {needed} ids; leave it out or use "
            f"at least {needed}",
            flag="--config_overrides",
        )
    if text.model_type in POSITIONS_AFTER_PAD and tokenizer.pad_token_id is None:
        raise UserError(
            f"a {text.model_type} counts its positions from the pad token's id, and the tokenizer has no pad token",
            flag=flag,
        )
    for role in (*SPECIAL_ROLES, "cls", "sep", "mask"):
        if hasattr(text, f"{role}_token_id"):
            setattr(text, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id", None))
    if options.config_name or "max_position_embeddings" in overridden(options.model_type, options.config_overrides):
        return []
    positions = set_positions(text, tokenizer, length)
    return [f"{positions:,} positions, as its tokenizer has them (model_max_length)"] if positions else []


def _set_dropout(model: PreTrainedModel, options: Any) -> None:
    from lmtrain.models.attention_dropout import set_attention_dropout
    from lmtrain.models.dropout import set_dropout

    if options.dropout is not None and not set_dropout(model, options.dropout) and options.dropout > 0:
        raise UserError(f"a {model.config.model_type} has no dropout", flag="--dropout")
    probability = options.attention_dropout
    if probability is not None and not set_attention_dropout(model, probability):
        raise UserError(f"a {model.config.model_type} has no dropout of attention weights", flag="--attention_dropout")


def _attention(options: Any) -> dict[str, str]:
    return {"attn_implementation": options.attn_implementation} if options.attn_implementation else {}


def _loading_problem(error: Exception, name: str, options: Any) -> Exception:
    """Words for what ``from_pretrained`` raises; an error that no input explains stays itself."""
    flag = "--model_name_or_path"
    kind = type(error).__name__
    if options.attn_implementation and _speaks_of_attention(error):
        return UserError(first_line(error), flag="--attn_implementation")
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


def _building_problem(error: Exception, name: str, flag: str, options: Any) -> UserError:
    if options.attn_implementation and _speaks_of_attention(error):
        return UserError(first_line(error), flag="--attn_implementation")
    if isinstance(error, KeyError):
        return UserError(
            f"{name}: there is no {error.args[0]!r}, such as an activation function of that name", flag=flag
        )
    return UserError(f"a {name} of this shape cannot be built: {last_line(error)}", flag=flag)


def _speaks_of_attention(error: Exception) -> bool:
    return "attn_implementation" in str(error) or "ttention" in str(error)
