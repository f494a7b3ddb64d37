"""What a run comes to, in words and figures: its state, its scores, its options, what it was made with."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lmtrain.config.commands import OTHER_COMMANDS, TRAINING_COMMANDS
from lmtrain.config.flags import flag_table
from lmtrain.config.save import defaults
from lmtrain.core.console import amount, duration
from lmtrain.report.log import Column, History, listed, mapping, number
from lmtrain.report.ranks import count_of, in_collectives, most_memory
from lmtrain.report.reading import Run

_OBJECTIVES = {
    "clm": "causal language model",
    "mlm": "masked language model",
    "sft": "causal model, trained on pairs",
    "gpt2-ft": "GPT-2, trained on pairs as microsoft/LoRA does",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run, and its text; ``lower_is_better`` None where neither is.

    What is counted ``per_token`` compares only where a token is the same: see :func:`same_tokens`.
    """

    name: str
    value: float
    text: str
    lower_is_better: bool | None = None
    per_token: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a comparison: one text a run."""

    name: str
    texts: tuple[str, ...]
    note: str = ""

    @property
    def differs(self) -> bool:
        return len(set(self.texts)) > 1


# ---- the state ------------------------------------------------------------------------------------


def state_of(run: Run) -> str:
    """``training, step 37 of 60, 3 min left``; ``failed: the disk is full``."""
    text = "stopped without a word" if run.state == "lost" else run.state
    if run.state in ("preparing", "training", "lost", "interrupted", "failed") and (run.step or run.steps):
        text += f" at step {run.step:,}" + (f" of {run.steps:,}" if run.steps else "")
    if run.state == "training" and run.history.seconds_left is not None:
        text += f", {duration(run.history.seconds_left)} left"
    reason = run.status.get("reason")
    return f"{text}: {reason}" if reason and run.state in ("interrupted", "failed") else text


def about(run: Run) -> str:
    """What was trained on what: ``gpt2, n_embd=32 · causal language model · trained on src.txt``."""
    options = run.options
    start = options.get("model_name_or_path") or options.get("init_checkpoint")
    if start:
        model = f"from {start}"
    else:
        shape = ("model_type", "config_name", "model_size", "config_overrides")
        model = ", ".join(str(options[key]) for key in shape if options.get(key))
    if options.get("use_peft"):
        model += f" with LoRA of rank {options.get('lora_r')}"
    texts = [str(text) for text in listed(options.get("train_file") or options.get("train_data"))]
    named = ", ".join(text[:100] for text in texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")
    source = named or str(options.get("dataset_name") or "")
    parts = [model, _OBJECTIVES.get(run.command, run.command), f"trained on {source}" if source else ""]
    return " · ".join(part for part in parts if part)


# ---- the scores -----------------------------------------------------------------------------------


def figures(run: Run) -> list[Figure]:
    """The numbers that a run is judged by, the most important first; those that it has."""
    history, results = run.history, run.results if run.state == "finished" else {}
    found: list[Figure] = []

    def add(name: str, value: Any, text: Any, lower_is_better: bool | None = None, per_token: bool = False) -> None:
        figure = number(value)
        if not math.isnan(figure):
            found.append(Figure(name, figure, text(figure), lower_is_better, per_token))

    kind = "masked-token perplexity" if run.command == "mlm" else "perplexity"
    for split, prefix in (("validation", "eval"), ("test", "test")):

        def score(name: str, prefix: str = prefix) -> Any:
            named = (f"{prefix}_{name}", *((name,) if prefix == "eval" else ()))  # the scripts' own names
            return next((results[key] for key in named if key in results), _last(history, name, prefix))

        add(f"{split} loss", score("loss"), "{:.4f}".format, True, per_token=True)
        add(f"{split} {kind}", score("perplexity"), short, True, per_token=True)
        add(f"{split} bits per byte", score("bits_per_byte"), "{:.3f}".format, True)
        add(f"{split} accuracy", score("accuracy"), "{:.1%}".format, False, per_token=True)
    train = history.train
    add("train loss, last", _last_number(train["loss"]), "{:.4f}".format, True, per_token=True)
    steps = f" of {run.steps:,}" if run.steps and run.steps != run.step else ""
    add("steps", run.step or math.nan, lambda value: f"{int(value):,}{steps}")
    add("tokens", _last_number(train["tokens"]), lambda value: amount(value))
    add("time", history.seconds or math.nan, duration)
    # A run shorter than --logging_steps has no line of its own, and one figure for the whole of it.
    rates = {name: train[name] for name in ("tokens_per_second", "mfu", "waiting_for_data")}
    over_time = {name: _over_time(values, train) for name, values in rates.items()}
    rate = {name: results.get(f"train_{name}") if math.isnan(mean) else mean for name, mean in over_time.items()}
    add("tokens/s", rate["tokens_per_second"], lambda value: amount(round(value)), False, per_token=True)
    add("MFU", rate["mfu"], "{:.1%}".format, False)
    most = most_memory(history)
    of_rank = f" (rank {most[1]})" if most else ""
    add("memory, most", most[0] if most else _most(train["memory"]), lambda value: amount(value, "B") + of_rank, True)
    add("waiting for data", rate["waiting_for_data"], "{:.1%}".format, True)
    add("in collectives", in_collectives(history), "{:.1%}".format, True)
    add("processes", count_of(history) if history.ranks else math.nan, "{:.0f}".format)
    return found


def scored_model(run: Run) -> str:
    """Which step's model lies in the folder, where that is not the last."""
    exported = run.exported
    if exported.get("chosen") != "best":
        return ""
    return f"the model is that of step {exported.get('step')}, which had the best {exported.get('metric')}"


def short(value: float) -> str:
    """A score with the digits that matter: 18.43, 591.1, 50,260."""
    return f"{value:,.2f}" if value < 100 else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def _last(history: History, name: str, prefix: str) -> Any:
    curve = history.evaluations.get(f"{prefix}_{name}")
    return curve.values[-1] if curve else None


def _last_number(values: Column) -> float:
    known = values[~np.isnan(values)]
    return float(known[-1]) if len(known) else math.nan


def _over_time(values: Column, train: Mapping[str, Column]) -> float:
    """The mean over the time of training, not over the log lines: of a rate, all tokens by all seconds."""
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.diff(train["tokens"], prepend=0.0) / train["tokens_per_second"]
    known = np.isfinite(values)
    weights = np.where(np.isfinite(seconds) & (seconds > 0), seconds, 0.0)[known]
    if not len(weights):
        return math.nan
    return float(np.average(values[known], weights=weights if weights.any() else None))


def _most(values: Column) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else math.nan


def same_tokens(runs: Sequence[Run]) -> bool:
    """Whether the runs predict the same tokens: of one tokenizer, and all of them hidden ones or none."""
    return len({(_tokenizer(run), run.command == "mlm") for run in runs}) < 2


def _tokenizer(run: Run) -> str:
    stores = mapping(run.data.get("stores")).values()
    return next((shown(mapping(mapping(store).get("tokenizer")).get("fingerprint")) for store in stores), "")


def compared(runs: Sequence[Run]) -> list[tuple[Row, int | None]]:
    """The figures of several runs beside each other, with the number of the best run where there is one."""
    of_runs = [{figure.name: figure for figure in figures(run)} for run in runs]
    names = list(dict.fromkeys(name for found in of_runs for name in found))
    rows = []
    for name in names:
        row = Row(name, tuple(found[name].text if name in found else "—" for found in of_runs))
        known = [(found[name].value, at) for at, found in enumerate(of_runs) if name in found]
        first = next(found[name] for found in of_runs if name in found)
        comparable = not first.per_token or same_tokens([runs[at] for _, at in known])
        best = None
        if first.lower_is_better is not None and len(known) > 1 and row.differs and comparable:
            best = (min(known) if first.lower_is_better else max(known))[1]
        rows.append((row, best))
    return rows


# ---- the configuration ----------------------------------------------------------------------------


def configuration(runs: Sequence[Run]) -> tuple[list[Row], list[Row], list[Row]]:
    """Options that differ between the runs, those that a run has not by default, and the rest."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.options) if name != "command"]
    usual = [_defaults(run.command) for run in runs]
    differing, chosen, rest = [], [], []
    for name in names:
        texts = tuple(shown(run.options.get(name, before.get(name))) for run, before in zip(runs, usual, strict=True))
        row = Row(name, texts, shown(usual[0].get(name)))
        if row.differs:
            differing.append(row)
        elif any(text != shown(before.get(name)) for text, before in zip(texts, usual, strict=True)):
            chosen.append(row)
        else:
            rest.append(row)
    return differing, chosen, rest


def _defaults(command: str) -> dict[str, Any]:
    if command in TRAINING_COMMANDS:
        return {name: flag.default for name, flag in flag_table(command).flags.items()} | defaults(command)
    if command in OTHER_COMMANDS:
        return {name: flag.default for name, flag in flag_table(command).flags.items()}
    return {}


def shown(value: Any) -> str:
    """An option's value as it would be typed."""
    if value is None or value == []:
        return "—"
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return shlex.join(value)
    return json.dumps(value, ensure_ascii=False)


def machines(runs: Sequence[Run]) -> list[Row]:
    """Hardware and versions."""
    tables = []
    for run in runs:
        machine = mapping(run.record.get("machine"))
        decisions, peak = run.decisions, mapping(run.decisions.get("peak"))
        found = {name.replace("_", " "): shown(value) for name, value in machine.items()}
        for name in ("device", "threads"):
            if name in decisions:
                found[name] = shown(decisions[name])
        if number(peak.get("flops")) > 0:
            found["fastest matrix product"] = f"{number(peak['flops']) / 1e12:.4g} TFLOP/s in {peak.get('precision')}"
        if run.record.get("lmtrain"):
            found["lmtrain"] = shown(run.record["lmtrain"])
        found |= {name: shown(value) for name, value in mapping(run.record.get("versions")).items()}
        tables.append(found)
    names = dict.fromkeys(name for found in tables for name in found)
    return [Row(name, tuple(found.get(name, "—") for found in tables)) for name in names]


def decided(run: Run) -> list[tuple[str, str, str]]:
    """(what, choice, reason) of what was chosen by measuring or by default."""
    rows = []
    for name, value in run.decisions.items():
        if name in ("peak", "device", "threads", "threads_for"):
            continue
        if isinstance(value, dict):
            choice = value.get("choice", value.get("way"))
            if isinstance(choice, dict):
                choice = choice.get("name", choice)
            rest = {k: v for k, v in value.items() if k not in ("choice", "way", "reason")}
            rows.append((name, shown(choice if choice is not None else rest), str(value.get("reason", ""))))
        elif isinstance(value, list):
            rows.append((name, "", "; ".join(map(str, value))))
        else:
            rows.append((name, shown(value), ""))
    return rows


def _program(run: Run) -> list[str]:
    launcher = [str(word) for word in listed(run.record.get("launcher"))]
    if not launcher:
        return ["lmtrain"]
    return [*launcher, *(["python"] if launcher[0] == "srun" else []), "-m", "lmtrain"]


def command_line(run: Run) -> str:
    """What was typed; for a run from Python the same as a command, with the options that were set. Of several processes
    with what launches as many: its own options (a configuration, where they meet) are not known."""
    argv = run.record.get("argv")
    if isinstance(argv, list) and argv:
        return shlex.join([*_program(run), *map(str, argv)])
    if not run.command:
        return ""
    before, words = _defaults(run.command), [*_program(run), run.command]
    for name, value in run.options.items():
        if name == "command" or value == before.get(name) or value is None:
            continue
        words += [f"--{name}", *map(str, value)] if isinstance(value, list) else [f"--{name}", shown(value)]
    return shlex.join(words)
