"""Completions of prompts by a causal model: greedy, sampled or by beam search."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import Problems, UserError
from lmtrain.core.streams import derive
from lmtrain.generate.batches import batches, check_ids, pad, shown
from lmtrain.generate.sampling import GumbelNoise

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel


@dataclass(frozen=True, slots=True)
class Settings:
    """How to complete. Only these count: generation settings stored with a checkpoint are not mixed in.

    ``top_k=0`` and ``top_p=1`` leave the distribution whole. ``seed`` and the prompt decide what is sampled.
    """

    max_new_tokens: int = 64
    do_sample: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    num_return_sequences: int = 1
    num_beams: int = 1
    repetition_penalty: float = 1.0
    seed: int = 42
    batch_size: int = 8

    def check(self) -> None:
        """Raise :class:`UserError` with everything that does not go together."""
        problems = Problems()
        for name in ("max_new_tokens", "num_return_sequences", "num_beams", "batch_size"):
            if getattr(self, name) < 1:
                problems.add(f"{getattr(self, name)} is less than 1", flag=f"--{name}")
        for name in ("temperature", "repetition_penalty", "top_p"):
            if getattr(self, name) <= 0:
                problems.add(f"{getattr(self, name)} must be above 0", flag=f"--{name}")
        if self.top_p > 1:
            problems.add(f"{self.top_p} is a probability and at most 1", flag="--top_p")
        if self.num_beams > 1 and self.do_sample:
            problems.add("a beam search takes the likeliest and does not sample; add --greedy", flag="--num_beams")
        if not self.do_sample and self.num_return_sequences > self.num_beams:
            problems.add(
                f"{self.num_return_sequences} completions need sampling or --num_beams "
                f"{self.num_return_sequences}: greedy decoding has only one",
                flag="--num_return_sequences",
            )
        problems.raise_if_any()


@dataclass(frozen=True, slots=True)
class Completion:
    """``text`` continues ``prompt``; ``index`` is the prompt's number, ``sample`` the completion's.

    ``n_tokens`` were generated, the end of text included; ``finished`` says that the model ended it itself.
    """

    index: int
    sample: int
    prompt: str
    text: str
    n_tokens: int
    finished: bool


@dataclass(slots=True)
class _Row:
    """One row of a batch: a prompt's ids, room for ``budget`` new tokens, the seed of its draws."""

    index: int
    sample: int
    ids: list[int]
    budget: int
    seed: int


def complete(
    model: PreTrainedModel, tokenizer: Any, prompts: list[str], settings: Settings, context: int | None = None
) -> list[Completion]:
    """Complete each prompt; ordered by prompt, then by sample.

    ``context`` is the model's bound on prompt and completion together, in tokens (``models.max_positions``);
    near it a completion ends early. Greedy and sampled results of a prompt are the same whatever else is
    completed beside it, up to the rounding of padded batches (about 1e-6 of a logit in fp32, which matters
    only for ties). Beam search keeps the score of the library, with its length penalty of 1.

    Raises :class:`UserError` for a prompt that fills the context, an empty one that has no token to start
    from, and settings that contradict each other.
    """
    import torch

    settings.check()
    rows = _rows(tokenizer, prompts, settings, context)
    check_ids([row.ids for row in rows], model)
    # Recurrent models read padding as text, and a repetition penalty counts it as words said before.
    alone = getattr(model, "_is_stateful", False) or settings.repetition_penalty != 1.0
    done: list[Completion] = []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _quiet():
            for batch in batches(
                rows,
                settings.batch_size,
                length=lambda row: len(row.ids),
                together=lambda row: (row.budget, len(row.ids) if alone else 0),
            ):
                done += _complete_batch(model, tokenizer, prompts, batch, settings)
    finally:
        model.train(was_training)
    return sorted(done, key=lambda completion: (completion.index, completion.sample))


def _rows(tokenizer: Any, prompts: list[str], settings: Settings, context: int | None) -> list[_Row]:
    copies = 1 if settings.num_beams > 1 else settings.num_return_sequences
    problems = Problems()
    times_seen: Counter[str] = Counter()
    rows = []
    for index, prompt in enumerate(prompts):
        with problems.collect():
            ids = _encode(tokenizer, prompt)
            if context is not None and len(ids) >= context:
                raise UserError(
                    f"the prompt {shown(prompt)} has {len(ids)} tokens and leaves no room in the model's "
                    f"{context} positions; shorten it"
                )
            budget = settings.max_new_tokens if context is None else min(settings.max_new_tokens, context - len(ids))
            for sample in range(copies):
                # of the prompt's text, not of its place: another prompt before it changes nothing
                seed = derive(settings.seed, f"sample/{prompt}", times_seen[prompt], sample) % 2**63
                rows.append(_Row(index, sample, ids, budget, seed))
            times_seen[prompt] += 1
    problems.raise_if_any()
    return rows


def _encode(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt's ids as the tokenizer begins a text, without the end it may put after one."""
    ids = list(tokenizer(prompt)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        ids.pop()
    if ids:
        return ids
    for start in (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
    ):  # in training each text follows an end of text
        if start is not None:
            return [start]
    raise UserError("an empty prompt needs a begin- or end-of-text token to start from, and the tokenizer has none")


def _complete_batch(
    model: Any, tokenizer: Any, prompts: list[str], batch: list[_Row], settings: Settings
) -> Iterator[Completion]:
    ends = _end_ids(model, tokenizer)
    config = _generation_config(tokenizer, ends, batch[0].budget, settings)
    inputs = pad([row.ids for row in batch], config.pad_token_id, model.device, left=True)
    with _only(model, config):
        output = model.generate(**inputs, generation_config=config, logits_processor=_processors(batch, settings))
    start = inputs["input_ids"].shape[1]
    per_row = output.shape[0] // len(batch)
    for number, ids in enumerate(output[:, start:].tolist()):
        row = batch[number // per_row]
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        new = ids if end is None else ids[:end]
        yield Completion(
            index=row.index,
            sample=row.sample if per_row == 1 else number % per_row,
            prompt=prompts[row.index],
            text=_continuation(tokenizer, row.ids, new),
            n_tokens=len(new) + (end is not None),
            finished=end is not None,
        )


def _end_ids(model: Any, tokenizer: Any) -> list[int]:
    """All ids that end a text: the tokenizer's, and those of the checkpoint (chat models have several)."""
    stored = getattr(model.generation_config, "eos_token_id", None)
    ids = [] if stored is None else list(stored) if isinstance(stored, list | tuple) else [stored]
    return list(dict.fromkeys([*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]))


def _generation_config(tokenizer: Any, ends: list[int], budget: int, settings: Settings) -> GenerationConfig:
    from transformers import GenerationConfig

    pad_id = tokenizer.pad_token_id
    return GenerationConfig(
        max_new_tokens=budget,
        do_sample=False,  # sampling is done by GumbelNoise
        num_beams=settings.num_beams,
        num_return_sequences=settings.num_return_sequences if settings.num_beams > 1 else 1,
        repetition_penalty=settings.repetition_penalty,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends or None,
        pad_token_id=pad_id if pad_id is not None else (ends[0] if ends else 0),
    )


def _processors(batch: list[_Row], settings: Settings) -> Any:
    """Temperature, then top-k, then top-p, then the draw: the order the library's own sampling has."""
    from transformers import (
        LogitsProcessorList,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors = LogitsProcessorList()
    if not settings.do_sample:
        return processors
    if settings.temperature != 1.0:
        processors.append(TemperatureLogitsWarper(settings.temperature))
    if settings.top_k:
        processors.append(TopKLogitsWarper(settings.top_k))
    if settings.top_p < 1.0:
        processors.append(TopPLogitsWarper(settings.top_p))
    processors.append(GumbelNoise([row.seed for row in batch]))
    return processors


def _continuation(tokenizer: Any, prompt: list[int], new: list[int]) -> str:
    """The new text: what decoding all adds to decoding the prompt.

    Decoding the new ids alone would lose the space before the first word with SentencePiece tokenizers.
    """
    before, both = (
        tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in (prompt, prompt + new)
    )
    if both.startswith(before):
        return both[len(before) :]
    # a tokenizer whose decoding of the beginning changes with what follows
    return tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)


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
