"""How sources are to be read: the settings that change which text comes out of the same bytes."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Literal

from lmtrain.core.errors import UserError


@dataclass(frozen=True, slots=True)
class Reading:
    """What to make of the bytes of a source.

    Every field but ``piece_bytes`` changes the documents, so all of them belong into a cache key;
    ``piece_bytes`` only changes how long documents are carried.

    Args:
        documents: ``auto``: a text file is one document, a record is one document; ``lines``: each line of a
            text file is one (records stay as they are).
        text_column: the column of records that holds the text; None: ``text``, else the only string column.
        first_column: without ``text_column`` and without a column ``text``: take the first string column
            instead of asking, as run_clm does.
        encoding: of text files, CSV and JSON; a byte order mark of that encoding is not text.
        encoding_errors: bytes that do not fit the encoding: ``strict`` stops, ``replace`` puts U+FFFD there.
        on_bad_record: a record that cannot be read: ``fail`` stops, ``skip`` counts it.
        keep_linebreaks: with ``documents="lines"``, keep a ``\\n`` at the end of each line that is ended.
        keep_blank_lines: documents without text stay as empty documents instead of being skipped.
        piece_bytes: a document longer than about this many bytes travels in pieces.
    """

    documents: Literal["auto", "lines"] = "auto"
    text_column: str | None = None
    first_column: bool = False
    encoding: str = "utf-8"
    encoding_errors: Literal["strict", "replace"] = "strict"
    on_bad_record: Literal["fail", "skip"] = "fail"
    keep_linebreaks: bool | None = None
    keep_blank_lines: bool = False
    piece_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if self.piece_bytes < 1:
            raise ValueError(f"piece_bytes is {self.piece_bytes}; it must be at least 1")
        try:
            "a".encode(self.encoding)  # refuses codecs that are not of text, such as base64, too
            codecs.getincrementaldecoder(self.encoding)
            b"a".decode(self.encoding, "replace")  # nor those that cannot, such as idna
        except (LookupError, ValueError) as error:
            raise UserError(
                f"no text encoding is called {self.encoding!r}; "
                "usual ones are utf-8, latin-1, cp1252, utf-16, shift_jis, gb18030",
                flag="--encoding",
            ) from error

    @property
    def codec(self) -> str:
        """The encoding's canonical name; UTF-8 with and without a byte order mark are one."""
        name = codecs.lookup(self.encoding).name
        return "utf-8" if name == "utf-8-sig" else name
