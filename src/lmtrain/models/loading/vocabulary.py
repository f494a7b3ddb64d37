"""Make model and tokenizer agree: enough embedding rows, and the same ids for the special tokens.

Symbols: ``V`` rows of the embedding, ``D`` its width.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import UserError, first_line
from lmtrain.models.loading.configuration import POSITIONS_AFTER_PAD

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SPECIAL_ROLES = ("bos", "eos", "pad")
"""The special tokens that every configuration and the generation settings have ids for."""

ROLES_OF_SOME = ("cls", "sep", "mask")
"""Those that the configurations of some types have (ModernBERT, BigBird, Longformer: cls or sep)."""


def rows_needed(tokenizer: Any) -> int:
    """Embedding rows for every id: the largest id + 1, more than ``len(tokenizer)`` when ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def rows_of(model: PreTrainedModel) -> int:
    """Rows of the input embedding."""
    embedding: Any = model.get_input_embeddings()
    return int(embedding.weight.shape[0])


def fit_vocabulary(model: PreTrainedModel, tokenizer: Any, resize: str = "auto") -> list[str]:
    """Let the embedding grow to the tokenizer's ids; return lines that say so. It never shrinks.

    ``resize="never"`` raises :class:`UserError` instead. New rows start at the mean of the old ones
    (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html), so that a new token's first
    probability is an average one: drawing them small would give it most of the probability. Input, output and
    output bias stay of one length, and tied weights stay tied.
    """
    rows, needed = rows_of(model), rows_needed(tokenizer)
    if needed <= rows:
        return []
    if resize == "never":
        raise UserError(
            f"the tokenizer has ids up to {needed - 1} and the model {rows} embedding rows; choose the "
            "model's own tokenizer, or let the embedding grow: --resize_embeddings auto",
            flag="--resize_embeddings",
        )
    grow_embedding(model, needed)
    return [f"embedding grown from {rows} to {needed} rows, to hold the tokenizer's ids; new rows start at the mean"]


def grow_embedding(model: PreTrainedModel, needed: int) -> None:
    """Let input, output and output bias grow to ``needed`` rows, as :func:`fit_vocabulary` says."""
    bias = getattr(model.get_output_embeddings(), "bias", None)
    old_bias = None if bias is None else bias.detach().clone()
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it explains the mean at length each time
    try:
        model.resize_token_embeddings(needed, mean_resizing=True)
    finally:
        logger.setLevel(level)
    if old_bias is not None:
        _grow_bias(model, old_bias, needed)
    _check_lengths(model, needed)


def _grow_bias(model: PreTrainedModel, old: torch.Tensor, needed: int) -> None:
    """Give the output bias (V,) the mean of the old one as its new entries.

    With tied weights the head looks resized already when the library comes to it, and the bias is only padded
    with zeros, or left behind. Written in place, so that every name of a shared bias sees it.
    """
    import torch

    head: Any = model.get_output_embeddings()
    head.bias.data = torch.cat([old, old.mean().expand(needed - old.shape[0])])


def _check_lengths(model: PreTrainedModel, needed: int) -> None:
    """Raise when a head did not follow: at training it would end in an index error, far from the cause."""
    head = model.get_output_embeddings()
    shapes = {
        "input": rows_of(model),
        "config": model.config.get_text_config().vocab_size,
    }
    if head is not None:
        shapes["output"] = head.weight.shape[0]
        if getattr(head, "bias", None) is not None:
            shapes["bias"] = head.bias.shape[0]
    if set(shapes.values()) != {needed}:
        raise UserError(
            f"the embedding of a {model.config.model_type} cannot grow to {needed} rows (it became "
            f"{', '.join(f'{k} {v}' for k, v in shapes.items())}); use the model's own tokenizer",
            flag="--resize_embeddings",
        )


def agree_on_special_ids(model: PreTrainedModel, tokenizer: Any) -> list[str]:
    """Give tokenizer, configuration and generation settings the same bos, eos and pad ids, and the configuration the
    tokenizer's cls, sep and mask where its type has them; say what changed.

    The tokenizer decides. Where it has no such token, the configuration's stays if the tokenizer knows that
    id as special token (and takes it over), and goes otherwise: an id from another vocabulary would end texts
    at an ordinary word. Several ends of text in the generation settings stay if the tokenizer's is among
    them.
    """
    config = model.config.get_text_config()
    generation = getattr(model, "generation_config", None)
    changes = []
    for role in (*SPECIAL_ROLES, *(role for role in ROLES_OF_SOME if hasattr(config, f"{role}_token_id"))):
        name = f"{role}_token_id"
        before = getattr(config, name, None)
        ids = _as_list(before)
        wanted = getattr(tokenizer, name, None)
        if wanted is None and ids and _is_special(tokenizer, ids[0]):
            wanted = ids[0]
            setattr(tokenizer, f"{role}_token", tokenizer.convert_ids_to_tokens(wanted))
            changes.append(f"tokenizer's {role} is now {wanted}")
        if role == "pad" and before != wanted and config.model_type in POSITIONS_AFTER_PAD:
            raise UserError(
                f"the tokenizer's pad id is {wanted} and the model's {before}; a {config.model_type} counts "
                "its positions from the pad id, so its weights do not fit this tokenizer",
                flag="--tokenizer_name",
            )
        if wanted not in ids if wanted is not None else bool(ids):
            setattr(config, name, wanted)
            if not (role == "pad" and before is None and wanted == tokenizer.eos_token_id):  # as exports have it
                changes.append(f"{role} {_spoken(before)} → {_spoken(wanted)}")
        if generation is not None and role in SPECIAL_ROLES:
            at_generation = _as_list(getattr(generation, name, None))
            if wanted is None or wanted not in at_generation:
                setattr(generation, name, wanted)
    _free_pad_row(model, config)
    lines = ["special ids of the model follow the tokenizer: " + ", ".join(changes)] if changes else []
    if generation is not None:
        lines += make_generation_config_valid(model)
    return lines


def _as_list(ids: int | list[int] | None) -> list[int]:
    if ids is None:
        return []
    return list(ids) if isinstance(ids, list | tuple) else [ids]


def _spoken(ids: int | list[int] | None) -> str:
    return "none" if ids is None else str(ids)


def _is_special(tokenizer: Any, token_id: int) -> bool:
    token = tokenizer.added_tokens_decoder.get(token_id)
    return token is not None and bool(token.special)


def _free_pad_row(model: PreTrainedModel, config: Any) -> None:
    """Let a pad token that is also the end of text learn: ``padding_idx`` keeps its row's gradient at 0."""
    embedding: Any = model.get_input_embeddings()
    frozen = getattr(embedding, "padding_idx", None)
    real = [token_id for role in ("bos", "eos") for token_id in _as_list(getattr(config, f"{role}_token_id", None))]
    if frozen is not None and frozen in real:
        embedding.padding_idx = None


def make_generation_config_valid(model: PreTrainedModel) -> list[str]:
    """Mend generation settings that would make saving fail, at the start and not after the last step.

    Checkpoints often hold ``temperature`` or ``top_p`` without ``do_sample``: sampling was meant, so it is
    switched on. What is invalid otherwise is replaced by the model's defaults.
    """
    from transformers import GenerationConfig

    generation = model.generation_config
    try:
        generation.validate(strict=True)
        return []
    except ValueError:
        pass
    sampling = generation.do_sample
    generation.do_sample = True
    try:
        generation.validate(strict=True)
        return ["generation settings: do_sample switched on, without which they are invalid"]
    except ValueError as error:
        generation.do_sample = sampling
        fresh = GenerationConfig.from_model_config(model.config)
        for role in SPECIAL_ROLES:
            setattr(fresh, f"{role}_token_id", getattr(generation, f"{role}_token_id"))
        model.generation_config = fresh
        return [f"generation settings were invalid and are the defaults now: {first_line(error)}"]
