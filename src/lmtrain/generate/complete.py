"""Completions of prompts by a causal model: greedy, sampled or by beam search."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lmtrain.generate.batches import batches, check_ids
from lmtrain.generate.completion import Completion
from lmtrain.generate.decoding import end_ids, new_ids
from lmtrain.generate.logprobs import token_logprobs
from lmtrain.generate.modes import evaluating
from lmtrain.generate.rows import Row, rows_of
from lmtrain.generate.settings import Settings
from lmtrain.generate.streaming import Pieces, Stream
from lmtrain.generate.text import before_stop, continuation

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def complete(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: list[str],
    settings: Settings,
    context: int | None = None,
    *,
    encode: Callable[[str], list[int]] | None = None,
    seen: Counter[str] | None = None,
    stream: Stream | None = None,
    asked: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """Complete each prompt; ordered by prompt, then by sample.

    ``context`` is the model's bound on prompt and completion together, in tokens (``models.max_positions``);
    near it a completion ends early. Greedy and sampled results of a prompt are the same whatever else is
    completed beside it, up to the rounding of padded batches (about 1e-6 of a logit in fp32, which matters
    only for ties). Beam search is that of the library.

    ``encode`` makes ids of a prompt where they are not the tokenizer's own, as for chats.
    ``seen`` counts prompts over several calls: the same prompt again is another sample, as within one call.
    ``stream`` hears the text while it is written; one completion is then made after the other. As soon as ``asked``
    returns True all ends with what there is. ``on_progress(done, all)`` hears of completions.

    Raises :class:`UserError` for a prompt that fills the context, an empty one that has no token to start
    from, and settings that contradict each other.
    """
    settings.check()
    model = getattr(model, "get_base_model", lambda: model)()  # the layers of an adapter are inside
    rows = rows_of(tokenizer, prompts, settings, context, seen=seen, encode=encode)
    check_ids([row.ids for row in rows], model)
    done: list[Completion] = []
    with evaluating(model):
        for batch in _batches(model, rows, settings, one_by_one=stream is not None):
            if asked is not None and asked():
                break
            done += _complete(model, tokenizer, batch, settings, stream, asked)
            if on_progress is not None:
                on_progress(len(done), len(prompts) * settings.num_return_sequences)
    return sorted(done, key=lambda completion: (completion.index, completion.sample))


def _batches(model: Any, rows: list[Row], settings: Settings, *, one_by_one: bool) -> Iterator[list[Row]]:
    if one_by_one:
        return ([row] for row in rows)
    # Recurrent models read padding as text, and rules about what was said before count it as words.
    counts_words = settings.repetition_penalty != 1.0 or settings.no_repeat_ngram_size > 0
    alone = getattr(model, "_is_stateful", False) or counts_words
    return batches(
        rows,
        settings.batch_size,
        length=lambda row: len(row.ids),
        together=lambda row: (row.budget, len(row.ids) if alone else 0),
    )


def _complete(
    model: Any,
    tokenizer: Any,
    batch: Sequence[Row],
    settings: Settings,
    stream: Stream | None,
    asked: Callable[[], bool] | None,
) -> list[Completion]:
    ends = end_ids(model, tokenizer)
    pieces = None
    if stream is not None:
        [row] = batch
        stream.begin(row.index, row.sample, row.prompt)
        if settings.num_beams == 1:  # of a beam search nothing is certain before its end
            pieces = Pieces(tokenizer, row.ids, ends, settings.stop, stream.write)
    found = new_ids(model, tokenizer, batch, settings, asked=asked, streamer=pieces)
    per_row = len(found) // len(batch)
    completions = []
    for number, ids in enumerate(found):
        row, sample = batch[number // per_row], number % per_row
        completion = _completion(tokenizer, row, row.sample if per_row == 1 else sample, ids, ends, settings)
        if settings.logprobs is not None:
            values = token_logprobs(model, row.ids, completion.ids, settings.logprobs)
            completion = replace(completion, logprobs=tuple(values))
        completions.append(completion)
    if stream is not None:
        _tell(stream, pieces, completions)
    return completions


def _tell(stream: Stream, pieces: Pieces | None, completions: Sequence[Completion]) -> None:
    """The rest of a text that was written piece by piece, or the texts of a beam search."""
    for number, completion in enumerate(completions):
        if number:
            stream.begin(completion.index, completion.sample, completion.prompt)
        if pieces is not None:
            pieces.finish(completion.text)
        else:
            stream.write(completion.text)
        stream.end(completion)


def _completion(
    tokenizer: Any, row: Row, sample: int, ids: list[int], ends: Sequence[int], settings: Settings
) -> Completion:
    ended = bool(ids) and ids[-1] in ends
    written = continuation(tokenizer, row.ids, ids[:-1] if ended else ids)
    text, stop = before_stop(written, settings.stop)
    if stop is not None:  # the row went on while others of its batch did
        holds = partial(_holds, tokenizer, row.ids, ids, settings.stop)
        ids, ended = ids[: bisect_left(range(len(ids)), True, key=holds)], True
    return Completion(row.index, sample, row.prompt, text, tuple(ids), ended, stop)


def _holds(tokenizer: Any, prompt: Sequence[int], ids: Sequence[int], stops: Sequence[str], count: int) -> bool:
    """Whether the first ``count`` new tokens hold a stop string."""
    return before_stop(continuation(tokenizer, prompt, ids[:count]), stops)[1] is not None
