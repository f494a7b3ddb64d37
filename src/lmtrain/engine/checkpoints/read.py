"""Which checkpoint a run can go on from, and its tensors, read without running code."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lmtrain.core.errors import UserError, one_line
from lmtrain.core.files import put_back, read_json
from lmtrain.engine.checkpoints.manifest import MANIFEST, damage, is_inside, read_manifest

STATE = "trainer_state.json"  # the Trainer's own record
RUN_STATE = "run_state.json"  # what the Trainer's leaves out: see engine/trainer/resuming.py
OPTIMIZER, SCHEDULER, SCALER = "optimizer.pt", "scheduler.pt", "scaler.pt"  # names that the stock Trainer reads too
SHARDED_WEIGHTS, SHARDED_OPTIMIZER = "shards/weights", "shards/optimizer"  # what several processes wrote: see sharded
OPTIMIZER_GROUPS = "optimizer.json"

_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")
_OPTIMIZERS = ("optimizer", "global_step")  # how the optimizer's state may be called; the second is DeepSpeed's
_NEVER_READ = ("training_args", "rng_state")  # the stock Trainer's pickles
_WEIGHTS = ("model", "adapter_model", "pytorch_model", "global_step")
_verified: dict[Path, tuple[list[Any], str | None]] = {}  # a run looks at one when it starts, and when it loads it


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest checkpoint that a run can go on from, None where there is none; ``passed_over`` says of each newer
    one what is wrong with it, ``weights_only`` names those without optimizer state."""

    checkpoint: Path | None
    step: int = 0
    passed_over: tuple[str, ...] = ()
    weights_only: tuple[str, ...] = ()

    @property
    def reasons(self) -> str:
        """Why there is none, to follow a sentence: empty where there is nothing to tell."""
        lines = list(self.passed_over)
        if self.weights_only:
            lines.append(f"{', '.join(self.weights_only)}: weights only (--keep_optimizer_states)")
        return ":\n" + "\n".join(f"    {line}" for line in lines) if lines else ""


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """The folders called ``checkpoint-N`` as (step, folder), oldest first, whatever is in them."""
    if not folder.is_dir():
        return []
    named = [(_CHECKPOINT.match(entry.name), entry) for entry in folder.iterdir() if entry.is_dir()]
    return sorted((int(match[1]), entry) for match, entry in named if match)


def newest(folder: Path) -> Newest:
    """The newest checkpoint in ``folder`` that verifies and has optimizer state, one that a killed save was replacing
    among them. Nobody else may be saving there."""
    put_back(folder, "checkpoint-*")
    passed_over, light = [], []
    for step, checkpoint in reversed(checkpoints(folder)):
        wrong = problem(checkpoint)
        if wrong is not None:
            passed_over.append(f"{checkpoint.name}: {wrong}")
        elif not has_optimizer_state(checkpoint):
            light.append(checkpoint.name)
        else:
            return Newest(checkpoint, step, tuple(passed_over), tuple(light))
    return Newest(None, 0, tuple(passed_over), tuple(light))


def problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words that name the file; None when it verifies.

    One of the stock Trainer has no hashes: of it only what a cut-off file shows can be noticed.
    """
    as_it_is = _as_it_is(checkpoint)
    known = _verified.get(checkpoint)
    if known is None or known[0] != as_it_is:
        known = _verified[checkpoint] = (as_it_is, _problem(checkpoint))
    return known[1]


def shows_damage(checkpoint: Path) -> bool:
    """Whether :func:`problem` found something wrong with it in this process, or names and sizes show it: it is not
    hashed for this."""
    known = _verified.get(checkpoint)
    if known is not None and known[0] == _as_it_is(checkpoint):
        return known[1] is not None
    return _problem(checkpoint, hashes=False) is not None


def _as_it_is(checkpoint: Path) -> list[Any]:
    files = sorted(entry for entry in checkpoint.rglob("*") if entry.is_file())
    return [[entry.name, stat.st_size, stat.st_mtime_ns] for entry in files if (stat := entry.stat())]


def verified() -> list[Any]:
    """What :func:`problem` found in this process, as JSON has it: for :func:`believe` in another one of the run."""
    return [[str(checkpoint), as_it_is, wrong] for checkpoint, (as_it_is, wrong) in _verified.items()]


def believe(found: list[Any]) -> None:
    """Take over what another process found of files that are the same here: names, sizes and times."""
    _verified.update({Path(checkpoint): (as_it_is, wrong) for checkpoint, as_it_is, wrong in found})


def _problem(checkpoint: Path, *, hashes: bool = True) -> str | None:
    try:
        if (checkpoint / MANIFEST).is_file():
            return damage(checkpoint, read_manifest(checkpoint), hashes=hashes) or _index_problem(checkpoint)
        if (checkpoint / RUN_STATE).is_file():
            return f"{MANIFEST} is missing"
        return _stock_problem(checkpoint) or _index_problem(checkpoint)
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{Path(error.filename or checkpoint).name} cannot be read ({error.strerror})"


def _index_problem(checkpoint: Path) -> str | None:
    """Shards have to lie in the checkpoint: the library reads them from wherever their index says."""
    for index in sorted(checkpoint.glob("*.index.json")):
        try:
            outside = [shard for shard in read_json(index)["weight_map"].values() if not is_inside(shard)]
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} is damaged"
        if outside:
            return f"{index.name} names {outside[0]!r} for weights, which is no file of it"
    return None


def _stock_problem(checkpoint: Path) -> str | None:
    try:
        int(read_json(checkpoint / STATE)["global_step"])
    except FileNotFoundError:
        return f"{STATE} is missing"
    except (ValueError, KeyError, TypeError):
        return f"{STATE} is damaged"
    entries = sorted(checkpoint.iterdir())
    if not any(entry.name.startswith(_WEIGHTS) for entry in entries):
        return "it has no weights"
    for entry in entries:
        cut = (entry.suffix == ".safetensors" and not _is_whole(entry)) or (
            entry.suffix in (".pt", ".bin", ".pth") and entry.is_file() and not zipfile.is_zipfile(entry)
        )
        if cut and not entry.name.startswith(_NEVER_READ):
            return f"{entry.name} is cut off"
    return None


def _is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says, which is all that is read of it."""
    try:
        with safe_open(path, framework="numpy"):
            return True
    except SafetensorError:
        return False


def has_optimizer_state(checkpoint: Path) -> bool:
    """Whether training can go on from it, and not only its weights be used."""
    if (checkpoint / MANIFEST).is_file():
        return bool(read_manifest(checkpoint)["optimizer_state"])
    return any(entry.name.startswith(_OPTIMIZERS) for entry in checkpoint.iterdir())


def has_shards(checkpoint: Path) -> bool:
    """Whether several processes wrote it, each its part."""
    return (checkpoint / SHARDED_WEIGHTS).is_dir()


def put_weights(model: Any, weights: Path) -> str:
    """Put a safetensors file into ``model``, where a tied weight stands once; in words what of it is another model's,
    empty where nothing is."""
    from safetensors.torch import load_file

    loaded = load_file(weights)
    try:
        result = model.load_state_dict(loaded, strict=False)
    except RuntimeError as error:  # tensors of other shapes
        return one_line(error)
    own = model.state_dict(keep_vars=True)
    known = {own[name].data_ptr() for name in loaded if name in own}
    missing = [name for name in result.missing_keys if own[name].data_ptr() not in known]
    return other_names(missing, result.unexpected_keys)


def other_names(missing: Iterable[str], unexpected: Iterable[str]) -> str:
    """``no lm_head.bias, also wte.weight``: the first of the names; empty where there are none."""
    wrong = [*(f"no {name}" for name in missing), *(f"also {name}" for name in unexpected)]
    return ", ".join(wrong[:3]) + (" …" if len(wrong) > 3 else "")


def read_tensors(path: Path, map_location: Any = "cpu") -> Any:
    """What :func:`~lmtrain.engine.checkpoints.write.write_tensors` or the stock Trainer wrote.

    Raises :class:`UserError` where the file holds anything but tensors and plain values: reading that could run code.
    """
    import torch

    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("WeightsUnpickler error:")[-1].strip().split("\n")[0].split(" Please")[0]
        raise UserError(
            f"{path} is refused: it holds more than tensors, and reading it could run code ({reason}). Train from "
            "another checkpoint, or from its weights alone with --model_name_or_path",
            flag="--resume_from_checkpoint",
        ) from None
