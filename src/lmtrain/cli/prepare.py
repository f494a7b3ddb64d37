"""``lmtrain prepare``: tokenize text into a store that later runs read; show and free the stores there
are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from lmtrain.cli.startup import light_imports
from lmtrain.config.commands.prepare import PrepareOptions
from lmtrain.config.values import user_path
from lmtrain.core.addresses import is_address, shown
from lmtrain.core.allocator import keep_freed_memory
from lmtrain.core.children import cores
from lmtrain.core.console import amount, counted, say
from lmtrain.core.errors import ExitCode, Problems, UserError

if TYPE_CHECKING:
    from lmtrain.core.types import Source
    from lmtrain.data.corpus import Corpus
    from lmtrain.data.tokenizer_files import TokenizerFiles

_MUCH = 256 << 20  # bytes of text on disk that several processes are begun for
_MOST = 16  # of them, where nobody asks for more: each holds 0.1 to 0.2 GB
_MANY_TOKENS = 20_000_000  # of training: about two seconds on one core to look for validation in
_BLOCK = 1024  # tokens, where the model says nothing shorter
_POSITIONS = ("n_positions", "max_position_embeddings", "n_ctx")


def run(options: PrepareOptions) -> int:
    """Prepare as asked and print the ledger; or list, or clean."""
    if options.list or options.clean:
        return _clean(options) if options.clean else _list(options)
    problems = Problems()
    with problems.collect(), light_imports():
        tokenizer = _tokenizer(options)  # first: its fast engine loads while the files are looked at
    far = options.output_dir if is_address(options.output_dir or "") else None
    with problems.collect():
        with light_imports():
            from lmtrain.data.corpus import prepare_corpus
            from lmtrain.data.named_text import sources_of, wanted_sources
        sources = sources_of(options, cache_dir=options.cache_dir, token=options.token)
        _refuse_stores(sources, options)
        names = list(wanted_sources(options, sources, ("train", "validation"))[0])
        for target in _targets(far, names).values() if far else []:
            from lmtrain.data.remote.upload import require_writable

            require_writable(target, options.token)
    problems.raise_if_any()
    options = replace(options, preprocessing_num_workers=_workers(options, sources))
    if options.preprocessing_num_workers:
        keep_freed_memory()
    folder = user_path(options.output_dir) if options.output_dir and not far else None
    if options.shard:
        from lmtrain.cli.prepare_shard import make

        return make(options, tokenizer, sources, folder)
    prepared = partial(
        prepare_corpus,
        options,
        tokenizer,
        options.objective,
        block_size=_length(options),
        sources=sources,
        store_folder=folder,
        say=say,
    )
    corpus = _compared(prepared)
    if far:
        _upload(corpus, far, options)
    shared = None
    far_away = any(made.store.is_remote for made in corpus.stores.values())  # comparing would fetch all of it
    if {"train", "validation"} <= corpus.documents.keys() and not far_away:
        from lmtrain.data.overlap import overlap

        train = corpus.documents["train"]
        tokens = sum(int(store.lengths[numbers].sum(dtype="int64")) for store, numbers in train)
        if tokens >= _MANY_TOKENS:
            say("overlap", f"looking in {amount(tokens)} tokens of training for text of validation")
        shared = overlap(train, corpus.documents["validation"])
        if shared:
            say("attention", str(shared))
    if options.json:
        stores = {
            name: {
                "folder": str(made.store.folder),
                "key": made.store.manifest["key"],
                "cached": made.was_cached,
            }
            for name, made in corpus.stores.items()
        }
        account = {**corpus.ledger.as_json(), "stores": stores, "overlap": None if shared is None else shared.as_dict()}
        print(json.dumps(account, ensure_ascii=False))
    else:
        print("\n".join(corpus.ledger.lines()))
    return ExitCode.OK


def _workers(options: PrepareOptions, sources: Mapping[str, Sequence[Source]]) -> int | None:
    """As many as asked for; else one a core where there is much text."""
    asked = options.preprocessing_num_workers
    if asked or options.engine != "local" or options.merge:
        return asked
    from lmtrain.config.shard import shard_of
    from lmtrain.data.sources.segments import size_of

    size = sum(size_of(source) for found in sources.values() for source in found)
    share = shard_of(options.shard)[1] if options.shard else 1
    return min(cores(), _MOST) if size >= _MUCH * share else None


def _compared(prepared: Callable[[], Corpus]) -> Corpus:
    """What ``prepared`` finds or makes, with every byte compared."""
    from lmtrain.data.store import DamagedStoreError

    left = None
    while True:
        corpus = prepared()
        left = len(corpus.stores) if left is None else left
        try:
            for made in corpus.stores.values():
                made.store.finish_watching()
        except DamagedStoreError:
            if not left:
                raise
            left -= 1  # it is written down now, so the store is made again, or refused with what to type
        else:
            return corpus


def _upload(corpus: Corpus, address: str, options: PrepareOptions) -> None:
    """Each store to the address, in a folder of its own where there are several."""
    from lmtrain.data.remote.upload import upload_store

    targets = _targets(address, list(corpus.stores))
    for name, made in corpus.stores.items():
        overwrite = options.overwrite_cache
        upload_store(made.store.folder, targets[name], token=options.token, overwrite=overwrite, say=say)


def _targets(address: str, names: Sequence[str]) -> dict[str, str]:
    """Where each store goes."""
    return {name: f"{address.rstrip('/')}/{name}" if len(names) > 1 else address for name in names}


def _refuse_stores(sources: Mapping[str, Sequence[Source]], options: PrepareOptions) -> None:
    """A store that is named as text is taken as it is: nothing would be made at --output_dir."""
    from lmtrain.data.sources.stores import StoreSource

    store = next((each for found in sources.values() for each in found if isinstance(each, StoreSource)), None)
    if store and options.output_dir:
        raise UserError(
            f"{store.name} is a token store already, and nothing is to be made of it at "
            f"{shown(options.output_dir)}; copy it there, or name the text that it was made of",
            flag=store.flag,
        )


def _tokenizer(options: PrepareOptions) -> TokenizerFiles:
    """From local files without transformers; a hub name or a Python-only tokenizer through transformers."""
    from lmtrain.data.tokenizer_files import TokenizerFiles

    name = options.tokenizer_name or options.model_name_or_path
    if not name:
        raise UserError(
            "text becomes tokens by a tokenizer; name one (a folder, a tokenizer.json or a hub name)",
            flag="--tokenizer_name",
        )
    if path := TokenizerFiles.path_of(options):
        return TokenizerFiles.load(path, start=True)
    from lmtrain.models.loading.tokenizer import load_tokenizer

    return TokenizerFiles.from_transformers(load_tokenizer(options))


def _length(options: PrepareOptions) -> int:
    """Tokens of an example, for the ledger: as asked, else the smaller of 1,024 and the model's positions."""
    asked = options.max_seq_length if options.objective == "mlm" else options.block_size
    if asked:
        return asked
    config = user_path(options.model_name_or_path or options.tokenizer_name or "") / "config.json"
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
        positions = [v for k in _POSITIONS if isinstance(v := values.get(k), int)]
    except (OSError, ValueError, AttributeError):
        positions = []
    return min([_BLOCK, *positions])


def _list(options: PrepareOptions) -> int:
    from lmtrain.data.cache import cache_folder, list_stores

    cache = cache_folder(options.data_cache_dir)
    stores = list_stores(cache)
    if options.json:
        print(json.dumps([{"folder": str(i.folder), "bytes": i.bytes, "manifest": i.manifest} for i in stores]))
        return ExitCode.OK
    for info in stores:
        print(info.line())
    print(f"{counted(len(stores), 'store')}, {amount(sum(i.bytes for i in stores), 'B')}, in {cache}")
    return ExitCode.OK


def _clean(options: PrepareOptions) -> int:
    from lmtrain.data.cache import cache_folder, clean

    cache = cache_folder(options.data_cache_dir)
    freed, busy = clean(cache)
    if options.json:
        print(json.dumps({"freed": [str(i.folder) for i in freed], "bytes": sum(i.bytes for i in freed),
                          "in_use": [str(i.folder) for i in busy]}))  # fmt: skip
        return ExitCode.OK
    print(f"freed {amount(sum(i.bytes for i in freed), 'B')} in {cache}: {counted(len(freed), 'store')}")
    for info in busy:
        print(f"left {info.folder.name}: it is being made, or cannot be deleted")
    return ExitCode.OK
