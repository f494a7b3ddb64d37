"""All processes of a run do the same, or none begins: options, versions, data and tokenizer are compared.

Two processes with other learning rates train two models and call it one; with other intervals of saving, or data of
another length, one of them waits for ever. So they are compared by a hash before anything is exchanged, and what
differs is named. Nothing secret is among it: tokens are no part of the options that are written down.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lmtrain.config.options import Resolved
from lmtrain.config.save import as_dict
from lmtrain.core.console import Say, say
from lmtrain.core.errors import Problems
from lmtrain.core.launching import processes, rank
from lmtrain.core.version import __version__
from lmtrain.engine.checkpoints.read import believe, verified
from lmtrain.engine.distributed.meeting import compared, meet, ranks, told_by_the_first
from lmtrain.engine.runs.found import Found
from lmtrain.engine.runs.versions import versions
from lmtrain.engine.speed.machine import best_device

# Options that are about one machine: each may have its own. Others decide what is computed, or who waits for whom.
OF_ONE_MACHINE = frozenset(
    {
        "cache_dir", "data_cache_dir", "overwrite_cache", "preprocessing_num_workers", "dataloader_num_workers",
        "dataloader_pin_memory", "dataloader_prefetch_factor", "dataloader_persistent_workers",
        "dataloader_multiprocessing_context", "log_level", "log_level_replica", "config", "json",
    }
)  # fmt: skip
_LONGEST = 60  # characters of a value
_SAMPLED = 1024  # numbers of a weight
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def require_same_start(resolved: Resolved) -> None:
    """Meet the other processes; raise :class:`UserError` when their options or versions are others than this one's."""
    if processes() == 1:
        return
    meet(resolved.training.get("ddp_timeout"))
    options = {f"--{name}": repr(value) for name, value in as_dict(resolved).items() if name not in OF_ONE_MACHINE}
    options["the command"] = options.pop("--command")
    libraries = versions() | {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "lmtrain": __version__}
    device = {"the device": best_device(use_cpu=bool(resolved.training.get("use_cpu"))).type}  # of a broken GPU: cpu
    remedy = "start every process with the same command, packages and kind of device"
    _require("start", options | libraries | device, remedy, say)


def looked_at_once(look: Callable[[], Found]) -> Found:
    """What ``look`` finds in the output folder. The first process looks before the others, which believe what it found
    of the checkpoints: each has to be read as a whole for that, and may lie on a disk of the network."""
    if processes() == 1 or rank() == 0:
        found = look()
        told_by_the_first(json.dumps(verified()))
        return found
    believe(json.loads(told_by_the_first("")))
    return look()


def require_same_folder(found: Found, decided: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` when the other processes find another run in the output folder than this one: what is
    resumed, tried and measured depends on that, and they would wait for each other at different places."""
    if processes() == 1:
        return
    facts = {
        "what the output folder holds": f"{found.state}, step {found.step}",
        "what was decided there": _short(json.dumps(decided, sort_keys=True, default=str)),
    }
    _require("folder", facts, "--output_dir has to be a folder that all processes see", say)


def require_same_parts(
    corpus: Any, tokenizer: Any, model: Any, say: Say = say, *, precision: str = "", weights: bool = False
) -> None:
    """Wait until all processes have their data; raise :class:`UserError` when it is not the same, nor the tokenizer,
    the model's configuration, or the ``precision`` that each machine chose. ``corpus`` is a
    :class:`lmtrain.data.corpus.Corpus`. ``weights``: compare these too, where no process sends its own to the others.
    """
    if processes() == 1:  # writing out a large vocabulary takes a tenth of a second
        return
    facts = {
        "--precision": precision,
        "the tokenizer": _short(tokenizer_text(tokenizer)),
        "the model's configuration": _short(json.dumps(_lasting(model.config.to_dict()), sort_keys=True, default=str)),
    }
    if weights:
        facts["the model's weights"] = weights_text(model)
    for split, layout in corpus.splits.items():
        facts[f"the {split} data"] = " ".join([f"{len(layout):,} examples", *_keys(corpus.stores, split)])
    _require("parts", facts, "every process needs the same text, tokenizer, model and precision", say)


def _keys(stores: Mapping[str, Any], split: str) -> list[str]:
    """What says which text is in the stores of a split: one, or those of a mix, in their order."""
    return [made.store.manifest["key"][:12] for name, made in stores.items() if name.partition("/")[0] == split]


def weights_text(model: Any) -> str:
    """A hash of all weights, in one pass over them: for each a sum of its bits, which is exact in any order and so on
    any number of threads, and some of them in their places."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        bits = weight.detach().contiguous().reshape(-1).view(_BITS[weight.element_size()])
        some = bits[:: max(1, len(bits) // _SAMPLED)].cpu().numpy().tobytes()
        digest.update(f"{name} {tuple(weight.shape)} {int(bits.sum(dtype=torch.int64))} ".encode() + some)
    return digest.hexdigest()[:12]


def tokenizer_text(tokenizer: Any) -> str:
    """All that decides which tokens a text becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return str(backend.to_str())
    return json.dumps(sorted(tokenizer.get_vocab().items()))


def differences(by_rank: Mapping[int, Mapping[str, str]]) -> list[tuple[str, str]]:
    """What differs: its name, and who has what.

    >>> differences({0: {"--seed": "1"}, 1: {"--seed": "2"}, 2: {"--seed": "1"}})
    [('--seed', 'is 1 on ranks 0, 2 and 2 on rank 1')]
    """
    found = []
    for name in dict.fromkeys(name for facts in by_rank.values() for name in facts):
        whose: dict[str, list[int]] = {}
        for number, facts in by_rank.items():
            whose.setdefault(facts.get(name, "not given"), []).append(number)
        if len(whose) > 1:
            shown = [f"{_cut(value)} on {ranks(numbers)}" for value, numbers in whose.items()]
            found.append((name, f"is {', '.join(shown[:-1])} and {shown[-1]}"))
    return found


def _require(name: str, facts: Mapping[str, str], remedy: str, say: Say) -> None:
    texts = compared(name, json.dumps(facts, sort_keys=True), say)
    if texts is None:
        return
    problems = Problems()
    for what, difference in differences({number: json.loads(text) for number, text in texts.items()}):
        flag = what if what.startswith("--") else None
        problems.add(f"{difference if flag else f'{what} {difference}'}; {remedy}", flag=flag)
    if not problems:  # this process and the first agree
        problems.add(f"other processes of this run were started otherwise; {remedy}")
    problems.raise_if_any()


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the folder that it was read from, which is each machine's own."""
    return {name: value for name, value in config.items() if name not in ("_name_or_path", "name_or_path")}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cut(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…"
