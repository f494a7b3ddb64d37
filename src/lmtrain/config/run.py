"""Options of how a run is carried out: number format, size of a step, saving, stopping, going on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option


@dataclass
class RunOptions:
    """How the run is carried out, beside ``TrainingArguments``."""

    title: ClassVar[str] = "Run"

    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto",
        "Number format of the products; auto takes bf16 where the hardware multiplies it fast, and says so.",
    )
    global_batch_size: int | None = option(
        None,
        "Size of a step over all processes, however many there are: how many examples go through the model at once "
        "(--per_device_train_batch_size, else at most 8) and how often follow from it, and the result stays the same.",
        unit="examples",
        at_least=1,
        shown_default="what --per_device_train_batch_size, --gradient_accumulation_steps and the processes make",
    )
    train_tokens: int | None = option(
        None,
        "Train on about so many tokens: as many steps as they take, instead of --num_train_epochs or --max_steps.",
        unit="tokens",
        at_least=1,
        shown_default="what --num_train_epochs or --max_steps make",
    )
    auto_batch: bool = option(
        False,
        "Find by measuring how many examples go through the model at once. A step keeps its examples "
        "(--global_batch_size, or --per_device_train_batch_size × --gradient_accumulation_steps); only how it is "
        "divided changes.",
    )
    batch_tokens: int | None = option(
        None,
        "Size of a step over all processes, instead of a number of examples; how many go through the model at once "
        "is found as with --auto_batch.",
        unit="tokens",
        at_least=1,
        shown_default="a number of examples",
    )
    z_loss: float = option(
        0.0,
        "Add so much of the squared logarithm of the softmax's denominator to the loss of training, which keeps logits "
        "from drifting away (PaLM: 1e-4); scores are without it.",
        at_least=0,
    )
    compile: Literal["auto", "on", "off"] = option(
        "auto",
        "Compile the model's layers: auto does where blocks are of one length and the steps to come are measured to "
        "save more time than compiling takes.",
    )
    packing: bool = option(
        True,
        "Lay examples of different lengths end to end, kept apart by attention, where the model is proven to keep them "
        "apart; the result is the same as with padding.",
    )
    max_failed_saves: int = option(
        3,
        "Stop (exit code 76) when so many checkpoints in a row could not be written; fewer are said, and tried again "
        "at the next interval.",
        unit="saves",
        at_least=1,
    )
    keep_optimizer_states: int = option(
        2,
        "Newest checkpoints that a run can go on from; older ones are kept as weights only, a third of the size. With "
        "1 there is none to go back to when the newest gets damaged.",
        unit="checkpoints",
        at_least=1,
    )
    background_save: Literal["auto", "on", "off"] = option(
        "auto",
        "Write checkpoints while training goes on, from a copy in memory: auto does where there is room for it.",
    )
    max_bad_steps: int = option(
        10,
        "Stop (exit code 2) after so many steps in a row whose loss or gradient is not a number; such a step changes "
        "no weight and is told with its examples.",
        unit="steps",
        at_least=1,
    )
    accept_changes: bool = option(
        False,
        "Go on from a checkpoint although the options, the schedule or the data differ from when it was made.",
    )
    early_stopping_patience: int | None = option(
        None,
        "Stop after so many evaluations in a row without a better score (--metric_for_best_model, else the loss).",
        unit="evaluations",
        at_least=1,
        shown_default="never stop early",
    )
    early_stopping_threshold: float = option(
        0.0, "What a score must be better by to count for --early_stopping_patience.", at_least=0
    )
    extend: bool = option(
        False, "Go on with the run in --output_dir, a finished one too, for more --num_train_epochs or --max_steps."
    )
    max_minutes: float | None = option(
        None,
        "Stop after so long, early enough for a last checkpoint, as before a cluster's wall clock ends the job; the "
        "same command goes on.",
        unit="minutes",
        above=0,
        shown_default="no limit",
    )
    skip_check: bool = option(
        False,
        "Begin without the rehearsal, in which saving, loading, evaluating, generating and a first pass are tried.",
    )
    overwrite_output_dir: bool = option(
        False,
        "Start anew in an --output_dir that holds another run; without it that run is continued or refused. An "
        "unfinished run that this very command began is continued all the same.",
    )
