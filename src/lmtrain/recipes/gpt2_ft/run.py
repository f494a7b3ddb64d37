"""``lmtrain gpt2-ft`` from its options to a finished ``--work_dir``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import TrainingArguments

from lmtrain.config.commands.gpt2_ft import Gpt2FtOptions, corners, without_effect
from lmtrain.core.allocator import keep_freed_memory
from lmtrain.core.console import Say, counted, say
from lmtrain.core.errors import Interrupted, Problems
from lmtrain.core.stopping import Stop
from lmtrain.data.layouts import Pairs
from lmtrain.data.sources.pairs import PairSource
from lmtrain.engine.arguments import OURS
from lmtrain.engine.runs.found import require_unchanged
from lmtrain.engine.runs.resume import goes_on_with_it
from lmtrain.engine.runs.run_folder import RunFolder
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.precision import Decision, choose_precision
from lmtrain.engine.speed.threads import threads_again, threads_for
from lmtrain.models import describe
from lmtrain.objectives import Causal, Completion
from lmtrain.recipes.flags import in_flags, saying
from lmtrain.recipes.gpt2_ft import folder as work_dir
from lmtrain.recipes.gpt2_ft import schedules
from lmtrain.recipes.gpt2_ft.log import RULE, show
from lmtrain.recipes.gpt2_ft.model import Made, new_model
from lmtrain.recipes.gpt2_ft.optimizer import DecayAfterAdam, groups
from lmtrain.recipes.gpt2_ft.order import Plan, plan
from lmtrain.recipes.gpt2_ft.pairs import encoded_sources, read_pairs
from lmtrain.recipes.gpt2_ft.recorder import Intervals, Recorder
from lmtrain.recipes.gpt2_ft.trainer import Gpt2FtTrainer, Observer


def run_gpt2_ft(options: Gpt2FtOptions, argv: Sequence[str] = (), *, stop: Stop | None = None, say: Say = say) -> Path:
    """Train as the options say, into ``--work_dir``; go on, or say that it is finished, where that holds this run.

    Lines of the original's form go to standard output. Raises :class:`UserError`, with everything that can be known
    before anything is written, and :class:`Interrupted` when training was ended by ``stop``, with a checkpoint.
    """
    problems = Problems()
    options.check(problems)
    problems.raise_if_any()
    for line in without_effect(options):
        say("options", line)
    folder = work_dir.path_of(options)
    found = work_dir.look(options, argv)
    for line in found.lines:
        saying(say, work_dir.FLAGS, work_dir.COMMAND)("run", line)
    if found.state == "finished":
        say("run", f"{folder} holds this run, which ended at micro-batch {found.step:,}")
        return folder
    device = best_device()
    transformers.set_seed(options.random_seed)
    before = work_dir.decided(options, found)
    if device.type == "cpu":
        keep_freed_memory()
        threads, otherwise = threads_again(before, torch.get_num_threads())
        torch.set_num_threads(threads)
        if otherwise:
            say("attention", otherwise)
    made, precision, sources = _looked_at(options, device, before, say)
    say("model", f"{describe(made.model)} · {precision.name} ({precision.reason})")
    train, valid, hashes = _pairs(options, sources, made.model.config, say)
    if goes_on_with_it(found):
        work_dir.require_same_pairs(options, hashes)
    length = plan_of(options, len(train))
    say("plan", _said(length, options))
    still = partial(require_unchanged, folder, found.seen)
    with RunFolder(folder, overwrite=found.overwrites, still=still) as run:
        work_dir.begin(run, options, argv, hashes, found)
        trainer = make_trainer(options, made.model, train, valid, precision, decided=before)
        intervals = Intervals(options.log_interval, options.save_interval, options.eval_interval)
        recorder = Recorder(length, intervals, trainer.validation_loss, partial(made.save, folder), log=run.log)
        trainer.observer = recorder
        run.decisions(
            {
                "precision": {"choice": precision.name, "reason": precision.reason},
                "device": str(device),
                "threads": torch.get_num_threads(),
                "threads_for": threads_for(),
                **trainer.fast_paths.decisions,
            }
        )
        for line in trainer.fast_paths.lines:
            say("model", line)
        run.status("training", step=_micro_batches(found.step, options, length))
        if found.checkpoint:
            say("run", f"goes on from update {found.step}: {found.checkpoint}")
        trainer.stop = stop
        with stop.deferred() if stop else nullcontext():
            trainer.train(resume_from_checkpoint=str(found.checkpoint) if found.checkpoint else None)
        if stop and trainer.was_stopped:
            run.status("training", step=_micro_batches(trainer.state.global_step, options, length))
            raise Interrupted(f"{stop.reason}; saved at update {trainer.state.global_step}")
        made.export(folder)
        work_dir.end(run, length, recorder)
    show(RULE)
    show("End of training")
    say("run", f"to use it: lmtrain nlg decode --model {folder} --input test.jsonl --output predictions.jsonl")
    return folder


def _micro_batches(updates: int, options: Gpt2FtOptions, length: Plan) -> int:
    """What ``updates`` come to in the steps of the log and of the report."""
    return min(updates * options.grad_acc, length.total)


def _said(length: Plan, options: Gpt2FtOptions) -> str:
    text = (
        f"{length.total:,} micro-batches of {counted(options.train_batch_size, 'example')} "
        f"({length.an_epoch:,} an epoch), {counted(length.total // options.grad_acc, 'update')}"
    )
    if options.scheduler == "cycle" and options.max_step not in (None, length.max_step):
        text += "; the last of --i_steps takes the place of --max_step"
    left = length.total % options.grad_acc
    return text + (f"; what is left, {left}, fills no window of --grad_acc and makes none" if left else "")


def make_trainer(
    options: Gpt2FtOptions,
    model: Any,
    train: Pairs,
    valid: Pairs,
    precision: Decision,
    observer: Observer | None = None,
    decided: dict[str, Any] | None = None,
) -> Gpt2FtTrainer:
    """The trainer of a run on ``train``; ``model`` is GPT-2, with an adapter or whole. ``decided``: as
    :class:`~lmtrain.engine.trainer.LMTrainer` takes it."""
    length = plan_of(options, len(train))

    def optimizer(model: Any) -> DecayAfterAdam:
        return DecayAfterAdam(
            groups(model, no_decay_bias=options.no_decay_bias),
            lr=options.lr,
            betas=(options.adam_beta1, options.adam_beta2),
            eps=options.adam_epislon,
            weight_decay=options.weight_decay,
            correct_bias=options.correct_bias,
        )

    return Gpt2FtTrainer(
        model,
        training_arguments(options, precision),
        train_dataset=train,
        eval_dataset=valid,
        objective=Completion() if options.obj == "clm" else Causal(),
        make_optimizer=optimizer,
        plan=length,
        rate=rate_of(options, length),
        observer=observer,
        decided=decided,
    )


def training_arguments(options: Gpt2FtOptions, precision: Decision) -> TrainingArguments:
    """What the loop has to know: the rest are the recipe's own strategies."""
    no_accelerator = torch.accelerator.current_accelerator(check_available=True) is None
    return TrainingArguments(
        **{
            **OURS,
            **precision.arguments,
            "output_dir": str(work_dir.path_of(options)),
            "per_device_train_batch_size": options.train_batch_size,
            "per_device_eval_batch_size": options.valid_batch_size,
            "gradient_accumulation_steps": options.grad_acc,
            "num_train_epochs": 1,  # that holds all of them
            "max_grad_norm": options.clip,
            "learning_rate": options.lr,
            "label_smoothing_factor": options.label_smooth,
            "seed": options.random_seed,
            "use_cpu": no_accelerator,
            "dataloader_pin_memory": torch.cuda.is_available(),
            "logging_strategy": "no",
            "save_strategy": "steps",
            "save_steps": max(1, options.save_interval // options.grad_acc),
            "save_total_limit": 1,
        }
    )


def rate_of(options: Gpt2FtOptions, length: Plan) -> schedules.Rate:
    """The learning rate as a function of the micro-batches done."""
    if options.scheduler == "linear":
        return schedules.linear(options.lr, options.warmup_step, length.max_step)
    if options.scheduler == "constant":
        return schedules.constant(options.lr, options.warmup_step)
    if options.scheduler == "cosine":
        return schedules.cosine(options.lr, options.warmup_step, length.max_step)
    if options.scheduler == "cycle":
        return schedules.cycle(*corners(options))
    return schedules.constant(options.lr)


def plan_of(options: Gpt2FtOptions, examples: int) -> Plan:
    """How long a run on so many examples is."""
    max_step = corners(options)[0][-1] if options.scheduler == "cycle" else options.max_step
    return plan(examples, options.train_batch_size, max_step, options.max_epoch)


@in_flags(work_dir.FLAGS, work_dir.COMMAND)
def _looked_at(
    options: Gpt2FtOptions, device: torch.device, decided: dict[str, Any], say: Say
) -> tuple[Made, Decision, dict[str, list[PairSource]]]:
    """The model, the format of its products and the files of pairs by split. Raises :class:`UserError` with what stands
    in the way of any of them."""
    problems, chosen = Problems(), "fp32"
    sources: dict[str, list[PairSource]] = {}
    for split, path in (("train", options.train_data), ("valid", options.valid_data)):
        with problems.collect():
            sources[split] = encoded_sources(str(path), f"--{split}_data")
    with problems.collect():
        precision = _precision(options, device, decided)
        chosen = precision.name
    with problems.collect():
        made = new_model(options, say, chosen)
    problems.raise_if_any()
    return made, precision, sources


def _precision(options: Gpt2FtOptions, device: torch.device, decided: dict[str, Any]) -> Decision:
    if options.precision == "auto" and (before := decided.get("precision", {}).get("choice")):
        return Decision(before, "as this run began")
    if options.fp16:
        return choose_precision("fp16", device, "--fp16", "leave it out, or give --precision bf16")
    return choose_precision(options.precision, device)


@in_flags(work_dir.FLAGS, work_dir.COMMAND)
def _pairs(
    options: Gpt2FtOptions, sources: dict[str, list[PairSource]], config: Any, say: Say
) -> tuple[Pairs, Pairs, dict[str, str]]:
    """Of training and validation, and a hash of each."""
    problems, found, hashes = Problems(), [], {}
    for split, path in (("train", options.train_data), ("valid", options.valid_data)):
        with problems.collect():
            flag = f"--{split}_data"
            layout, hashes[split] = read_pairs(str(path), sources[split], options.seq_len, config, flag, say)
            found.append(layout)
    problems.raise_if_any()
    train, valid = found
    return train, valid, hashes
