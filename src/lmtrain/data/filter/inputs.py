"""What the options name to be filtered: paths, the texts of a mix, or a split of a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lmtrain.config.commands.filter import FilterOptions
from lmtrain.config.mix import Mix
from lmtrain.config.values import user_path
from lmtrain.core.addresses import is_address
from lmtrain.core.console import Say
from lmtrain.core.errors import Problems, UserError
from lmtrain.data.filter.account import Account
from lmtrain.data.filter.tasks import Input, inputs_of
from lmtrain.data.sources import Reading, TextSource, hub_source
from lmtrain.data.sources.saved import Shards
from lmtrain.data.sources.segments import file_of
from lmtrain.data.sources.text import passed_over_by


def named_inputs(options: FilterOptions, reading: Reading, mix: Mix | None) -> list[Input]:
    """An input for each path; of a mix, one for each of its texts, in the order of the shares.

    Raises :class:`UserError` with all problems.
    """
    if options.dataset_name:
        name, split = options.dataset_name, options.dataset_split
        source = hub_source(name, options.dataset_config_name, split, reading, as_files=True)[split]
        return [Input(f"{name}/{split}", source.parts if isinstance(source, Shards) else [source])]
    found = _paths(options, reading, mix)
    _require_outside(options.output or "", found)
    if reading.text_column and all(isinstance(source, TextSource) for each in found for source in each.sources):
        raise UserError(
            f"{reading.text_column!r} names a field of records, and there is plain text only; leave it out",
            flag="--text_column",
        )
    return found


def passed_over(given: Input, say: Say) -> Account:
    """The account to begin with: files that a folder or pattern held and that are no documents."""
    account, over = Account(), passed_over_by(given.sources)
    account.skipped.update(over.skipped)
    for note in over.notes:
        say("filter", note)
    return account


def _require_outside(output: str, found: Sequence[Input]) -> None:
    """Raise :class:`UserError` where files of the input lie in ``output``, such as those of an earlier filter: it would
    delete what it reads, or read what it wrote."""
    place = Path(os.path.realpath(user_path(output)))

    @cache
    def is_inside(folder: str) -> bool:
        real = Path(os.path.realpath(folder))
        return place in (real, *real.parents)

    for file in (file_of(source) for each in found for source in each.sources):
        if file and not is_address(file.path) and is_inside(os.path.dirname(file.path)):  # noqa: PTH120 -- of millions
            raise UserError(f"{file.name} is to be filtered and lies in {output}; name another folder", flag="--output")


def _paths(options: FilterOptions, reading: Reading, mix: Mix | None) -> list[Input]:
    if mix is None:
        return inputs_of(options.train_file, reading)
    problems, found = Problems(), list[Input]()
    for name, paths in mix.paths(options.train_file, flag="--source").items():
        with problems.collect():
            found.append(Input(name, [source for each in inputs_of(paths, reading) for source in each.sources]))
    problems.raise_if_any()
    return found
