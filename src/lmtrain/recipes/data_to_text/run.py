"""``lmtrain nlg e2e|webnlg|dart``: the stages in a row.

=====================  ====================================================================
``data/``              records and token ids of each split
``seed-110/``          the training's run folder; ``predictions.jsonl``, ``hypotheses.txt``
                       and references as the official scorers read them, ``scores.json``
``scores.json``        those of all seeds so far, with the settings and the table
``table.txt``          the table, which is printed at the end
``run.json`` …         which command works here, and whether it has ended (:mod:`lmtrain.recipes.several_trainings`)
=====================  ====================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from lmtrain.config.about import SEEDS
from lmtrain.config.commands.nlg import NlgOptions, NlgTraining, NlgTrainOptions
from lmtrain.config.options import ModelOptions
from lmtrain.config.save import as_dict
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, is_first_process, say
from lmtrain.core.errors import Problems
from lmtrain.core.files import read_json, write_json, write_text
from lmtrain.core.stopping import Stop
from lmtrain.data.nlg.records import read_records
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.assembly import train
from lmtrain.engine.distributed.meeting import telling_others
from lmtrain.engine.distributed.processes import by_the_first
from lmtrain.engine.measuring import Outcome
from lmtrain.engine.runs.run_folder import DECISIONS, RUN
from lmtrain.engine.speed.machine import best_device
from lmtrain.engine.speed.precision import choose_precision
from lmtrain.evaluate.nlg import missing
from lmtrain.models import load_tokenizer, positions_of
from lmtrain.models.loading.peft_wrapping import require_peft
from lmtrain.recipes.data_to_text.data import as_ids, first_of_each, look_through, prepare
from lmtrain.recipes.data_to_text.decoding import Search, texts_of_run
from lmtrain.recipes.data_to_text.inputs import fitting, room_in
from lmtrain.recipes.data_to_text.scoring import SCORES, PartScores, parts_of, score_texts
from lmtrain.recipes.data_to_text.table import table
from lmtrain.recipes.data_to_text.tasks import TASKS, Task
from lmtrain.recipes.data_to_text.token_files import read_contexts
from lmtrain.recipes.data_to_text.training import resolved_training, said_training
from lmtrain.recipes.flags import as_a_part, in_flags, saying
from lmtrain.recipes.several_trainings import Trainings, look_at
from lmtrain.rehearsal.rehearse import rehearse

_FLAGS = {"--train_file": "--train", "--validation_file": "--valid"}


def run_task(
    options: NlgOptions,
    *,
    stop: Stop | None = None,
    say: Say = say,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, dict[str, PartScores]]:
    """Everything, by seed and part of the test set; what an earlier call finished is taken over.

    Several processes train together; the first alone decodes and scores, and the others return nothing.
    """
    with in_flags(_FLAGS, "nlg"), telling_others():
        return _run_task(options, stop, saying(say, _FLAGS, "nlg"), on_progress)


def _run_task(
    options: NlgOptions, stop: Stop | None, say: Say, on_progress: Callable[[int, int], None] | None
) -> dict[int, dict[str, PartScores]]:
    seeds, tokenizer, positions, trainings = _looked_at(options, say)
    task, folder = TASKS[str(options.task)], trainings.folder
    for name, reason in missing().items():
        say("attention", f"scores made on this machine will lack {name}: {reason}")
    names = [_run_of(seed) for seed in seeds]
    anew = {name: trainings.begins_anew(name) for name in names}
    begun = any(not anew.get(run.parent.name, options.overwrite_output_dir) for run in folder.glob(f"seed-*/{RUN}"))
    data = prepare(task.name, _files(options), tokenizer, folder / "data", say, begun=begun)
    records = read_records(data.records["test"])
    if parts_of(task, records) != task.parts:
        say("data", f"test: not all records say whether their category was seen ('cate'), so {task.name}'s parts are "
                    "not scored apart")  # fmt: skip
    contexts = read_contexts(data.ids["test"], "--test")
    asked = {number: contexts[number] for number in first_of_each(records, options.max_test_inputs)}
    inputs = fitting(asked, positions, options.max_new_tokens, on_long=options.on_long, flag="--test", say=say)
    search = Search(
        options.num_beams,
        task.length_penalty if options.length_penalty is None else options.length_penalty,
        options.no_repeat_ngram_size,
        options.max_new_tokens,
    )
    found: dict[int, dict[str, PartScores]] = {}

    def measure(seed: int, run: Path) -> None:
        texts = texts_of_run(
            run, inputs, search, batch_size=options.batch_size, use_cpu=options.use_cpu, say=say,
            on_progress=on_progress,
        )  # fmt: skip
        found[seed] = score_texts(task, records, texts, run, bootstrap=options.bootstrap, seed=seed)
        resolved = resolved_training(options, task, data.ids["train"], data.ids.get("valid"), folder, seeds[0])
        decisions = read_json(folder / names[0] / DECISIONS)
        settings = {"training": said_training(resolved, decisions), "beam search": search.line}
        shown = table(task.name, found, _what(options), settings)
        write_json(folder / SCORES, {**_summary(options, found), "table": shown.as_json()})
        write_text(folder / "table.txt", shown.as_text() + "\n")

    with trainings.begun():
        if trainings.found.overwrites and is_first_process():
            for name in (SCORES, "table.txt"):
                (folder / name).unlink(missing_ok=True)
        for seed, name in zip(seeds, names, strict=True):
            own = replace(options, overwrite_output_dir=anew[name])
            train_task(
                own, task, data.ids["train"], data.ids.get("valid"), folder / name, seed, stop=stop, say=as_a_part(say)
            )
            by_the_first(partial(measure, seed, folder / name))
    return found


def train_task(
    options: NlgTraining,
    task: Task,
    train_ids: Path,
    valid_ids: Path | None,
    folder: Path,
    seed: int,
    *,
    stop: Stop | None = None,
    say: Say,
) -> Outcome:
    """The training alone, into a run folder: resumed, or found finished, where it was begun before."""
    resolved = resolved_training(options, task, train_ids, valid_ids, folder, seed)
    return train(resolved, sys.argv[1:], stop=stop, rehearse=rehearse, say=say)


def run_training(options: NlgTrainOptions, *, stop: Stop | None = None, say: Say = say) -> Outcome:
    """``lmtrain nlg train``: with the settings of the task that is named, else of E2E. Texts are encoded first, into
    ``data`` of the run's folder."""
    problems = Problems()
    _require(options, problems, "train")
    problems.raise_if_any()
    folder = user_path(str(options.output_dir))
    named = {split: str(file) for split, file in (("train", options.train), ("valid", options.valid)) if file}
    with in_flags(_FLAGS, "nlg train"):
        say = saying(say, _FLAGS, "nlg train")
        if options.task is None:
            say("task", "settings of E2E; others are named: lmtrain nlg train dart --train …")
        begun = not options.overwrite_output_dir and (folder / RUN).is_file()
        ids = as_ids(named, partial(_tokenizer, options), folder / "data", say, begun=begun)
        task = TASKS[options.task or "e2e"]
        return train_task(options, task, ids["train"], ids.get("valid"), folder, options.seed, stop=stop, say=say)


def _looked_at(options: NlgOptions, say: Say) -> tuple[list[int], TokenizerFiles, int | None, Trainings]:
    """The seeds, the model's tokenizer and positions, and what to do with the folder.

    Raises :class:`UserError` with all that stands in the way, in the data too; nothing is written before.
    """
    problems = Problems()
    if options.task is None:
        problems.add(f"say which corpus: lmtrain nlg {'|'.join(TASKS)} --train …")
    _require(options, problems, "train", "test")
    seeds = _seeds(options, problems)
    folder = user_path(options.output_dir or "")
    if options.task is not None:
        look_through(options.task, _files(options), folder / "data", problems)
    if options.use_peft:
        with problems.collect():
            require_peft()
    if options.precision != "auto":
        with problems.collect():
            choose_precision(options.precision, best_device(use_cpu=options.use_cpu))
    if options.model_name_or_path:
        with problems.collect():
            positions = positions_of(_model(options))
            longest = options.max_seq_length
            if positions is not None and longest > positions:
                problems.add(
                    f"{longest} is longer than the {positions} positions of {options.model_name_or_path}; "
                    f"use at most --max_seq_length {positions}",
                    flag="--max_seq_length",
                )
            with problems.collect():
                room_in(positions, options.max_new_tokens)
            tokenizer = _tokenizer(options)
    if options.output_dir and seeds:
        with problems.collect():
            names = [_run_of(seed) for seed in seeds]
            trainings = look_at(folder, "nlg", as_dict(options), sys.argv[1:], names, say)
    problems.raise_if_any()
    return seeds, tokenizer, positions, trainings


def _files(options: NlgOptions) -> dict[str, str]:
    """Those that are named, by split."""
    files = {"train": options.train, "valid": options.valid, "test": options.test}
    return {split: file for split, file in files.items() if file}


def _run_of(seed: int) -> str:
    """The folder of a seed's training, in that of the command."""
    return f"seed-{seed}"


def _seeds(options: NlgOptions, problems: Problems) -> list[int]:
    words = [word for given in options.seeds for word in given.split(",") if word]
    seeds = []
    for word in words:
        if word.isdecimal() and int(word) > SEEDS["at_most"]:
            problems.add(f"{word} is more than {SEEDS['at_most']}, the largest seed there is", flag="--seeds")
        elif word.isdecimal():
            seeds.append(int(word))
        else:
            problems.add(f"{word!r} is not a whole number; several look like --seeds 110,111,112", flag="--seeds")
    if len(set(seeds)) < len(seeds):
        problems.add("the same seed twice would count one training twice", flag="--seeds")
    if not words:
        problems.add("name at least one, such as --seeds 110", flag="--seeds")
    return seeds


def _model(options: NlgTraining) -> ModelOptions:
    return ModelOptions(model_name_or_path=options.model_name_or_path, tokenizer_name=options.tokenizer_name)


def _tokenizer(options: NlgTraining) -> TokenizerFiles:
    return TokenizerFiles.from_transformers(load_tokenizer(_model(options), "clm"))


def _require(options: NlgTraining, problems: Problems, *files: str) -> None:
    for name in files:
        if not getattr(options, name):
            problems.add("name the file", flag=f"--{name}")
    if not options.model_name_or_path:
        problems.add("name the model to adapt, such as --model ./gpt2", flag="--model")
    if not options.output_dir:
        problems.add("say where everything goes, such as --output_dir runs/e2e", flag="--output_dir")
    if not options.use_peft:
        for item in fields(options):
            if item.name.startswith("lora_") and getattr(options, item.name) != item.default:
                problems.add(
                    "is about LoRA, and --no_use_peft trains all weights; leave out one of them", flag=f"--{item.name}"
                )


def _what(options: NlgOptions) -> str:
    name = Path(str(options.model_name_or_path)).name
    how = f"LoRA r={options.lora_r}" if options.use_peft else "all weights"
    return f"{name}, {how}"


def _summary(options: NlgOptions, found: dict[int, dict[str, PartScores]]) -> dict[str, Any]:
    scores = {str(seed): {part: each.as_json() for part, each in parts.items()} for seed, parts in found.items()}
    return {"options": as_dict(options), "scores": scores}
