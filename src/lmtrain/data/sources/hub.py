"""Data sets by name, through ``datasets`` (``pip install 'lmtrain[hub]'``), or saved by ``save_to_disk``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lmtrain.config.values import user_path
from lmtrain.core.errors import UserError
from lmtrain.core.files import sha256_json
from lmtrain.core.hub import offline_switch, why_unreachable
from lmtrain.core.types import Source
from lmtrain.data.sources.columns import kinds_in
from lmtrain.data.sources.pairs import record_source
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import PROBED, Bad, Fields, Value
from lmtrain.data.sources.saved import arrow_files, is_saved, saved_splits
from lmtrain.data.sources.tables import in_slices, kinds_of, rows_of, texts_of

_FLAG = "--dataset_name"
_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
_BATCH = 256


def hub_source(
    dataset_name: str,
    config_name: str | None = None,
    split: str | None = None,
    reading: Reading | None = None,
    *,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    streaming: bool = False,
    as_files: bool = False,
) -> dict[str, Source]:
    """The splits of a data set, or only ``split``, by name.

    A name is one on the hub, or a folder written by ``save_to_disk``. Without a network a data set that was
    loaded before is taken from its cache; otherwise that is said within seconds. Code of a data set is never
    run. ``as_files``: the sources are the Arrow files that the data set lies in.

    Raises:
        UserError: no such data set, configuration or split; no network; ``datasets`` is not installed.
    """
    reading = reading or Reading()
    local = user_path(dataset_name)
    if local.is_dir() and is_saved(local):
        splits = saved_splits(local, dataset_name, reading, _FLAG)
    elif local.exists() or dataset_name.endswith(".py"):
        what, file = "not a saved data set", dataset_name
        if local.suffix == ".py":
            what, file = "a script, which is not run", "FILE"
        raise UserError(
            f"{dataset_name} is {what}: name a data set on the hub or a folder written by save_to_disk; "
            f"files and folders of text are given with --train_file {file}",
            flag=_FLAG,
        )
    else:
        splits = from_hub(dataset_name, config_name, reading, token, cache_dir, streaming, as_files)
    if split is None:
        return splits
    if split not in splits:
        raise UserError(f"{dataset_name} has no split {split!r}; it has {', '.join(splits)}", flag=_FLAG)
    return {split: splits[split]}


def from_hub(
    name: str,
    config_name: str | None,
    reading: Reading,
    token: str | None,
    cache_dir: str | os.PathLike[str] | None,
    streaming: bool,
    as_files: bool = False,
) -> dict[str, Source]:
    reachable = why_unreachable(*_SWITCHES) is None
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            f"loading {name!r} needs the package datasets: pip install 'lmtrain[hub]'", flag=_FLAG
        ) from error
    with _explained(name, reachable), _offline_unless(reachable):
        builder = datasets.load_dataset_builder(
            name, config_name, token=token, cache_dir=os.fspath(cache_dir) if cache_dir else None
        )
        if streaming:
            loaded = builder.as_streaming_dataset()
        else:
            builder.download_and_prepare()
            loaded = builder.as_dataset()
    if as_files:
        return {
            split: arrow_files([entry["filename"] for entry in data.cache_files], f"{name}/{split}", reading, _FLAG)
            for split, data in loaded.items()
        }
    state = [name, builder.config_id, str(builder.config.version), builder.hash]  # hash: the commit
    return {
        split: record_source(Split(f"{name}/{split}", sha256_json([*state, split])), DatasetRows(data), reading)
        for split, data in loaded.items()
    }


@dataclass(frozen=True, slots=True)
class Split:
    """A split as the origin of records."""

    name: str
    state: str
    size: None = None

    def content_hash(self) -> str:
        return self.state

    def error(self, text: str) -> UserError:
        return UserError(f"{self.name}{text}", flag=_FLAG)

    @contextmanager
    def explained(self) -> Iterator[None]:
        with _explained(self.name, True):  # while it is streamed, the network may go
            yield


class DatasetRows:
    """Rows of a ``datasets.Dataset`` or, streamed, of an ``IterableDataset``."""

    counts_lines = False
    escapes_bytes = False

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def columns(self) -> dict[str, str]:
        if self._dataset.features is not None:
            return kinds_of(self._dataset.features.arrow_schema)
        return kinds_in(self._dataset.take(PROBED))

    def values(self, column: str) -> Iterator[tuple[int, Value]]:
        row = 0
        for batch in self._batches([column]):
            for value in texts_of(batch.column(0)):
                row += 1
                yield row, value

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, Fields | Bad]]:
        return rows_of(self._batches(columns), columns)

    def _batches(self, columns: Sequence[str]) -> Iterator[Any]:
        for table in self._dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=_BATCH):
            for batch in table.to_batches():
                yield from in_slices(batch)


@contextmanager
def _offline_unless(reachable: bool) -> Iterator[None]:
    """Without a network let ``datasets`` look into its cache only, instead of trying again and again."""
    if reachable:
        yield
        return
    import datasets
    import huggingface_hub

    before = datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE = before


@contextmanager
def _explained(name: str, reachable: bool) -> Iterator[None]:
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HTTPError  # that of httpx or httpx2, whichever it uses

    try:
        yield
    except DatasetNotFoundError as error:
        raise UserError(
            f"there is no data set {name!r} on the hub, or it is private or gated (then: hf auth login)", flag=_FLAG
        ) from error
    except ValueError as error:
        said = " ".join(str(error).split())
        flag = "--dataset_config_name" if "onfig" in said else _FLAG
        raise UserError(f"{name}: {said}", flag=flag) from error
    except (DatasetsError, OSError, RuntimeError, HTTPError) as error:  # ConnectionError is an OSError
        said = " ".join(str(error).split()) or type(error).__name__
        if "Dataset scripts are no longer supported" in said:
            text = f"{name} is made by a script, which is not run; take another copy of it, or give files: --train_file"
        elif not reachable:
            switch = offline_switch(*_SWITCHES)
            why = f"{switch} is set" if switch else "the hub cannot be reached from here"
            text = (
                f"{name!r} is not in the local cache and {why}; load it once where there is a network, "
                "or give files: --train_file"
            )
        else:
            text = f"{name} could not be loaded: {said}"
        raise UserError(text, flag=_FLAG) from error
