"""``lmtrain tokenizer``: train a tokenizer on text and save it where ``--tokenizer_name`` finds it."""

from __future__ import annotations

from pathlib import Path

from lmtrain.config.options import TokenizerOptions
from lmtrain.core.console import say
from lmtrain.core.errors import ExitCode, Problems, UserError


def run(options: TokenizerOptions) -> int:
    """Train, save, say how well it packs."""
    from lmtrain.data.corpus import sources_of
    from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer

    problems = Problems()
    plan = TokenizerPlan(
        kind=options.type,
        vocab_size=options.vocab_size,
        special_tokens=tuple(options.special_tokens),
        min_frequency=options.min_frequency,
        sample_bytes=options.sample_bytes,
        model_max_length=options.model_max_length,
    )
    with problems.collect():
        plan.check()
    with problems.collect():
        folder = _free_folder(options.output_dir)
    with problems.collect():
        sources = sources_of(options)
        if "train" not in sources:
            raise UserError("there is no text to learn from; name some", flag="--train_file")
    problems.raise_if_any()
    trained = train_tokenizer(sources["train"], plan)
    try:
        trained.save(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{folder} cannot be written: {reason}", flag="--output_dir") from error
    say("tokenizer", trained.line)
    say("next", f"lmtrain clm --tokenizer_name {folder} …" if plan.kind != "wordpiece" else
        f"lmtrain mlm --tokenizer_name {folder} …")  # fmt: skip
    print(folder)
    return ExitCode.OK


def _free_folder(name: str | None) -> Path:
    """The folder to write; one that holds something other than a tokenizer is left alone."""
    if not name:
        raise UserError("name the folder for the tokenizer", flag="--output_dir")
    folder = Path(name).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder", flag="--output_dir")
    if folder.is_dir() and any(folder.iterdir()):
        ours = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
        found = "another tokenizer" if {p.name for p in folder.iterdir()} <= ours else "other files"
        raise UserError(f"{folder} holds {found}; name another, or delete it first", flag="--output_dir")
    return folder
