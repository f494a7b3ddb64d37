"""A model's configuration: read or made, overridden from the command line, and fit for its objective."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lmtrain.core.errors import UserError, first_line
from lmtrain.models.loading.hub import Origin, hub_problem
from lmtrain.models.loading.overrides import nearest_names, parse_overrides
from lmtrain.models.loading.tokenizer import Purpose

# Encoders whose positions begin after the pad id (fairseq's convention): position = pad id + 1 + index.
POSITIONS_AFTER_PAD = frozenset(
    {"camembert", "data2vec-text", "esm", "ibert", "longformer", "luke", "mpnet", "roberta",
     "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)  # fmt: skip
_NO_LIMIT = 10**9  # transformers writes 10³⁰ where a tokenizer states none
_POSITION_NAMES = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
_UNBOUNDED = frozenset({"bloom", "mamba", "mamba2", "falcon_mamba", "recurrent_gemma", "rwkv", "xlnet", "xlstm"})


def max_positions(config: Any) -> int | None:
    """How many tokens the model can look at, in tokens; None where its architecture sets no bound.

    Rotary models have no table that ends, but are trained up to ``max_position_embeddings``: that is their
    bound. ALiBi and recurrent models have none. RoBERTa's kin lose the positions up to their pad id (1 where
    a raw ``config.json`` leaves it out).
    """
    config = config.get_text_config()
    if config.model_type in _UNBOUNDED or getattr(config, "alibi", False):
        return None
    attention = getattr(config, "attn_config", None)  # MPT keeps its ALiBi switch here
    if attention.get("alibi") if isinstance(attention, dict) else getattr(attention, "alibi", False):
        return None
    for name in _POSITION_NAMES:
        positions = getattr(config, name, None)
        if isinstance(positions, int) and positions > 0:
            if config.model_type in POSITIONS_AFTER_PAD:
                positions -= (getattr(config, "pad_token_id", 1) or 0) + 1
            return positions
    return None


def require_positions(asked: int, config: Any, model: str, flag: str) -> None:
    """Refuse examples of ``asked`` tokens when ``config`` has fewer positions; ``model`` is what to call it."""
    positions = max_positions(config)
    if positions is not None and asked > positions:
        raise UserError(
            f"{asked} is longer than the {positions} positions of {model}; use at most {flag} {positions}", flag=flag
        )


def read_config(origin: Origin, options: Any, flag: str, overrides: str | None = None) -> Any:
    """The configuration of a checkpoint, made with ``overrides`` ("n_layer=6,n_head=8") in it."""
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    try:
        raw, _ = PreTrainedConfig.get_config_dict(origin.name, **origin.keywords)
    except Exception as error:
        raise hub_problem(error, origin.name, flag) or UserError(
            f"the config.json of {origin.name} cannot be read: {first_line(error)}", flag=flag
        ) from error
    if not isinstance(raw, dict) or not (raw.get("model_type") or raw.get("auto_map")):
        raise UserError(f"the config.json of {origin.name} names no model_type, so it is not a model's", flag=flag)
    if raw.get("model_type") in CONFIG_MAPPING:
        return make_config(raw["model_type"], overrides, {**raw, "_name_or_path": origin.name}, flag)
    if "auto_map" not in raw:
        raise UserError(
            f"{origin.name} is of type {raw['model_type']!r}, which the installed transformers does not "
            f"know{nearest_names(raw['model_type'], list(CONFIG_MAPPING))}; a newer transformers may",
            flag=flag,
        )
    if not options.trust_remote_code:
        raise UserError(
            f"{origin.name} needs Python code of its own; read it, then allow it with --trust_remote_code",
            flag=flag,
        )
    config = AutoConfig.from_pretrained(origin.name, trust_remote_code=True, **origin.keywords)
    for key, value in parse_overrides(overrides, config, config.model_type).items():
        setattr(config, key, value)
    return config


def new_config(
    model_type: str, purpose: Purpose, overrides: str | None, fields: Mapping[str, Any] | None = None
) -> Any:
    """The default configuration of ``--model_type`` with ``fields``, and over them the overrides; unknown types get the
    nearest names."""
    from transformers import CONFIG_MAPPING

    require_type(model_type, purpose)
    names = CONFIG_MAPPING[model_type].attribute_map
    own = {names.get(name, name): value for name, value in (fields or {}).items()}
    return make_config(model_type, overrides, own, "--model_type")


def require_type(model_type: str, purpose: Purpose) -> None:
    """Refuse a type that the installed transformers does not know, with the nearest it can train."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        known = sorted(trainable_types(purpose))
        raise UserError(f"{model_type!r} is not a model type{nearest_names(model_type, known)}", flag="--model_type")


def overridden(model_type: str, overrides: str | None) -> dict[str, Any]:
    """The settings in ``--config_overrides`` under their general names: ``n_embd=64`` is ``hidden_size``."""
    from transformers import CONFIG_MAPPING

    default = CONFIG_MAPPING[model_type]()
    general = {own: name for name, own in default.attribute_map.items()}
    return {general.get(name, name): value for name, value in parse_overrides(overrides, default, model_type).items()}


def set_positions(config: Any, tokenizer: Any, asked: int | None) -> int | None:
    """Give a new model the context length that its tokenizer states (``model_max_length``), in tokens; None: it states
    none, or the type sets no bound. Examples of ``asked`` tokens still fit where they do with the type's own.
    """
    own, stated = max_positions(config), getattr(tokenizer, "model_max_length", None)
    if own is None or not stated or stated > _NO_LIMIT or not hasattr(config, "max_position_embeddings"):
        return None
    length = int(stated) if asked is None or asked > own else max(int(stated), asked)
    config.max_position_embeddings += length - own
    return length


def make_config(model_type: str, overrides: str | None, raw: dict[str, Any], flag: str) -> Any:
    """Build a configuration from ``raw`` fields and overrides in one go.

    In one go because classes derive fields (Llama's ``head_dim`` from the width) when they are made: changing
    the width afterwards would leave the old ones behind.
    """
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    changes: dict[str, Any] = {}
    try:
        changes = parse_overrides(overrides, kind(), model_type)
        config = kind.from_dict({**raw, **changes})
    except UserError:
        raise
    except Exception as error:  # each class checks its fields in its own way: strict dataclass, ValueError, KeyError
        raise UserError(
            f"a {model_type} cannot be made with these settings: {last_line(error)}",
            flag="--config_overrides" if changes else flag,
        ) from error
    _check_shape(config, "--config_overrides" if changes else flag)
    return config


def trainable_types(purpose: Purpose) -> set[str]:
    """The model types that causal or masked training can build."""
    from transformers.models.auto import modeling_auto as auto

    both = {"clm": auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "mlm": auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES}
    return set(both[purpose])


def find_purpose(config: Any) -> Purpose | None:
    """Whether a configuration describes a causal ("clm") or masked ("mlm") model; None when neither.

    Encoders such as BERT are in both of transformers' lists, because they can be made decoders: they are
    causal only when ``is_decoder`` says so.
    """
    from transformers.models.auto import modeling_auto as auto

    if config.is_encoder_decoder:
        return None
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if masked and causal:
        return "clm" if getattr(config, "is_decoder", False) or getattr(config, "causal", False) else "mlm"
    if masked or causal:
        return "mlm" if masked else "clm"
    auto_map = getattr(config, "auto_map", None) or {}
    if "AutoModelForCausalLM" in auto_map:
        return "clm"
    return "mlm" if "AutoModelForMaskedLM" in auto_map else None


def check_purpose(config: Any, purpose: Purpose, name: str, flag: str) -> None:
    """Refuse an encoder in ``lmtrain clm`` and a decoder in ``lmtrain mlm``, naming the other command."""
    actual = find_purpose(config)
    if actual == purpose:
        return
    if actual is None:
        kind = "an encoder-decoder" if config.is_encoder_decoder else f"of type {config.model_type}"
        raise UserError(
            f"{name} is {kind}, neither a causal (decoder) nor a masked (encoder) language model", flag=flag
        )
    if purpose == "clm":
        raise UserError(
            f"{name} is an encoder ({config.model_type}), which sees both sides of a word and cannot learn "
            "to continue a text; train it with: lmtrain mlm",
            flag=flag,
        )
    raise UserError(
        f"{name} is a decoder ({config.model_type}), which sees only what comes before and has no "
        "masked-word head; train it with: lmtrain clm",
        flag=flag,
    )


def _check_shape(config: Any, flag: str) -> None:
    """Sizes must be positive and heads divide: not every class says so before the first step fails."""
    text = config.get_text_config()
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value < 1:
            raise UserError(f"{text.attribute_map.get(name, name)}={value} must be at least 1", flag=flag)
    width, heads, groups = (
        getattr(text, name, None) for name in ("hidden_size", "num_attention_heads", "num_key_value_heads")
    )
    if not isinstance(heads, int):
        return
    if isinstance(groups, int) and groups > 0 and heads % groups:
        raise UserError(
            f"{heads} attention heads cannot be shared by {groups} key-value heads: num_key_value_heads "
            "must divide num_attention_heads",
            flag=flag,
        )
    own_size = getattr(text, "head_dim", None)
    if isinstance(width, int) and width % heads and own_size is None:
        raise UserError(_does_not_divide(text, width, heads), flag=flag)


def _does_not_divide(config: Any, width: int, heads: int) -> str:
    names = config.attribute_map
    return (
        f"{names.get('hidden_size', 'hidden_size')}={width} does not divide by "
        f"{names.get('num_attention_heads', 'num_attention_heads')}={heads}; choose a multiple of the "
        f"heads, such as {-(-width // heads) * heads}"
    )


def last_line(error: BaseException) -> str:
    """The part of a strict dataclass's error that says what is wrong: its last line, without the type."""
    lines = str(error).strip().splitlines()
    if not lines:
        return type(error).__name__
    return re.sub(r"^\w*(Error|Exception): ", "", lines[-1].strip())
