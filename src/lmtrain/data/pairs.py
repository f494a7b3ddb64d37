"""From records to examples of a context and its completion: what :mod:`lmtrain.data.corpus` is for text.

::

    corpus = prepare_pairs(data, pairs, tokenizer, length=512)
    corpus.splits["train"].__getitems__([0, 7])      # Examples with `answer`

Context and completion are tokenized apart: the context's tokens are then those that generation begins with, whatever
follows. They lie in the store as two documents; a tokenizer, a template or a column that changes makes another store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lmtrain.config.options import DataOptions
from lmtrain.config.pairs import PairOptions
from lmtrain.core.console import Say, silent
from lmtrain.core.errors import UserError
from lmtrain.core.types import Source
from lmtrain.data.cache import cache_folder
from lmtrain.data.corpus import AnyLayout, Corpus, SaySplits, at_most, divided
from lmtrain.data.encoded import prepare_encoded
from lmtrain.data.fast_engine import limit_threads
from lmtrain.data.layouts import Pairs
from lmtrain.data.ledger import Ledger
from lmtrain.data.named_text import sources_of, wanted_sources
from lmtrain.data.preparing import Prepared, Request, prepare
from lmtrain.data.sources.chat import ChatTemplate
from lmtrain.data.sources.pairs import Form, PairReading, PairSource
from lmtrain.data.sources.saved import Shards
from lmtrain.data.sources.stores import StoreSource
from lmtrain.data.sources.text import passed_over_by
from lmtrain.data.store import TokenStore
from lmtrain.data.tokenization import reference_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles

Around = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def pair_reading(data: DataOptions, pairs: PairOptions) -> PairReading:
    """How the records are read."""
    separator = pairs.separator
    return PairReading(
        encoding=data.encoding,
        encoding_errors=data.encoding_errors,
        on_bad_record=data.on_bad_record,
        context_column=pairs.context_column,
        completion_column=pairs.completion_column,
        separator=None if separator is None else separator.replace("\\n", "\n").replace("\\t", "\t"),
        chat_turns=pairs.chat_turns,
    )


def pair_sources_of(
    data: DataOptions, pairs: PairOptions, *, cache_dir: str | None = None, token: str | None = None
) -> dict[str, list[Source]]:
    """The sources of each split that the options name."""
    return sources_of(data, cache_dir=cache_dir, token=token, reading=pair_reading(data, pairs))


def prepare_pairs(
    data: DataOptions,
    pairs: PairOptions,
    tokenizer: Any,
    *,
    length: int,
    seed: int = 42,
    sources: dict[str, list[Source]] | None = None,
    wanted: Sequence[str] = ("train", "validation"),
    say: Say = silent,
) -> Corpus:
    """Prepare the pairs that the options name; ``length`` is the most tokens an example may have.

    ``tokenizer`` is one of transformers, or a :class:`TokenizerFiles`, which has no chat template. Without validation
    data ``validation_split_percentage`` per cent of the training pairs are kept for it. Raises :class:`UserError`.
    """
    if data.preprocessing_num_workers:
        limit_threads(data.preprocessing_num_workers)
    files = tokenizer if isinstance(tokenizer, TokenizerFiles) else TokenizerFiles.from_transformers(tokenizer)
    named, splitting = wanted_sources(data, sources or pair_sources_of(data, pairs), wanted)
    found = {
        name: [part for source in given for part in _pair_sources(source, f"--{name}_file")]
        for name, given in named.items()
    }
    if not found:
        raise UserError("no pairs are named", flag="--train_file")
    form = _form(found)
    template = ChatTemplate(None if tokenizer is files else tokenizer) if form == "chat" else None
    around, notes = _around(data, pairs, files, form, template)
    puts_space = form == "text" and _puts_space(files)
    for source in (source for split in found.values() for source in split):
        source.template, source.puts_space = template, puts_space

    reading = {key: value for key, value in asdict(pair_reading(data, pairs)).items() if key != "piece_bytes"}
    if template:
        reading["template"] = template.fingerprint
        if any(source.columns.tools for split in found.values() for source in split):
            reading["tools"] = True  # a store that was made before they were read is another one
    stores = _stores(data, found, files, form, reading, say)
    over = passed_over_by(source for sources in found.values() for source in sources)
    ledger = sum((made.ledger for made in stores.values()), Ledger.of(over, 0))
    lines = [line for made in stores.values() for line in made.lines]
    ledger.notes += notes
    splits: dict[str, AnyLayout] = {}
    for name, made in stores.items():
        view: Any = _FirstOfPairs(made.store)
        for part, chosen in divided(name, view, data, splitting, seed, lines, say).items():
            if part in wanted:
                pad_id = files.pad_id or 0
                splits[part] = Pairs(made.store, chosen, length, *around, on_long=pairs.on_long, pad_id=pad_id)
    splits = at_most(splits, data)
    for name, layout in splits.items():
        if not len(layout):
            raise UserError(
                f"of the {layout.ledger.documents:,} pairs for {name} none fits ({layout.note}); raise it",
                flag="--max_seq_length",
            )
        ledger.splits[name] = layout.ledger
        if layout.note:
            ledger.notes.append(f"{name}: {layout.note}")
            lines.append(f"{name}: {layout.note}")
            say(name, layout.note)
    return Corpus(splits, ledger, stores, lines)


def _pair_sources(source: Source, flag: str) -> list[PairSource]:
    """The sources of pairs that ``source`` is made of."""
    if isinstance(source, Shards):
        return [found for part in source.parts for found in _pair_sources(part, flag)]
    if isinstance(source, StoreSource):
        raise UserError(
            f"{source.name} is a token store (made by lmtrain prepare), which does not say where answers begin; name "
            "the records of the pairs themselves",
            flag=flag,
        )
    if not isinstance(source, PairSource):
        raise UserError(
            f"{source.name} is plain text, and pairs are records with a context and a completion: JSON Lines, JSON, "
            "CSV, TSV, Parquet or Arrow (lmtrain nlg convert makes them of E2E, WebNLG and DART; lmtrain clm trains "
            "on text)",
            flag=flag,
        )
    return [source]


def _form(found: Mapping[str, Sequence[PairSource]]) -> Form:
    """What all pairs are: what is put around them goes by that."""
    first: PairSource | None = None
    for name, split in found.items():
        for source in split:
            first = first or source
            if source.form != first.form:
                words = {"text": "texts", "chat": "chats", "ids": "token ids"}
                raise UserError(
                    f"{source.name} holds {words[source.form]} and {first.name} holds {words[first.form]}; "
                    "give all pairs in one form",
                    flag=f"--{name}_file",
                )
    assert first is not None
    return first.form


def _around(
    data: DataOptions, pairs: PairOptions, files: TokenizerFiles, form: Form, template: ChatTemplate | None
) -> tuple[Around, list[str]]:
    """Ids before the context, between the two, behind the completion; and what is to be said about them."""
    if form != "text":
        what = "the chat template" if form == "chat" else "the encoding"
        for given, flag in ((pairs.add_bos, "--add_bos"), (pairs.separator is not None, "--separator")):
            if given:
                raise UserError(f"{what} has settled what stands between context and completion", flag=flag)
    if form == "ids":
        return ((), (), ()), []
    if template is not None:
        if not data.append_eos:
            return ((), (), ()), []
        if ends_itself(template, files):
            return ((), (), ()), ["answers end as the chat template ends them"]
        _, suffix = files.around_document("clm")
        return ((), (), suffix[-1:]), ["the chat template ends no answer, so the end-of-text token does"]
    prefix, suffix = files.around_document("clm", append_eos=data.append_eos)
    between = (_bos(files),) if pairs.add_bos else ()
    return (prefix, between, suffix), []


def ends_itself(template: ChatTemplate, files: TokenizerFiles) -> bool:
    """Whether the last thing visible that the template writes behind an answer is a special token."""
    texts = template.texts([{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}])
    if not isinstance(texts, tuple):
        return False  # it wants other chats than this; then the end is made sure of
    ids, _ = reference_encoder(files).encode([texts[1].rstrip()])
    return bool(len(ids)) and int(ids[-1]) in files.special_ids


def _bos(files: TokenizerFiles) -> int:
    found = files.eos_id if files.bos_id is None else files.bos_id
    if found is None:
        raise UserError(f"{files.name} names neither a beginning-of-text nor an end-of-text token", flag="--add_bos")
    return found


def _puts_space(files: TokenizerFiles) -> bool:
    """Whether the tokenizer itself puts a space before every text, also where one is there already (Llama 2's)."""
    ids, at = reference_encoder(files).encode(["a b", "a", " b", "b"])
    whole, first, spaced, bare = (ids[at[i] : at[i + 1]].tolist() for i in range(4))
    return first + spaced != whole and first + bare == whole


def _stores(
    data: DataOptions,
    found: Mapping[str, Sequence[PairSource]],
    files: TokenizerFiles,
    form: Form,
    reading: Mapping[str, Any],
    say: Say,
) -> dict[str, Prepared]:
    cache = cache_folder(data.data_cache_dir)
    say_made = SaySplits(say)
    stores = {}
    for name, sources in found.items():
        say_made.split = name if len(found) > 1 else ""
        if form == "ids":
            made = prepare_encoded(sources, files, cache, overwrite=data.overwrite_cache, say=say_made)
        else:
            request = Request(sources, files, reading)
            made = prepare(request, cache, overwrite=data.overwrite_cache, say=say_made)
        if len(made.store) % 2:
            raise AssertionError(f"{made.store.folder} holds {len(made.store)} documents, which are no pairs")
        say_made.found(made)
        stores[name] = made
    return stores


class _FirstOfPairs:
    """A store of pairs as :func:`divided` reads one: a pair a document.

    Pairs of equal context are of equal content, so by ``hash`` all texts for one input are on the same side.
    """

    def __init__(self, store: TokenStore) -> None:
        self.crc32 = np.where(store.lengths[::2] > 0, store.crc32[::2], store.crc32[1::2])
        sources = [{**source, "documents": source["documents"] // 2} for source in store.manifest["sources"]]
        self.manifest = {"cut": None, "sources": sources}

    def __len__(self) -> int:
        return len(self.crc32)
