"""``lmtrain nlg e2e|webnlg|dart``: the stages in a row.

=====================  ====================================================================
``data/``              records and token ids of each split
``seed-110/``          the training's run folder; ``predictions.jsonl``, ``hypotheses.txt``
                       and references as the official scorers read them, ``scores.json``
``scores.json``        all of them, with the settings
``table.txt``          what is printed at the end
=====================  ====================================================================
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmtrain.config.nlg import NlgOptions, NlgTraining, NlgTrainOptions
from lmtrain.config.options import ModelOptions
from lmtrain.config.save import as_dict
from lmtrain.core.console import Say, say
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.files import write_json, write_text
from lmtrain.core.stopping import Stop
from lmtrain.data.nlg.records import read_records
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.assembly import Outcome, train
from lmtrain.models import load_tokenizer
from lmtrain.recipes.data_to_text.data import first_of_each, prepare
from lmtrain.recipes.data_to_text.decoding import Search, texts_of_run
from lmtrain.recipes.data_to_text.scoring import PartScores, score_texts
from lmtrain.recipes.data_to_text.table import table
from lmtrain.recipes.data_to_text.tasks import TASKS, Task
from lmtrain.recipes.data_to_text.training import resolved_training
from lmtrain.recipes.flags import in_flags, saying
from lmtrain.rehearsal.rehearse import rehearse

_FLAGS = {"--train_file": "--train", "--validation_file": "--valid"}


def run_task(
    options: NlgOptions,
    *,
    stop: Stop | None = None,
    say: Say = say,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, dict[str, PartScores]]:
    """Everything, by seed and part of the test set; what an earlier call finished is taken over."""
    seeds = _checked(options)
    with in_flags(_FLAGS, "nlg"):
        return _run_task(options, seeds, stop, saying(say, _FLAGS, "nlg"), on_progress)


def _run_task(
    options: NlgOptions, seeds: list[int], stop: Stop | None, say: Say, on_progress: Callable[[int, int], None] | None
) -> dict[int, dict[str, PartScores]]:
    task, folder = TASKS[str(options.task)], Path(str(options.output_dir)).expanduser()
    model = _model(options)
    tokenizer: Any = load_tokenizer(model, "clm")
    files = {"train": str(options.train), "valid": options.valid, "test": str(options.test)}
    named = {split: file for split, file in files.items() if file}
    data = prepare(task.name, named, TokenizerFiles.from_transformers(tokenizer), folder / "data", say)
    records = read_records(data.records["test"])
    numbers = first_of_each(records, options.max_test_inputs)
    found: dict[int, dict[str, PartScores]] = {}
    for seed in seeds:
        run = folder / f"seed-{seed}"
        train_task(options, task, data.ids["train"], data.ids.get("valid"), run, seed, stop=stop, say=say)
        search = Search(
            options.num_beams,
            task.length_penalty if options.length_penalty is None else options.length_penalty,
            options.no_repeat_ngram_size,
            options.max_new_tokens,
        )
        texts = texts_of_run(
            run, data.ids["test"], numbers, search,
            batch_size=options.batch_size, use_cpu=options.use_cpu, say=say, on_progress=on_progress,
        )  # fmt: skip
        found[seed] = score_texts(task, records, texts, run, bootstrap=options.bootstrap, seed=seed)
        write_json(run / "scores.json", {part: scores.as_json() for part, scores in found[seed].items()})
    write_json(folder / "scores.json", _summary(options, found))
    write_text(folder / "table.txt", table(task.name, found, _what(options)) + "\n")
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
    """``lmtrain nlg train``: with the settings of E2E where they are not given."""
    problems = Problems()
    _require(options, problems, "train")
    problems.raise_if_any()
    valid = Path(options.valid).expanduser() if options.valid else None
    train_file, folder = Path(str(options.train)).expanduser(), Path(str(options.output_dir)).expanduser()
    with in_flags(_FLAGS, "nlg train"):
        say = saying(say, _FLAGS, "nlg train")
        return train_task(options, TASKS["e2e"], train_file, valid, folder, options.seed, stop=stop, say=say)


def _checked(options: NlgOptions) -> list[int]:
    """The seeds. Raises :class:`UserError` with everything that is missing."""
    problems = Problems()
    if options.task is None:
        problems.add(f"say which corpus: lmtrain nlg {'|'.join(TASKS)} --train …")
    _require(options, problems, "train", "test")
    words = [word for given in options.seeds for word in given.split(",") if word]
    seeds = []
    for word in words:
        if word.isdecimal():
            seeds.append(int(word))
        else:
            problems.add(f"{word!r} is not a whole number; several look like --seeds 110,111,112", flag="--seeds")
    if len(set(seeds)) < len(seeds):
        problems.add("the same seed twice would count one training twice", flag="--seeds")
    problems.raise_if_any()
    if not seeds:
        raise UserError("name at least one, such as --seeds 110", flag="--seeds")
    return seeds


def _model(options: NlgTraining) -> ModelOptions:
    return ModelOptions(model_name_or_path=options.model_name_or_path, tokenizer_name=options.tokenizer_name)


def _require(options: NlgTraining, problems: Problems, *files: str) -> None:
    for name in files:
        if not getattr(options, name):
            problems.add("name the file", flag=f"--{name}")
    if not options.model_name_or_path:
        problems.add("name the model to adapt, such as --model ./gpt2", flag="--model")
    if not options.output_dir:
        problems.add("say where everything goes, such as --output_dir runs/e2e", flag="--output_dir")


def _what(options: NlgOptions) -> str:
    name = Path(str(options.model_name_or_path)).name
    how = f"LoRA r={options.lora_r}" if options.use_peft else "all weights"
    return f"{name}, {how}"


def _summary(options: NlgOptions, found: dict[int, dict[str, PartScores]]) -> dict[str, Any]:
    scores = {str(seed): {part: each.as_json() for part, each in parts.items()} for seed, parts in found.items()}
    return {"options": as_dict(options), "scores": scores}
