"""Sources: files, folders, standard input and data sets in; documents out, as a stream.

    sources = resolve_sources(["corpus/", "more.jsonl.zst"], Reading())
    tally = Tally()
    for source in sources:                  # cheap to make: problems of all paths are raised together, early
        key = source.content_hash()         # of the bytes: the same after moving or touching the file
        for piece in source.pieces(tally):  # may be called again; reads again
            ...

What holds for every source:

* ``"".join`` of a document's pieces is its text; ``piece.first`` is True on the piece that begins a document.
  A text file's text is the file, byte for byte, but for a byte order mark.
* Long texts are cut where a tokenizer is least likely to notice: after a single line break between two
  visible characters, else before a single space, else after other white space, else between any two
  characters (never within CR LF).
* ``tally`` is counted while reading: ``bytes_read`` bytes as they lie on disk (of a data set: of its text),
  ``files``, ``documents`` (yielded ones), ``skipped`` by reason, ``notes`` for the user.
  Files that a folder or glob passed over are counted by :func:`~lmtrain.data.sources.text.passed_over_by`.
* Whatever the user can mend is a :class:`~lmtrain.core.errors.UserError` naming file, line and remedy: from
  ``resolve_sources`` as far as the head of each file shows it, otherwise from ``pieces``.
* Memory does not grow with the corpus: text in pieces, CSV and JSON record by record, Parquet and Arrow by
  batches. One record has to fit.
"""

from __future__ import annotations

from lmtrain.data.sources.hub import hub_source
from lmtrain.data.sources.paths import resolve_sources
from lmtrain.data.sources.reading import Reading
from lmtrain.data.sources.text import TextSource

__all__ = ["Reading", "TextSource", "hub_source", "resolve_sources"]
