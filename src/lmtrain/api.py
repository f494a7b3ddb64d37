"""The commands as functions: their options as keyword arguments, what they make as values.

Every option of ``lmtrain clm --help`` is a keyword of :func:`clm`, with the same name, default and checks, and so for
the others. What is said goes where a command says it: to standard error, in a notebook below the cell. Wrong input
raises :class:`~lmtrain.core.errors.UserError` with everything that has to be changed.

Neither torch nor transformers is imported before one of them is called.
"""

from __future__ import annotations

import builtins
import operator
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from lmtrain.config.flags import flag_table
from lmtrain.config.keywords import Called, from_keywords
from lmtrain.config.values import Flag, user_path
from lmtrain.core.addresses import is_address
from lmtrain.core.console import say
from lmtrain.core.errors import Problems, UserError
from lmtrain.core.mkl import use_intel_kernels

if TYPE_CHECKING:
    from lmtrain.config.commands.prepare import PrepareOptions
    from lmtrain.data.corpus import Corpus
    from lmtrain.engine.measuring import Outcome
    from lmtrain.generate import Completion, FilledText
    from lmtrain.typed_keywords import (
        ClmKeywords,
        CompleteKeywords,
        MlmKeywords,
        PrepareKeywords,
        ScoreKeywords,
        SftKeywords,
        TrainTokenizerKeywords,
    )

NO_CORPUS = ("shard", "list", "clean")  # options of prepare that make none to return
_F = TypeVar("_F", bound=Callable[..., Any])


def _shows_options_of(command: str, but: Sequence[str] = ()) -> Callable[[_F], _F]:
    """In ``help()`` and a notebook's completion, the command's options stand for a function's ``**options``."""

    def described(function: _F) -> _F:
        bare = signature(function)
        own = [each for each in bare.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
        table = flag_table(command)
        shown = set(table.names()) - {*bare.parameters, *but}
        options = [
            Parameter(flag.name, Parameter.KEYWORD_ONLY, default=flag.default, annotation=_type(flag))
            for flag in table.flags.values()
            if flag.name in shown
        ]
        function.__signature__ = bare.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return function

    return described


def _type(flag: Flag) -> Any:
    types: list[Any] = [None if name == "none" else getattr(builtins, name) for name in flag.types]
    return reduce(operator.or_, types)


@_shows_options_of("clm")
def clm(**options: Unpack[ClmKeywords]) -> Outcome:
    """Train a causal model: ``lmtrain clm``.

    All that the command does: a rehearsal first, ``sample_prompts`` answered at each evaluation, ``push_to_hub`` at the
    end. Called again with the same options it resumes an unfinished run, or says that it is finished. Returns the
    folder, the figures of its result files and whether the hub took the model. Under ``torchrun`` it ends the process
    group: train last.

    >>> run = lmtrain.clm(model_name_or_path="gpt2", train_file="book.txt", output_dir="runs/book")  # doctest: +SKIP
    >>> run.metrics["perplexity"]                                                                    # doctest: +SKIP
    """
    return _train("clm", options)


@_shows_options_of("mlm")
def mlm(**options: Unpack[MlmKeywords]) -> Outcome:
    """Train a masked model: ``lmtrain mlm``; see :func:`clm`."""
    return _train("mlm", options)


@_shows_options_of("sft")
def sft(**options: Unpack[SftKeywords]) -> Outcome:
    """Train a causal model on prompts and completions: ``lmtrain sft``; see :func:`clm`."""
    return _train("sft", options)


@_shows_options_of("evaluate")
def score(**options: Unpack[ScoreKeywords]) -> dict[str, dict[str, Any]]:
    """Loss, perplexity and bits per byte of a model on text, by split: ``lmtrain evaluate``.

    >>> lmtrain.score(model_name_or_path="gpt2", validation_file="b.txt")["validation"]  # doctest: +SKIP
    """
    asked = _called("evaluate", options).options
    from lmtrain.engine.measuring import evaluate
    from lmtrain.models import purpose_of

    with _libraries_quiet():
        return evaluate(asked.as_run(purpose_of(asked)))


@_shows_options_of("tokenizer")
def train_tokenizer(**options: Unpack[TrainTokenizerKeywords]) -> Any:
    """Learn a tokenizer from text: ``lmtrain tokenizer``. Returns it as one of transformers; its folder is written.

    >>> tokenizer = lmtrain.train_tokenizer(train_file="book.txt", vocab_size=8192, output_dir="tok")  # doctest: +SKIP
    """
    asked = _called("tokenizer", options).options
    from lmtrain.cli.tokenizer import make

    folder = make(asked)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@_shows_options_of("prepare", but=("tokenizer_name", *NO_CORPUS))
def prepare(tokenizer: Any, *, seed: int = 42, **options: Unpack[PrepareKeywords]) -> Corpus:
    """Text to examples: ``lmtrain prepare``, and the layouts that ``clm`` and ``mlm`` would train on.

    ``tokenizer``: one of transformers, or a folder, a ``tokenizer.json`` or a hub name. ``block_size`` (with
    ``objective="mlm"``: ``max_seq_length``) is the length of an example in tokens, by default 1,024. The store of
    tokens is made once and found again. ``corpus.splits["train"]`` is a data set for :class:`~lmtrain.LMTrainer` or any
    other loop, ``corpus.ledger.lines()`` says where the text went.

    >>> corpus = lmtrain.prepare(tokenizer, train_file="book.txt", block_size=128)  # doctest: +SKIP
    >>> corpus.splits["train"][0]["input_ids"].shape                                # doctest: +SKIP
    (128,)
    """
    from lmtrain.data.corpus import prepare_corpus
    from lmtrain.data.named_text import sources_of
    from lmtrain.data.tokenizer_files import TokenizerFiles

    named = isinstance(tokenizer, str | os.PathLike)
    name = os.fspath(tokenizer) if named else getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    asked = _called("prepare", {**options, "tokenizer_name": name}).options
    _require_corpus(asked)
    if named:
        path = TokenizerFiles.path_of(asked)
        if path is None:
            from lmtrain.models import load_tokenizer

            tokenizer = load_tokenizer(asked)
        else:
            tokenizer = TokenizerFiles.load(path)
    if not isinstance(tokenizer, TokenizerFiles):
        tokenizer = TokenizerFiles.from_transformers(tokenizer)
    length = asked.max_seq_length if asked.objective == "mlm" else asked.block_size
    folder = user_path(asked.output_dir) if asked.output_dir else None
    sources = sources_of(asked, cache_dir=asked.cache_dir, token=asked.token)
    return prepare_corpus(
        asked, tokenizer, asked.objective, block_size=length or 1024, seed=seed, sources=sources, store_folder=folder,
        say=say,
    )  # fmt: skip


def _require_corpus(asked: PrepareOptions) -> None:
    """Raises :class:`UserError` for options of the command that make no corpus here."""
    problems = Problems()
    for name in NO_CORPUS:
        if getattr(asked, name):
            problems.add("makes no corpus to return; type it: lmtrain prepare", flag=f"--{name}")
    if is_address(asked.output_dir or ""):
        problems.add("is an address, to which the command lmtrain prepare uploads; name a folder", flag="--output_dir")
    problems.raise_if_any()


def complete(
    model: Any, prompts: str | Sequence[str], *, tokenizer: Any = None, **settings: Unpack[CompleteKeywords]
) -> list[Completion]:
    """What a causal model writes after each prompt, ordered by prompt, then by sample.

    ``model`` is a run's folder, a checkpoint or a hub name; or a model, with its ``tokenizer``. ``settings`` are the
    fields of :class:`lmtrain.generate.Settings`: ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_k``, ….

    >>> lmtrain.complete("runs/book", "Once upon a time", max_new_tokens=20)[0].text  # doctest: +SKIP
    """
    from lmtrain.generate import Settings, complete
    from lmtrain.models import max_positions

    model, tokenizer = _opened(model, tokenizer, "clm")
    asked = [prompts] if isinstance(prompts, str) else list(prompts)
    chosen: dict[str, Any] = {"stop": (), **settings}
    stop = chosen.pop("stop")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    return complete(model, tokenizer, asked, Settings(**chosen, stop=stops), max_positions(model.config))


def fill_mask(model: Any, texts: str | Sequence[str], *, tokenizer: Any = None, top: int = 5) -> list[FilledText]:
    """The ``top`` likeliest tokens for each mask of each text, by a masked model; ``model`` as for :func:`complete`."""
    from lmtrain.generate import fill_mask
    from lmtrain.models import max_positions

    model, tokenizer = _opened(model, tokenizer, "mlm")
    asked = [texts] if isinstance(texts, str) else list(texts)
    return fill_mask(model, tokenizer, asked, top, context=max_positions(model.config))


def _train(command: str, options: Mapping[str, Any]) -> Outcome:
    called = _called(command, options)
    use_intel_kernels()
    from lmtrain.core.ranklog import listening
    from lmtrain.core.stopping import Stop
    from lmtrain.recipes.whole_training import whole_training

    resolved = called.options
    each_node, minutes = bool(resolved.training.get("log_on_each_node")), resolved.run.max_minutes
    with _libraries_quiet(), listening(on_each_node=each_node), Stop(minutes=minutes).listening() as stop:
        return whole_training(resolved, called.words, stop=stop)


def _called(command: str, options: Mapping[str, Any]) -> Called:
    called = from_keywords(command, options)
    for note in called.notes:
        say("options", note)
    os.environ.update(called.environment)
    return called


@contextmanager
def _libraries_quiet() -> Iterator[None]:
    """Quiet as in a command, and afterwards as loud as before."""
    from transformers.utils import logging

    from lmtrain.models.quiet import quiet_for_commands

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    quiet_for_commands()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _opened(model: Any, tokenizer: Any, purpose: Literal["clm", "mlm"]) -> tuple[Any, Any]:
    """Model and tokenizer, loaded where a name is given."""
    from lmtrain.config.options import ModelOptions
    from lmtrain.models import load_model, load_tokenizer

    if not isinstance(model, str | os.PathLike):
        if tokenizer is None:
            raise UserError("a model in memory needs its tokenizer: give tokenizer=…, or a folder in its place")
        return model, tokenizer
    options = ModelOptions(model_name_or_path=os.fspath(model))
    tokenizer = tokenizer or load_tokenizer(options, purpose)
    return load_model(options, purpose, tokenizer).model, tokenizer
