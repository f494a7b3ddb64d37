"""``lmtrain tokenizer``: train a tokenizer on text and save it where ``--tokenizer_name`` finds it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.cli.startup import heavy_imports
from lmtrain.config.commands.tokenizer import TokenizerOptions
from lmtrain.config.values import user_path
from lmtrain.core.console import say
from lmtrain.core.errors import ExitCode, Problems, UserError, about
from lmtrain.core.files import read_record, sha256_json, write_json

if TYPE_CHECKING:
    from lmtrain.core.types import Source
    from lmtrain.data.train_tokenizer import TokenizerPlan

_RECORD = ".made_of.json"  # in the folder, for the same command to know it by


def run(options: TokenizerOptions) -> int:
    """Make it, and print where it is."""
    print(make(options))
    return ExitCode.OK


def make(options: TokenizerOptions) -> Path:
    """Train, save, say how well it packs; the folder. Nothing is done where the same command has finished before."""
    from lmtrain.data.named_text import sources_of
    from lmtrain.data.tokenizer_text import advice
    from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer

    problems = Problems()
    plan = TokenizerPlan(
        kind=options.type or "bpe",
        vocab_size=options.vocab_size,
        special_tokens=tuple(options.special_tokens),
        min_frequency=options.min_frequency,
        sample_bytes=options.sample_bytes,
        model_max_length=options.model_max_length,
    )
    with problems.collect():
        if options.like:
            plan = replace(plan, like=_old(options.like))
        plan.check()
    with problems.collect():
        folder = _free_folder(options.output_dir)
    with problems.collect():
        sources = sources_of(options)
        if "train" not in sources:
            raise UserError("there is no text to learn from; name some", flag="--train_file")
    problems.raise_if_any()
    made_of = _made_of(options, plan, sources["train"])
    if (folder / _RECORD).is_file():
        _require_made_of(made_of, folder)
        say("tokenizer", f"finished before: {folder} holds it; delete it to learn anew")
        return folder
    if not options.sample_bytes and (line := advice(sources["train"])):
        say("tokenizer", line)
    trained = train_tokenizer(sources["train"], plan)
    try:
        trained.save(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder} cannot be written: {reason}", flag="--output_dir") from error
    if trained.tokenizer is not None:
        _require_the_same_back(folder, trained)
    with suppress(OSError):  # what it is for is a convenience
        write_json(folder / _RECORD, made_of)
    say("tokenizer", trained.line)
    if skipped := trained.tally.skipped:
        say("text", "passed over: " + ", ".join(f"{count:,} {why}" for why, count in sorted(skipped.items())))
    for line in trained.tally.notes:
        say("text", line)
    masks = plan.kind == "wordpiece" if plan.like is None else plan.like.mask_token is not None
    model = "mlm --model_type bert" if masks else "clm --model_type gpt2"
    files = options.train_file
    text = shlex.quote(files[0]) if len(files) == 1 and files[0] != "-" else "…"
    column = f" --text_column {options.text_column}" if options.text_column else ""
    named = f"--model_size 10m --tokenizer_name {shlex.quote(str(folder))} --train_file {text}{column}"
    say("next", f"lmtrain {model} {named} --output_dir runs/new")
    return folder


def _old(name: str) -> Any:
    """The tokenizer to be like; any trouble with it is trouble with ``--like``."""
    with heavy_imports():
        from lmtrain.config.options import ModelOptions
        from lmtrain.models.loading.tokenizer import load_tokenizer

    with about("--like"):
        return load_tokenizer(ModelOptions(tokenizer_name=name))


def _require_the_same_back(folder: Path, trained: Any) -> None:
    """The saved files, loaded as anyone will load them, give the same ids."""
    from transformers import AutoTokenizer

    again = AutoTokenizer.from_pretrained(folder)
    for text in (*trained.tried, "a b\n"):
        if again(text)["input_ids"] != trained.tokenizer(text)["input_ids"]:
            raise UserError(
                f"{folder} was written, but AutoTokenizer reads it as another tokenizer (class "
                f"{type(trained.tokenizer).__name__}, transformers); it is of no use",
                flag="--like",
            )


def _free_folder(name: str | None) -> Path:
    """The folder to write, or that this command wrote; one that holds something else is left alone."""
    if not name:
        raise UserError("name the folder for the tokenizer", flag="--output_dir")
    folder = user_path(name)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder", flag="--output_dir")
    is_made = (folder / _RECORD).is_file() and (folder / "tokenizer.json").is_file()
    if folder.is_dir() and any(folder.iterdir()) and not is_made:
        ours = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"}
        raise _taken(folder, "another tokenizer" if {p.name for p in folder.iterdir()} <= ours else "other files")
    return folder


def _made_of(options: TokenizerOptions, plan: TokenizerPlan, sources: Sequence[Source]) -> dict[str, str]:
    """The options and the text that decide the tokenizer, as hashes: files are known by size and time, not read."""
    from lmtrain.data.named_text import reading_of
    from lmtrain.data.sources.changes import known_by

    backend = getattr(plan.like, "backend_tokenizer", None)
    asked = [asdict(replace(plan, like=None)), backend.to_str() if backend else options.like]
    return {
        "options": sha256_json([asked, asdict(reading_of(options))]),
        "text": sha256_json([known_by(source) for source in sources]),
    }


def _require_made_of(made_of: dict[str, str], folder: Path) -> None:
    """Raise :class:`UserError` where the tokenizer in the folder is not this one."""
    found = read_record(folder / _RECORD)
    other = [name for name, value in made_of.items() if found.get(name) != value]
    if other:
        raise _taken(folder, f"a tokenizer made {'with other options' if 'options' in other else 'of other text'}")


def _taken(folder: Path, found: str) -> UserError:
    return UserError(f"{folder} holds {found}; name another, or delete it first", flag="--output_dir")
