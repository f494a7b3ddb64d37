"""Samples of a run: the same prompts at each evaluation, so that one sees the model learn.

They change nothing of the training: the model answers in evaluation mode and is put back, draws come from generators of
their own, and what it takes is no time of training.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lmtrain.config.options import Resolved
from lmtrain.core.errors import about
from lmtrain.engine.looking import Look
from lmtrain.engine.parts import Parts
from lmtrain.generate import Settings, complete, fill_mask
from lmtrain.generate.chat import chat_ids
from lmtrain.generate.fill import mask_rows
from lmtrain.generate.prompt_files import read_prompts
from lmtrain.generate.rows import prompt_ids, rows_of
from lmtrain.models import max_positions
from lmtrain.models.formats import products_in

_SHOWN_FILLINGS = 3


def sampling(resolved: Resolved) -> Callable[[Parts], Look] | None:
    """What :func:`lmtrain.engine.assembly.train` takes as ``look``; None where the options name no prompts."""
    return partial(_look, resolved) if resolved.samples.wanted else None


def _look(resolved: Resolved, parts: Parts) -> Look:
    """Raises :class:`UserError` for prompts that cannot be answered, before anything is trained."""
    options = resolved.samples
    prompts = list(options.sample_prompts)
    if options.sample_prompts_file is not None:
        prompts += read_prompts(options.sample_prompts_file, "--sample_prompts_file")
    context = max_positions(parts.model.config)
    with about("--sample_prompts" if options.sample_prompts else "--sample_prompts_file"):
        if resolved.purpose == "mlm":
            mask_rows(parts.tokenizer, prompts, context)
            answer: Look = partial(_fillings, parts.tokenizer, prompts)
        else:
            settings = Settings(
                max_new_tokens=options.sample_max_new_tokens,
                do_sample=options.sample_temperature > 0,
                temperature=options.sample_temperature or 1.0,
                top_k=0,
                seed=resolved.training.get("seed", 42),
            )
            encode = _encoding(resolved, parts)
            rows_of(parts.tokenizer, prompts, settings, context, encode=encode)
            answer = partial(_completions, parts.tokenizer, prompts, settings, context, encode)
    return partial(_in_precision_of, parts, answer)


def _encoding(resolved: Resolved, parts: Parts) -> Callable[[str], list[int]] | None:
    """How a context is put before the model in training, where that is not as any text."""
    if resolved.command != "sft":
        return None
    tokenizer = parts.tokenizer
    if any("template" in made.store.manifest["reading"] for made in parts.corpus.stores.values()):
        return chat_ids(tokenizer)
    if resolved.pairs.add_bos:
        begin = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return lambda prompt: [*prompt_ids(tokenizer, prompt), begin]
    return None


def _in_precision_of(parts: Parts, answer: Look, model: Any) -> list[dict[str, Any]]:
    with products_in(parts.precision.name, parts.device):
        return answer(model)


def _completions(
    tokenizer: Any,
    prompts: list[str],
    settings: Settings,
    context: int | None,
    encode: Callable[[str], list[int]] | None,
    model: Any,
) -> list[dict[str, Any]]:
    return [
        {"index": c.index, "prompt": c.prompt, "completion": c.text, "tokens": c.n_tokens, "finished": c.finished}
        for c in complete(model, tokenizer, prompts, settings, context, encode=encode)
    ]


def _fillings(tokenizer: Any, prompts: list[str], model: Any) -> list[dict[str, Any]]:
    """``completion`` is the text with the likeliest token at each mask; ``masks`` holds the first few of each."""
    return [
        {
            "index": index,
            "prompt": result.text,
            "completion": result.filled,
            "masks": [[{"token": f.token, "probability": f.probability} for f in mask] for mask in result.masks],
        }
        for index, result in enumerate(fill_mask(model, tokenizer, prompts, _SHOWN_FILLINGS))
    ]
