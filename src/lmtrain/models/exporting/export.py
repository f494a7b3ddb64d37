"""Write a model that ``from_pretrained`` loads, into a folder that may hold a run and an earlier model."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.core.errors import OwnResultWrong
from lmtrain.core.files import as_os_errors, sync_folder
from lmtrain.models.exporting.exported_files import CONFIGS, WEIGHTS
from lmtrain.models.loading.configuration import max_positions
from lmtrain.models.loading.vocabulary import make_generation_config_valid
from lmtrain.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NO_BOUND = 10**20  # the library's int(1e30) stands for no bound

REJECTED = "export-rejected"  # what a check refused: the weights of a training may lie nowhere else


def save_model(
    model: PreTrainedModel,
    tokenizer: Any | None,
    folder: str | Path,
    *,
    check: Callable[[Path], None] | None = None,
    state: dict[str, Any] | None = None,
) -> list[Path]:
    """Save model and tokenizer at the top of ``folder``; return the files, ``config.json`` last.

    ``state`` is the model's state dictionary, gathered, where it is sharded. The tokenizer is written as
    :func:`as_pipelines_expect` has it, and ``check`` meets it so; afterwards it is as it was. A model with a PEFT
    adapter leaves the adapter, with ``adapter_config.json`` in the place of ``config.json``.

    Everything is written and flushed in a scratch folder inside ``folder`` (so on the same file system)
    before anything is touched; a full disk leaves the earlier model as it was. ``check`` looks at the scratch folder
    then, and what it raises ends the saving; for :class:`OwnResultWrong` what was written is kept as
    ``folder``/export-rejected. Then, in this order: the old ``config.json`` goes, weights of the earlier model that
    have no successor go (old shards beside a new single file would be loaded by mistake), the new files are moved in
    one by one, the new ``config.json`` last. ``from_pretrained`` refuses a folder without ``config.json``, so at no
    moment can a mixture of two models be loaded. Other files are left alone. Raises ``OSError`` when it cannot be
    written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    scratch = Path(tempfile.mkdtemp(prefix=".model.", suffix=".tmp", dir=folder))
    try:
        if getattr(model, "generation_config", None) is not None and not hasattr(model, "peft_config"):
            make_generation_config_valid(model)
        with quiet_libraries(), as_pipelines_expect(model, tokenizer):
            with as_os_errors():
                model.save_pretrained(scratch, state_dict=state and dict(state))  # which it empties as it goes
                if tokenizer is not None:
                    tokenizer.save_pretrained(scratch)
            new = sorted((path for path in scratch.rglob("*") if path.is_file()), key=lambda path: path.name in CONFIGS)
            for path in new:
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
            if check is not None:
                check(scratch)
        moved = _move_in(scratch, new, folder)
        shutil.rmtree(folder / REJECTED, ignore_errors=True)
        return moved
    except OwnResultWrong:
        shutil.rmtree(folder / REJECTED, ignore_errors=True)
        scratch.replace(folder / REJECTED)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def as_pipelines_expect(model: Any, tokenizer: Any | None) -> Iterator[None]:
    """Tokenizer and settings for generation, meanwhile, as the pipelines of transformers need them.

    Batches need a pad token: where there is none, the end of text is it, which no id changes for. The configuration of
    the model stays without: classes that find a pad id there keep its embedding from learning. And a tokenizer that
    knows no longest input has the model's positions.
    """
    if tokenizer is None:
        yield
        return
    pads = tokenizer.pad_token is None and tokenizer.eos_token is not None
    longest, positions = tokenizer.model_max_length, max_positions(model.config)
    generation = getattr(model, "generation_config", None)
    paddings = getattr(generation, "pad_token_id", None)
    if pads:
        tokenizer.pad_token = tokenizer.eos_token
        if generation is not None and paddings is None:
            generation.pad_token_id = tokenizer.eos_token_id
    if longest > _NO_BOUND and positions:
        tokenizer.model_max_length = positions
    try:
        yield
    finally:
        tokenizer.model_max_length = longest
        if pads:
            tokenizer.pad_token = None
            if generation is not None:
                generation.pad_token_id = paddings


def _move_in(scratch: Path, new: list[Path], folder: Path) -> list[Path]:
    names = {path.relative_to(scratch) for path in new}
    for name in CONFIGS:
        (folder / name).unlink(missing_ok=True)
    sync_folder(folder)
    for pattern in WEIGHTS:
        for old in folder.glob(pattern):
            if old.relative_to(folder) not in names:
                old.unlink()
    moved = []
    for path in new:
        target = folder / path.relative_to(scratch)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name in CONFIGS:
            sync_folder(folder)  # the other files are in place on disk before the one that makes them a model
        path.replace(target)
        moved.append(target)
    sync_folder(folder)
    return moved


def _remove_leftovers(folder: Path) -> None:
    """Delete scratch folders of saves that were killed; the run's lock keeps others from writing here."""
    for path in folder.glob(".model.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
