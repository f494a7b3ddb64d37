"""From options to examples: the data of a command, all splits of it, with one account.

files = TokenizerFiles.load("gpt2/")                    # or .from_transformers(tokenizer)
corpus = prepare_corpus(options, files, "clm", block_size=1024)
corpus.splits["train"].__getitems__([0, 7])             # one batch
print("\\n".join(corpus.ledger.lines()))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmtrain.config.mix import Mix
from lmtrain.config.options import DataOptions
from lmtrain.core.console import Say, silent
from lmtrain.core.errors import UserError
from lmtrain.core.streams import stream
from lmtrain.core.types import Source
from lmtrain.data.cache import cache_folder
from lmtrain.data.chunking import costs
from lmtrain.data.fast_engine import limit_threads
from lmtrain.data.layouts import Blocks, Joined, Lines, Mixed, Pairs, Windows
from lmtrain.data.ledger import Chunking, Ledger
from lmtrain.data.named_text import reading_of, sources_of, split_of, wanted_sources
from lmtrain.data.preparing import Making, Prepared, Request, prepare
from lmtrain.data.ready import ready_store
from lmtrain.data.sources.text import passed_over_by
from lmtrain.data.splits import split_documents
from lmtrain.data.store import TokenStore
from lmtrain.data.tokenizer_files import TokenizerFiles

Objective = Literal["clm", "mlm"]
AnyLayout = Blocks | Lines | Windows | Pairs | Joined
_SCRIPT_BATCH = 1000  # rows that run_clm and run_mlm group at a time
StoresMade = dict[Path, tuple[Prepared, list[tuple[str, str]]]]  # by folder, with what was to be said of it


@dataclass
class Corpus:
    """Layouts by split (``train``, ``validation``, ``test``), the account, the stores they look into."""

    splits: dict[str, AnyLayout]
    ledger: Ledger
    stores: dict[str, Prepared]
    lines: list[str] = field(default_factory=list)
    # by split: which documents of which store
    documents: dict[str, list[tuple[TokenStore, np.ndarray]]] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """From which text and tokenizer, for a run's folder."""
        train = self.splits.get("train")
        mix = {"mix": {"shares": train.shares, "seed": train.seed}} if isinstance(train, Mixed) else {}
        return {
            **mix,
            "stores": {
                name: {k: p.store.manifest[k] for k in ("key", "sources", "tokenizer", "reading", "cut", "versions")}
                for name, p in self.stores.items()
            },
            "ledger": self.ledger.as_json(),
        }


def prepare_corpus(
    options: DataOptions,
    tokenizer: TokenizerFiles,
    objective: Objective,
    *,
    block_size: int,
    seed: int = 42,
    sources: dict[str, list[Source]] | None = None,
    store_folder: Path | None = None,
    wanted: Sequence[str] = ("train", "validation"),
    made_ahead: Callable[[], StoresMade] | None = None,
    say: Say = silent,
) -> Corpus:
    """Prepare what the options name and lay it out for ``objective``.

    ``block_size`` is the length of an example: a block's, or the longest a line may have. Without validation
    data ``validation_split_percentage`` per cent of the training documents are kept for it. ``store_folder``:
    where the store of the training text is made, instead of the cache. ``made_ahead`` gives the stores that
    this process made while it was importing.
    """
    requests, splitting = requests_of(options, tokenizer, sources or sources_of(options), wanted)
    if not requests:
        raise UserError("no text is named", flag="--train_file")
    stores = _stores(options, requests, store_folder, made_ahead() if made_ahead else {}, say)
    over = passed_over_by(source for request in requests.values() for source in request.sources)
    ledger = sum((made.ledger for made in stores.values()), Ledger.of(over, 0))
    lines = [line for made in stores.values() for line in made.lines]
    if not ledger.documents:
        raise UserError("there is no document in the text", flag="--train_file")
    layouts: dict[str, dict[str, AnyLayout]] = {}
    chosen: dict[str, list[tuple[TokenStore, np.ndarray]]] = {}
    joins = options.append_eos and not options.compat and not by_document(options, objective)
    around = tokenizer.around_document(objective, append_eos=joins)
    for name, made in stores.items():
        for part, numbers in divided(name, made.store, options, splitting, seed, lines, say).items():
            if part in wanted:
                chosen.setdefault(part, []).append((made.store, numbers))
                laid_out = _lay_out(options, objective, made, numbers, block_size, around, tokenizer.pad_id or 0)
                layouts.setdefault(part, {})[name.partition("/")[2]] = laid_out
    splits = at_most({part: _as_one(part, found, options, seed) for part, found in layouts.items()}, options)
    for name, layout in splits.items():
        chunking = _chunking(options, objective, chosen[name], block_size, tokenizer)
        ledger.splits[name] = replace(layout.ledger, chunking=chunking)
        if layout.note:
            lines.append(f"{name}: {layout.note}")
            say(name, layout.note)
    return Corpus(splits, ledger, stores, lines, chosen)


def _stores(
    options: DataOptions, requests: dict[str, Request], folder: Path | None, ahead: StoresMade, say: Say
) -> dict[str, Prepared]:
    """The store of each request: named as it is, found or made."""
    cache = cache_folder(options.data_cache_dir)
    say_made = SaySplits(say)
    stores: dict[str, Prepared] = {}
    for name, request in requests.items():
        say_made.split = name if len(requests) > 1 else ""
        place = folder / name if folder and len(requests) > 1 else folder
        made = ready_store(request, cache, options.data_cache_gb) or prepare(
            request, cache, folder=place, overwrite=options.overwrite_cache, say=say_made
        )
        made, said = ahead.pop(made.store.folder, (made, []))
        for topic, text in said:
            say_made(topic, text)
        say_made.found(made)
        stores[name] = made
    return stores


def requests_of(
    options: DataOptions,
    tokenizer: TokenizerFiles,
    sources: dict[str, list[Source]],
    wanted: Sequence[str],
) -> tuple[dict[str, Request], bool]:
    """What to prepare for the ``wanted`` splits, and whether a part of the training text becomes validation."""
    sources, splitting = wanted_sources(options, sources, wanted)
    percentage = options.validation_split_percentage
    reading = {k: v for k, v in asdict(reading_of(options)).items() if k != "piece_bytes"}
    may_cut = splitting and options.validation_split_mode == "first" and not options.compat
    cuts = {name: percentage if split_of(name) == "train" and may_cut else 0.0 for name in sources}
    making = making_of(options)
    return {name: Request(found, tokenizer, reading, cuts[name], making) for name, found in sources.items()}, splitting


def making_of(options: DataOptions) -> Making:
    """By whom stores are made. A process of several gets one thread."""
    if options.preprocessing_num_workers:
        limit_threads(1)
    engine: Any = getattr(options, "engine", "local")
    return Making(options.preprocessing_num_workers, engine, getattr(options, "merge", None))


class SaySplits:
    """Says of which ``split`` a store is, where there are several, and how text is tokenized only once for all."""

    split = ""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._told: set[str] = set()

    def __call__(self, topic: str, text: str) -> None:
        if topic == "tokenizer":
            kind = re.sub(r"\d\S* \w?B", "", text)  # the sizes compared may differ
            if kind in self._told:
                return
            self._told.add(kind)
        self._say(topic, f"{self.split}: {text}" if topic == "store" and self.split else text)

    def found(self, made: Prepared) -> None:
        """That a store was there before, if it was."""
        if made.was_cached:
            self("store", f"{made.ledger.tokens:,} tokens, prepared before · {made.store.place}")


def divided(
    name: str, store: TokenStore, options: DataOptions, splitting: bool, seed: int, lines: list[str], say: Say
) -> dict[str, np.ndarray]:
    """Which documents of a store belong to which split; of a part that is held out a line is said, and added to
    ``lines``."""
    of, _, text = name.partition("/")
    documents = {of: np.arange(len(store))}
    if of == "train" and splitting:
        split = split_documents(store, options.validation_split_mode, options.validation_split_percentage, seed)
        documents = {"train": split.train, "validation": split.validation}
        lines.append(split.line.replace("held out ", f"held out of {text} ", 1) if text else split.line)
        say("held out", lines[-1].removeprefix("held out "))
    if "train" in documents and options.shuffle_documents:
        documents["train"] = stream(seed, "documents").permutation(documents["train"])
    return documents


def at_most(splits: dict[str, AnyLayout], options: DataOptions) -> dict[str, AnyLayout]:
    """``splits`` with no more examples than are asked for."""
    most = {"train": options.max_train_samples, "validation": options.max_eval_samples}
    return {name: layout if (n := most.get(name)) is None else layout.take(n) for name, layout in splits.items()}


def _as_one(part: str, layouts: dict[str, AnyLayout], options: DataOptions, seed: int) -> AnyLayout:
    """The layout of a split: the texts of a mix in their shares for training, one after the other for evaluation."""
    mix = Mix.of(options.mix)
    if mix is None or list(layouts) == [""]:
        return next(iter(layouts.values()))
    return Mixed(layouts, mix.shares, seed) if part == "train" else Joined(layouts)


def by_document(options: DataOptions, objective: Objective) -> bool:
    """Whether documents become windows of their own instead of being joined."""
    return objective == "clm" and options.chunking == "documents"


def _chunking(
    options: DataOptions,
    objective: Objective,
    documents: Sequence[tuple[TokenStore, np.ndarray]],
    block_size: int,
    tokenizer: TokenizerFiles,
) -> Chunking | None:
    """What either way of chunking costs a split; None where there is one way."""
    if objective != "clm" or options.compat:
        return None
    return costs(
        [store.lengths[numbers] for store, numbers in documents],
        block_size,
        tokenizer.around_document("clm", append_eos=options.append_eos and tokenizer.eos_id is not None),
        tokenizer.around_document("clm", append_eos=False),
        taken=options.chunking,
        drop_remainder=options.drop_remainder,
    )


def _lay_out(
    options: DataOptions,
    objective: Objective,
    made: Prepared,
    documents: Any,
    block_size: int,
    around: tuple[tuple[int, ...], tuple[int, ...]],
    pad_id: int,
) -> Blocks | Lines | Windows:
    if objective == "mlm" and options.line_by_line:
        pad_to = block_size if options.pad_to_max_length else None
        return Lines(made.store, documents, block_size, *around, pad_to=pad_to, pad_id=pad_id)
    if by_document(options, objective):
        return Windows(made.store, documents, block_size, *around, pad_id=pad_id)
    return Blocks(
        made.store,
        documents,
        block_size,
        *around,
        drop_remainder=options.drop_remainder,
        group_batch=_SCRIPT_BATCH if options.compat else None,
        isolate_documents=options.isolate_documents,
        pad_id=pad_id,
    )
