"""Text files: every byte comes back, in one document or line by line, whatever the size of the pieces."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lmtrain.core.errors import UserError
from lmtrain.core.types import Piece, Tally
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.sources.cutting import cut_at, pieces_of, slices, utf8_pieces
from lmtrain.data.sources.decoding import as_utf8
from lmtrain.data.sources.segments import end_of_line
from lmtrain.data.sources.text import passed_over_by

AWKWARD = [
    "one line without an end",
    "\n",
    "a\n\n\nb\n",
    "dos\r\nline\r\n\r\nends\r\n",
    "mac\rline\rends\r",
    "tabs\t and trailing blanks  \n  indented\n",
    "naïve café — 日本語 🙂🏽 e\u0301\n",
    "form\x0cfeed \x1c\x1d\x1e\x85\u2028\u2029 are no line breaks here\n",
    "\ufffeinside and a mark \ufeff too\n",
]
TEXTS = st.text(alphabet=st.sampled_from("ab \t\n\r.é日🙂\x85\u2028"), min_size=1, max_size=200) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1
)


def read(path: Path, tally: Tally | None = None, **settings: object) -> list[str]:
    """The documents of a path, joined from their pieces."""
    documents: list[str] = []
    sources = resolve_sources([str(path)], Reading(**settings))  # type: ignore[arg-type]
    if tally is not None:
        over = passed_over_by(sources)
        tally.skipped, tally.notes = over.skipped, over.notes
    for source in sources:
        for piece in source.pieces(tally if tally is not None else Tally()):
            assert piece.n_bytes == len(piece.text.encode())
            assert piece.utf8 in (None, piece.text.encode())
            if piece.first:
                documents.append(piece.text)
            else:
                documents[-1] += piece.text
    return documents


def written(folder: Path, data: bytes, name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("text", [text for text in AWKWARD if text.strip()])
@pytest.mark.parametrize("piece_bytes", [1, 3, 16, 1 << 20])
def test_a_text_file_is_one_document_byte_for_byte(tmp_path: Path, text: str, piece_bytes: int) -> None:
    tally = Tally()
    path = written(tmp_path, text.encode())
    assert read(path, tally, piece_bytes=piece_bytes) == [text]
    assert (tally.files, tally.documents, tally.bytes_read) == (1, 1, len(text.encode()))


@given(text=TEXTS, size=st.integers(1, 40))
def test_pieces_join_to_the_text_and_never_split_cr_lf(text: str, size: int) -> None:
    stream = io.BufferedReader(io.BytesIO(text.encode()))
    for pieces in (list(pieces_of(slices(text, size), size)), list(utf8_pieces(as_utf8(stream, Reading()), size))):
        assert "".join(piece.text for piece in pieces) == text.removeprefix("\ufeff" if pieces[0].utf8 else "")
        assert [piece.first for piece in pieces] == [True] + [False] * (len(pieces) - 1)
        assert all(piece.text and piece.utf8 in (None, piece.text.encode()) for piece in pieces)
        for before, after in pairwise(pieces):
            assert not (before.text.endswith("\r") and after.text.startswith("\n"))


@pytest.mark.parametrize(
    ("text", "before"),
    [
        (
            "the first line\nsecond one",
            "the first line\n",
        ),  # a break between visible characters beats a space
        ("aaaa\n\nbb cc", "aaaa\n\nbb"),  # two breaks in a row do not count
        ("aa bb  cc dd  ", "aa bb  cc"),  # before a single space
        ("aaaa  bb\t\tc", "aaaa  bb\t\t"),  # after other white space
        ("aaaaaaaa", "aaaaaaaa"),  # nowhere better than the end
        ("aaaaaaa\r", "aaaaaaa"),  # a line feed may follow
        ("\r", ""),
    ],
)
def test_the_best_cut_of_the_second_half_is_taken(text: str, before: str) -> None:
    assert text[: cut_at(text)] == before


def test_long_texts_are_cut_at_single_line_breaks(tmp_path: Path) -> None:
    text = "".join(f"line {i} of a text\n" + "\n" * (i % 3 == 0) for i in range(2000))
    (source,) = resolve_sources([str(written(tmp_path, text.encode()))], Reading(piece_bytes=1000))
    pieces = [piece.text for piece in source.pieces(Tally())]
    assert len(pieces) > 20
    assert max(map(len, pieces)) <= 2000
    for before, after in pairwise(pieces):
        assert re.search(r"\S\n$", before), before[-5:]
        assert re.match(r"\S", after), after[:5]


@given(text=TEXTS, keep=st.booleans(), size=st.integers(1, 30))
def test_lines_are_those_of_the_scripts_text_loader(
    tmp_path_factory: pytest.TempPathFactory, text: str, keep: bool, size: int
) -> None:
    """The loader opens the file with universal newlines and splits at line feeds (datasets' text.py)."""
    path = written(tmp_path_factory.mktemp("lines"), ("x" + text).encode("utf-8"))
    with path.open(encoding="utf-8") as stream:
        expected = io.StringIO(stream.read()).readlines()
    if not keep:
        expected = [line.rstrip("\n") for line in expected]
    settings = {"documents": "lines", "keep_linebreaks": keep, "piece_bytes": size}
    assert read(path, keep_blank_lines=True, **settings) == expected
    assert read(path, **settings) == [line for line in expected if line.strip()]


def test_lines_equal_datasets_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    path = written(tmp_path, "".join(AWKWARD).encode())
    for keep in (False, True):
        theirs = datasets.load_dataset(
            "text", data_files=str(path), cache_dir=str(tmp_path / f"cache{keep}"), keep_linebreaks=keep
        )
        ours = read(path, documents="lines", keep_linebreaks=keep, keep_blank_lines=True)
        assert ours == list(theirs["train"]["text"])


def test_blank_lines_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    assert read(written(tmp_path, b"a\n\n \t\nb"), tally, documents="lines") == ["a", "b"]
    assert tally.skipped == {"blank line": 2}
    assert tally.documents == 2


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig", "shift_jis"])
@pytest.mark.parametrize("piece_bytes", [3, 1 << 20])
def test_other_encodings(tmp_path: Path, encoding: str, piece_bytes: int) -> None:
    text = {"shift_jis": "日本語\r\nテキスト\n"}.get(encoding, "naïve café\r\nsecond ligne\n")
    path = written(tmp_path, text.encode(encoding))
    assert read(path, encoding=encoding, piece_bytes=piece_bytes) == [text]
    assert read(path, encoding=encoding, piece_bytes=piece_bytes, documents="lines") == text.splitlines()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
def test_utf16_without_a_byte_order_mark(tmp_path: Path, name: str) -> None:
    data = {"a.txt": "text\n", "a.csv": "text\ntext\n"}.get(name, '{"text": "text"}\n').encode("utf-16-be")
    path = written(tmp_path, data, name)
    with pytest.raises(UserError, match=r"cannot be read with --encoding utf-16: .* utf-16-le or utf-16-be"):
        read(path, encoding="utf-16")
    assert [text.strip() for text in read(path, encoding="utf-16-be")] == ["text"]


def test_a_byte_order_mark_of_another_encoding(tmp_path: Path) -> None:
    path = written(tmp_path, "text".encode("utf-32"))
    for encoding in ("utf-16", "utf-16-le"):  # whose mark begins that of UTF-32, and text with zeros would follow
        with pytest.raises(UserError, match=r"is not UTF-16.* of UTF-32; read it with --encoding utf-32$"):
            read(path, encoding=encoding)
    assert read(path, encoding="utf-32") == ["text"]
    assert read(written(tmp_path, b"\xff\xfe a", "b.txt"), encoding="latin-1") == ["\xff\xfe a"], "letters there"
    with pytest.raises(UserError, match=r"is not UTF-16-BE: .* of UTF-16; "):
        read(written(tmp_path, "text".encode("utf-16")), encoding="utf-16-be")


@pytest.mark.parametrize(("mark", "encoding"), [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le")])
@pytest.mark.parametrize("piece_bytes", [1, 1 << 20])
def test_a_byte_order_mark_is_not_text(tmp_path: Path, mark: bytes, encoding: str, piece_bytes: int) -> None:
    path = written(tmp_path, mark + "é\ufeff\n".encode(encoding))
    assert read(path, encoding=encoding, piece_bytes=piece_bytes) == ["é\ufeff\n"]
    assert read(path, encoding=encoding, piece_bytes=piece_bytes, documents="lines") == ["é\ufeff"]


def test_bytes_that_do_not_fit_can_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, b"caf\xe9 \xff\n")
    for size in (1, 1 << 20):
        assert read(path, encoding_errors="replace", piece_bytes=size) == ["caf\ufffd \ufffd\n"]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("documents", ["auto", "lines"])
def test_a_compressed_file_gives_the_same_pieces(tmp_path: Path, suffix: str, documents: str) -> None:
    data = "".join(f"Zeile {i}: süß\r\n\n" for i in range(3000)).encode()
    half = data.index(b"\n", len(data) // 2)
    pack = PACKERS[suffix]

    def pieces(path: Path) -> list[Piece]:
        reading = Reading(documents=documents, piece_bytes=5000)  # type: ignore[arg-type]
        (source,) = resolve_sources([str(path)], reading)
        return list(source.pieces(Tally()))

    plain = pieces(written(tmp_path, data))
    assert len(plain) > 5
    assert pieces(written(tmp_path, pack(data), "a.txt" + suffix)) == plain
    # Two compressed files one after another are a compressed file, as `cat a.gz b.gz` makes it.
    assert pieces(written(tmp_path, pack(data[:half]) + pack(data[half:]), "b.txt" + suffix)) == plain
    assert pieces(written(tmp_path, pack(data), "misnamed.txt")) == plain
    if suffix == ".zst":  # pzstd puts the size of each frame into one that is to be skipped, before it
        told = struct.pack("<III", 0x184D2A50, 4, len(pack(data)))
        assert pieces(written(tmp_path, told + pack(data), "c.txt.zst")) == plain


def test_the_end_of_a_long_line_is_found_without_holding_it(tmp_path: Path) -> None:
    import tracemalloc

    path = written(tmp_path, b"some words and more " * (1 << 20) + b"\nthe next\n")
    with path.open("rb") as stream:
        tracemalloc.start()
        assert end_of_line(stream, 100, path.stat().st_size) == 20 * (1 << 20) + 1
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 << 20


def test_reading_is_independent_of_the_chunks_of_memory_it_uses(tmp_path: Path) -> None:
    """A single line of 64 MB is read holding a few pieces of it."""
    import tracemalloc

    path = tmp_path / "long.txt"
    with path.open("wb") as stream:
        for _ in range(64):
            stream.write(b"some words and more " * 52429)
    (source,) = resolve_sources([str(path)], Reading(piece_bytes=1 << 20))
    tracemalloc.start()
    total = sum(piece.n_bytes for piece in source.pieces(Tally()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == path.stat().st_size
    assert peak < 16 << 20
