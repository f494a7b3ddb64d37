"""What a file is: its name says, its first bytes confirm."""

from __future__ import annotations

import codecs
import json

from lmtrain.data.sources.csv_files import CsvRows
from lmtrain.data.sources.decoding import byte_order_mark, decode_chunks, is_ascii_superset, misfit, other_encoding
from lmtrain.data.sources.json_files import json_reader
from lmtrain.data.sources.opening import HEAD, File
from lmtrain.data.sources.pairs import record_source
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.records import Records, RecordSource
from lmtrain.data.sources.tables import TableRows
from lmtrain.data.sources.text import TextSource

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_FOREIGN = {  # formats that hold text, but not as text: first bytes, name, what makes text of them
    b"%PDF-": ("PDF file", "pdftotext"),
    b"PK\x03\x04": ("zip archive or office document", "unzip, or a converter such as pandoc"),
    b"7z\xbc\xaf\x27\x1c": ("7z archive", "7z x"),
    b"BZh": ("bzip2 file", "bunzip2"),
    b"SQLite format 3\x00": ("SQLite data base", "sqlite3 -csv"),
}
WHY = {  # what to tell the user who named a file of which source_for says that it has nothing to read
    "empty file": "is empty; nothing to read",
    "blank file": "holds only white space; nothing to read",
    "file without records": "holds no records; nothing to read",
    "binary file": (
        "is a binary file, not text (zero bytes among the first); text in UTF-16 needs --encoding utf-16, "
        "other formats have to be turned into text first"
    ),
} | {name: f"is no text but a {name}; turn it into text first ({tool})" for name, tool in _FOREIGN.values()}


def source_for(file: File, head: bytes, reading: Reading, form: str | None = None) -> TextSource | RecordSource | str:
    """The source for a file, or in two words why it has nothing to read.

    ``head`` is its first plain bytes. Raises UserError when the file has to be mended or described better.
    """
    form = form or _BY_SUFFIX.get(file.suffix, "text")
    if not head:
        return "empty file"
    records: Records
    if form in ("parquet", "arrow"):
        kind = {"parquet": "Parquet", "arrow": "Arrow"}[form]
        records = TableRows(file, kind)
    else:
        if (state := _state_of_text(file, head, reading)) is not None:
            return state
        if form == "text":
            return TextSource(file, reading)
        if form in ("csv", "tsv"):
            records = CsvRows(file, reading, "\t" if form == "tsv" else None)
        else:
            records = json_reader(file, reading, lines=True if form == "jsonl" else None)
    source = record_source(file, records, reading)
    return source if source.choose() else "file without records"


def stream_format(head: bytes) -> str:
    """The format of a nameless stream: Parquet, Arrow, JSON Lines (line 1 is an object), else text."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"ARROW1"):
        return "arrow"
    line = head.removeprefix(codecs.BOM_UTF8).lstrip().split(b"\n", 1)[0]
    if not line.startswith(b"{"):
        return "text"
    if len(line) >= HEAD - 3:  # a record longer than what was looked at begins like one: {"name"
        return "jsonl" if line[1:].lstrip().startswith(b'"') else "text"
    try:
        return "jsonl" if isinstance(json.loads(line), dict) else "text"
    except (ValueError, RecursionError):
        return "text"


def _state_of_text(file: File, head: bytes, reading: Reading) -> str | None:
    """Why a file that should be text is none, or None if it is."""
    for magic, (name, _) in _FOREIGN.items():
        if head.startswith(magic):
            return name
    if other_encoding(head, reading.codec):
        raise misfit(file, reading)
    if is_ascii_superset(reading.codec) and b"\0" in head:
        return "binary file"
    if head.isspace() or byte_order_mark(head, reading.codec) or not is_ascii_superset(reading.codec):
        return _blank(file, reading)
    return None


def _blank(file: File, reading: Reading) -> str | None:
    """Read as far as the first visible character."""
    empty = True
    with file.open() as stream:
        try:
            for text in decode_chunks(stream, reading, HEAD):
                if not text.isspace():
                    return None
                empty = False
        except UnicodeDecodeError as error:
            raise misfit(file, reading) from error
    return "empty file" if empty else "blank file"
