"""Beam search over token ids, for data-to-text: many contexts at once, each result as if it were alone.

Shapes: ``B`` contexts of a batch, ``K`` beams of each, ``R ≤ B·K`` rows, ``T`` positions, ``V`` vocabulary.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import Problems, UserError
from lmtrain.generate.batches import batches, pad
from lmtrain.generate.modes import evaluating

if TYPE_CHECKING:
    from torch import Tensor

    from lmtrain.generate.beam_state import BeamRules

MEMORY = 4 << 30  # bytes for a batch when the caller names neither a batch size nor a limit
_MOST_ROWS = {"cpu": 160, "cuda": 1280}  # beyond this reading the weights is no longer what a step waits for
_MOST_DIGITS = 30  # of what a score is divided by: fp32 ends at 10³⁸
_SPARE = 1.25  # rows on the move exist twice, one layer at a time


def beam_search(
    model: Any,
    contexts: Sequence[Sequence[int]],
    *,
    num_beams: int = 10,
    length_penalty: float = 0.8,
    no_repeat_ngram_size: int = 4,
    max_new_tokens: int = 64,
    stop_ids: Sequence[int] = (628,),
    eos_token_id: int | None = 50256,
    repetition_penalty: float = 1.0,
    batch_size: int | None = None,
    memory: int = MEMORY,
    on_progress: Callable[[int, int], None] | None = None,
    on_found: Callable[[Sequence[int], list[int]], None] | None = None,
) -> list[list[int]]:
    """The ids that ``model`` writes after each context, in the order of the contexts.

    A result ends with the stop id that ended it, or has ``max_new_tokens`` ids. The defaults are those of the
    data-to-text results of Hu et al. (*LoRA*, 2021): 628 is GPT-2's double newline, 50256 its end of text.

    The search is that of ``gpt2_beam.py`` in microsoft/LoRA, for one context at a time:

    1. Hypotheses begin as the ``num_beams`` likeliest first tokens. At each step the ``num_beams`` best continuations
       of all hypotheses of a context go on, by the sum of their log-probabilities (nats, of what may follow: an n-gram
       of ``no_repeat_ngram_size`` that the *generated* tokens hold already may not, and the rest is normalized
       without it; 0 allows all).
    2. A hypothesis whose new token is a stop id is finished: it scores sum / t^``length_penalty``, where t counts its
       generated tokens and the stop id among them, and takes no further part, though it did take one of the places
       of its step. The best finished hypothesis is kept; a later one must score more to replace it.
    3. After ``max_new_tokens`` the unfinished ones are scored in the same way, with t = ``max_new_tokens``.

    There a search always goes on to the last step with all beams. Here hypotheses that cannot become the best any more
    (:meth:`BeamRules.bound`) are left out, and it ends when none is left, which gives the same result. Equal scores go
    by the rank of the hypothesis, then by the smaller id; there their order is not defined. Its first step reads the
    wrong rows when its batch holds more than one context; ours does not depend on ``batch_size`` but for rounding
    (about 1e-6 of a logit in fp32, which can decide between hypotheses of equal score).

    ``transformers``' ``generate(num_beams=…)`` is another search, with whatever settings: it draws 2·``num_beams``
    candidates and fills the places of finished hypotheses at once; it keeps ``num_beams`` finished ones and stops by
    comparing with the worst of them (``early_stopping="never"`` comes nearest); it forbids n-grams of context and
    completion together and does not normalize again. Its length penalty divides by the same power of the same
    length.

    Cost: contexts go longest first in batches of like length, equal ones once, each through the model once and not
    once a beam; then each step runs one token of every hypothesis that can still win. ``batch_size``
    is B; None takes the most for which K · (b · (T + ``max_new_tokens``) · 1.25 + 12 · V) bytes a context stay within
    ``memory``, with b bytes of keys and values a position (tried with one) and T the longest context, and not more
    than makes 160 rows on a CPU. ``on_progress(done, all)`` hears of distinct contexts, ``on_found(context, result)``
    of each of them as it is decided.

    ``model`` is any causal model of ``transformers`` with a cache, or a PEFT model around one; it is left in the mode
    that it was in. An adapter costs two more products a layer: ``model.merge_adapter()`` before and
    ``model.unmerge_adapter()`` after spare them without a copy of the weights. Nothing is random.

    Raises :class:`UserError` for contexts that are empty or hold ids without an embedding, and settings without
    sense. Positions are the caller's to watch: a context and ``max_new_tokens`` must fit into them.
    """
    from lmtrain.generate.beam_state import BeamRules

    stops = [*stop_ids, *([] if eos_token_id is None else [eos_token_id])]
    rules = BeamRules(num_beams, length_penalty, no_repeat_ngram_size, max_new_tokens, tuple(stops), repetition_penalty)
    distinct = list(dict.fromkeys(tuple(context) for context in contexts))
    _check(rules, distinct, model, batch_size)
    found: dict[tuple[int, ...], list[int]] = {}
    with evaluating(model):
        step = _Model(model)
        size = batch_size or (_contexts_at_once(step, distinct, rules, memory) if distinct else 1)
        for batch in batches(distinct, size, length=len, together=len if step.is_stateful else lambda row: None):
            for number, tokens in _decode(step, batch, rules):
                found[batch[number]] = tokens
                if on_found is not None:
                    on_found(batch[number], tokens)
                if on_progress is not None:
                    on_progress(len(found), len(distinct))
    return [list(found[tuple(context)]) for context in contexts]


def _decode(step: _Model, batch: list[tuple[int, ...]], rules: BeamRules) -> Iterator[tuple[int, list[int]]]:
    """The number and the result of each context of a batch, as they are decided."""
    import torch

    from lmtrain.generate.beam_rows import BeamRows
    from lmtrain.generate.beam_state import Beams

    logits, cache, padding = step.begin([list(row) for row in batch], rules.max_new_tokens - 1)
    beams, rows = Beams(len(batch), rules, logits.device), BeamRows([])
    while True:
        beams.advance(logits)
        yield from beams.finish()
        if not len(beams.index):
            return
        cells, contexts, parents = beams.going()
        if beams.length == 1:
            cache.spread(torch.tensor(contexts, device=logits.device), len(batch) * rules.num_beams)
            beams.cells, rows = cells, BeamRows(contexts)
        else:
            places, move = rows.place(contexts, parents)
            cache.follow(move, logits.device)
            beams.cells = torch.empty_like(cells)
            beams.cells[torch.tensor(places, device=cells.device)] = cells
        row_padding = padding[torch.tensor(rows.contexts[: len(cells)], device=padding.device)]
        ids = beams.tokens[..., -1].flatten()[beams.cells, None]
        logits = step.go_on(ids, cache, row_padding, len(batch[0]) + beams.length)


class _Model:
    """The forward passes of a search: contexts together, then one token a row."""

    def __init__(self, model: Any) -> None:
        self.model = model
        inner = getattr(model, "get_base_model", lambda: model)()
        self.is_stateful = bool(getattr(inner, "_is_stateful", False))  # reads padding as text
        takes = inspect.signature(inner.forward).parameters
        if "past_key_values" not in takes:
            raise UserError(f"{type(inner).__name__} keeps no keys and values, which this beam search goes on from")
        self._takes_positions = "position_ids" in takes
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def begin(self, rows: list[list[int]], room: int) -> tuple[Tensor, Any, Tensor]:
        """Run the contexts: logits (B, V) after each, their cache with ``room`` for more, their padding (B,)."""
        import torch

        from lmtrain.generate.beam_cache import BeamCache

        cache = BeamCache(self.model.config, room)
        inputs = pad(rows, 0, self.model.device, left=True)
        padding = (inputs["attention_mask"] == 0).sum(dim=1)
        width = inputs["input_ids"].shape[1]
        positions = (torch.arange(width, device=padding.device) - padding[:, None]).clamp(min=0)
        return self._logits(inputs["input_ids"], cache, padding, width, positions), cache, padding

    def go_on(self, ids: Tensor, cache: Any, padding: Tensor, width: int) -> Tensor:
        """Logits (R, V) after one more token of each row (R, 1), the last of ``width`` positions with ``padding``."""
        return self._logits(ids, cache, padding, width, width - 1 - padding[:, None])

    def _logits(self, ids: Tensor, cache: Any, padding: Tensor, width: int, positions: Tensor) -> Tensor:
        import torch

        more: dict[str, Any] = dict(self._only_last)
        if self._takes_positions:
            more["position_ids"] = positions
        if bool(padding.any()):  # without a mask attention has faster kernels
            more["attention_mask"] = (torch.arange(width, device=ids.device) >= padding[:, None]).long()
        output = self.model(input_ids=ids, past_key_values=cache, use_cache=True, **more)
        logits: Tensor = output.logits[:, -1]
        return logits


def _contexts_at_once(step: _Model, contexts: list[tuple[int, ...]], rules: BeamRules, memory: int) -> int:
    """As many contexts as ``memory`` (bytes) holds, by the formula of :func:`beam_search`."""
    logits, cache, _ = step.begin([list(contexts[0][:1])], 0)
    longest = max(map(len, contexts)) + rules.max_new_tokens
    row = cache.n_bytes * longest * _SPARE + 12 * logits.shape[1]
    rows = min(memory / row, _MOST_ROWS.get(logits.device.type, 1280))
    return max(1, int(rows / rules.num_beams))


def _check(rules: BeamRules, contexts: list[tuple[int, ...]], model: Any, batch_size: int | None) -> None:
    problems = Problems()
    for name in ("num_beams", "max_new_tokens"):
        if getattr(rules, name) < 1:
            problems.add(f"{getattr(rules, name)} is less than 1", flag=f"--{name}")
    if rules.no_repeat_ngram_size < 0:
        problems.add(f"{rules.no_repeat_ngram_size} is less than 0, which allows all", flag="--no_repeat_ngram_size")
    if rules.repetition_penalty <= 0:
        problems.add(f"{rules.repetition_penalty} must be above 0", flag="--repetition_penalty")
    if batch_size is not None and batch_size < 1:
        problems.add(f"{batch_size} is less than 1", flag="--batch_size")
    if not abs(rules.length_penalty) * math.log10(max(rules.max_new_tokens, 1)) < _MOST_DIGITS:
        problems.add(
            f"{rules.max_new_tokens} tokens to the power of {rules.length_penalty:g} are no number to divide by",
            flag="--length_penalty",
        )
    known = int(model.get_input_embeddings().weight.shape[0])
    if rules.num_beams > known:
        problems.add(f"{rules.num_beams} is more than the {known} tokens of the model", flag="--num_beams")
    if () in contexts:
        problems.add("a context is empty: there is nothing to go on from")
    wrong = [i for context in contexts for i in context if not 0 <= i < known]
    if wrong:
        problems.add(f"the id {wrong[0]} has no place among the {known} embedding rows of the model")
    problems.raise_if_any()
