"""The command as a whole: every format in and out, any number of processes, and what it says when it cannot."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filter_corpora import (
    KEYWORDS,
    SEGMENT,
    any_keyword_in_string,
    as_jsonl,
    code,
    contents,
    kept,
    run,
    shards,
    write,
)

from lmtrain.cli.main import main
from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.filter import meter, progress
from lmtrain.data.filter.tasks import Task
from lmtrain.data.sources import Reading, opening, resolve_sources, tables

RECORDS = code(900)
WANTED = [record for record in RECORDS if any_keyword_in_string(record["content"], KEYWORDS)]
RULE = ["--text_column", "content", "--keep_any", ",".join(KEYWORDS)]
INPUTS = ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.csv", "a.parquet", "a.parquet.gz", "a.arrow"]


def as_csv(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: str(value) for name, value in record.items()} for record in records]


def made(folder: Path, name: str) -> Path:
    if name.endswith(".parquet.gz"):
        import gzip

        plain = write(folder / "plain.parquet", RECORDS)
        packed = folder / name
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
        return packed
    return write(folder / name, RECORDS)


@pytest.mark.parametrize("form", ["parquet", "jsonl.zst"])
@pytest.mark.parametrize("name", INPUTS)
def test_every_format_in_and_out(tmp_path: Path, name: str, form: str) -> None:
    report = run("--source", made(tmp_path, name), *RULE, "--format", form, "--output", tmp_path / "out",
                 "--shard_bytes", 30_000, "--num_proc", 1)  # fmt: skip
    wanted = as_csv(WANTED) if name == "a.csv" else WANTED
    assert kept(tmp_path / "out") == wanted
    assert len(shards(tmp_path / "out")) > 2 and all(path.name.endswith(form) for path in shards(tmp_path / "out"))
    assert report["kept"]["documents"] == len(WANTED) and report["seen"]["documents"] == len(RECORDS)
    assert sum(shard["documents"] for shard in report["shards"]) == len(WANTED)
    # and our own sources read it, the report and what else lies there not among it
    sources = resolve_sources([str(tmp_path / "out")], Reading(text_column="content"))
    texts = [piece.text for source in sources for piece in source.pieces(Tally())]
    assert texts == [record["content"] for record in wanted]


@pytest.mark.parametrize(("name", "form", "most"), [("a.jsonl", "jsonl.zst", 3), ("a.parquet", "parquet", 2)])
def test_the_shards_do_not_depend_on_the_processes(tmp_path: Path, name: str, form: str, most: int) -> None:
    source = write(tmp_path / name, RECORDS)
    outputs = []
    for processes in range(1, most + 1):
        out = tmp_path / f"out{processes}"
        report = run("--source", source, *RULE, "--output", out, "--shard_bytes", 30_000, "--num_proc", processes,
                     "--deduplicate", "exact")  # fmt: skip
        assert report["format"] == form and report["processes"] == processes
        outputs.append(contents(out))
    assert len(outputs[0]) > 1 and all(output == outputs[0] for output in outputs)


def test_lines_of_json_are_not_rewritten(tmp_path: Path) -> None:
    odd = b'{"content" :"pandas \\u00e9 \\/",  "n": 1.10, "n": 2, "big": 123456789012345678901234567890}'
    (tmp_path / "a.jsonl").write_bytes(odd + b"\r\n\r\n  \n" + b'{"content": "numpy"}')
    run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out")
    import zstandard

    assert zstandard.decompress(shards(tmp_path / "out")[0].read_bytes(), max_output_size=1000) == odd + b"\n"


def test_lines_longer_than_segments_and_blocks(tmp_path: Path) -> None:
    texts = ["a" * 70_000, "pandas " + "b" * 2_500_000, "c", "sklearn", "d" * 60_000 + " pandas"]
    (tmp_path / "a.jsonl").write_bytes(as_jsonl({"content": text} for text in texts).removesuffix(b"\n"))
    for processes in (1, 2):
        out = tmp_path / f"{processes}"
        run("--source", tmp_path / "a.jsonl", *RULE, "--output", out, "--num_proc", processes)
        assert [record["content"] for record in kept(out)] == [texts[1], texts[3], texts[4]]


def test_a_line_that_ends_where_a_stretch_does(tmp_path: Path) -> None:
    """It is of that stretch, and the next line is not, though what was read at once goes beyond."""
    # A line goes over the first border, and one ends at the second.
    sizes = [150, *[100] * 199, 50, *[100] * 199, *[40] * 99]
    assert SEGMENT not in accumulate(sizes) and 2 * SEGMENT in accumulate(sizes)
    lines = [b'{"content": "pandas %03d %s"}\n' % (n, b"x" * (size - 27)) for n, size in enumerate(sizes)]
    assert [len(line) for line in lines] == sizes
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out")
    assert [int(record["content"].split()[1]) for record in kept(tmp_path / "out")] == list(range(len(sizes)))


def test_a_folder_of_code(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (folder / "pkg").mkdir(parents=True)
    (folder / "pkg" / "a.py").write_bytes(b"import pandas\r\nx = '\xc3\xa9'\n")
    (folder / "b.js").write_text("pandas")
    (folder / "pkg" / "c.py").write_text("import numpy\n")
    report = run("--source", folder, "--keep_any", "pandas", "--language_of_file", ".py", "--output", tmp_path / "out")
    assert kept(tmp_path / "out") == [{"text": "import pandas\r\nx = 'é'\n", "path": str(folder / "pkg" / "a.py")}]
    assert report["seen"]["documents"] == 3


def test_files_that_are_no_documents_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    for name, data in {"a.py": b"import pandas\n", "b.png": b"\x89PNG\0", "c.py": b"", ".d.py": b"pandas"}.items():
        (folder / name).write_bytes(data)
    report = run("--source", folder, "--keep_any", "pandas", "--output", tmp_path / "out", "--num_proc", 1)
    assert report["skipped"] == {"binary file": 1, "empty file": 1, "hidden file or folder": 1}
    (folder / "sub").mkdir()
    said: list[str] = []
    words = ["--source", f"{folder}/*", "--keep_any", "pandas", "--output", tmp_path / "two"]
    run(*words, say=lambda _, text: said.append(text))
    assert any("1 folder and what is in them are left out" in line for line in said)


def test_lines_as_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("pandas one\n\nnumpy\ntwo pandas\n")
    report = run("--source", tmp_path / "a.txt", "--documents", "lines", "--keep_any", "pandas", "--output",
                 tmp_path / "out")  # fmt: skip
    assert kept(tmp_path / "out") == [{"text": "pandas one"}, {"text": "two pandas"}]
    assert report["skipped"] == {"blank line": 1}


def test_several_sources_are_counted_each(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", RECORDS[:300]), write(tmp_path / "b.parquet", RECORDS[300:])
    report = run("--source", first, second, *RULE, "--output", tmp_path / "out")
    assert kept(tmp_path / "out") == WANTED
    parts = report["sources"]
    assert [part["seen"]["documents"] for part in parts] == [300, 600]
    assert sum(part["kept"]["documents"] for part in parts) == len(WANTED) and report["format"] == "jsonl.zst"


def test_other_encodings(tmp_path: Path) -> None:
    line = '{"content": "pandas é"}\n'
    (tmp_path / "a.jsonl").write_bytes(line.encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out")
    run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out", "--encoding", "latin-1")
    assert kept(tmp_path / "out") == [{"content": "pandas é"}]
    run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "two", "--encoding_errors", "replace")
    assert kept(tmp_path / "two") == [{"content": "pandas \ufffd"}]
    run("--source", tmp_path / "a.jsonl", "--text_column", "content", "--keep_any", "as \ufffd", "--encoding_errors",
        "replace", "--output", tmp_path / "found")  # fmt: skip
    assert kept(tmp_path / "found") == kept(tmp_path / "two"), "what stands for broken bytes can be looked for"
    for name, head, body in [("late.jsonl", b"", line.encode("cp1252")), ("late.csv", b"content\n", b"pandas \xe9\n")]:
        late = tmp_path / name  # with a byte far behind what is probed that is no letter of cp1252
        late.write_bytes(head + body * 20_000 + body.replace(b"\xe9", b"\x81"))
        with pytest.raises(UserError, match="not CP1252: byte 0x81"):
            run("--source", late, *RULE, "--output", tmp_path / "late", "--encoding", "cp1252")


def test_bad_records(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    lines = [
        b'{"content": "pandas"}',
        b'{"content": "numpy"',
        b'{"content": 3, "x": "pandas"}',
        b'{"content": "seaborn"}',
    ]
    file.write_bytes(b"\n".join([lines[0]] * 2000 + lines))
    with pytest.raises(UserError, match=r"a\.jsonl:2002: broken JSON"):
        run("--source", file, *RULE, "--output", tmp_path / "out", "--num_proc", 2)
    assert not (tmp_path / "out").exists() or not shards(tmp_path / "out")
    report = run("--source", file, *RULE, "--output", tmp_path / "out", "--on_bad_record", "skip", "--overwrite")
    assert report["skipped"] == {"bad record": 2} and report["kept"]["documents"] == 2002


def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"content": "pandas \\ud83d", "x": "\\ud83d"}\n{"content": "pandas", "x": "\\ud83d"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: the text holds half a surrogate pair"):
        run("--source", file, *RULE, "--output", tmp_path / "out")
    run("--source", file, *RULE, "--output", tmp_path / "out", "--encoding_errors", "replace", "--overwrite")
    assert [record["content"] for record in kept(tmp_path / "out")] == ["pandas \ufffd", "pandas"]


@pytest.mark.parametrize(
    ("words", "said", "flag"),
    [
        (["--keep_any", "no such"], "drops 900 of 900 documents: nothing is kept", "--keep_any"),
        (["--keep_any", "pandas", "--keep_regex", "^never$"], r"drops \d+ .*, and --keep_regex \d+", "--keep_any"),
        (["--min_chars", "1000000"], "drops 900 of 900", "--min_chars"),
        (["--drop_any", "#", "--deduplicate", "exact"], "drops 900 of 900", "--drop_any"),
    ],
)  # fmt: skip
def test_keeping_nothing_names_the_rule(tmp_path: Path, words: list[str], said: str, flag: str) -> None:
    source = write(tmp_path / "a.jsonl", RECORDS)
    with pytest.raises(UserError, match=said) as raised:
        run("--source", source, "--text_column", "content", "--output", tmp_path / "out", *words)
    assert raised.value.problems[0].flag == flag
    assert not (tmp_path / "out").exists(), "another rule may be tried at once"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--keep_any: no rule is given"),
        (["--keep_regex", "("], r"--keep_regex: '\(' is no regular expression"),
        (["--keep_any", "a,,b"], "--keep_any: an empty text is in every document"),
        (["--min_chars", "9", "--max_chars", "8"], "--min_chars: 9 is above --max_chars 8"),
        (["--language_of_file", "py"], "--language_of_file: 'py' is not how a file name ends"),
        (["--keep_any", "a", "--text_column", "body"], "has no column 'body'; it has the columns path"),
        (["--keep_any", "a", "--text_column", "size"], "holds in column 'size' a number"),
        (["--keep_any", "a"], "none is called 'text'; choose one: --text_column content"),
        (["--keep_any", "a", "--text_column", "content", "--language_of_file", ".py", "--path_column", "p"],
         "--path_column: .*has no column 'p'"),
    ],
)  # fmt: skip
def test_wrong_options(tmp_path: Path, words: list[str], said: str) -> None:
    source = write(tmp_path / "a.jsonl", RECORDS[:20])
    with pytest.raises(UserError, match=said):
        run("--source", source, "--output", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_an_output_among_the_input_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", RECORDS[:20])
    for folder in (source.parent, f"{source.parent}/../{source.parent.name}"):
        with pytest.raises(UserError, match=r"--output: .* lies inside .*; name a folder outside"):
            run("--source", folder, *RULE, "--output", tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()
    run("--source", source, "--text_column", "content", "--min_chars", 1, "--output", tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for inside in (tmp_path / "out" / "part-00000.jsonl.zst", tmp_path / "link" / "*.zst"):
        with pytest.raises(UserError, match=r"part-00000.jsonl.zst is to be filtered and lies in .*; name another"):
            run("--source", inside, *RULE, "--output", tmp_path / "out", "--overwrite")
    assert contents(tmp_path / "out") == before


def test_a_mistake_beside_overwrite_costs_nothing(tmp_path: Path) -> None:
    words = ["--source", write(tmp_path / "a.jsonl", RECORDS[:200]), "--text_column", "content", "--output"]
    run(*words, tmp_path / "out", "--keep_any", "pandas")
    before = contents(tmp_path / "out")
    with pytest.raises(UserError, match="has no column 'p'"):
        run(*words, tmp_path / "out", "--overwrite", "--language_of_file", ".py", "--path_column", "p")
    assert contents(tmp_path / "out") == before
    run(*words, tmp_path / "out", "--overwrite", "--keep_any", "sklearn")
    run(*words, tmp_path / "other", "--keep_any", "sklearn")
    assert contents(tmp_path / "out") == contents(tmp_path / "other") != before


def test_a_token_store_is_no_text(tmp_path: Path) -> None:
    for name in ("manifest.json", "tokens.bin", "tokens.idx"):
        (tmp_path / "store" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "store" / name).touch()
    with pytest.raises(UserError, match=r"--source: .*store is a token store .* name the text it was made of"):
        run("--source", tmp_path / "store", *RULE, "--output", tmp_path / "out")


def test_a_file_that_is_written_to_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, plain, said = write(tmp_path / "a.jsonl", RECORDS), meter.segments_of, list[str]()

    def segments(task: Task, job: Any) -> Any:
        yield from plain(task, job)
        source.touch()

    words = ["--source", source, *RULE, "--output"]
    run(*words, tmp_path / "quiet", say=lambda _, text: said.append(text))
    assert not said
    monkeypatch.setattr(meter, "segments_of", segments)
    run(*words, tmp_path / "out", say=lambda _, text: said.append(text))
    assert said and "a.jsonl changed while it was read" in said[-1] and "--overwrite begins anew" in said[-1]


def test_records_without_text_are_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("It was a dark night.\n" * 99)
    (tmp_path / "in" / "b.jsonl").write_text('{"title": "a", "body": "b"}\n')
    with pytest.raises(UserError, match=r"b\.jsonl .* a filter reads all") as told:
        run("--source", tmp_path / "in", "--output", tmp_path / "out", "--keep_any", "a")
    assert told.value.problems[0].flag == "--source" and not (tmp_path / "out").exists()


def test_no_path_for_the_language(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match="no column with the path of a text"):
        run("--source", source, "--output", tmp_path / "out", "--language_of_file", ".py")
    run("--source", write(tmp_path / "b.jsonl", [{"text": "x", "where": "a.py"}]), "--output", tmp_path / "out",
        "--language_of_file", ".py", "--path_column", "where")  # fmt: skip


def test_tables_that_differ(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"content": "pandas", "n": 1}])
    write(tmp_path / "b.parquet", [{"content": "pandas", "n": "1"}])
    with pytest.raises(UserError, match=r"'n' is int64 and string there; --format jsonl\.zst"):
        run("--source", tmp_path / "a.parquet", tmp_path / "b.parquet", *RULE, "--output", tmp_path / "out")
    run("--source", tmp_path / "a.parquet", tmp_path / "b.parquet", *RULE, "--output", tmp_path / "out", "--format",
        "jsonl.zst")  # fmt: skip
    assert kept(tmp_path / "out") == [{"content": "pandas", "n": 1}, {"content": "pandas", "n": "1"}]


def test_columns_without_a_form_in_json(tmp_path: Path) -> None:
    table = pa.table({"text": ["pandas", None], "raw": [b"\xff", b"x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="column 'raw' is binary"):
        run("--source", tmp_path / "a.parquet", "--keep_any", "pandas", "--output", tmp_path / "out", "--format",
            "jsonl.zst")  # fmt: skip
    report = run("--source", tmp_path / "a.parquet", "--keep_any", "pandas", "--output", tmp_path / "out")
    assert kept(tmp_path / "out") == [{"text": "pandas", "raw": b"\xff"}]
    assert report["skipped"] == {"record without text": 1}


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.large_string(), pa.string_view()])
def test_other_types_of_text(tmp_path: Path, kind: pa.DataType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MOST_ROWS", 3)  # the last row is in a slice of its own
    text = pa.array(["pandas", "numpy", None, "é pandas"])
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink:
        table = pa.table({"text": text.dictionary_encode() if pa.types.is_dictionary(kind) else text.cast(kind)})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    run("--source", tmp_path / "a.arrow", "--keep_any", "pandas", "--output", tmp_path / "out", "--format", "jsonl.zst")
    assert kept(tmp_path / "out") == [{"text": "pandas"}, {"text": "é pandas"}]


def test_records_that_do_not_fit_columns(tmp_path: Path) -> None:
    records = [{"content": "pandas", "n": None}, {"content": "pandas 2", "n": None}]
    write(tmp_path / "a.jsonl", records)
    run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out", "--format", "parquet")
    assert kept(tmp_path / "out") == records
    write(tmp_path / "a.jsonl", [{"content": "pandas", "n": 1}, {"content": "pandas 2", "n": [2]}])
    with pytest.raises(UserError, match="--format: a column of Parquet has one type"):
        run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "two", "--format", "parquet")


@pytest.mark.parametrize("later", [{"a": 1, "b": 2}, {"a": 1, "c": [{"d": "pandas"}]}, {"a": 0.5}])
def test_nothing_inside_of_a_record_is_left_out(tmp_path: Path, later: dict[str, Any]) -> None:
    """Arrow drops what an object of a later shard has more."""
    first = {"content": "pandas" * SEGMENT, "meta": {"a": 1, "c": [{"e": None}]}}
    write(tmp_path / "a.jsonl", [first, {"content": "pandas", "meta": later}])
    words = ["--source", tmp_path / "a.jsonl", *RULE, "--format", "parquet", "--output"]
    with pytest.raises(UserError, match=r"--format: .*'meta' holds struct<"):
        run(*words, tmp_path / "out", "--shard_bytes", 1)
    run(*words, tmp_path / "one")
    last = kept(tmp_path / "one")[-1]["meta"]
    assert all(last[name] == later[name] or last[name] == [{"d": "pandas", "e": None}] for name in later)


def test_an_object_without_fields_has_no_form_in_parquet(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"content": "pandas", "meta": {}}])
    with pytest.raises(UserError, match=r"--format: Cannot write struct type 'meta' with no child .*; --format jsonl"):
        run("--source", tmp_path / "a.jsonl", *RULE, "--output", tmp_path / "out", "--format", "parquet")


def test_another_output_is_left_alone(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", RECORDS[:200])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds other files"):
        run("--source", source, *RULE, "--output", tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "precious"


def test_the_printed_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "a.jsonl", RECORDS)
    words = ["filter", "--source", str(source), *RULE, "--output", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"kept        {len(WANTED)} documents" in said and "--keep_any  dropped" in said and "'pandas'" in said
    assert main([*words, "--json"]) == 0, "finished before: the report again"
    again = capsys.readouterr()
    assert json.loads(again.out)["kept"]["documents"] == len(WANTED) and "finished before" in again.err


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv"])
def test_how_far_it_is_in_one_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is read from front to back is no single stride: its bytes on disk count as they are read."""
    monkeypatch.setattr(opening, "_BUFFER", 4096)
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    said: list[str] = []
    source = write(tmp_path / name, as_csv(RECORDS) if name == "a.csv" else RECORDS)
    run("--source", source, *RULE, "--output", tmp_path / "out", say=lambda topic, text: said.append(text))
    form = r"([\d.]+) kB of ([\d.]+) kB, [\d.]+ [kM]?B/s, [\d.]+% kept"
    figures = [[float(figure) for figure in match.groups()] for text in said if (match := re.fullmatch(form, text))]
    places = [done for done, _ in figures]
    assert len(places) == len(said) > 10 and places == sorted(places)
    assert len(set(places)) > (1 if name.endswith("zst") else 8), "Arrow reads zstd 64 kB at a time"
    assert 0 < places[0] < places[-1] <= figures[0][1] == pytest.approx(source.stat().st_size / 1000, abs=0.06)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_with_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_BUFFER", 4096)
    monkeypatch.setattr(progress, "_REDRAWN", 0.0)
    for variable, value in (("TERM", "xterm"), ("COLUMNS", "100")):
        monkeypatch.setenv(variable, value)
    source = write(tmp_path / "a.jsonl.gz", RECORDS)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen := Terminal())
        run("--source", source, *RULE, "--output", tmp_path / "out")
    drawn = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", screen.getvalue())
    parts = [int(part) for part in re.findall(r"(\d+) % [\d.]+ [kM]B/s, [\d.]+% kept", drawn)]
    assert len(set(parts)) > 8 and parts == sorted(parts) and 0 < parts[0] < parts[-1] <= 100, drawn


def test_the_rest_of_lmtrain_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMTRAIN_CACHE", str(tmp_path / "cache"))
    source = write(tmp_path / "a.jsonl", RECORDS)
    assert main(["filter", "--source", str(source), *RULE, "--output", str(tmp_path / "out")]) == 0
    out = ["--train_file", str(tmp_path / "out"), "--text_column", "content"]
    assert main(["tokenizer", *out, "--vocab_size", "300", "--output_dir", str(tmp_path / "tok")]) == 0
    tokenizer = ["--tokenizer_name", str(tmp_path / "tok")]
    assert main(["prepare", *out, *tokenizer, "--output_dir", str(tmp_path / "store"), "--block_size", "64"]) == 0
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert manifest["ledger"]["documents"] == len(WANTED)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("mixed", [False, True])
def test_what_opens_an_address_is_written_nowhere(
    tmp_path: Path, mixed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the same file signed anew goes on with what was begun."""
    pytest.importorskip("aiohttp")
    (tmp_path / "site").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "site" / name, RECORDS[:200])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "site")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    out = tmp_path / "out"

    def words(signature: str) -> list[str]:
        found = []
        for name in ("a", "b"):
            address = f"http://me:hush{name}@127.0.0.1:{server.server_port}/{name}.jsonl?X-Amz-Signature={signature}"
            found += ["--source", f"{name}={address}" if mixed else address]
        return [*found, *(["--mix", "a=1", "--mix", "b=1"] if mixed else []), *RULE, "--output", str(out)]

    try:
        assert main(["filter", *words("hushhush"), "--num_proc", "1"]) == 0
        assert main(["filter", *words("hushanew"), "--num_proc", "1"]) == 0, "it is the same input"
    finally:
        server.shutdown()
        server.server_close()
    said = "".join(capsys.readouterr())
    assert "finished before" in said
    for text in (said, *(path.read_text() for path in (out / ".filter").glob("*.json"))):
        assert "hush" not in text
    assert len(kept(out)) == 2 * len([record for record in WANTED if record in RECORDS[:200]])
