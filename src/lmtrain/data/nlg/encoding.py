"""Records to token ids, as LoRA's gpt2_encode.py writes them: ``{"context": [ids], "completion": [ids]}``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import atomic_file
from lmtrain.data.nlg.records import Record, read_records
from lmtrain.data.tokenization import reference_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles

_BATCH = 4096  # records encoded at once


def encode_records(
    records: list[Record], tokenizer: TokenizerFiles, *, add_bos: bool = False, add_eos: bool = False
) -> Iterator[tuple[list[int], list[int]]]:
    """Ids of each record's context and completion, the latter with a space in front.

    ``add_bos`` puts the beginning-of-text token (without one, the end-of-text token) at the end of the context,
    ``add_eos`` the end-of-text token at the end of the completion; of GPT-2 both are ``<|endoftext|>``. Raises
    :class:`UserError` when the tokenizer has none.
    """
    bos = [_named(tokenizer, tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id)] if add_bos else []
    eos = [_named(tokenizer, tokenizer.eos_id)] if add_eos else []
    encoder = reference_encoder(tokenizer)
    waiting = iter(records)
    while batch := list(islice(waiting, _BATCH)):
        ids, at = encoder.encode([text for r in batch for text in (r.context, " " + r.completion)])
        for number in range(len(batch)):
            start, middle, end = at[2 * number : 2 * number + 3]
            if middle == end:
                raise UserError(
                    f"{tokenizer.name} makes no token of the text {batch[number].completion[:40]!r}: its vocabulary is "
                    "empty or another's",
                    flag="--tokenizer_name",
                )
            yield ids[start:middle].tolist() + bos, ids[middle:end].tolist() + eos


def _named(tokenizer: TokenizerFiles, number: int | None) -> int:
    if number is None:
        raise UserError(f"{tokenizer.name} names no end-of-text token (eos_token)", flag="--tokenizer_name")
    return number


def encode_file(
    source: str | Path, target: str | Path, tokenizer: TokenizerFiles, *, add_bos: bool = False, add_eos: bool = False
) -> tuple[int, int]:
    """Write the records of a file as ids: how many records and how many tokens there are."""
    records = read_records(source)
    tokens = 0
    with atomic_file(user_path(str(target))) as stream:
        for context, completion in encode_records(records, tokenizer, add_bos=add_bos, add_eos=add_eos):
            tokens += len(context) + len(completion)
            stream.write((json.dumps({"context": context, "completion": completion}) + "\n").encode("ascii"))
    return len(records), tokens
