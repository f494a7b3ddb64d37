"""Texts and references as files that a task's official scorer reads, from what a model wrote: of ``lmtrain nlg text``
and of the recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmtrain.config.commands.nlg_data import NlgTextOptions
from lmtrain.config.options import ModelOptions
from lmtrain.config.values import user_path
from lmtrain.core.console import Say, counted
from lmtrain.core.errors import Problems, UserError, about
from lmtrain.data.nlg.records import Group, grouped
from lmtrain.data.nlg.text import (
    by_context,
    chosen,
    ended,
    hypotheses_of,
    processed,
    require_references,
    write_grouped_references,
    write_hypotheses,
    write_reference_files,
)
from lmtrain.models import load_tokenizer
from lmtrain.recipes.data_to_text.data import records_of
from lmtrain.recipes.data_to_text.tasks import TASKS, Task
from lmtrain.recipes.data_to_text.token_files import read_predictions

HYPOTHESES, GROUPED, RANKED = "hypotheses.txt", "references.txt", "references"


@dataclass(frozen=True, slots=True)
class Processing:
    """What becomes of texts before they are scored: split at marks, put into lower case, and how many ``references``
    an input has (None: all of them, in one file)."""

    tokenize: bool
    lower: bool
    references: int | None

    @classmethod
    def of(
        cls, task: Task, *, tokenize: bool | None = None, lower: bool | None = None, references: int | None = None
    ) -> Processing:
        """That of ``task``, but for what is given. A number of references is of WebNLG and DART alone."""
        return cls(
            task.tokenize if tokenize is None else tokenize,
            task.lower if lower is None else lower,
            task.references if references is None or task.references is None else references,
        )

    def __call__(self, text: str) -> str:
        return processed(text, tokenize=self.tokenize, lower=self.lower)

    def references_of(self, group: Group) -> list[str]:
        """Those of an input that are scored. With fewer than ``references`` the files have the first one again, which
        changes no score."""
        return [self(ended(text)) for text in group.completions[: self.references]]


def write_texts(
    folder: Path, groups: Sequence[Group], by_input: Mapping[str, str], how: Processing
) -> tuple[Path, Path]:
    """The texts ``by_input`` and the references of ``groups`` as files in ``folder``, and where they are: the texts,
    and what ``lmtrain nlg score --references`` takes. Raises :class:`UserError` for an input without a text."""
    marks = {"tokenize": how.tokenize, "lower": how.lower}
    texts = folder / HYPOTHESES
    write_hypotheses(texts, hypotheses_of(groups, by_input), **marks)
    if how.references is None:
        write_grouped_references(folder / GROUPED, groups, **marks)
        return texts, folder / GROUPED
    write_reference_files(folder / RANKED, groups, count=how.references, **marks)
    return texts, folder / RANKED


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of a result as far as the end-of-text token; the zeros that pad it may follow."""
    end = tokenizer.eos_token_id
    kept = ids[: ids.index(end)] if end in ids else ids
    return str(tokenizer.decode(list(kept), clean_up_tokenization_spaces=False))


def texts_of_files(options: NlgTextOptions, say: Say) -> tuple[Path, Path]:
    """``lmtrain nlg text``: as :func:`write_texts`, from the results of ``nlg decode`` and the records of their inputs.

    Raises :class:`UserError` with all that is missing or does not fit.
    """
    task = _task(options)
    tokenizer: Any = load_tokenizer(ModelOptions(tokenizer_name=options.tokenizer_name), "clm")
    results = read_predictions(user_path(str(options.predictions)), "--predictions")
    _require_known(results, tokenizer)
    with about("--records", where_none=True):
        records = records_of(task.name, str(options.records))
        require_references(records)
    with about("--predictions", where_none=True):
        by_input = by_context(records, ((number, text_of(tokenizer, ids)) for number, ids in results.items()))
    groups = grouped(chosen(records, options.filter))
    if not groups:
        raise UserError(f"none of the records is of a category that is {options.filter}", flag="--filter")
    there = [group for group in groups if group.context in by_input]
    if len(there) < len(groups):
        first = next(group.context for group in groups if group.context not in by_input)
        missing = f"{counted(len(groups) - len(there), 'input')} of {len(groups):,} without a result, first {first!r}"
        if options.on_missing == "error" or not there:
            raise UserError(f"{missing}; --on_missing skip leaves them out", flag="--predictions")
        say("input", f"{missing}: left out, with their references")
    how = Processing.of(task, tokenize=options.tokenize, lower=options.lower, references=options.ref_num)
    folder = user_path(str(options.output_dir))
    try:
        files = write_texts(folder, there, by_input, how)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror or error}", flag="--output_dir") from error
    say("texts", f"{counted(len(there), 'text')}, {counted(sum(len(g.completions) for g in there), 'reference')}")
    return files


def _task(options: NlgTextOptions) -> Task:
    problems = Problems()
    if options.task is None:
        problems.add("say for whose scorer: lmtrain nlg text e2e, webnlg or dart")
    for name, what in (
        ("predictions", "name the results of lmtrain nlg decode"),
        ("records", "name the records of the inputs, for their references"),
        ("tokenizer_name", "name the tokenizer that encoded the inputs, such as the model's folder"),
        ("output_dir", "say where the texts go, such as --output_dir texts"),
    ):
        if not getattr(options, name):
            problems.add(what, flag=f"--{name}")
    if options.task == "e2e" and options.ref_num is not None:
        problems.add("E2E's scorer takes all references of an input; leave it out", flag="--ref_num")
    problems.raise_if_any()
    return TASKS[str(options.task)]


def _require_known(results: Mapping[int, Sequence[int]], tokenizer: Any) -> None:
    known = len(tokenizer)
    wrong = {number: max(ids) for number, ids in results.items() if ids and not 0 <= min(ids) <= max(ids) < known}
    if wrong:
        number, token = next(iter(wrong.items()))
        raise UserError(
            f"{counted(len(wrong), 'result')} with ids that the tokenizer does not have, as that of number {number}, "
            f"which goes up to {token} of {known:,}; name the tokenizer that encoded the inputs",
            flag="--tokenizer_name",
        )
