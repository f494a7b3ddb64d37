"""Processes that meet, compare and fail: run by test_meeting.py, once for several cases."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.core.console import silent
from lmtrain.core.errors import Interrupted, UserError
from lmtrain.core.launching import rank
from lmtrain.engine import agreement
from lmtrain.engine.agreement import differences, require_same_parts, require_same_start
from lmtrain.engine.distributed import meeting
from lmtrain.engine.distributed.meeting import compared, meet, telling_others, told_by_the_first, wait_for_all

_earlier: list[Any] = []  # stores, which the others may still look at


def begin_anew(port: str) -> None:
    """As if the processes were started once more."""
    _earlier.extend(meeting._stores)
    meeting._stores.clear()
    meeting._lives.clear()
    os.environ["MASTER_PORT"] = port
    meet()


def started(on: str, folder: Path) -> str:
    """What is said of the same command on that device."""
    agreement.best_device = lambda **_: torch.device(on)  # type: ignore[attr-defined]
    options = DataOptions(), MaskingOptions(), RunOptions(), {"output_dir": str(folder)}
    try:
        require_same_start(Resolved("clm", ModelOptions(), *options))
    except UserError as error:
        return str(error)
    return ""


def parts(*, text: str = "b", weight: float = 0.0, weights: bool = True, precision: str = "fp32") -> str:
    """What is said of two stores of a mix and a model."""
    stores = {f"train/{name}": SimpleNamespace(store=SimpleNamespace(manifest={"key": name})) for name in ("a", text)}
    model: Any = torch.nn.Linear(40, 500)
    model.config = SimpleNamespace(to_dict=lambda: {"n_layer": 1})
    with torch.no_grad():
        for number, tensor in enumerate(model.parameters()):
            tensor.fill_(number)
        model.weight[17, 24] += weight
    corpus = SimpleNamespace(splits={"train": range(3)}, stores=stores)
    tokenizer = SimpleNamespace(get_vocab=lambda: {"the": 1})
    try:
        require_same_parts(corpus, tokenizer, model, silent, precision=precision, weights=weights)
    except UserError as error:
        return str(error)
    return ""


def told(error: BaseException) -> str:
    """How this process ends when process 1 ends with ``error`` and the others wait for it."""
    try:
        with telling_others():
            if rank() == 1:
                raise error
            wait_for_all(silent)
    except (Exception, Interrupted) as found:
        return f"{type(found).__name__}: {found}"
    return ""


def main(folder: Path, *ports: str) -> int:
    me, seen = rank(), {}
    meet()
    seen["same"] = compared("facts", "alike", silent)
    seen["again"] = compared("facts", "alike", silent)
    texts = compared("facts", json.dumps({"--seed": str(me % 2), "torch": "2"}), silent)
    seen["differences"] = differences({number: json.loads(text) for number, text in (texts or {}).items()})
    seen["told"] = told_by_the_first(f"by {me}", silent)
    seen["parts"] = [
        parts(),
        parts(text="b" if me else "c"),
        parts(weight=1e-6 * (me == 2)),
        parts(weight=1e-6 * (me == 2), weights=False),
        parts(precision="bf16" if me else "fp32"),
    ]
    seen["start"] = [started("cpu", folder), started("cpu" if me == 1 else "cuda", folder)]
    begin_anew(ports[0])
    seen["interrupted"] = told(Interrupted("SIGTERM came"))
    begin_anew(ports[1])
    seen["fault"] = told(KeyError("a bug"))
    begin_anew(ports[2])
    code = 0
    try:
        with telling_others():
            if me == 2:
                raise UserError("no such file: a.txt", flag="--train_file")
            wait_for_all(silent)
    except UserError as error:
        code, seen["error"], seen["heard"] = 2, str(error), error.heard
    seen["left"] = time.monotonic()
    (folder / f"{me}.json").write_text(json.dumps(seen))
    return code


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *sys.argv[2:]))
