"""``lmtrain prepare --shard I/N``: one part of the stores that the command would make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.config.commands.prepare import PrepareOptions
from lmtrain.config.shard import shard_of
from lmtrain.core.console import counted, say
from lmtrain.core.errors import ExitCode

if TYPE_CHECKING:
    from lmtrain.core.types import Source
    from lmtrain.data.tokenizer_files import TokenizerFiles


def make(
    options: PrepareOptions, tokenizer: TokenizerFiles, sources: dict[str, list[Source]], folder: Path | None
) -> int:
    """Make the part of each store, and print what is in it."""
    from lmtrain.data.cache import cache_folder
    from lmtrain.data.corpus import requests_of
    from lmtrain.data.preparing.shards import make_shard

    number, count = shard_of(options.shard or "")
    requests, _ = requests_of(options, tokenizer, sources, ("train", "validation"))
    cache = cache_folder(options.data_cache_dir)
    stores: dict[str, dict[str, Any]] = {}
    for name, request in requests.items():
        place = folder / name if folder and len(requests) > 1 else folder
        shard, was_there = make_shard(
            request, cache, number, count, folder=place, overwrite=options.overwrite_cache, say=say
        )
        record = shard.record
        stores[name] = {"folder": str(shard.folder), "cached": was_there, "documents": record.account.tally.documents,
                        "tokens": record.tokens}  # fmt: skip
        if was_there:
            say("shard", f"{name}: {number} of {count}, made before · {shard.folder}")
    if options.json:
        print(json.dumps({"shard": [number, count], "stores": stores}, ensure_ascii=False))
        return ExitCode.OK
    for name, made in stores.items():
        documents = counted(made["documents"], "document")
        print(f"shard {number} of {count} of {name}: {documents}, {made['tokens']:,} tokens")
    return ExitCode.OK
