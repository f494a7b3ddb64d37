"""A text for each distinct input of a test set, by beam search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmtrain.config.options import ModelOptions
from lmtrain.core.console import Say, counted, duration
from lmtrain.core.errors import UserError
from lmtrain.core.files import read_json, sha256_file, sha256_json, write_json
from lmtrain.engine.machine import best_device
from lmtrain.engine.memory import available
from lmtrain.generate import beam_search
from lmtrain.generate.token_files import read_contexts, write_predictions
from lmtrain.models import load_model, load_tokenizer, max_positions
from lmtrain.models.quiet import quiet_libraries

_BREAK = "\n\n"  # nothing that is read goes on behind an empty line
PREDICTIONS = "predictions.jsonl"


@dataclass(frozen=True, slots=True)
class Search:
    """Settings of the search; see :func:`lmtrain.generate.beam_search`."""

    num_beams: int
    length_penalty: float
    no_repeat_ngram_size: int
    max_new_tokens: int


def decode(
    model_folder: Path,
    ids: Path,
    numbers: Sequence[int],
    search: Search,
    *,
    batch_size: int | None = None,
    use_cpu: bool = False,
    say: Say,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, str]:
    """The text that the model writes for each of the lines ``numbers`` of ``ids``, by that number.

    They are kept in ``predictions.jsonl`` of ``model_folder``, and not made again for the same model, inputs and
    settings. Raises :class:`UserError`.
    """
    target, record = model_folder / PREDICTIONS, model_folder / "decoding.json"
    options = ModelOptions(model_name_or_path=str(model_folder))
    tokenizer: Any = load_tokenizer(options, "clm")
    key = _key(model_folder, ids, numbers, search)
    if record.is_file() and target.is_file() and read_json(record).get("made_of") == key:
        results = {row["id"]: row["predict"] for row in _rows(target)}
    else:
        contexts = read_contexts(ids, "--test")
        with quiet_libraries():
            loaded = load_model(options, "clm", tokenizer)
        device = best_device(use_cpu=use_cpu)
        _require_room([contexts[number] for number in numbers], loaded.model, search)
        began = time.perf_counter()
        # fp32 whatever the training's precision: results are those of any batch size
        found = beam_search(
            loaded.model.to(device),  # type: ignore[arg-type]
            [contexts[number] for number in numbers],
            **asdict(search),
            stop_ids=_stops(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            batch_size=batch_size,
            memory=available(device) // 2,
            on_progress=on_progress,
        )
        seconds = time.perf_counter() - began
        write_predictions(target, numbers, found)
        write_json(record, {"made_of": key, "settings": asdict(search), "inputs": len(numbers), "seconds": seconds})
        say("decoded", f"{counted(len(numbers), 'input')} in {duration(seconds)}")
        results = dict(zip(numbers, found, strict=True))
    return {number: tokenizer.decode(row, clean_up_tokenization_spaces=False) for number, row in results.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _stops(tokenizer: Any) -> list[int]:
    """The id of an empty line, where the vocabulary has one (628 of GPT-2's)."""
    ids = tokenizer(_BREAK, add_special_tokens=False)["input_ids"]
    return list(ids) if len(ids) == 1 else []


def _require_room(contexts: Sequence[Sequence[int]], model: Any, search: Search) -> None:
    positions = max_positions(model.config)
    longest = max(map(len, contexts), default=0)
    if positions is not None and longest + search.max_new_tokens > positions:
        raise UserError(
            f"the longest input has {longest} tokens, and with {search.max_new_tokens} new ones it is longer than the "
            f"model's {positions} positions; use at most --max_new_tokens {max(1, positions - longest)}",
            flag="--max_new_tokens",
        )


def _key(model_folder: Path, ids: Path, numbers: Sequence[int], search: Search) -> str:
    weights = sorted(model_folder.glob("*.safetensors"))
    return sha256_json(
        [[sha256_file(path) for path in weights], sha256_file(ids), list(map(int, numbers)), asdict(search)]
    )
