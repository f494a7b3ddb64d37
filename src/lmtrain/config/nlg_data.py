"""Options of ``lmtrain nlg convert`` and ``lmtrain nlg encode``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lmtrain.config.about import option


@dataclass
class NlgConvertOptions:
    """``lmtrain nlg convert``: a corpus' own file to records of a context and a completion."""

    title: ClassVar[str] = "Conversion"

    format: Literal["e2e", "webnlg", "dart"] | None = option(
        None,
        "What the file is: lines of E2E (meaning||text), WebNLG 2017 as JSON, or DART as JSON.",
        positional=True,
    )
    input: str | None = option(None, "The corpus' file.", metavar="IN", positional=True)
    output: str | None = option(
        None, "File for the records: a line of JSON for each text.", metavar="OUT", positional=True
    )


@dataclass
class NlgEncodeOptions:
    """``lmtrain nlg encode``: records to token ids, as the original GPT-2 example reads them."""

    title: ClassVar[str] = "Encoding"

    input: str | None = option(
        None, "File of records, as lmtrain nlg convert writes it.", metavar="IN", positional=True
    )
    output: str | None = option(None, "File for the token ids.", metavar="OUT", positional=True)
    tokenizer_name: str | None = option(
        None,
        "The tokenizer: a folder, a tokenizer.json, or a hub name.",
        metavar="TOKENIZER",
        aliases=("vocab",),
    )
    add_bos: bool = option(
        False, "Put the beginning-of-text token (without one, the end-of-text token) behind the context."
    )
    add_eos: bool = option(False, "Put the end-of-text token behind the completion.")
