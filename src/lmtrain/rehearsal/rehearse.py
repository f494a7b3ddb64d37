"""The rehearsal before a run: what can fail at its end is tried at its start, on a small scale, and told all at once.

In this order, the cheapest first::

    place      files can be written, flushed and renamed; disk space    a probe of 64 kB
    settings   generation settings and vocabulary                       nothing is computed
    twin       save, load, compare, generate                            a shrunken model (rehearsal.twin)
    pass       the longest examples, forward and backward               the real model, its gradients dropped
    evaluate   the run's own evaluation of a few examples               the real model

It takes about 0.3 s or 1 % of the planned time, whichever is more: of the pass and the evaluation, which a large model
makes long, as many examples are tried as fit, and not one that would take more than 10 s and 1 %. Model, optimizer and
random streams are left to the bit as they were.

The right to upload to the hub is looked at with the options (``engine.requirements``).
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from lmtrain.config.options import Resolved
from lmtrain.core.allocator import is_out_of_memory
from lmtrain.core.console import duration
from lmtrain.core.errors import UserError
from lmtrain.engine.rehearsing import Stage
from lmtrain.models.quiet import quiet_libraries
from lmtrain.rehearsal.agreeing import Together
from lmtrain.rehearsal.estimate import Estimate, estimate, length_of, require_memory
from lmtrain.rehearsal.footprint import Disk, disk_of, optimizer_bytes, require_space
from lmtrain.rehearsal.keeping import check_saving, check_settings, check_use, check_vocabulary
from lmtrain.rehearsal.passes import Pass, longest, seconds_of, try_pass
from lmtrain.rehearsal.place import check_writing, left_as_found, scratch_in
from lmtrain.rehearsal.twin import make_twin
from lmtrain.rehearsal.untouched import same_model, same_streams, stand_in

_SHARE, _LEAST_S, _MOST_S = 0.01, 0.3, 10.0
_TOKENIZER_S = 12e-6  # for each token of its vocabulary, to save and to load it (50,257: 0.5 s)
_PROMPT = 8  # tokens of the first example
_BATCHES = 2  # evaluated


@dataclass
class Budget:
    """Seconds: ``planned`` is how long the run is going to take, as far as is known."""

    planned: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    @property
    def left(self) -> float:
        """Of what a rehearsal takes."""
        return max(_LEAST_S, _SHARE * self.planned) - (time.perf_counter() - self.began)

    @property
    def left_at_most(self) -> float:
        """Of what it may take where nothing smaller can be tried."""
        return max(_MOST_S, _SHARE * self.planned) - (time.perf_counter() - self.began)


@dataclass
class Findings:
    """``done`` are the things that were tried and are fine, ``left_out`` those for which there was no time; ``lines``
    are worth saying."""

    done: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    passed: Pass | None = None
    disk: Disk | None = None
    estimate: Estimate | None = None


def rehearse(stage: Stage, *, plan: bool = True) -> Findings:
    """Rehearse the run on ``stage``; one that goes on from a checkpoint only has its place looked at. ``plan``: say
    what it is going to take.

    Raises :class:`UserError` with all problems, on every process.
    """
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    world, rank = (torch.distributed.get_world_size(), torch.distributed.get_rank()) if several else (1, 0)
    together, findings, budget = Together(world, rank), Findings(), Budget()
    with same_streams(), left_as_found(stage.folder) if together.is_first else nullcontext():
        if _place_and_settings(stage, together):
            _disk(stage, together, findings)
            if not stage.goes_on:
                _model(stage, together, findings, budget)
        together.agree()
        together.problems.raise_if_any()
    _tell(stage, findings, plan)
    return findings


def model_flag(resolved: Resolved) -> str:
    """The option that says which model it is."""
    named = (n for n in ("model_name_or_path", "config_name", "model_type") if getattr(resolved.model, n))
    return f"--{next(named, 'model_name_or_path')}"


def _place_and_settings(stage: Stage, together: Together) -> bool:
    """Whether there is a place to go on in, and ids that the model has; known to all processes."""
    usable = False
    model, tokenizer = stage.parts.model, stage.parts.tokenizer
    if together.is_first:
        with together.trying():
            with scratch_in(stage.folder) as scratch:
                check_writing(scratch)
            check_vocabulary(model, tokenizer)
            usable = True
        if not stage.goes_on:
            with together.trying():
                check_settings(model, model_flag(stage.resolved))
    return together.said_by_the_first(usable)


def _disk(stage: Stage, together: Together, findings: Findings) -> None:
    trainer, resolved = stage.trainer, stage.resolved
    if together.is_first:
        with together.trying():
            steps, epochs = length_of(trainer)
            optimizer = optimizer_bytes(resolved, trainer)
            findings.disk = disk_of(resolved, stage.parts.model, stage.folder, steps, epochs, optimizer=optimizer)
            require_space(findings.disk, stage.folder)


def _model(stage: Stage, together: Together, findings: Findings, budget: Budget) -> None:
    trainer = stage.trainer
    if trainer.is_sharded or trainer.get_tp_size() > 1:
        findings.lines.append("a model whose weights are divided over processes is not rehearsed, only its place is")
        return
    numbers = longest(trainer)
    alone = seconds_of(trainer, numbers[:1])
    budget.planned = seconds_of(trainer, numbers) * trainer.planned_passes
    if together.is_first:
        _on_a_twin(stage, together, findings, budget)
    settling = time.perf_counter()
    with together.trying() as attempt:
        _ = trainer.fast_paths
    budget.began += time.perf_counter() - settling  # the run's own work
    if not together.agree(attempt.went_well):
        return
    few = min(len(numbers), int(budget.left / alone)) if alone < budget.left else int(alone < budget.left_at_most)
    few = together.said_by_the_first(few)
    if not few:
        findings.lines.append(
            f"one example alone would take the model about {duration(alone)}, so none was tried beforehand"
        )
        return
    with together.trying() as attempt:
        findings.passed = try_pass(trainer, numbers[:few], len(numbers), model_flag(stage.resolved))
        findings.lines += findings.passed.lines
        findings.done.append("gradients")
    if together.agree(attempt.went_well) and findings.passed is not None:
        findings.estimate = estimate(stage, findings.passed)
        budget.planned = findings.estimate.seconds
        with together.trying() as attempt:
            require_memory(findings.estimate.examples, findings.estimate.memory, findings.estimate.memory_free)
        if together.agree(attempt.went_well):
            _evaluate(stage, together, findings, budget)


def _on_a_twin(stage: Stage, together: Together, findings: Findings, budget: Budget) -> None:
    """What the end of the run does, and what is done with its model; by one process."""
    resolved, tokenizer = stage.resolved, stage.parts.tokenizer
    flag = model_flag(resolved)
    try:
        with quiet_libraries():
            twin = make_twin(stage.parts.model)
    except LookupError as error:
        findings.lines.append(f"saving was not tried: {error}")
        return
    fits = _TOKENIZER_S * len(tokenizer) < budget.left / 2
    merge = resolved.lora.use_peft and resolved.lora.merge_lora
    with together.trying(), scratch_in(stage.folder) as scratch:
        kept = tokenizer if fits else None
        check_saving(twin, kept, scratch, resolved.model, resolved.purpose, flag, merge=merge)
        findings.done += ["save", "reload"]
        findings.left_out += [] if fits else ["saving the tokenizer"]
    with together.trying():
        prompt = tokenizer.decode(_first_ids(stage), skip_special_tokens=True)
        check_use(twin.model, tokenizer, prompt, resolved.purpose, flag)
        findings.done.append("generate" if resolved.purpose == "clm" else "fill a mask")


def _first_ids(stage: Stage) -> list[int]:
    layout: Any = stage.parts.corpus.splits["train"]
    examples = layout.__getitems__([0])
    return [int(i) for i in examples.ids[0, : min(int(examples.lengths[0]), _PROMPT)]]


def _evaluate(stage: Stage, together: Together, findings: Findings, budget: Budget) -> None:
    """The run's own evaluation of so many examples as fit; all processes take part."""
    trainer, passed = stage.trainer, findings.passed
    layout: Any = stage.parts.corpus.splits.get("validation")
    if layout is None or not stage.resolved.do_eval or passed is None:
        return
    args = trainer.args
    count = min(len(layout), _BATCHES * args.eval_batch_size * args.world_size)
    an_example = float(layout.lengths[:count].mean()) * passed.seconds / passed.tokens / 3 / args.world_size
    fit = max(1, int(budget.left / an_example)) if an_example < budget.left_at_most else 0
    count = together.said_by_the_first(min(count, fit))
    if not count:
        findings.left_out.append("an evaluation")
        return
    try:
        with same_model(trainer.model):
            stand_in(trainer).evaluate(layout.take(count))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"{min(count, args.eval_batch_size)} examples at once do not fit into memory; use fewer",
            flag="--per_device_eval_batch_size",
        ) from error
    findings.done.append("evaluate")


def _tell(stage: Stage, findings: Findings, plan: bool) -> None:
    for line in findings.lines:
        stage.say("attention", line)
    if findings.done:
        taking = f" · plan: {findings.estimate.line(findings.disk)}" if plan and findings.estimate is not None else ""
        short = f" (not tried, for want of time: {', '.join(findings.left_out)})" if findings.left_out else ""
        stage.say("rehearsal", f"{', '.join(findings.done)}: fine{short}{taking}")
