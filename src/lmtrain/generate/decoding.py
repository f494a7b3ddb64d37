"""One batch through ``generate`` of transformers, with our draws and our ends.

Shapes: ``B`` rows of a batch, ``T`` positions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmtrain.generate.batches import pad
from lmtrain.generate.rows import Row
from lmtrain.generate.sampling import GumbelNoise
from lmtrain.generate.settings import Settings
from lmtrain.generate.stopping import StopStrings, WhenAsked

if TYPE_CHECKING:
    from transformers import GenerationConfig


def new_ids(
    model: Any,
    tokenizer: Any,
    batch: Sequence[Row],
    settings: Settings,
    *,
    asked: Callable[[], bool] | None = None,
    streamer: Any = None,
) -> list[list[int]]:
    """What the model writes behind each row: its end-of-text token included, what stands behind that left out.

    A beam search gives :attr:`Settings.num_return_sequences` lists for each row. ``asked`` ends it early; ``streamer``
    is one of transformers, for a batch of one.
    """
    ends = end_ids(model, tokenizer)
    config = generation_config(tokenizer, ends, batch[0].budget, settings)
    inputs = pad([row.ids for row in batch], config.pad_token_id, model.device, left=True)
    start = inputs["input_ids"].shape[1]
    with _only(model, config), _quiet():
        output = model.generate(
            **inputs,
            generation_config=config,
            logits_processor=processors([row.seed for row in batch], settings),
            stopping_criteria=_criteria(tokenizer, settings, start, asked),
            streamer=streamer,
        )
    return [_until(ids, ends) for ids in output[:, start:].tolist()]


def _until(ids: list[int], ends: Sequence[int]) -> list[int]:
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    return ids if end is None else ids[: end + 1]


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """All ids that end a text: the tokenizer's, and those of the checkpoint (chat models have several)."""
    stored = getattr(model.generation_config, "eos_token_id", None)
    ids = [] if stored is None else list(stored) if isinstance(stored, list | tuple) else [stored]
    return list(dict.fromkeys([*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]))


def generation_config(tokenizer: Any, ends: list[int], budget: int, settings: Settings) -> GenerationConfig:
    """What transformers has to know; everything about sampling is in :func:`processors`."""
    from transformers import GenerationConfig

    pad_id = tokenizer.pad_token_id
    beams: dict[str, Any] = {}
    if settings.num_beams > 1:
        beams = {name: getattr(settings, name) for name in ("num_return_sequences", "length_penalty", "early_stopping")}
    return GenerationConfig(
        max_new_tokens=budget,
        do_sample=False,  # sampling is done by GumbelNoise
        num_beams=settings.num_beams,
        repetition_penalty=float(settings.repetition_penalty),  # the library refuses a whole number
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=pad_id if pad_id is not None else (ends[0] if ends else 0),
        **beams,
    )


def processors(seeds: Sequence[int], settings: Settings) -> Any:
    """Temperature, top-k, top-p, min-p, then the draw: the order that the library's own sampling has.

    Its penalties, which ``generate`` puts in front of these, come first there too.
    """
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    found = LogitsProcessorList()
    if not settings.do_sample:
        return found
    if settings.temperature != 1.0:
        found.append(TemperatureLogitsWarper(float(settings.temperature)))
    if settings.top_k:
        found.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        found.append(TopPLogitsWarper(settings.top_p))
    if settings.min_p > 0.0:
        found.append(MinPLogitsWarper(settings.min_p))
    found.append(GumbelNoise(list(seeds)))
    return found


def _criteria(tokenizer: Any, settings: Settings, start: int, asked: Callable[[], bool] | None) -> Any:
    from transformers import StoppingCriteriaList

    found: Any = StoppingCriteriaList()
    if settings.stop:
        found.append(StopStrings(tokenizer, settings.stop, start))
    if asked is not None:
        found.append(WhenAsked(asked))
    return found


@contextmanager
def _only(model: Any, config: GenerationConfig) -> Iterator[None]:
    """Put ``config`` in the place of the model's own for a while: ``generate`` fills gaps from there."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the library's remarks on settings that were chosen on purpose."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
