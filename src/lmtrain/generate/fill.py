"""Ranked fillings of the masks in a text by a masked model.

Shapes: ``B`` rows of a batch, ``T`` positions, ``V`` vocabulary, ``M`` masks of a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import UserError
from lmtrain.generate.batches import batches, check_ids, pad, shown
from lmtrain.generate.modes import evaluating
from lmtrain.generate.rows import raise_for, require_text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Filling:
    """One candidate for one mask: ``token`` as text, its ``id``, its ``probability`` given the rest."""

    token: str
    id: int
    probability: float


@dataclass(frozen=True, slots=True)
class FilledText:
    """``masks[m]`` are the candidates for mask m, likeliest first; ``filled`` has the first of each."""

    text: str
    masks: list[list[Filling]]
    filled: str


def fill_mask(
    model: PreTrainedModel,
    tokenizer: Any,
    texts: list[str],
    top: int = 5,
    *,
    batch_size: int = 8,
    context: int | None = None,
) -> list[FilledText]:
    """The ``top`` likeliest tokens for each mask of each text.

    Several masks of a text are ranked each on its own: a probability is that of the token at its place with
    the other masks still hidden, so the first of each need not make the likeliest sentence. Raises
    :class:`UserError` for texts without a mask and texts longer than ``context`` tokens.
    """
    for flag, value in (("--top", top), ("--batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{value} is less than 1", flag=flag)
    if tokenizer.mask_token_id is None:
        raise UserError("the tokenizer has no mask token, so there is nothing to fill in", flag="--tokenizer_name")
    rows = mask_rows(tokenizer, texts, context)
    check_ids([ids for _, ids in rows], model)
    # Without a pad token only texts of one length can share a batch.
    alone = tokenizer.pad_token_id is None
    results: dict[int, FilledText] = {}
    with evaluating(model):
        for batch in batches(
            rows,
            batch_size,
            length=lambda row: len(row[1]),
            together=lambda row: len(row[1]) if alone else 0,
        ):
            inputs = pad([ids for _, ids in batch], tokenizer.pad_token_id or 0, model.device, left=False)
            logits = model(**inputs).logits  # (B, T, V)
            for (index, ids), row_logits in zip(batch, logits, strict=True):
                results[index] = _fill(tokenizer, texts[index], ids, row_logits, top)
    return [results[index] for index in range(len(texts))]


def mask_rows(tokenizer: Any, texts: list[str], context: int | None) -> list[tuple[int, list[int]]]:
    """The number and ids of each text; raises :class:`UserError` as :func:`fill_mask`."""
    bad: list[str] = []
    rows = []
    for index, text in enumerate(texts):
        require_text(text)
        ids = list(tokenizer(text)["input_ids"])
        if tokenizer.mask_token_id not in ids:
            bad.append(
                f"there is nothing to fill in {shown(text)}: write {tokenizer.mask_token} where a word is to be guessed"
            )
        elif context is not None and len(ids) > context:
            bad.append(
                f"prompt {index + 1} ({shown(text)}) has {len(ids)} tokens, and the model {context} positions; "
                "shorten it"
            )
        rows.append((index, ids))
    raise_for(bad)
    return rows


def _fill(tokenizer: Any, text: str, ids: list[int], logits: torch.Tensor, top: int) -> FilledText:
    """``logits`` (T, V) of one row → its candidates; padding beyond ``len(ids)`` is not looked at."""
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_token_id]
    probabilities = logits[places].float().softmax(dim=-1)  # (M, V)
    best = probabilities.topk(min(top, probabilities.shape[-1]), dim=-1)
    masks = [
        [Filling(tokenizer.decode([token]).strip(), token, value) for token, value in zip(tokens, values, strict=True)]
        for tokens, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    filled = list(ids)
    for place, candidates in zip(places, masks, strict=True):
        filled[place] = candidates[0].id
    return FilledText(text, masks, tokenizer.decode(filled, skip_special_tokens=True))
