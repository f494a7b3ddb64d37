"""One model in several forms: a ``from_pretrained`` folder, a PEFT adapter, a loralib file; compared after each change.

Whatever is written is read back into fresh objects and compared with what it was made from, by the logits of a few
rows of ids, before it takes its name. What differs is not left behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmtrain.config.values import user_path
from lmtrain.core.errors import OwnResultWrong, UserError
from lmtrain.core.files import sync_folder, sync_tree
from lmtrain.models.adapters.loralib import (
    LoralibFile,
    adapter_of,
    loralib_pairs,
    read_loralib,
    weights_of,
    write_loralib,
)
from lmtrain.models.comparison import cast_weights, difference, logits_of, probe_ids
from lmtrain.models.exporting.export import save_model
from lmtrain.models.exporting.verified_export import export_verified
from lmtrain.models.loading.adapter_folder import attach, is_adapter, merge, merged, read_adapter
from lmtrain.models.loading.build import LoadedModel, load_model, purpose_of
from lmtrain.models.loading.gpt2_checkpoint import fill
from lmtrain.models.loading.peft_wrapping import place_of
from lmtrain.models.loading.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 1e-4  # of the largest logit: what fp32 sums in another order explain
_FILES = (".pt", ".pth", ".bin")


@dataclass
class Exported:
    """``difference``: the largest of a logit, over the largest logit; ``rounded``: the same against the source, where
    the weights were written in ``dtype`` and not in fp32; ``alpha`` and ``r`` are what a reader of a loralib file must
    be told."""

    path: Path
    difference: float
    dtype: torch.dtype = torch.float32
    rounded: float = 0.0
    alpha: float | None = None
    r: int = 0


@dataclass
class _Source:
    """``model``: a plain model or a ``PeftModel``, fp32; ``options``: how to load its base again."""

    model: Any
    options: Any
    purpose: Any
    tokenizer: Any
    dtype: torch.dtype
    changed_base: bool = False

    @property
    def has_adapter(self) -> bool:
        return hasattr(self.model, "peft_config")

    def base(self) -> LoadedModel:
        return load_model(self.options, self.purpose, None)


def export(options: Any) -> Exported:
    """Do what a ``config.export.ExportOptions`` asks. Raises :class:`UserError`, and
    :class:`OwnResultWrong` where what was written differs; then nothing is left at ``out``."""
    out = user_path(options.out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"{out} is there already; name another, nothing is written over", flag="OUT")
    source = _open(options)
    if options.to == "loralib":
        return _to_loralib(source, out, full=options.full)
    if options.to == "peft":
        return _to_peft(source, out)
    return _to_whole(source, out)


# ---- sources ---------------------------------------------------------------------------------------


def _open(options: Any) -> _Source:
    path = user_path(options.model)
    if path.is_file() and path.suffix in _FILES:
        return _open_loralib(path, options)
    if options.lora_alpha is not None:
        raise UserError("is recorded in everything but loralib files; leave it out", flag="--lora_alpha")
    named = replace(options, model_name_or_path=options.model)
    if is_adapter(path):
        adapter = read_adapter(path, "MODEL", options.base)
        chosen = adapter.base_options(named)
        base = load_model(chosen, purpose_of(chosen), None)
        tokenizer = _tokenizer(named) or _tokenizer(chosen)
        model = attach(base.model, adapter, "MODEL")
        model.peft_config["default"].base_model_name_or_path = place_of(adapter.base)
        return _Source(model, chosen, purpose_of(chosen), tokenizer, base.dtype or torch.float32)
    if options.base:
        raise UserError("belongs to an adapter, and this is a whole model; leave it out", flag="--base")
    purpose = purpose_of(named)
    loaded = load_model(named, purpose, None)
    return _Source(loaded.model.eval(), named, purpose, _tokenizer(named), loaded.dtype or torch.float32)


def _open_loralib(path: Path, options: Any) -> _Source:
    if not options.base:
        raise UserError(f"{path} does not name its model; give the GPT-2 it was trained from", flag="--base")
    file = read_loralib(path, "MODEL")
    if file.pairs and options.lora_alpha is None:
        raise UserError(
            f"{path} does not hold the adapter's alpha; give the one it was trained with (rank "
            f"{file.r}; the original's README trains with --lora_alpha 32)",
            flag="--lora_alpha",
        )
    named = replace(options, model_name_or_path=options.base)
    purpose = purpose_of(named)
    loaded = load_model(named, purpose, None)
    base: Any = loaded.model
    if base.config.model_type != "gpt2":
        raise UserError(f"{options.base} is a {base.config.model_type}, and {path} is of a GPT-2", flag="--base")
    changed = False
    if file.weights:
        before = {name: value.clone() for name, value in base.transformer.named_parameters()}
        fill(base, file.weights, str(path), "MODEL")
        changed = any(not torch.equal(before[name], value) for name, value in base.transformer.named_parameters())
    model: Any = base.eval()
    if file.pairs:
        model = adapter_of(file, base, float(options.lora_alpha), "--base")
        model.peft_config["default"].base_model_name_or_path = place_of(options.base)
    dtype = torch.float32 if changed else loaded.dtype or torch.float32
    return _Source(model, named, purpose, _tokenizer(named), dtype, changed)


def _tokenizer(options: Any) -> Any | None:
    """The tokenizer that lies there; a model without one is exported without."""
    try:
        return load_tokenizer(options)
    except UserError:
        if options.tokenizer_name:
            raise
        return None


# ---- targets ---------------------------------------------------------------------------------------


def _to_whole(source: _Source, out: Path) -> Exported:
    ids = probe_ids(source.model)
    right = logits_of(source.model, ids)
    whole: Any = merged(source.model) if source.has_adapter else source.model
    exact = logits_of(whole, ids)
    apart = _compared(right, exact, out)
    cast_weights(whole, source.dtype)
    rounded = difference(exact, logits_of(whole, ids)) if source.dtype != torch.float32 else 0.0
    with _new_folder(out) as folder:
        found = export_verified(whole, source.tokenizer, folder, source.purpose, source.options)
    return Exported(out, max(apart, found.difference), source.dtype, rounded)


def _to_peft(source: _Source, out: Path) -> Exported:
    if not source.has_adapter:
        raise UserError("it holds no adapter to be written; a whole model is exported with --to hf", flag="--to")
    if source.changed_base:
        raise UserError(
            "the file's own weights differ from those of --base, so its adapter would not be right on top of them; "
            "name the model it was trained from, or write one model: --to merged",
            flag="--base",
        )
    ids = probe_ids(source.model)
    right = logits_of(source.model, ids)
    with _new_folder(out) as folder:
        save_model(source.model, source.tokenizer, folder)
        again = merge(source.base().model, read_adapter(folder, "OUT"), "OUT")
        apart = _compared(right, logits_of(again, ids), out)
    return Exported(out, apart)


def _to_loralib(source: _Source, out: Path, *, full: bool) -> Exported:
    if source.model.config.model_type != "gpt2":
        raise UserError(f"loralib's layout is GPT-2's, and this is a {source.model.config.model_type}", flag="--to")
    if not (source.has_adapter or full):
        raise UserError("it holds no adapter; add --full for a file of all its weights", flag="--to")
    if source.changed_base and not full:
        raise UserError("the file's own weights differ from those of --base; add --full to keep them", flag="--to")
    ids = probe_ids(source.model)
    right = logits_of(source.model, ids)
    file, alpha = loralib_pairs(source.model, "--to") if source.has_adapter else (LoralibFile(), None)
    if full:
        plain = source.model.unload() if source.has_adapter else source.model
        file = LoralibFile(file.pairs, weights_of(plain, "--to"))
    with _new_folder(out) as folder:
        write_loralib(folder / out.name, file)
        read = read_loralib(folder / out.name, "OUT")
        again: Any = source.base().model
        if read.weights:
            fill(again, read.weights, str(out), "OUT")
        if read.pairs and alpha is not None:
            again = adapter_of(read, again, alpha, "OUT")
        apart = _compared(right, logits_of(again, ids), out)
    return Exported(out, apart, alpha=alpha, r=file.r)


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A scratch folder beside ``out`` that takes its name when all went well, or whose file of that name does."""
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        sync_tree(scratch)
        (scratch / out.name if (scratch / out.name).is_file() else scratch).replace(out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# ---- the comparison --------------------------------------------------------------------------------


def _compared(right: Tensor, other: Tensor, out: Path) -> float:
    apart = difference(right, other)
    if not apart <= TOLERANCE:
        raise OwnResultWrong(
            f"what was written computes other logits than what it was made from (by {apart:.1e} of the largest; "
            f"{TOLERANCE:.0e} is allowed), so {out} is not left there"
        )
    return apart
