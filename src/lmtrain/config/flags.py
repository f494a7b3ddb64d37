"""The flags of a command as one table: its own options and, for training, those of ``TrainingArguments``."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lmtrain.config.about import About
from lmtrain.config.commands import TRAINING_COMMANDS, options_of
from lmtrain.config.treatment import TREATMENT
from lmtrain.config.values import Flag

# By command: groups that it has no option of.
WITHOUT_GROUP: dict[str, tuple[str, ...]] = {
    "clm": ("pairs",), "mlm": ("pairs", "keys"), "sft": ("masking", "keys")
}  # fmt: skip

# Options of its groups that a training has no use for, and what to say to who types them.
NOT_IN: dict[str, dict[str, str]] = {
    "clm": {
        "max_seq_length": "causal training calls this --block_size",
        "line_by_line": "this is for masked training (lmtrain mlm); lines as documents: --documents lines",
        "pad_to_max_length": "this is for masked training (lmtrain mlm); causal training fills its blocks",
        "mlm_probability": "this is for masked training (lmtrain mlm)",
        "mask_whole_words": "this is for masked training (lmtrain mlm)",
    },
    "mlm": {
        "block_size": "masked training calls this --max_seq_length",
        "chunking": "is for causal training (lmtrain clm); lines as examples: --line_by_line",
        "append_eos": "masked training puts the tokenizer's own special tokens around each document",
        "sample_max_new_tokens": "a masked model fills masks and writes nothing behind a prompt",
        "sample_temperature": "a masked model fills masks with the likeliest tokens",
    },
    "sft": {
        "mix": "is for documents (lmtrain clm, lmtrain mlm)",
        "block_size": "pairs are not joined into blocks; the longest one is --max_seq_length",
        "text_column": "pairs have two texts: --context_column and --completion_column",
        "documents": "a record is a pair",
        "keep_linebreaks": "a record is a pair, and its line breaks are kept",
        "isolate_documents": "each pair is an example of its own",
        "chunking": "each pair is an example of its own",
        "line_by_line": "each pair is an example of its own",
        "pad_to_max_length": "pairs are packed; --no_packing pads them to the longest of their batch",
        "drop_remainder": "pairs are not joined into blocks, so nothing remains",
        "data_cache_gb": "pairs are read as text; a store on object storage is for lmtrain clm and mlm",
        "shuffle_window": "pairs are shuffled all with all",
        "compat": "the scripts that this is for do not train on pairs; microsoft/LoRA's does: lmtrain gpt2-ft",
    },
}


def _declaring_title(owner: type, name: str) -> str:
    for base in owner.__mro__:
        if name in inspect.get_annotations(base):
            return str(base.__dict__.get("title", getattr(base, "title", "Options")))
    return "Options"


def _flag(owner: type, item: Field[Any], annotation: Any) -> Flag:
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    types: list[str] = []
    choices: list[str] = []
    for part in parts:
        if part is NoneType:
            types.append("none")
        elif get_origin(part) is Literal:
            types.append("str")
            choices.extend(get_args(part))
        else:
            types.append("list" if get_origin(part) is list else part.__name__)
    about = item.metadata.get("about", About())
    default: Any = item.default
    if item.default_factory is not MISSING:
        default = item.default_factory()
    return Flag(item.name, tuple(types), default, about, _declaring_title(owner, item.name), tuple(choices))


def option_flags(owner: type) -> dict[str, Flag]:
    """The flags of one options class, in the order of its fields."""
    names: dict[str, Any] = {}
    for base in reversed(owner.__mro__):  # each annotation in the words of the module it stands in
        names |= vars(sys.modules[base.__module__])
    # Field names such as `list` must not stand for the types of the same name: no class namespace here.
    hints = get_type_hints(owner, globalns=names, localns={})
    left_out: frozenset[str] = getattr(owner, "without", frozenset())
    return {f.name: _flag(owner, f, hints[f.name]) for f in fields(owner) if f.name not in left_out}


@dataclass(frozen=True)
class FlagTable:
    """All flags of a command and every name they go by."""

    command: str
    flags: dict[str, Flag]

    @property
    def is_training(self) -> bool:
        return self.command in TRAINING_COMMANDS

    def find(self, name: str) -> tuple[Flag, bool] | None:
        """The flag of that name (underscores) and whether the name says no (``no_shuffle``, ``greedy``)."""
        if name in self.flags:
            return self.flags[name], False
        for flag in self.flags.values():
            if name in flag.about.aliases:
                return flag, False
            off = (flag.about.off, *(f"no_{each}" for each in (flag.name, *flag.about.aliases)))
            if "bool" in flag.types and name in off:
                return flag, True
        return None

    def names(self) -> list[str]:
        """Every name worth suggesting."""
        found = []
        for flag in self.flags.values():
            treatment = TREATMENT.get(flag.name)
            if not (self.is_training and treatment and treatment.kind == "refused"):
                found += [flag.name, *flag.about.aliases, *filter(None, [flag.about.off])]
        return found


@cache
def flag_table(command: str) -> FlagTable:
    """Every flag of ``lmtrain COMMAND``."""
    if command not in TRAINING_COMMANDS:
        return FlagTable(command, option_flags(options_of(command)))
    from lmtrain.config.options import TRAINING_GROUPS
    from lmtrain.config.training_arguments import training_flags

    flags: dict[str, Flag] = {}
    for attribute, owner in TRAINING_GROUPS.items():
        if attribute not in WITHOUT_GROUP.get(command, ()):
            flags.update({k: v for k, v in option_flags(owner).items() if k not in NOT_IN[command]})
    flags.update(training_flags())
    return FlagTable(command, flags)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that ``word`` was probably meant to be: one that begins with it, or the most similar."""
    names = list(known)
    begins = [name for name in names if name.startswith(word)]
    if len(begins) == 1 and len(word) >= 3:
        return begins[0]
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return close[0] if close else None
