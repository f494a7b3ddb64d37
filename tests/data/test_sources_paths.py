"""Paths, globs, folders and standard input; and everything that can be wrong with them."""

from __future__ import annotations

import glob
import gzip
import io
import lzma
import os
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard
from test_sources_text import read

from lmtrain.core.errors import UserError
from lmtrain.core.types import Tally
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.sources.walking import matches


def names(*paths: object) -> list[str]:
    return [Path(source.name).name for source in resolve_sources([str(path) for path in paths], Reading())]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, data in {
        "b.txt": b"b",
        "a.md": b"a",
        "sub/c.py": b"c",
        "sub/deep/d.txt.gz": gzip.compress(b"d", mtime=0),
        "sub/e.jsonl": b'{"text": "e"}\n',
        "empty.py": b"",
        "blank.txt": b" \n",
        "picture.png": b"\x89PNG\r\n\x1a\n\x00\x00",
        "paper.pdf": b"%PDF-1.7",
        "none.csv": b"text,n\n",
        ".hidden/x.txt": b"x",
        "sub/.y.txt": b"y",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_a_folder_is_read_recursively_and_sorted(corpus: Path) -> None:
    tally = Tally()
    assert names(corpus) == ["a.md", "b.txt", "c.py", "d.txt.gz", "e.jsonl"]
    assert read(corpus, tally) == list("abcde")
    assert tally.skipped == Counter(
        {
            "hidden file or folder": 2,
            "binary file": 1,
            "PDF file": 1,
            "empty file": 1,
            "blank file": 1,
            "file without records": 1,
        }
    )


def test_links_are_followed_but_not_in_circles(corpus: Path) -> None:
    (corpus / "sub" / "again").symlink_to(corpus)
    (corpus / "sub" / "gone.txt").symlink_to(corpus / "nowhere")
    (corpus / "sub" / "itself.txt").symlink_to("itself.txt")
    (corpus / "sub" / "through.txt").symlink_to("c.py/x")
    tally = Tally()
    assert read(corpus, tally) == list("abcde")
    assert tally.skipped["special file or broken link"] == 3
    assert names(f"{corpus}/**/*.[pt]*") == ["b.txt", "c.py", "d.txt.gz"]
    assert names(f"{corpus}/sub/again/**/*.py") == ["c.py"], "the way to where it begins is the user's own"
    (corpus / "sub" / "once more").symlink_to(corpus)  # of two the library would go 2⁴⁰ ways
    assert names(f"{corpus}/**/*.[pt]*") == ["b.txt", "c.py", "d.txt.gz"]


@pytest.mark.parametrize("pattern", ["**", "**/*.txt", "a/**", "*/**/x.*", "**/a/**/*.txt", "**/**/*.json", "**.txt"])
def test_a_glob_finds_what_the_library_s_does(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a/b/a", "a/.hidden", "b/c[1]", "c"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ("x.txt", "y.json", ".z.txt"):
            (tmp_path / folder / name).touch()
    monkeypatch.chdir(tmp_path)
    usual = {os.path.normpath(path) for path in glob.glob(pattern, recursive=True) if path}  # noqa: PTH207
    found = {os.path.normpath(path) for path in matches(pattern)}
    assert found == usual - {pattern.partition("/")[0]} if pattern.endswith("**") else found == usual


def test_globs(corpus: Path) -> None:
    assert names(f"{corpus}/*.txt") == ["b.txt"]
    assert names(f"{corpus}/**/*.[pt]*") == ["b.txt", "c.py", "d.txt.gz"]
    tally = Tally()
    assert read(Path(f"{corpus}/*"), tally) == list("ab")
    assert tally.skipped["empty file"] == 1
    assert tally.notes == [f"of what '{corpus}/*' matches, 1 folder and what is in them are left out; name a folder "
                           "itself, or end the pattern with /**"]  # fmt: skip
    assert not names_left_out(f"{corpus}/**") and not names_left_out(f"{corpus}/*.txt")
    (corpus / "odd[1].txt").write_text("odd")
    assert names(corpus / "odd[1].txt") == ["odd[1].txt"]  # a file of that name beats the pattern


def names_left_out(pattern: str) -> list[str]:
    read(Path(pattern), tally := Tally())
    return tally.notes


def test_the_home_of_nobody() -> None:
    for typed, said in (("~nobody-here/a.txt", "no such file"), ("~nobody-here/*.txt", "matches no file")):
        with pytest.raises(UserError, match=said):
            resolve_sources([typed], Reading())


def project(folder: Path, **more: str) -> Path:
    """A folder of source code with what lies beside it."""
    files = {
        "src/a.py": "print(1)\n",
        "package.json": '{"name": "x", "version": "1", "license": "MIT"}',
        "tsconfig.json": '{\n  // a comment\n  "strict": true\n}\n',
        "names.json": '["a", "b"]',
        "word.json": '"a b"',
        "data/table.csv": "name,licence\nx,MIT\n",
        **more,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_records_without_text_beside_text_are_passed_over(tmp_path: Path) -> None:
    tally = Tally()
    assert read(project(tmp_path), tally) == ["print(1)\n"]
    assert tally.skipped == Counter({"file of records without text": 5})
    assert tally.notes == [
        "passed over 5 files without records that have a column 'text': "
        f"{tmp_path}/data/table.csv, {tmp_path}/names.json, {tmp_path}/package.json, … "
        "(--text_column names another one)"
    ]


def test_records_with_text_beside_text_are_read(tmp_path: Path) -> None:
    folder = project(tmp_path, **{"b.json": '{"text": "b", "n": 1}', "c.jsonl": '{"licence": "MIT", "body": "c"}\n'})
    assert read(folder) == ["b", "print(1)\n"]
    assert read(folder, text_column="body") == ["c", "print(1)\n"]


@pytest.mark.parametrize(
    "damaged", [b'[{"text": "one"}, {"text": "two', b'[{"text": "caf\xe9"}]', b'{"text": "a"}\n{"text": \n']
)
def test_damaged_records_of_text_are_no_records_without_text(tmp_path: Path, damaged: bytes) -> None:
    folder = project(tmp_path, **{"README.md": "# A corpus, and words on it that are longer than the rest of it\n" * 9})
    (folder / "corpus.json").write_bytes(damaged)
    with pytest.raises(UserError, match=r"corpus\.json"):
        read(folder)


def test_what_may_be_meant_is_asked_for(tmp_path: Path) -> None:
    folder = project(tmp_path)
    with pytest.raises(UserError, match=r"package\.json has no column 'body'"):
        read(folder, text_column="body")
    (folder / "src" / "a.py").unlink()
    with pytest.raises(UserError, match=r"package\.json has the columns name .* choose one: --text_column"):
        read(folder)
    (folder / "README.md").write_text("# a corpus\n")
    (folder / "large.csv").write_text("title,body\n" + "a,b\n" * 300_000)
    with pytest.raises(UserError) as told:
        read(folder)
    assert "large.csv has the columns title" in str(told.value)
    assert str(told.value).endswith(f"to read the files of text alone, name them: '{folder}/**/*.md'")


def test_a_broken_link_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "broken.txt").symlink_to("nowhere.txt")
    with pytest.raises(UserError) as told:
        read(tmp_path / "broken.txt")
    assert str(told.value) == (
        f"--train_file: {tmp_path}/broken.txt is a broken link: it leads to nowhere.txt, which is not there"
    )


def test_the_order_given_is_kept(corpus: Path) -> None:
    assert names(corpus / "sub" / "c.py", corpus / "b.txt", corpus / "a.md") == ["c.py", "b.txt", "a.md"]


def test_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    one, two, other = tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"
    one.write_text("same")
    two.write_text("same")
    other.write_text("Same")
    os.utime(two, (0, 0))
    hashes = [source.content_hash() for source in resolve_sources([str(one), str(two), str(other)], Reading())]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[0] == "0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"  # printf same | sha256sum


@pytest.mark.parametrize(
    ("data", "documents"),
    [
        (b"just\ntext", ["just\ntext"]),
        (b'{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        (b"{ not a record }\n", ["{ not a record }\n"]),
        (gzip.compress(b'{"text": "a"}\n', mtime=0), ["a"]),
        (b'{"text": "' + b"x" * 10_000 + b'"}\n', ["x" * 10_000]),
        (b'"}' + b"{" * 9000, ['"}' + "{" * 9000]),
        (b'{"a":' * 1600, ['{"a":' * 1600]),
    ],
)
def test_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes, documents: list[str]) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    sources = resolve_sources(["-"], Reading())
    spooled = Path(sources[0].origin.path if hasattr(sources[0], "origin") else sources[0].file.path)
    assert spooled.read_bytes() == data
    assert sources[0].name == "standard input"
    first, second = ([piece.text for piece in sources[0].pieces(Tally())] for _ in range(2))
    assert first == second == documents  # may be read twice, though the stream may not
    sources.clear()
    assert not spooled.exists()


def test_a_pipe_by_name(tmp_path: Path) -> None:
    import threading

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"through a pipe"))
    writer.start()
    assert read(pipe) == ["through a pipe"]
    writer.join()


GZIP, XZ = gzip.compress(b"some text " * 1000, mtime=0), lzma.compress(b"some text " * 1000)
ZSTD = zstandard.ZstdCompressor().compress(os.urandom(3000).hex().encode())

# name, bytes (None: no file), what the line says; the file is named on the command line
BAD_FILES: list[tuple[str, bytes | None, str]] = [
    ("none.txt", None, "no such file"),
    ("none*.txt", None, "matches no file"),
    ("no/folder/none.txt", None, "no such file"),
    ("empty.txt", b"", "is empty"),
    ("empty.jsonl", b"", "is empty"),
    ("bom.txt", b"\xef\xbb\xbf", "is empty"),
    ("empty.txt.gz", gzip.compress(b"", mtime=0), "is empty"),
    ("blank.txt", b" \t\r\n" * 5000, "only white space"),
    ("blank.jsonl", b"\n\n", "only white space"),
    (
        "latin.txt",
        b"one\ntwo caf\xe9\n",
        r"latin.txt:2: .*0xe9 at offset 11 .*--encoding latin-1.*--encoding_errors replace",
    ),
    ("cut.txt", "é".encode()[:1], r"cut.txt:1: .*0xc3 at offset 0"),
    ("late.txt", b"line\n" * 500_000 + b"\xff", r"late.txt:500001: .*0xff at offset 2500000"),
    ("utf16.txt", "text".encode("utf-16"), "is not UTF-8: .*of UTF-16; read it with --encoding utf-16$"),
    ("utf32.txt", "text".encode("utf-32"), "is not UTF-8: .*of UTF-32; read it with --encoding utf-32$"),
    ("binary.txt", b"\x00\x01\x02", "binary"),
    ("book.pdf", b"%PDF-1.7", "pdftotext"),
    ("book.docx", b"PK\x03\x04", "unzip"),
    ("cut.txt.gz", GZIP[:-9], "incomplete or damaged.*before their end"),
    ("cut.xz", XZ[: len(XZ) // 2], "incomplete or damaged.*before their end"),
    ("cut.zst", ZSTD[:-9], "incomplete or damaged.*before their end"),
    ("bad.txt.gz", GZIP[:20] + b"\xff\xff" + GZIP[22:], "gzip data are damaged"),
    ("bad.txt.xz", XZ[:20] + b"\xff\xff" + XZ[22:], "xz data are damaged"),
    ("bad.txt.zst", ZSTD[:4] + b"\xff\xff\xff" + ZSTD[7:], "zstd data"),
    ("plain.txt.gz", b"plain", "does not begin as one"),
    ("broken.jsonl", b'{"text": "a"}\n{"text": \n', r"broken.jsonl:2: broken JSON.*--on_bad_record skip"),
    ("bytes.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"bytes.jsonl:2: .*0xff at offset 24"),
    ("broken.json", b'[{"text": "a"},\n{"text" "b"}]', r"broken.json:2: broken JSON"),
    ("open.json", b'[{"text": "a"}', r"open.json:1: .*the file ends"),
    ("number.json", b"3", r"number.json:1: one value \(number\) where records"),
    ("none.json", b"[]", "no records"),
    ("deep.json", b"[" * 100_000, "deep.json:1: JSON that cannot be read"),
    ("lists.jsonl", b'{"text": ["a"]}\n', "'text' a list and not text"),
    ("numbers.jsonl", b'{"text": 1}\n', "'text' a number and not text"),
    (
        "chat.jsonl",
        b'{"messages": [{"role": "user"}]}\n',
        r"no column of text; it has the column messages \(list\)",
    ),
    (
        "two.csv",
        b"title,body\na,b\n",
        r"title \(text\), body \(text\), and none is called 'text'.*--text_column body",
    ),
    (
        "ragged.csv",
        b'text,n\n"a\nb",1\nc,2,3\n',
        r"ragged.csv:4: 3 fields, but the first line names 2 columns",
    ),
    ("quote.csv", b'text,n\n"a,1\nb,2\n', r"quote.csv:2: .*never closed"),
    ("twice.csv", b"text,text\na,b\n", "two columns are called 'text'"),
    ("bytes.csv", b"text\nok\n\xff\n", r"bytes.csv:3: .*0xff at offset 8"),
    ("header.csv", b"text\n", "no records"),
    ("cut.parquet", b"PAR1" + b"\0" * 100, "no complete Parquet file"),
    ("cut.arrow", b"ARROW1" + b"\0" * 100, "no complete Arrow file"),
    ("text.arrow", b"hello", "no complete Arrow file"),
]


@pytest.mark.parametrize(("name", "data", "said"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str, data: bytes | None, said: str) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said) as caught:
        read(tmp_path / name)
    (problem,) = caught.value.problems
    assert problem.flag == "--train_file"
    assert "\n" not in problem.text
    assert Path(name).name in problem.text


def test_what_the_head_of_a_file_shows_is_said_before_anything_is_read(tmp_path: Path) -> None:
    """All problems at once, so that a command is mended once; the flag is the one that named the files."""
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "broken.jsonl").write_bytes(b"{oops\n")
    (tmp_path / "fine.txt").write_bytes(b"fine")
    paths = [str(tmp_path / name) for name in ("empty.txt", "fine.txt", "broken.jsonl", "missing.txt")]
    with pytest.raises(UserError) as caught:
        resolve_sources(paths, Reading(), flag="--validation_file")
    assert len(caught.value.problems) == 3
    assert {problem.flag for problem in caught.value.problems} == {"--validation_file"}


def test_folders_without_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a folder without a readable file"):
        read(tmp_path)
    (tmp_path / "a.bin").write_bytes(b"\0")
    (tmp_path / "empty.txt").write_bytes(b"")
    with pytest.raises(UserError, match=r"no file with text .*1 × binary file, 1 × empty file"):
        read(tmp_path)
    with pytest.raises(UserError, match="1 folder"):
        (tmp_path / "sub").mkdir()
        read(tmp_path / "s*")


def test_a_folder_of_wrong_files_does_not_flood_the_screen(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number}.json").write_text('{"a": 1}')
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert len(caught.value.problems) == 5


def test_a_misspelt_name_gets_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("text")
    with pytest.raises(UserError, match=r"did you mean .*train\.txt\?"):
        read(tmp_path / "trian.txt")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are different here")
def test_files_that_may_not_be_read(tmp_path: Path) -> None:
    """Root may read everything, so as root this puts on another user's rights for a moment."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "secret.txt").write_text("secret")
        (folder / "open.txt").write_text("open")
        (folder / "secret.txt").chmod(0)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"permission denied.*chmod"):
                read(folder / "secret.txt")
            tally = Tally()
            assert read(folder, tally) == ["open"]
        finally:
            os.seteuid(was)
        assert tally.skipped == {"unreadable file": 1}
        assert "secret.txt" in tally.notes[0]


def test_the_locale_does_not_matter(tmp_path: Path) -> None:
    """LC_ALL=C once made Python read files as ASCII."""
    import subprocess

    path = tmp_path / "é.txt"
    path.write_bytes("日本語\n".encode())
    program = (
        "import sys; from lmtrain.data.sources import *; from lmtrain.core.types import Tally;"
        "(s,) = resolve_sources(sys.argv[1:], Reading());"
        "sys.stdout.buffer.write(''.join(p.text for p in s.pieces(Tally())).encode())"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, capture_output=True, check=True)
    assert done.stdout.decode() == "日本語\n"


def test_reading_needs_neither_torch_nor_transformers_nor_arrow(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n', mtime=0))
    program = (
        "import sys; from lmtrain.data.sources import *; from lmtrain.core.types import Tally;"
        "[list(s.pieces(Tally())) for s in resolve_sources(sys.argv[1:], Reading())];"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_pipe_has_one_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two would each get a part of it, and train on different texts without a word."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    os.mkfifo(tmp_path / "pipe")
    for name in ("-", str(tmp_path / "pipe")):
        with pytest.raises(UserError, match="can be read only once, and of 2 processes"):
            resolve_sources([name], Reading())
