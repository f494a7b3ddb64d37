"""The text that the options of a command name: its sources, by split, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence

from lmtrain.config.groups import DataOptions, TextOptions
from lmtrain.config.mix import Mix
from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.types import Source
from lmtrain.data.sources import Reading, TextSource, hub_source, resolve_sources

_PIECE_BYTES = 1 << 19  # several pieces of a long document make a batch, so that all cores share it
_FILES = {"train": "train_file", "validation": "validation_file", "test": "test_file"}


def reading_of(options: TextOptions) -> Reading:
    """How the sources are read."""
    compat = getattr(options, "compat", None)
    lines = options.documents == "lines" or getattr(options, "line_by_line", False) or compat
    return Reading(
        documents="lines" if lines else "auto",
        text_column=options.text_column,
        first_column=bool(compat),
        encoding=options.encoding,
        encoding_errors=options.encoding_errors,
        on_bad_record=options.on_bad_record,
        keep_linebreaks=options.keep_linebreaks,
        # run_clm keeps blank lines as rows; run_mlm drops them only when each line is an example
        keep_blank_lines=bool(compat) and not getattr(options, "line_by_line", False),
        piece_bytes=_PIECE_BYTES,
    )


def sources_of(
    options: TextOptions,
    *,
    cache_dir: str | None = None,
    token: str | None = None,
    reading: Reading | None = None,
) -> dict[str, list[Source]]:
    """The sources of each split that the options name, read as the options say, or as ``reading`` does.

    Those of a mix are under ``train/NAME``.
    """
    reading = reading or reading_of(options)
    mix = Mix.of(getattr(options, "mix", []))
    if options.dataset_name:
        found = hub_source(
            options.dataset_name,
            options.dataset_config_name,
            None,
            reading,
            token=token,
            cache_dir=cache_dir,
            streaming=bool(getattr(options, "streaming", False)),
        )
        if found.keys().isdisjoint(_FILES):
            name, first = options.dataset_name, next(iter(found))
            how = f"save one by itself, in Python: load_dataset({name!r}, split={first!r}).save_to_disk('data')"
            if user_path(name).is_dir():
                how = f"name the folder of one: --dataset_name {name}/{first}"
            raise UserError(
                f"{name} has the splits {', '.join(found)}, and none of train, validation and test; {how}",
                flag="--dataset_name",
            )
        return {name: [found[name]] for name in _FILES if name in found}
    named = {split: list(paths) for split, name in _FILES.items() if (paths := getattr(options, name, []))}
    if mix:
        named = {f"train/{name}": paths for name, paths in mix.paths(named.pop("train", [])).items()} | named
    files = {
        name: resolve_sources(paths, reading, flag=f"--{_FILES[split_of(name)]}", token=token)
        for name, paths in named.items()
    }
    if options.text_column and files and all(isinstance(s, TextSource) for found in files.values() for s in found):
        raise UserError(
            f"{options.text_column!r} names a field of records, and there is plain text only; leave it out",
            flag="--text_column",
        )
    return files


def wanted_sources(
    options: DataOptions, sources: dict[str, list[Source]], wanted: Sequence[str]
) -> tuple[dict[str, list[Source]], bool]:
    """The sources to read for the ``wanted`` splits, and whether a part of the training text becomes validation."""
    there = " and ".join(sources)
    sources = {name: found for name, found in sources.items() if split_of(name) in (*wanted, "train")}
    percentage = options.validation_split_percentage
    trains = [name for name in sources if split_of(name) == "train"]
    offered = "validation_split_percentage" not in getattr(options, "without", ())  # not where nothing is trained
    splitting = offered and bool(trains) and "validation" in wanted and "validation" not in sources and percentage > 0
    if not splitting and "train" not in wanted:
        for name in trains:
            del sources[name]
    if not sources and options.dataset_name:
        lacks = "to train on; give a text of your own: --train_file"
        if "train" not in wanted:
            lacks = "to be scored; give a text of your own: --validation_file"
        raise UserError(f"{options.dataset_name} has the split {there} alone, and none {lacks}", flag="--dataset_name")
    return sources, splitting


def split_of(name: str) -> str:
    """The split that a store is for: it is ``train/NAME`` for a text of a mix."""
    return name.partition("/")[0]
