"""Prompts into rows of token ids, each with its room in the context and the seed of its draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lmtrain.core.errors import Problems, UserError
from lmtrain.core.streams import derive
from lmtrain.generate.batches import shown
from lmtrain.generate.settings import Settings


@dataclass(slots=True)
class Row:
    """One row of a batch: a prompt's ids, room for ``budget`` new tokens, the seed of its draws."""

    index: int
    sample: int
    prompt: str
    ids: list[int]
    budget: int
    seed: int


def rows_of(
    tokenizer: Any,
    prompts: list[str],
    settings: Settings,
    context: int | None,
    *,
    seen: Counter[str] | None = None,
    encode: Callable[[str], list[int]] | None = None,
) -> list[Row]:
    """The rows of ``prompts``, in their order, :attr:`Settings.copies` of each.

    ``seen`` counts how often each prompt came before and goes on counting: the same prompt again is another sample.
    ``encode`` takes the place of :func:`prompt_ids`. Raises :class:`UserError` that names the first prompts that
    cannot be used, and counts the others.
    """
    seen = Counter() if seen is None else seen
    rows: list[Row] = []
    bad: list[str] = []
    for index, prompt in enumerate(prompts):
        try:
            ids = prompt_ids(tokenizer, prompt) if encode is None else encode(prompt)
        except UserError as error:
            bad.append(error.problems[0].text)
            continue
        if context is not None and len(ids) >= context:
            bad.append(
                f"prompt {index + 1} ({shown(prompt)}) has {len(ids)} tokens and leaves no room in the model's "
                f"{context} positions; shorten it"
            )
            continue
        budget = settings.max_new_tokens if context is None else min(settings.max_new_tokens, context - len(ids))
        for sample in range(settings.copies):
            # of the prompt's text, not of its place: another prompt before it changes nothing
            seed = derive(settings.seed, f"sample/{prompt}", seen[prompt], sample) % 2**63
            rows.append(Row(index, sample, prompt, ids, budget, seed))
        seen[prompt] += 1
    raise_for(bad)
    return rows


def raise_for(bad: list[str]) -> None:
    """Raise :class:`UserError` with the first of ``bad``, if there are any, and the number of the others."""
    problems = Problems()
    problems.add_some(bad, "prompt")
    problems.raise_if_any()


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    """A prompt's ids as the tokenizer begins a text, without the end it may put after one."""
    require_text(prompt)
    ids = list(tokenizer(prompt)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and not prompt.endswith(tokenizer.eos_token):
        ids.pop()
    if ids:
        return ids
    for start in (tokenizer.bos_token_id, tokenizer.eos_token_id):  # in training each text follows an end of text
        if start is not None:
            return [start]
    raise UserError("an empty prompt needs a begin- or end-of-text token to start from, and the tokenizer has none")


def require_text(prompt: str) -> None:
    """Raise :class:`UserError` for bytes that are no UTF-8, which arrive in Python as half characters."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the prompt {shown(prompt)} is not UTF-8 (at character {error.start + 1})") from error
