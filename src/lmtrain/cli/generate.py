"""``lmtrain generate``: what a model writes, or what it would put in place of a mask."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from lmtrain.cli.output_file import writable
from lmtrain.cli.progress_bar import progress_bar
from lmtrain.cli.startup import heavy_imports
from lmtrain.config.flags import option_flags
from lmtrain.core.console import counted, for_reader, say
from lmtrain.core.errors import ExitCode, Problems, UserError
from lmtrain.core.files import atomic_file
from lmtrain.generate.prompt_files import read_prompts, read_stdin

if TYPE_CHECKING:
    from lmtrain.config.commands.generate import GenerateOptions

Record = dict[str, Any]
_OF_MASKED_TOO = frozenset(
    {"prompt", "prompts_file", "interactive", "seed", "top", "batch_size", "precision", "use_cpu", "json", "output"}
)


def run(options: GenerateOptions) -> int:
    """Complete the prompts, or fill their masks: the model's kind decides. Results go to standard output."""
    prompts = _prompts(options)
    output = writable(options.output) if options.output is not None else None
    with heavy_imports():
        from lmtrain.engine.speed.machine import best_device
        from lmtrain.engine.speed.precision import choose_precision, require_format
        from lmtrain.models import describe, load_model, load_tokenizer, max_positions, purpose_of
        from lmtrain.models.formats import products_in

    purpose = purpose_of(options)
    if purpose == "mlm":
        _fits_a_masked_model(options, prompts)
    elif options.top != type(options).top:
        raise UserError("is for masked models; this is a causal one, which gives several texts with "
                        "--num_return_sequences", flag="--top")  # fmt: skip
    tokenizer = load_tokenizer(options, "mlm" if purpose == "mlm" else None)
    loaded = load_model(options, purpose, tokenizer)
    say("model", "\n".join([describe(loaded.model), *loaded.lines]))
    device: Any = best_device(use_cpu=options.use_cpu)
    decision = choose_precision(options.precision, device)
    model, context = loaded.model.to(device), max_positions(loaded.model.config)
    require_format(model, decision)
    with products_in(decision.name, device):
        work = _fill if purpose == "mlm" else _complete
        records = work(model, tokenizer, prompts, context, options)
    if output is not None:
        from lmtrain.generate.results import json_line

        with atomic_file(output) as file:
            for record in records:
                file.write(json_line(record).encode())
        say("output", f"{counted(len(records), 'record')} · {output}")
    return ExitCode.OK


def _prompts(options: GenerateOptions) -> list[str]:
    """The prompts of the command line, then of ``--prompts_file``; ``-`` is all of standard input.

    One line break at the end of standard input is the terminal's and not part of the prompt.
    """
    prompts = [read_stdin().removesuffix("\n") if prompt == "-" else prompt for prompt in options.prompt]
    return prompts + (read_prompts(options.prompts_file) if options.prompts_file is not None else [])


def _fits_a_masked_model(options: GenerateOptions, prompts: list[str]) -> None:
    problems = Problems()
    if not prompts and not options.interactive:
        problems.add("this is a masked model: give a text with a mask to fill in, as prompt")
    for name in _of_causal_models(options):
        problems.add("is for causal models; this is a masked one, which fills masks", flag=name)
    problems.raise_if_any()


def _of_causal_models(options: GenerateOptions) -> Iterator[str]:
    """What was typed about the writing of text. A seed may stand: it says nothing about the result."""
    for name, flag in option_flags(type(options)).items():
        if flag.group == options.title and name not in _OF_MASKED_TOO and getattr(options, name) != flag.default:
            yield f"--{flag.about.off or name}"


def _complete(
    model: Any, tokenizer: Any, prompts: list[str], context: int | None, options: GenerateOptions
) -> list[Record]:
    from lmtrain.generate import complete
    from lmtrain.generate.chat import chat_ids
    from lmtrain.generate.interactive import session
    from lmtrain.generate.results import Printed, completion_record, json_line

    settings, seen, numbers = _settings(options), Counter[str](), count()
    to_complete = partial(complete, model, tokenizer, encode=chat_ids(tokenizer) if options.chat else None)
    several = options.num_return_sequences > 1

    def answer(prompt: str, asked: Callable[[], bool]) -> None:
        number = next(numbers)
        stream = None if options.json else Printed(headings=several, samples=options.num_return_sequences)
        found = to_complete([prompt], settings, context, seen=seen, stream=stream, asked=asked)
        for completion in found if options.json else ():
            print(json_line({**completion_record(completion, tokenizer), "index": number}), end="", flush=True)

    if options.interactive:
        session(answer)
        return []
    prompts = prompts or [""]
    printed = Printed(headings=several or len(prompts) > 1, samples=options.num_return_sequences)
    if options.stream:
        completions = to_complete(prompts, settings, context, stream=printed)
        return [completion_record(completion, tokenizer) for completion in completions]
    with progress_bar("generate") as on_progress:
        completions = to_complete(prompts, settings, context, on_progress=on_progress)
    records = [completion_record(completion, tokenizer) for completion in completions]
    if options.json:
        for record in records:
            print(json_line(record), end="")
    elif options.output is None:
        for completion in completions:
            printed.whole(completion)
    return records


def _settings(options: GenerateOptions) -> Any:
    from lmtrain.generate import Settings

    named = {field.name: getattr(options, field.name) for field in fields(Settings) if field.name != "stop"}
    stop = tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in options.stop)
    return Settings(**named, stop=stop)


def _fill(model: Any, tokenizer: Any, texts: list[str], context: int | None, options: GenerateOptions) -> list[Record]:
    from lmtrain.generate import fill_mask
    from lmtrain.generate.interactive import session
    from lmtrain.generate.results import filled_page, filled_record, json_line

    def show(texts: list[str]) -> list[Record]:
        results = fill_mask(model, tokenizer, texts, options.top, batch_size=options.batch_size, context=context)
        records = [filled_record(result) for result in results]
        for result, record in zip(results, records, strict=True):
            if options.json:
                print(json_line(record), end="", flush=True)
            elif options.output is None:
                print(for_reader(filled_page(result), sys.stdout), flush=True)
        return records

    if options.interactive:
        session(lambda text, _: show([text]))
        return []
    return show(texts)
