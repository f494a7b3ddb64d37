"""``lmtrain nlg decode``: token ids in, what the model writes after them out, by beam search."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lmtrain.cli.output_file import writable
from lmtrain.cli.progress_bar import progress_bar
from lmtrain.cli.startup import heavy_imports
from lmtrain.config.values import check_not_the_input, user_path
from lmtrain.core.console import amount, counted, duration, is_first_process, say
from lmtrain.core.errors import ExitCode, Problems, UserError
from lmtrain.core.stopping import Stop
from lmtrain.recipes.data_to_text.token_files import read_contexts

if TYPE_CHECKING:
    from lmtrain.config.commands.nlg_decode import NlgDecodeOptions


def run(options: NlgDecodeOptions) -> int:
    """Read all, decode all, then write the results under their name; one that is stopped goes on with what it has."""
    problems = Problems()
    with problems.collect():
        stops = _stop_ids(options.stop_token_ids)
    with problems.collect():
        output = _output(options.output, options.overwrite_output)
    with problems.collect():
        contexts = read_contexts(_input(options.input), "--input")
    if options.input and options.output:
        check_not_the_input(options.input, options.output, problems)
    if not options.model_name_or_path:
        problems.add("name the model: a run's folder, a checkpoint, or a name on the hub", flag="--model_name_or_path")
    problems.raise_if_any()
    with Stop().listening():
        with heavy_imports():
            from lmtrain.models import describe, load_model, max_positions
            from lmtrain.recipes.data_to_text.decoding import Search, decode, ends_of
            from lmtrain.recipes.data_to_text.inputs import fitting

        loaded = load_model(options, "clm", None)
        say("model", "\n".join([describe(loaded.model), *loaded.lines]))
        config = loaded.model.config.get_text_config()
        kept = fitting(
            dict(enumerate(contexts)), max_positions(config), options.max_new_tokens,
            longest=options.max_context_length, on_long=options.on_long, say=say,
        )  # fmt: skip
        distinct = len({tuple(context) for context in kept.values()})
        say("input", f"{counted(len(kept), 'input')}, {distinct:,} of them distinct")
        search = Search(
            options.num_beams,
            options.length_penalty,
            options.no_repeat_ngram_size,
            options.max_new_tokens,
            options.repetition_penalty,
        )
        with progress_bar("decode") as on_progress:
            done = decode(
                loaded.model, kept, search, output, ends=ends_of(config, stops, options.eos_token_id),
                width=options.max_new_tokens if options.pad_predictions else 0, precision=options.precision,
                batch_size=options.batch_size, use_cpu=options.use_cpu, say=say, on_progress=on_progress or _tenths(),
            )  # fmt: skip
    say("decoded", done.line)
    figures = {
        "inputs": len(kept),
        "distinct": done.distinct,
        "done_before": done.known,
        "skipped": len(contexts) - len(kept),
        "truncated": sum(len(context) < len(contexts[number]) for number, context in kept.items()),
        "unfinished": done.unfinished,
        "seconds": round(done.seconds, 3),
    }
    if is_first_process():
        print(json.dumps({**figures, "output": str(output)}) if options.json else output)
    return ExitCode.OK


def _input(name: str | None) -> Path:
    if not name:
        raise UserError('name the inputs: JSONL of token ids, {"context": [...]} a line', flag="--input")
    return user_path(name)


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


def _output(name: str | None, overwrite: bool) -> Path:
    flag = "--output"
    if not name:
        raise UserError("name the file for the results, such as --output predictions.jsonl", flag=flag)
    path = user_path(name)
    if path.is_file() and not overwrite:
        raise UserError(
            f"{path} is there already; name another file, or add --overwrite_output to replace it", flag=flag
        )
    return writable(name, flag)


def _tenths() -> Callable[[int, int], None]:
    """A line at each tenth, for a file."""
    start, said = time.perf_counter(), 0

    def on_progress(done: int, total: int) -> None:
        nonlocal said
        if done * 10 // total > said and done < total:
            said = done * 10 // total
            left = (time.perf_counter() - start) * (total - done) / done
            say("decode", f"{amount(done)} of {amount(total)}, {duration(left)} left")

    return on_progress
