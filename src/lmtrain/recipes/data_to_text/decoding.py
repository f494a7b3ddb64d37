"""What a model writes for each input, by beam search: of ``lmtrain nlg decode`` and of the recipes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lmtrain.config.options import ModelOptions
from lmtrain.core.console import Say, counted, duration, is_first_process
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_file, sha256_json
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.memory import available
from lmtrain.engine.speed.precision import choose_precision, require_format
from lmtrain.generate import beam_search
from lmtrain.models import load_model, load_tokenizer
from lmtrain.models.formats import products_in
from lmtrain.models.quiet import quiet_libraries
from lmtrain.recipes.data_to_text.data import is_made, noted
from lmtrain.recipes.data_to_text.inputs import require_known
from lmtrain.recipes.data_to_text.texts import text_of
from lmtrain.recipes.data_to_text.token_files import read_predictions, write_predictions
from lmtrain.recipes.data_to_text.unfinished import Unfinished

_BREAK = "\n\n"  # nothing that is read goes on behind an empty line
_GPT2_VOCABULARY, _GPT2_BREAK = 50257, 628
PREDICTIONS = "predictions.jsonl"
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of the search; see :func:`lmtrain.generate.beam_search`."""

    num_beams: int
    length_penalty: float
    no_repeat_ngram_size: int
    max_new_tokens: int
    repetition_penalty: float = 1.0

    @property
    def line(self) -> str:
        """In words, for the table."""
        n = self.no_repeat_ngram_size
        once = f", no {n} tokens in a row twice" if n else ""
        return (
            f"{counted(self.num_beams, 'beam')}, length penalty {self.length_penalty:g}{once}, at most "
            f"{counted(self.max_new_tokens, 'token')}"
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """The ids for each input by its number; of ``distinct`` inputs ``known`` were found before, and the others took
    ``seconds``; ``unfinished`` of the inputs reached the longest length."""

    results: dict[int, list[int]]
    distinct: int
    known: int
    seconds: float
    unfinished: int

    @property
    def line(self) -> str:
        made = self.distinct - self.known
        rate = f", {made / self.seconds:.3g} distinct inputs a second" if made else ""
        cut = f"; {self.unfinished:,} reached --max_new_tokens" if self.unfinished else ""
        return f"{counted(len(self.results), 'input')} in {duration(self.seconds)}{rate}{cut}"


def decode(
    model: Any,
    contexts: Mapping[int, Sequence[int]],
    search: Search,
    target: Path,
    *,
    ends: Sequence[int],
    key: str | None = None,
    width: int = 0,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    use_cpu: bool = False,
    flag: str = "--input",
    say: Say,
    on_progress: Callable[[int, int], None] | None = None,
) -> Decoded:
    """Write what ``model`` says to each of ``contexts``, which are by number, as ``target``: whole or not at all.

    One that is stopped goes on where it was when it is called again with the same: ``key`` names what the results are
    made of, or the weights, contexts and settings do. ``ends`` are the ids that end a result; ``width`` fills results
    up to so many ids. ``fp32`` makes the results those of any ``batch_size``. Raises :class:`UserError` about ``flag``
    for ids without an embedding, and about the model when its scores are no numbers.
    """
    require_known(contexts, model, flag)
    device = best_device(use_cpu=use_cpu)
    chosen = choose_precision(precision, device)
    require_format(model, chosen)
    first: dict[tuple[int, ...], int] = {}
    for number, context in contexts.items():
        first.setdefault(tuple(context), number)
    if key is None:
        rows = [[number, list(context)] for number, context in contexts.items()]
        key = sha256_json([fingerprint(model), rows, asdict(search), sorted(ends), chosen.name])
    unfinished = Unfinished(target, key)
    before = unfinished.read()
    found = {context: before[number] for context, number in first.items() if number in before}
    known = len(found)
    if known:
        say("decode", f"{known:,} of {counted(len(first), 'distinct input')} were done before")

    def progress(done: int, everything: int) -> None:
        if on_progress is not None:
            on_progress(known + done, known + everything)

    began = time.perf_counter()
    writes = unfinished.going_on() if is_first_process() else nullcontext(lambda number, ids: None)
    with writes as add, products_in(chosen.name, device):

        def on_found(context: Sequence[int], ids: list[int]) -> None:
            found[tuple(context)] = ids
            add(first[tuple(context)], ids)

        beam_search(
            model.to(device),
            [context for context in first if context not in found],
            **asdict(search),
            stop_ids=tuple(ends),
            eos_token_id=None,
            batch_size=batch_size,
            memory=available(device) // 2,
            on_progress=progress,
            on_found=on_found,
        )
    seconds = time.perf_counter() - began
    results = {number: found[tuple(context)] for number, context in contexts.items()}
    if not all(results.values()):
        unfinished.remove()
        broken = list(results.values()).count([])
        raise UserError(
            f"its scores are not numbers (nan) after {counted(broken, 'input')}: the weights are broken",
            flag="--model_name_or_path",
        )
    write_predictions(target, list(results), list(results.values()), width)
    unfinished.remove()
    cut = sum(ids[-1] not in ends for ids in results.values())
    return Decoded(results, len(first), known, seconds, cut)


def ends_of(config: Any, stops: Sequence[int] | None = None, eos: int | None = None) -> list[int]:
    """The ids that end a text of a model with ``config``: ``stops``, by default the empty line of GPT-2's vocabulary,
    and ``eos``, by default the model's own."""
    if stops is None:
        plain = config.model_type == "gpt2" and config.vocab_size == _GPT2_VOCABULARY
        stops = [_GPT2_BREAK] if plain else []
    if eos is not None:
        return [*stops, eos]
    own = getattr(config, "eos_token_id", None)
    return [*stops, *([] if own is None else own if isinstance(own, list | tuple) else [own])]


def fingerprint(model: Any) -> str:
    """SHA-256 of a model's weights as they are in memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


# ---- of a recipe's run -----------------------------------------------------------------------------


def texts_of_run(
    model_folder: Path,
    contexts: Mapping[int, Sequence[int]],
    search: Search,
    *,
    batch_size: int | None = None,
    use_cpu: bool = False,
    say: Say,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, str]:
    """The text that the model of a run writes for each of ``contexts``, which are by number, by that number.

    They are kept in ``predictions.jsonl`` of ``model_folder``, and not made again for the same model, inputs and
    settings. Raises :class:`UserError`.
    """
    target = model_folder / PREDICTIONS
    options = ModelOptions(model_name_or_path=str(model_folder))
    tokenizer: Any = load_tokenizer(options, "clm")
    key = _key(model_folder, contexts, search)
    if is_made(target, {"of": key}):
        results = read_predictions(target, "--output_dir")
    else:
        with quiet_libraries():
            model: Any = load_model(options, "clm", tokenizer).model
        ends = ends_of(model.config, _stops(tokenizer), tokenizer.eos_token_id)
        with noted(target, {"of": key}):
            done = decode(
                model, contexts, search, target, ends=ends, key=key, batch_size=batch_size, use_cpu=use_cpu,
                flag="--test", say=say, on_progress=on_progress,
            )  # fmt: skip
        say("decoded", done.line)
        results = done.results
    return {number: text_of(tokenizer, row) for number, row in results.items()}


def _stops(tokenizer: Any) -> list[int]:
    """The id of an empty line, where the vocabulary has one (628 of GPT-2's)."""
    ids = tokenizer(_BREAK, add_special_tokens=False)["input_ids"]
    return list(ids) if len(ids) == 1 else []


def _key(model_folder: Path, contexts: Mapping[int, Sequence[int]], search: Search) -> str:
    weights = [sha256_file(path) for path in sorted(model_folder.glob("*.safetensors"))]
    return sha256_json([weights, [[number, list(row)] for number, row in contexts.items()], asdict(search)])
