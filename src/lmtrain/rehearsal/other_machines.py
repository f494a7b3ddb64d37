"""What ``lmtrain check --devices N`` adds to a plan: the run on other machines, from what was measured on this one."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lmtrain.config.commands.outlook import OutlookOptions
from lmtrain.config.global_batch import DEFAULT_MICRO_BATCH, divide, largest_division
from lmtrain.config.options import Resolved
from lmtrain.config.sharding import sharding_of
from lmtrain.core.errors import UserError
from lmtrain.data.preparing import Request, prepare
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.parts import Parts
from lmtrain.engine.trainer import LMTrainer
from lmtrain.models.sharding import count_of
from lmtrain.rehearsal.anatomy import Anatomy
from lmtrain.rehearsal.scale.exchange import Step
from lmtrain.rehearsal.scale.network import LATENCY, NODE_LATENCY, Link, Network
from lmtrain.rehearsal.scale.outlook import HOUR, MTBF_HOURS, Outlook, Run, outlook
from lmtrain.rehearsal.scale.preparation import Preparation, preparation
from lmtrain.rehearsal.scale.saves import Storage

_SAMPLE = 1 << 20  # characters of the training text that are tokenized to see how fast that goes
_TIMES = 8  # as many more: what is done once falls out of the difference
_COPIED = 64 << 20  # bytes


@dataclass(frozen=True)
class Measured:
    """Of the run on this machine: how a step went, how many ``steps``, bytes of a ``checkpoint``, the disk's
    ``write_speed`` (bytes a second), whether it is saved in the ``background``, and seconds to ``start``."""

    anatomy: Anatomy
    steps: int
    checkpoint: int
    write_speed: float
    background: bool
    start: float


def on_other_machines(
    asked: OutlookOptions, resolved: Resolved, parts: Parts, trainer: LMTrainer, measured: Measured
) -> Outlook:
    """The outlook of the run on the machines ``asked`` for.

    Each device does the step that was measured here; with a fixed global batch they divide that. The same epochs are
    then fewer steps. Raises :class:`UserError` where the devices cannot share the work.
    """
    world = trainer.args.world_size
    devices = asked.devices or world
    run = _run(asked, resolved, trainer, measured)
    run = _shared(run, resolved, measured.anatomy, world, devices)
    network = Network(
        devices,
        asked.devices_per_node,
        Link.of(asked.node_link_gbps, NODE_LATENCY),
        Link.of(asked.link_gbps, LATENCY),
    )
    disk = measured.write_speed if asked.disk_mbps is None else asked.disk_mbps * 1e6
    shared = None if asked.store_mbps is None else asked.store_mbps * 1e6
    storage = Storage(disk, copy_speed(trainer.args.device), shared)
    hours = MTBF_HOURS if asked.mtbf is None else asked.mtbf
    prepared = _preparation(parts, network.nodes)
    return outlook(run, network, storage, mtbf=hours * HOUR, preparation=prepared)


def copy_speed(device: torch.device) -> float:
    """Bytes a second from ``device`` into main memory, as a checkpoint is copied before it is written."""
    cuda = device.type == "cuda"
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty(_COPIED, dtype=torch.uint8, pin_memory=cuda)
    target.copy_(source)  # touches its pages
    began = time.perf_counter()
    target.copy_(source)
    return _COPIED / max(time.perf_counter() - began, 1e-6)


def text_speed(text: str, tokenizer: Any) -> float:
    """Bytes of ``text`` a second that this machine tokenizes and stores, without what it does once."""
    files = TokenizerFiles.from_transformers(tokenizer)
    text = (text * math.ceil(_SAMPLE / max(1, len(text))))[:_SAMPLE]
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for times in (1, 1 + _TIMES):
            path = Path(folder) / f"{times}.txt"
            path.write_text(text * times, encoding="utf-8", newline="")
            began = time.perf_counter()
            prepare(Request(resolve_sources([str(path)], Reading()), files), Path(folder) / "cache")
            taken.append(time.perf_counter() - began)
    size = len(text.encode())
    more = taken[1] - taken[0]
    return _TIMES * size / more if more > 0 else (1 + _TIMES) * size / taken[1]


def _run(asked: OutlookOptions, resolved: Resolved, trainer: LMTrainer, measured: Measured) -> Run:
    anatomy, seconds = measured.anatomy, measured.anatomy.seconds
    factor = 1.0
    if asked.device_tflops is not None:
        flops = sum(anatomy.flops.values())
        if not flops:
            raise UserError("the operations of this model cannot be counted; leave it out", flag="--device_tflops")
        factor = flops / (asked.device_tflops * 1e12) / anatomy.step_seconds
    passes = anatomy.accumulation
    there = factor * (seconds["forward"] + seconds["head"] / 3) / passes  # a third of the head's time is its loss
    back = factor * (seconds["backward"] + seconds["head"] * 2 / 3) / passes
    wire = 4 if anatomy.precision == "fp32" else 2
    trained = count_of(trainer.model, trained=True)
    a_weight = next((p.element_size() for p in trainer.model.parameters() if p.requires_grad), 4)
    step = Step(
        forward=there,
        backward=back,
        update=factor * anatomy.step_seconds - passes * (there + back),
        gradients=a_weight * trained,
        weights=wire * count_of(trainer.model),
        sums=wire * trained,
        layers=getattr(trainer.model.config.get_text_config(), "num_hidden_layers", None) or 1,
        passes=passes,
    )
    start = measured.start if asked.restart_minutes is None else 60 * asked.restart_minutes
    # On a CPU the writer takes the cores that train, so its time is counted as a pause.
    background = measured.background and trainer.args.device.type != "cpu"
    sharded = sharding_of(resolved.training) is not None
    return Run(step, measured.steps, measured.checkpoint, sharded, background, start)


def _shared(run: Run, resolved: Resolved, anatomy: Anatomy, world: int, devices: int) -> Run:
    """``run`` with its steps, or the work of a step, divided over ``devices``."""
    examples = anatomy.micro_batch * anatomy.accumulation * world
    if resolved.run.global_batch_size is not None:
        division = divide(examples, devices, flag="--devices")
    elif resolved.run.batch_tokens is not None:
        division = largest_division(max(1, round(examples / devices)), DEFAULT_MICRO_BATCH)
    else:
        fixed = resolved.training.get("max_steps", 0) > 0
        return run if fixed else replace(run, steps=max(1, math.ceil(run.steps * world / devices)))
    step, less = run.step, division.micro_batch / anatomy.micro_batch
    step = replace(step, passes=division.accumulation, forward=less * step.forward, backward=less * step.backward)
    return replace(run, step=step)


def _preparation(parts: Parts, machines: int) -> Preparation | None:
    ledger, layout = parts.corpus.ledger, parts.corpus.splits.get("train")
    if layout is None or not ledger.tokens:
        return None
    pieces: list[str] = []
    for number in islice(range(len(layout)), 2048):
        examples = layout.__getitems__([number])
        ids = examples.ids[0, : int(examples.lengths[0])].tolist()
        pieces.append(parts.tokenizer.decode(ids, skip_special_tokens=True))
        if sum(map(len, pieces)) >= _SAMPLE:
            break
    text = "".join(pieces)
    if not text:
        return None
    return preparation(
        ledger.tokens,
        rate=text_speed(text, parts.tokenizer),
        bytes_per_token=(ledger.text_bytes or ledger.bytes_read) / ledger.tokens,
        vocabulary=len(parts.tokenizer),
        machines=machines,
    )
