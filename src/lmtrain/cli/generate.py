"""``lmtrain generate``: what a model writes, or what it would put in place of a mask."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.console import say
from lmtrain.core.errors import UserError
from lmtrain.core.startup import heavy_imports

if TYPE_CHECKING:
    from lmtrain.config.options import GenerateOptions
    from lmtrain.generate import Completion, FilledText


def run(options: GenerateOptions) -> int:
    """Complete the prompts, or fill their masks: the model's kind decides. Results go to standard output."""
    with heavy_imports():
        import torch

        from lmtrain.engine.precision import choose_precision
        from lmtrain.models import describe, load_model, load_tokenizer, max_positions, purpose_of

    prompts = _prompts(options)
    purpose = purpose_of(options)
    if purpose == "mlm" and not prompts:
        raise UserError("this is a masked model: give a text with a mask to fill in, as prompt")
    tokenizer = load_tokenizer(options, "mlm" if purpose == "mlm" else None)
    loaded = load_model(options, purpose, tokenizer)
    say("model", "\n".join([describe(loaded.model), *loaded.lines]))
    device = _device(options.use_cpu)
    decision = choose_precision(options.precision, device)
    model, context = loaded.model.to(device), max_positions(loaded.model.config)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(decision.name)
    with torch.autocast(device.type, dtype=low or torch.bfloat16, enabled=low is not None):
        if purpose == "mlm":
            _fill(model, tokenizer, prompts, context, options)
        else:
            _complete(model, tokenizer, prompts, context, options)
    return 0


def _device(use_cpu: bool) -> Any:
    import torch

    if not use_cpu and torch.cuda.is_available():
        return torch.device("cuda")
    if not use_cpu and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def _prompts(options: GenerateOptions) -> list[str]:
    """The prompts of the command line, then of ``--prompts_file``; ``-`` is all of standard input.

    One line break at the end of standard input is the terminal's and not part of the prompt. Blank lines of
    a file are passed over.
    """
    prompts = [sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt for prompt in options.prompt]
    if options.prompts_file is None:
        return prompts
    path = Path(options.prompts_file)
    try:
        text = sys.stdin.read() if options.prompts_file == "-" else path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}", flag="--prompts_file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (at byte {error.start})", flag="--prompts_file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} holds no prompt: every line is blank", flag="--prompts_file")
    return prompts + lines


def _complete(model: Any, tokenizer: Any, prompts: list[str], context: int | None, options: GenerateOptions) -> None:
    from lmtrain.generate import Settings, complete

    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        do_sample=options.do_sample,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        num_return_sequences=options.num_return_sequences,
        num_beams=options.num_beams,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    completions = complete(model, tokenizer, prompts or [""], settings, context)
    for completion in completions:
        if options.json:
            print(json.dumps(_completion_record(completion), ensure_ascii=False))
        else:
            if len(completions) > 1:
                print(_heading(completion, options.num_return_sequences))
            print(completion.prompt + completion.text)
            if len(completions) > 1:
                print()


def _heading(completion: Completion, samples: int) -> str:
    number = f"prompt {completion.index + 1}"
    if samples > 1:
        number += f", completion {completion.sample + 1}"
    return f"── {number} " + "─" * max(0, 60 - len(number))


def _completion_record(completion: Completion) -> dict[str, Any]:
    return {
        "index": completion.index,
        "sample": completion.sample,
        "prompt": completion.prompt,
        "completion": completion.text,
        "tokens": completion.n_tokens,
        "finished": completion.finished,
    }


def _fill(model: Any, tokenizer: Any, texts: list[str], context: int | None, options: GenerateOptions) -> None:
    from lmtrain.generate import fill_mask

    for result in fill_mask(model, tokenizer, texts, options.top, batch_size=options.batch_size, context=context):
        if options.json:
            print(json.dumps(_filled_record(result), ensure_ascii=False))
        else:
            print(_filled_page(result))


def _filled_page(result: FilledText) -> str:
    """The text, then for each mask its candidates with their probabilities."""
    lines = [result.text]
    for number, candidates in enumerate(result.masks, start=1):
        if len(result.masks) > 1:
            lines.append(f"  mask {number}")
        lines += [f"    {filling.probability:7.2%}  {filling.token}" for filling in candidates]
    return "\n".join(lines) + "\n"


def _filled_record(result: FilledText) -> dict[str, Any]:
    return {
        "text": result.text,
        "filled": result.filled,
        "masks": [
            [{"token": f.token, "id": f.id, "probability": f.probability} for f in candidates]
            for candidates in result.masks
        ],
    }
