"""``lmtrain nlg decode``: token ids in, what the model writes after them out, by beam search."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.console import amount, counted, duration, is_first_process, say
from lmtrain.core.errors import ExitCode, Problems, UserError
from lmtrain.core.files import atomic_file
from lmtrain.core.startup import heavy_imports
from lmtrain.generate.token_files import read_contexts, write_predictions

if TYPE_CHECKING:
    from lmtrain.config.nlg_decode import NlgDecodeOptions

_GPT2_VOCABULARY, _GPT2_DOUBLE_NEWLINE = 50257, 628


def run(options: NlgDecodeOptions) -> int:
    """Read all, decode all, then write the results under their name: whole or not at all."""
    problems = Problems()
    with problems.collect():
        stops = _stop_ids(options.stop_token_ids)
    with problems.collect():
        output = _output(options.output)
    with problems.collect():
        contexts = read_contexts(_input(options.input), "--input")
    if not options.model_name_or_path:
        problems.add("name the model: a run's folder, a checkpoint, or a name on the hub", flag="--model_name_or_path")
    problems.raise_if_any()
    with heavy_imports():
        from lmtrain.engine.memory import available
        from lmtrain.generate import beam_search
        from lmtrain.models import describe, load_model
        from lmtrain.models.quiet import quiet_for_commands

    quiet_for_commands()
    loaded = load_model(options, "clm", None)
    say("model", "\n".join([describe(loaded.model), *loaded.lines]))
    config = loaded.model.config.get_text_config()
    if stops is None:
        plain = config.model_type == "gpt2" and config.vocab_size == _GPT2_VOCABULARY
        stops = [_GPT2_DOUBLE_NEWLINE] if plain else []
    ends = _ends(options.eos_token_id, config)
    kept = _fitting(contexts, config, options)
    _check_ids(kept, loaded.model)
    distinct = len({tuple(context) for context in kept.values()})
    say("input", f"{counted(len(kept), 'input')}, {distinct:,} of them distinct")
    with _products_in(options) as device, _progress() as on_progress:
        model = loaded.model.to(device)
        start = time.perf_counter()
        results = beam_search(
            model,
            list(kept.values()),
            num_beams=options.num_beams,
            length_penalty=options.length_penalty,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            max_new_tokens=options.max_new_tokens,
            stop_ids=[*stops, *ends],
            eos_token_id=None,
            repetition_penalty=options.repetition_penalty,
            batch_size=options.batch_size,
            memory=available(device) // 2,
            on_progress=on_progress,
        )
        seconds = time.perf_counter() - start
    if not all(results):
        raise UserError(
            f"its scores are not numbers (nan) after {counted(results.count([]), 'input')}: the weights are broken",
            flag="--model_name_or_path",
        )
    write_predictions(output, list(kept), results, options.max_new_tokens if options.pad_predictions else 0)
    done = {
        "inputs": len(kept),
        "distinct": distinct,
        "skipped": len(contexts) - len(kept),
        "truncated": sum(len(context) < len(contexts[number]) for number, context in kept.items()),
        "unfinished": sum(not {*result[-1:]} & {*stops, *ends} for result in results),
        "seconds": round(seconds, 3),
    }
    rate = f"{distinct / seconds:.3g} distinct inputs a second" if distinct else "nothing to decode"
    unfinished = f"; {done['unfinished']:,} reached --max_new_tokens" if done["unfinished"] else ""
    say("decoded", f"{counted(len(kept), 'input')} in {duration(seconds)}, {rate}{unfinished}")
    if is_first_process():
        print(json.dumps({**done, "output": str(output)}) if options.json else output)
    return ExitCode.OK


def _input(name: str | None) -> Path:
    if not name:
        raise UserError('name the inputs: JSONL of token ids, {"context": [...]} a line', flag="--input")
    return Path(name).expanduser()


def _stop_ids(words: list[str]) -> list[int] | None:
    """None: not given."""
    if not words:
        return None
    if words == ["none"]:
        return []
    wrong = [word for word in words if not word.isdecimal()]
    if wrong:
        raise UserError(f"{wrong[0]!r} is not a token id, a whole number from 0", flag="--stop_token_ids")
    return [int(word) for word in words]


def _ends(given: int | None, config: Any) -> list[int]:
    if given is not None:
        return [given]
    own = getattr(config, "eos_token_id", None)
    return [] if own is None else [int(token) for token in own] if isinstance(own, list | tuple) else [int(own)]


def _output(name: str | None) -> Path:
    flag = "--output"
    if not name:
        raise UserError("name the file for the results, such as --output predictions.jsonl", flag=flag)
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file", flag=flag)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path.with_name(path.name + ".trial")):  # now, not after an hour of decoding
            pass
        path.with_name(path.name + ".trial").unlink()
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}", flag=flag) from error
    return path


def _fitting(contexts: Sequence[list[int]], config: Any, options: NlgDecodeOptions) -> dict[int, list[int]]:
    """The inputs by their number, each of a length that the model has positions for."""
    from lmtrain.models import max_positions

    positions, longest = max_positions(config), options.max_context_length
    if positions is not None:
        room = positions - options.max_new_tokens
        if room < 1:
            raise UserError(
                f"{options.max_new_tokens} leave no room for an input in the model's {positions} positions",
                flag="--max_new_tokens",
            )
        longest = room if longest is None else min(longest, room)
    long = [] if longest is None else [n for n, context in enumerate(contexts) if len(context) > longest]
    if not long:
        return dict(enumerate(contexts))
    most = max(len(contexts[number]) for number in long)
    seen = (
        f"{counted(len(long), 'input')} of {len(contexts):,} longer than the {longest} tokens that there is room for "
        f"(the longest has {most}; the first is number {long[0]}, counted from 0)"
    )
    if options.on_long == "error":
        raise UserError(f"{seen}; --on_long truncate keeps their ends, --on_long skip leaves them out", flag="--input")
    if options.on_long == "skip":
        say("input", f"{seen}: left out")
        return {number: context for number, context in enumerate(contexts) if number not in set(long)}
    say("input", f"{seen}: only their ends are read")
    return {number: context[-(longest or 0) :] for number, context in enumerate(contexts)}


def _check_ids(contexts: dict[int, list[int]], model: Any) -> None:
    known = int(model.get_input_embeddings().weight.shape[0])
    wrong = {number: max(row, key=lambda i: i if i >= 0 else known - i) for number, row in contexts.items()}
    wrong = {number: token for number, token in wrong.items() if not 0 <= token < known}
    if wrong:
        number, token = next(iter(wrong.items()))
        raise UserError(
            f"{counted(len(wrong), 'input')} with ids that the model has no place for, as the id {token} in number "
            f"{number} (counted from 0), of {known:,} tokens: the file was encoded for another vocabulary",
            flag="--input",
        )


@contextmanager
def _products_in(options: NlgDecodeOptions) -> Iterator[Any]:
    """The device, with its products in the precision that was chosen."""
    import torch

    from lmtrain.engine.machine import best_device
    from lmtrain.engine.precision import choose_precision

    device = best_device(use_cpu=options.use_cpu)
    decision = choose_precision(options.precision, device)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(decision.name)
    with torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None):
        yield device


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar in a terminal; in a file a line at each tenth."""
    if not sys.stderr.isatty():
        yield _tenths()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  decode"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        task = bar.add_task("decode", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _tenths() -> Callable[[int, int], None]:
    start, said = time.perf_counter(), 0

    def on_progress(done: int, total: int) -> None:
        nonlocal said
        if done * 10 // total > said and done < total:
            said = done * 10 // total
            left = (time.perf_counter() - start) * (total - done) / done
            say("decode", f"{amount(done)} of {amount(total)}, {duration(left)} left")

    return on_progress
