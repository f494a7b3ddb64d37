"""Options of ``lmtrain nlg convert``, ``nlg encode`` and ``nlg text``."""

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


@dataclass
class NlgTextOptions:
    """``lmtrain nlg text``: token ids of ``nlg decode`` to the files that a task's scorer reads."""

    title: ClassVar[str] = "Texts"

    task: Literal["e2e", "webnlg", "dart"] | None = option(
        None, "For whose scorer: E2E has its references in one file, WebNLG and DART in several.", positional=True
    )
    predictions: str | None = option(
        None, "Results of nlg decode: token ids by the line of their input.", metavar="FILE", aliases=("sample_file",)
    )
    records: str | None = option(
        None,
        "The records that were encoded and decoded, for their references: JSONL of nlg convert, or the corpus' file.",
        metavar="FILE",
        aliases=("input_file",),
    )
    tokenizer_name: str | None = option(
        None, "The tokenizer that encoded them: a folder or a hub name.", metavar="TOKENIZER", aliases=("vocab",)
    )
    output_dir: str | None = option(
        None, "Folder for hypotheses.txt, and references.txt or references/reference0, ...", metavar="FOLDER"
    )
    tokenize: bool | None = option(
        None, "Set every sign that is no letter or digit apart.", shown_default="WebNLG and DART yes, E2E no"
    )
    lower: bool | None = option(None, "Put texts into lower case.", shown_default="WebNLG and DART yes, E2E no")
    filter: Literal["all", "seen", "unseen"] = option(
        "all", "Of WebNLG only the inputs of categories that training has seen, or only the others."
    )
    ref_num: int | None = option(
        None, "References of an input.", at_least=1, shown_default="6 of WebNLG and DART; of E2E all"
    )
    on_missing: Literal["error", "skip"] = option(
        "error", "On an input without a result: stop, or leave it out with its references, counted."
    )
