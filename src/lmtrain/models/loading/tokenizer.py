"""Load a run's tokenizer: from a checkpoint, a hub name, a folder of `lmtrain tokenizer`, or bare files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from lmtrain.core.errors import UserError, first_line
from lmtrain.models.loading.hub import Origin, hub_problem, locate
from lmtrain.models.quiet import quiet_libraries

Purpose = Literal["clm", "mlm"]

# Bare files say which tokens are special but not what for: the names the field uses, likeliest first.
_ROLES: dict[str, tuple[str, ...]] = {
    "eos_token": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"),
    "bos_token": ("<s>", "<bos>", "<|begin_of_text|>"),
    "pad_token": ("[PAD]", "<pad>", "<|pad|>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
    "cls_token": ("[CLS]",),
    "sep_token": ("[SEP]",),
}


def load_tokenizer(options: Any, purpose: Purpose | None = None) -> Any:
    """The tokenizer named by ``--tokenizer_name``, else the model's own: a ``PreTrainedTokenizerBase``.

    ``options`` is a ``config.options.ModelOptions``. ``purpose`` "clm" demands an end-of-text token, "mlm" a
    mask token, None neither. Raises :class:`UserError` in flag names.
    """
    if options.tokenizer_name:
        name, flag = options.tokenizer_name, "--tokenizer_name"
    elif options.model_name_or_path:
        name, flag = options.model_name_or_path, "--model_name_or_path"
    elif options.config_name:
        name, flag = options.config_name, "--config_name"
    else:
        raise UserError(
            "a new model needs a tokenizer: give one, or train one with `lmtrain tokenizer`",
            flag="--tokenizer_name",
        )
    origin = locate(name, options, flag, probe_file="tokenizer_config.json")
    with quiet_libraries():
        tokenizer = _load(origin, options, flag)
    _name_roles(tokenizer)
    # Content is tokenized whole and cut into blocks later, so "longer than the specified maximum" means
    # nothing here. The length itself stays as it is: it belongs into the exported tokenizer.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if purpose == "clm" and tokenizer.eos_token_id is None:
        raise UserError(
            f"{name} has no end-of-text token, which separates documents in causal training; choose a "
            "tokenizer that has one (named eos_token in its tokenizer_config.json, or called "
            f"{_spoken('eos_token')})",
            flag=flag,
        )
    if purpose == "mlm" and tokenizer.mask_token_id is None:
        raise UserError(
            f"{name} has no mask token, which masked training hides words with; choose a tokenizer that has "
            f"one ({_spoken('mask_token')}), or train a causal model: lmtrain clm",
            flag=flag,
        )
    return tokenizer


def _spoken(role: str) -> str:
    return " or ".join(_ROLES[role])


def _load(origin: Origin, options: Any, flag: str) -> Any:
    if origin.path is not None:
        bare = _load_bare(origin.path, flag)
        if bare is not None:
            return bare
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            origin.name,
            use_fast=options.use_fast_tokenizer,
            trust_remote_code=options.trust_remote_code,
            **origin.keywords,
        )
    except Exception as error:
        raise hub_problem(error, origin.name, flag) or UserError(_unreadable(origin, error), flag=flag) from error


def _load_bare(path: Path, flag: str) -> Any | None:
    """A tokenizer from files without a configuration; None when there is one, which AutoTokenizer reads."""
    if path.is_file():
        if path.suffix != ".json":
            raise UserError(f"{path} is not a tokenizer.json; give that file or the folder it is in", flag=flag)
        return _from_tokenizer_json(path, flag)
    if (path / "tokenizer_config.json").exists() or (path / "config.json").exists():
        if not any((path / name).exists() for name in _FILES):
            raise UserError(
                f"{path} holds no tokenizer (none of {', '.join(_FILES[:4])}, ...); name one with --tokenizer_name",
                flag=flag,
            )
        return None
    if (path / "tokenizer.json").exists():
        return _from_tokenizer_json(path / "tokenizer.json", flag)
    if (path / "vocab.json").exists() and (path / "merges.txt").exists():
        return _from_byte_level_bpe(path, flag)
    other = "" if flag == "--tokenizer_name" else "; name one with --tokenizer_name"
    raise UserError(f"{path} holds no tokenizer (no tokenizer.json; no vocab.json with merges.txt){other}", flag=flag)


_FILES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "tokenizer_config.json", "vocab.bpe", "tekken.json", "tiktoken.model", "added_tokens.json",
)  # fmt: skip


def _from_tokenizer_json(path: Path, flag: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path))
    except Exception as error:  # the tokenizers library raises bare Exception for a file it cannot parse
        raise UserError(f"{path} is not a tokenizer: {first_line(error)}", flag=flag) from error


def _from_byte_level_bpe(folder: Path, flag: str) -> Any:
    """GPT-2's two files, ``vocab.json`` and ``merges.txt``: byte-level by definition."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    try:
        model = models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    except Exception as error:
        raise UserError(f"{folder} holds no readable byte-level BPE: {first_line(error)}", flag=flag) from error
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    known = [token for names in _ROLES.values() for token in names if token in vocabulary]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in known])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def _name_roles(tokenizer: Any) -> None:
    """Give special tokens their roles where nothing says them: all in a bare file, else only the end of text.

    Only tokens marked as special are taken: the text "</s>" in an ordinary vocabulary is just text.
    """
    special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    bare = not tokenizer.special_tokens_map
    for role, names in _ROLES.items():
        if getattr(tokenizer, role) is not None or not (bare or role == "eos_token"):
            continue
        found = next((name for name in names if name in special), None)
        if found is not None:
            setattr(tokenizer, role, found)


def _unreadable(origin: Origin, error: BaseException) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return f"{origin.name} needs Python code of its own; read it, then allow it with --trust_remote_code"
    return f"the tokenizer of {origin.name} cannot be loaded: {first_line(error)}"
