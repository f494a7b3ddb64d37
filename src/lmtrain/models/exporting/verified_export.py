"""What a run leaves, reloaded in fresh objects and compared with the model in memory before it takes its place.

The reader's side is the libraries': the Auto class of the model, ``PeftModel`` for an adapter, ``AutoTokenizer``; in
fp32, from the files. Compared are

- every tensor, to the bit, in the format that it is kept in here (frozen layers may be kept in bf16);
- which weights are tied;
- the logits of a few rows of ids, to :data:`ALLOWED` of the largest;
- ids, special tokens and chat template of the tokenizer, and that each id has its row.

A model that is merged from its base and an adapter has no twin in memory. Its adapter is compared as above, and the
merged model with the unmerged one, both in fp32, to :data:`MERGED`, which sums in another order explain. What rounding
to the base's own format changes then is told and not judged.

Cost: memory for one more copy of the model in fp32, twice that while frozen layers of fewer bits are compared.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lmtrain.config.groups import ModelOptions
from lmtrain.core.errors import OwnResultWrong, one_line
from lmtrain.core.files import as_os_errors
from lmtrain.models.activations import fuse_activations, is_fused
from lmtrain.models.comparison import cast_weights, difference, logits_of, plain_attention, probe_ids
from lmtrain.models.exporting.export import save_model
from lmtrain.models.exporting.same_tokenizer import same_tokenizer
from lmtrain.models.exporting.same_weights import (
    compare_tensors,
    differs,
    grown_tables,
    loading,
    low_weights,
    rounded_like,
    tied,
)
from lmtrain.models.loading.adapter_folder import merged, read_adapter
from lmtrain.models.loading.build import load_model
from lmtrain.models.loading.tokenizer import Purpose
from lmtrain.models.loading.vocabulary import grow_embedding, rows_needed, rows_of
from lmtrain.models.quiet import quiet_libraries
from lmtrain.models.sharding import gathered_dtype, put_away

ALLOWED = 1e-5  # of the largest logit; on one device the difference is 0
ELSEWHERE = 1e-3  # where the copy does not fit beside the model and is compared on the CPU
MERGED = 1e-4
_LARGE = 50_000_000  # parameters, above which collecting garbage costs less than the memory is worth
_ROOM = 1.25  # so much memory has to be free on the model's own device of what the copy takes


@dataclass(frozen=True)
class Verified:
    """How the comparison went. ``difference`` is the largest of a logit, over the largest logit; ``rounded``: what
    writing (or training) in ``dtype`` rather than fp32 moves a logit by."""

    kind: Literal["model", "adapter", "merged"]
    files: tuple[Path, ...]
    difference: float
    allowed: float
    logits: int
    tensors: int
    seconds: float
    dtype: str = "float32"
    rounded: float = 0.0

    @property
    def line(self) -> str:
        """One line for the person at the terminal."""
        if not self.logits:
            return f"{self.kind} reloaded and compared: {self.tensors:,} tensors equal; sharded, so without logits"
        text = (
            f"{self.kind} reloaded and compared: {self.tensors:,} tensors equal, largest difference "
            f"{self.difference:.1e} over {self.logits:,} logits (allowed {self.allowed:.0e} of the largest)"
        )
        if not self.rounded:
            return text
        what = "written" if self.kind == "merged" else "trained beside frozen weights"
        return f"{text}; {what} in {self.dtype}, which moves them by {self.rounded:.1e}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "difference": self.difference, "allowed": self.allowed, "logits": self.logits,
            "tensors": self.tensors, "dtype": self.dtype, "rounded": self.rounded, "seconds": round(self.seconds, 3),
        }  # fmt: skip


def export_verified(
    model: Any,
    tokenizer: Any | None,
    folder: Path,
    purpose: Purpose,
    options: ModelOptions | None = None,
    *,
    merge: bool = False,
    state: dict[str, Any] | None = None,
    logits: Tensor | None = None,
) -> Verified:
    """Save as :func:`~lmtrain.models.exporting.export.save_model` does what compares equal; with ``merge`` the base
    and the adapter as one.

    ``state`` is that of a model that is sharded, gathered: then its tensors are compared, and logits, which no one
    process can compute, where all have made them before (:func:`sharded_logits`).
    ``options`` say how the run's model was loaded, and how an adapter's base is found again. The
    model, its mode and the state of random generators stay as they are. Raises :class:`OwnResultWrong` with what
    differs; then an earlier model in ``folder`` is untouched, and what was written lies in ``folder``/export-rejected.
    """
    began = time.perf_counter()
    run = _Run(purpose, options or ModelOptions(), state, logits)
    try:
        with _same_draws(model), quiet_libraries():
            if merge and hasattr(model, "peft_config"):
                found = _export_merged(model, tokenizer, folder, run)
            else:
                found = _export(model, tokenizer, folder, run)
    finally:
        if sum(weight.numel() for weight in model.parameters()) > _LARGE:
            gc.collect()  # the copy is part of cycles
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return replace(found, seconds=time.perf_counter() - began)


@dataclass(frozen=True)
class _Run:
    purpose: Purpose
    options: ModelOptions
    state: dict[str, Any] | None = None
    logits: Tensor | None = None


def _export(model: Any, tokenizer: Any | None, folder: Path, run: _Run) -> Verified:
    found: list[Verified] = []

    def compare(place: Path) -> None:
        read = same_tokenizer(tokenizer, place, trust_remote_code=run.options.trust_remote_code)
        if hasattr(model, "peft_config"):
            again, _ = _reloaded_adapter(model, read, place, run)
        else:
            again = _reloaded(model, place, run)
        found.append(_compared(model, again, tokenizer, run))

    files = save_model(model, tokenizer, folder, check=compare, state=run.state)
    return replace(found[0], files=tuple(files))


def _export_merged(model: Any, tokenizer: Any | None, folder: Path, run: _Run) -> Verified:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".model.", suffix=".tmp", dir=folder) as place:  # the system's may be small
        with as_os_errors():
            model.save_pretrained(place, state_dict=run.state and dict(run.state))  # which it empties
        again, dtype = _reloaded_adapter(model, tokenizer, Path(place), run)
        adapter = _compared(model, again, tokenizer, run)
    ids = probe_ids(again, tokenizer)
    unmerged = logits_of(again, ids)
    whole: Any = merged(again)
    right = logits_of(whole, ids)
    apart = difference(unmerged, right)
    if not apart <= MERGED:
        raise OwnResultWrong(differs(f"the merged model computes other logits than base and adapter: {apart:.1e} of "
                                      f"the largest, where {MERGED:.0e} is allowed"))  # fmt: skip
    cast_weights(whole, dtype)
    rounded = difference(right, logits_of(whole, ids)) if dtype != torch.float32 else 0.0
    written = _export(whole, tokenizer, folder, replace(run, state=None, logits=None))
    return replace(
        written, kind="merged", difference=max(adapter.difference, apart, written.difference), allowed=MERGED,
        logits=adapter.logits + written.logits + right.numel(), tensors=adapter.tensors + written.tensors,
        dtype=_name(dtype), rounded=rounded,
    )  # fmt: skip


# ---- the reader's side -----------------------------------------------------------------------------


def _reloaded(model: Any, place: Path, run: _Run) -> Any:
    import transformers

    auto: Any = transformers.AutoModelForCausalLM if run.purpose == "clm" else transformers.AutoModelForMaskedLM
    attention = plain_attention(model.config)
    with loading("it"):
        again, info = auto.from_pretrained(
            place,
            dtype=torch.float32,
            trust_remote_code=run.options.trust_remote_code,
            output_loading_info=True,
            **({"attn_implementation": attention} if attention else {}),
        )
    for name, words in (("missing_keys", "are missing"), ("unexpected_keys", "have no place"),
                        ("mismatched_keys", "have another shape"), ("error_msgs", "cannot be read")):  # fmt: skip
        if wrong := sorted(map(str, info.get(name) or ())):
            raise OwnResultWrong(differs(f"{len(wrong)} of its tensors {words} ({', '.join(wrong[:3])})"))
    return again


def _reloaded_adapter(model: Any, tokenizer: Any | None, place: Path, run: _Run) -> tuple[Any, torch.dtype]:
    """The base that the adapter in ``place`` names, loaded anew, with the adapter on it; the base's own format."""
    from peft import PeftModel

    with loading("it"):
        chosen = read_adapter(place, "--output_dir").base_options(run.options)
        loaded = load_model(replace(chosen, attn_implementation=plain_attention(model.config)), run.purpose, tokenizer)
        base: Any = loaded.model
        rows = model.config.get_text_config().vocab_size
        if rows > rows_of(base):
            grow_embedding(base, rows)
        again: Any = PeftModel.from_pretrained(base, str(place))
    return again.eval(), loaded.dtype or torch.float32


# ---- the comparison --------------------------------------------------------------------------------


def sharded_logits(model: Any, tokenizer: Any | None) -> Tensor | None:
    """The logits of a model that is sharded, to compare its export with; every process has to call it.

    None where they would differ by more than rounding: weights that are kept, or gathered, in fewer bits than fp32.
    """
    if gathered_dtype(model) != torch.float32 or low_weights(model):
        return None
    logits = logits_of(model, probe_ids(model, tokenizer))
    put_away(model)
    return logits


def _compared(model: Any, again: Any, tokenizer: Any | None, run: _Run) -> Verified:
    """Compare ``again``, in fp32, with ``model``; leaves both as they are."""
    state = run.state
    if tokenizer is not None and rows_needed(tokenizer) > rows_of(again):
        raise OwnResultWrong(
            differs(f"it has {rows_of(again)} rows for the tokenizer's ids, which go to {rows_needed(tokenizer) - 1}")
        )
    settings = getattr(again, "generation_config", None)
    if settings is not None and not hasattr(again, "peft_config"):
        try:
            settings.validate(strict=True)
        except ValueError as error:
            raise OwnResultWrong(differs(f"its settings for generation are invalid ({one_line(error)})")) from error
    adapter = hasattr(model, "peft_config")
    kind: Literal["model", "adapter"] = "adapter" if adapter else "model"
    tensors = compare_tensors(model.state_dict() if state is None else state, again, grown_tables(model))
    if state is not None and run.logits is None:
        return Verified(kind, (), 0.0, ALLOWED, 0, tensors, 0.0)
    if (mine := tied(model)) != (other := tied(again)):
        [names, *_] = sorted(map(sorted, mine ^ other))
        raise OwnResultWrong(differs(f"its weights are not tied as they were ({' = '.join(names)})"))
    ids = probe_ids(model, tokenizer)
    right = logits_of(model, ids) if run.logits is None else run.logits
    device = _place(model)
    again = again.to(device)
    if is_fused(model):
        fuse_activations(again)
    unrounded = logits_of(again, ids) if low_weights(model) else None
    with rounded_like(again, model):
        found = logits_of(again, ids)
    allowed = ALLOWED if device == next(model.parameters()).device else ELSEWHERE
    apart = difference(right, found)
    if not apart <= allowed:
        raise OwnResultWrong(differs(f"it computes other logits: the largest difference is {apart:.1e} of the largest "
                                      f"logit, where {allowed:.0e} is allowed"))  # fmt: skip
    rounded = difference(found, unrounded) if unrounded is not None and adapter else 0.0
    dtype = next(iter(low_weights(model).values())).dtype if low_weights(model) else torch.float32
    return Verified(kind, (), apart, allowed, right.numel(), tensors, 0.0, _name(dtype),
                    rounded)  # fmt: skip


def _place(model: Any) -> torch.device:
    """Where the copy computes: beside the model if there is room, else on the CPU."""
    device: torch.device = next(model.parameters()).device
    if device.type != "cuda":
        return device if device.type == "cpu" else torch.device("cpu")
    torch.cuda.empty_cache()
    return device if torch.cuda.mem_get_info(device)[0] > _ROOM * _bytes_of_the_copy(model) else torch.device("cpu")


def _bytes_of_the_copy(model: Any) -> int:
    """What the comparison takes beside ``model``: each weight in fp32, twice where it is rounded meanwhile."""
    weights = (*model.parameters(), *low_weights(model).values())
    return 4 * sum(weight.numel() for weight in weights)


@contextmanager
def _same_draws(model: Any) -> Iterator[None]:
    """Leave the random generators as they are."""
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
