"""What was generated, as lines for people and as records for programs."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING, Any

from lmtrain.core.console import for_reader

if TYPE_CHECKING:
    from lmtrain.generate.completion import Completion
    from lmtrain.generate.fill import FilledText

_WIDTH = 60


class Printed:
    """Completions as they are written, each behind its prompt: a :class:`lmtrain.generate.streaming.Stream`.

    With ``headings`` each says which it is, and an empty line follows.
    """

    def __init__(self, *, headings: bool, samples: int = 1, file: IO[str] | None = None) -> None:
        self._headings, self._samples = headings, samples
        self._file = sys.stdout if file is None else file

    def begin(self, index: int, sample: int, prompt: str) -> None:
        if self._headings:
            print(heading(index, sample, self._samples), file=self._file)
        self.write(prompt)

    def write(self, text: str) -> None:
        print(for_reader(text, self._file), end="", file=self._file, flush=True)

    def end(self, completion: Completion) -> None:
        print("\n" if self._headings else "", file=self._file, flush=True)

    def whole(self, completion: Completion) -> None:
        """One that was not streamed."""
        self.begin(completion.index, completion.sample, completion.prompt)
        self.write(completion.text)
        self.end(completion)


def heading(index: int, sample: int, samples: int) -> str:
    number = f"prompt {index + 1}"
    if samples > 1:
        number += f", completion {sample + 1}"
    return f"── {number} " + "─" * max(0, _WIDTH - len(number))


def completion_record(completion: Completion, tokenizer: Any) -> dict[str, Any]:
    """A completion for JSON; its tokens' log-probabilities (nats) stand under ``logprobs`` where they were asked for.

    ``stop`` is the stop string that ended it; ``tokens`` counts those generated, also those that are no part of the
    text: the end of text, a stop string.
    """
    record: dict[str, Any] = {
        "index": completion.index,
        "sample": completion.sample,
        "prompt": completion.prompt,
        "completion": completion.text,
        "tokens": completion.n_tokens,
        "finished": completion.finished,
        "stop": completion.stop,
    }
    if completion.logprobs is not None:
        record["logprobs"] = [
            {
                **_token(tokenizer, token.id, token.logprob),
                "top": [_token(tokenizer, other, logprob) for other, logprob in token.top],
            }
            for token in completion.logprobs
        ]
    return record


def _token(tokenizer: Any, token: int, logprob: float) -> dict[str, Any]:
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    return {"token": text, "id": token, "logprob": logprob}


def filled_page(result: FilledText) -> str:
    """The text, then for each mask its candidates with their probabilities."""
    lines = [result.text]
    for number, candidates in enumerate(result.masks, start=1):
        if len(result.masks) > 1:
            lines.append(f"  mask {number}")
        lines += [f"    {filling.probability:7.2%}  {filling.token}" for filling in candidates]
    return "\n".join(lines) + "\n"


def filled_record(result: FilledText) -> dict[str, Any]:
    """Fillings for JSON."""
    return {
        "text": result.text,
        "filled": result.filled,
        "masks": [
            [{"token": f.token, "id": f.id, "probability": f.probability} for f in candidates]
            for candidates in result.masks
        ],
    }


def json_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
