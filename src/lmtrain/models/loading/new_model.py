"""A model with random weights, of the shape that the user, the type or another model gives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmtrain.config.model_size import parameters
from lmtrain.core.errors import UserError, first_line
from lmtrain.models.loading.configuration import (
    POSITIONS_AFTER_PAD,
    check_purpose,
    last_line,
    new_config,
    overridden,
    read_config,
    require_type,
    set_positions,
)
from lmtrain.models.loading.hub import locate
from lmtrain.models.loading.loaded import LoadedModel, attention_keywords, auto_class, speaks_of_attention
from lmtrain.models.loading.size import FLAG as SIZE_FLAG
from lmtrain.models.loading.size import KINDS, solve, told
from lmtrain.models.loading.tokenizer import Purpose
from lmtrain.models.loading.vocabulary import ROLES_OF_SOME, SPECIAL_ROLES, rows_needed

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def make_new(options: Any, purpose: Purpose, tokenizer: Any, length: int | None) -> LoadedModel:
    """The model of ``--config_name`` or ``--model_type``, with the vocabulary of its tokenizer."""
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
    if pad is not None and pad in (getattr(config, "eos_token_id", None), getattr(config, "bos_token_id", None)):
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

    return auto_class(purpose).from_config(
        config, dtype=torch.float32, trust_remote_code=options.trust_remote_code, **attention_keywords(options)
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
    for role in (*SPECIAL_ROLES, *ROLES_OF_SOME):
        if hasattr(text, f"{role}_token_id"):
            setattr(text, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id", None))
    if options.config_name or "max_position_embeddings" in overridden(options.model_type, options.config_overrides):
        return []
    positions = set_positions(text, tokenizer, length)
    return [f"{positions:,} positions, as its tokenizer has them (model_max_length)"] if positions else []


def _building_problem(error: Exception, name: str, flag: str, options: Any) -> UserError:
    if options.attn_implementation and speaks_of_attention(error):
        return UserError(first_line(error), flag="--attn_implementation")
    if isinstance(error, KeyError):
        return UserError(
            f"{name}: there is no {error.args[0]!r}, such as an activation function of that name", flag=flag
        )
    return UserError(f"a {name} of this shape cannot be built: {last_line(error)}", flag=flag)
