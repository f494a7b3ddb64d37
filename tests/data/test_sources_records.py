"""Records: JSON Lines, JSON, CSV, Parquet and Arrow give the same documents."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_text import read

from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.sources.json_values import JsonError, JsonText, records_in
from lmtrain.data.sources.reading import Reading

TEXTS = [
    "plain",
    'with "quotes", commas; and\ttabs',
    "two\nlines\r\nand\rmore\n",
    "日本語 🙂",
    "  blanks  ",
    "\\n no break",
]


def jsonl(path: Path, texts: Sequence[str | None]) -> None:
    path.write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)), "utf-8")


def json_list(path: Path, texts: Sequence[str | None]) -> None:
    records = [{"tags": ["[", {"x": "}"}], "text": text} for text in texts]
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False), "utf-8")


def json_data(path: Path, texts: Sequence[str | None]) -> None:
    records = {"version": 1.5, "data": [{"text": text} for text in texts], "more": {"data": []}}
    path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")


def json_one_after_another(path: Path, texts: Sequence[str | None]) -> None:
    path.write_text("\n".join(json.dumps({"text": text}, indent=2) for text in texts), "utf-8")


def csv_file(path: Path, texts: Sequence[str | None]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(["n", "text"])
        writer.writerows((i, text) for i, text in enumerate(texts))


def table(texts: Sequence[str | None]) -> pa.Table:
    return pa.table({"meta": [{"a": 1, "b": 2}] * len(texts), "text": pa.array(texts, pa.string())})


def parquet(path: Path, texts: Sequence[str | None]) -> None:
    pq.write_table(table(texts), path, row_group_size=2)


def arrow_file(path: Path, texts: Sequence[str | None]) -> None:
    with pa.ipc.new_file(path, table(texts).schema) as writer:
        writer.write_table(table(texts), max_chunksize=2)


def arrow_stream(path: Path, texts: Sequence[str | None]) -> None:
    with pa.ipc.new_stream(path, table(texts).schema) as writer:
        writer.write_table(table(texts), max_chunksize=2)


def feather(path: Path, texts: Sequence[str | None]) -> None:
    pyarrow.feather.write_feather(table(texts), str(path), compression="zstd")


Writer = Callable[[Path, Sequence[str | None]], None]
WRITERS: dict[str, Writer] = {
    "a.jsonl": jsonl,
    "a.ndjson": jsonl,
    "lines.json": jsonl,
    "list.json": json_list,
    "data.json": json_data,
    "many.json": json_one_after_another,
    "a.csv": csv_file,
    "a.tsv": csv_file,
    "a.parquet": parquet,
    "file.arrow": arrow_file,
    "stream.arrow": arrow_stream,
    "a.feather": feather,
}
every_format = pytest.mark.parametrize("name", WRITERS)


@every_format
def test_each_record_is_a_document(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path, TEXTS)
    tally = Tally()
    assert read(path, tally) == TEXTS
    assert (tally.files, tally.documents, tally.bytes_read) == (1, len(TEXTS), path.stat().st_size)
    assert read(path, documents="lines") == TEXTS  # --documents lines is about text files


@every_format
@pytest.mark.parametrize("piece_bytes", [1, 4])
def test_long_records_travel_in_pieces(tmp_path: Path, name: str, piece_bytes: int) -> None:
    WRITERS[name](tmp_path / name, TEXTS)
    assert read(tmp_path / name, piece_bytes=piece_bytes) == TEXTS


@every_format
def test_compressed(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, TEXTS)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert read(packed) == TEXTS


@every_format
def test_records_without_text_are_counted(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, ["a", None, "", "b"])
    tally = Tally()
    assert read(tmp_path / name, tally) == ["a", "b"]
    if name.endswith((".csv", ".tsv")):  # which cannot tell "" from nothing
        assert tally.skipped == {"empty record": 2}
    else:
        assert tally.skipped == {"empty record": 1, "record without text": 1}
    assert "" in read(tmp_path / name, keep_blank_lines=True)


@pytest.mark.parametrize("name", ["a.jsonl", "list.json", "a.csv", "a.tsv", "a.parquet", "stream.arrow"])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1, max_size=5)
)
@settings(deadline=None)  # the first one imports pyarrow
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / name
    WRITERS[name](path, ["first", *texts])
    assert read(path, keep_blank_lines=True) == ["first", *texts]


@given(
    records=st.lists(
        st.dictionaries(
            st.text(max_size=3),
            st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=3),
        ),
        max_size=6,
    ),
    size=st.integers(1, 9),
    indent=st.none() | st.integers(0, 2),
    shape=st.sampled_from(["list", "data", "sequence"]),
)
def test_json_is_read_alike_whatever_the_chunks(
    records: list[dict[str, object]], size: int, indent: int | None, shape: str
) -> None:
    if shape == "sequence":
        if any(isinstance(record.get("data"), list) for record in records[:1]):
            return  # that is the shape "data"
        text = "\n".join(json.dumps(record, indent=indent) for record in records)
    else:
        text = json.dumps(records if shape == "list" else {"n": 12, "data": records, "z": [1]}, indent=indent)
    chunks = iter([text[i : i + size] for i in range(0, len(text), size)])
    assert [record for _, record in records_in(JsonText(chunks))] == records


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ('[\n{"a": 1},\n{"a": 2}', 3, "the file ends"),
        ('[\n{"a": 1}\n{"a": 2}]', 3, "expected, not '{'"),
        ('[{"a": 1}]\n\nx', 3, "after the end"),
        ('[\n{"a":\n tru }]', 3, "Expecting value"),
        ('{"a": 1,\n b: 2}', 2, "double quotes"),
        ('{"data": [{}],\n "b"', 2, "':' expected"),
        ('\n"a b"', 2, "one value (text) where records are expected: [{...}, ...] or {...}"),
        ("12", 1, "one value (number) where records"),
        ("hello", 1, "Expecting value"),
    ],
)
def test_broken_json_names_its_line(text: str, line: int, reason: str) -> None:
    for size in (1, 5, 1000):
        with pytest.raises(JsonError) as caught:
            list(records_in(JsonText(iter([text[i : i + size] for i in range(0, len(text), size)]))))
        assert caught.value.line == line
        assert reason in caught.value.reason


def test_the_only_column_of_text_is_taken_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("score,body\n1,one\n2.5,two\n", "utf-8")
    tally = Tally()
    assert read(path, tally) == ["one", "two"]
    assert tally.notes == ["text is read from column 'body', the only one that holds text"]


def test_several_columns_of_text_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"repo_name": "x/y", "stars": 3, "content": "code"}\n', "utf-8")
    with pytest.raises(UserError) as caught:
        read(path)
    said = str(caught.value)
    assert "repo_name (text), stars (number), content (text)" in said
    assert "--text_column content" in said
    assert read(path, text_column="content") == ["code"]
    assert read(path, first_column=True) == ["x/y"]  # as run_clm does


def test_text_wins_over_other_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"title": "t", "text": "body"}\n{"title": "u"}\n', "utf-8")
    tally = Tally()
    assert read(tmp_path / "a.jsonl", tally) == ["body"]
    assert tally.notes == []
    assert tally.skipped == {"record without text": 1}


@pytest.mark.parametrize(
    ("name", "data", "kept", "skipped"),
    [
        ("a.jsonl", b'{"text":"a"}\n{"text":\n\n[1]\n{"text":"b"}\n', ["a", "b"], 2),
        ("a.jsonl", b'{"text":"a"}\n{"text":"\xff"}\n{"text":"b"}\n', ["a", "b"], 1),
        ("a.jsonl", b'{"text":"a"}\n{"text":5}\n{"text":"\\ud83d"}\n', ["a"], 2),
        ("a.jsonl", b"[" * 100_000 + b'\n{"text":"b"}\n', ["b"], 1),
        ("a.json", b'[{"text":"a"}, 7, {"text":["b"]}, {"text":"c"}]', ["a", "c"], 2),
        ("a.csv", b'text,n\na,1\nb\n"c"x,1\nd,4\n', ["a", "d"], 2),
        ("a.csv", b"text,n\na,1\n\xe9,2\nd,\xe9\n", ["a", "d"], 1),
    ],
)
def test_bad_records_can_be_skipped_and_are_counted(
    tmp_path: Path, name: str, data: bytes, kept: list[str], skipped: int
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError):
        read(tmp_path / name)
    tally = Tally()
    assert read(tmp_path / name, tally, on_bad_record="skip") == kept
    assert tally.skipped == {"bad record": skipped}
    assert tally.documents == len(kept)


def test_lines_that_an_open_quote_takes_along_are_counted(tmp_path: Path) -> None:
    path, tally = tmp_path / "a.csv", Tally()
    path.write_text('text,n\na,1\n"b,2\n' + "c,3\n" * 500)
    assert read(path, tally, on_bad_record="skip") == ["a"]
    assert tally.skipped == {"bad record": 1, "line after a quote that is never closed": 500}


def test_a_bad_record_after_the_first_hundred_is_still_found(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text":"a"}\n' * 150 + "{oops\n", "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl:151: broken JSON"):
        read(path)


def test_half_a_surrogate_pair_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text":"x\\ud83d"}\n{"text":"\\ud83d\\ude42"}\n', "utf-8")
    assert read(tmp_path / "a.jsonl", encoding_errors="replace") == ["x\ufffd", "🙂"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_records_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    for name, text in [("a.jsonl", '{"text":"é"}\n'), ("a.json", '[{"text":"é"}]'), ("a.csv", "text\né\n")]:
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert read(tmp_path / name, encoding=encoding) == ["é"]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_marks_where_there_is_no_comma(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.csv").write_text(f"n{mark}text\n1{mark}one, two\n", "utf-8")
    assert read(tmp_path / "a.csv") == ["one, two"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_other_string_types_of_arrow(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(TEXTS, pa.string()).cast(kind)
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema({"text": kind})) as writer:
        writer.write_table(pa.table({"text": texts}))
    assert read(tmp_path / "a.arrow") == TEXTS


def test_invalid_utf8_in_parquet_is_a_bad_record(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"\xff", b"fine"]).buffers())
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: row 2: .*0xff"):
        read(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", on_bad_record="skip") == ["ok", "fine"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: two columns are called 'text'"):
        read(tmp_path / "a.parquet")


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="utf-9"):
        Reading(encoding="utf-9")
    for other in ("base64", "idna"):
        with pytest.raises(UserError, match=other):
            Reading(encoding=other)
