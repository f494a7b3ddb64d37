"""A data-to-text corpus made of documentation that is there anyway."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from lmtrain.data.nlg.miniature import first_sentence, miniature, part_of, write_miniature
from lmtrain.data.nlg.records import Record, grouped, read_records

SOURCE = '''
def split(text, *marks, keep=False, **more):
    """Split a text at
    marks that are given. And more of it.

    A second paragraph."""

class Reader:
    def read(self, size):
        """Read so many bytes from here."""

    def _hidden(self):
        """Nobody is to know of this one."""

class Writer:
    def read(self, size):
        """Writers do not read, but this one does."""

    async def close(self):
        """Close."""

class _Own:
    def read(self, size):
        """Nobody is to know of this one either."""
'''


def library(folder: Path) -> Path:
    (folder / "net").mkdir(parents=True)
    (folder / "net" / "__init__.py").write_text(SOURCE)
    (folder / "net" / "copy.py").write_text("def copy():\n    '''Copy all that there is.'''\n")
    (folder / "net" / "_own.py").write_text(SOURCE)
    (folder / "test").mkdir()
    (folder / "test" / "a.py").write_text(SOURCE)
    (folder / "broken.py").write_text("def (")
    return folder


def test_facts_and_first_sentences(tmp_path: Path) -> None:
    parts = miniature(library(tmp_path))
    everything = [record for records in parts.values() for record in records]
    assert sorted(everything, key=lambda r: (r.context, r.completion)) == [
        Record("module : net | function : read | parameters : size", "Read so many bytes from here."),
        Record("module : net | function : read | parameters : size", "Writers do not read, but this one does."),
        Record(
            "module : net | function : split | parameters : text, *marks, keep, **more",
            "Split a text at marks that are given.",
        ),
        Record("module : net.copy | function : copy", "Copy all that there is."),
    ]
    for part, records in parts.items():
        assert all(part_of(record.context.split("function : ")[1].split(" | ")[0]) == part for record in records)


@pytest.mark.parametrize(
    ("documentation", "sentence"),
    [
        ("Return the sum of all. Then stop.", "Return the sum of all."),
        ("Return the\n   sum of e.g. this\n\nMore.", ""),
        ("Too short.", ""),
        ("return(a, b) -> c of the two", ""),
        ("Return the naïve sum of both.", ""),
        ("", ""),
    ],
)
def test_what_is_a_sentence(documentation: str, sentence: str) -> None:
    assert first_sentence(documentation) == sentence


def test_a_part_of_the_standard_library(tmp_path: Path) -> None:
    """The whole takes seconds; one package of it shows the same."""
    package = Path(sysconfig.get_path("stdlib")) / "asyncio"
    files = write_miniature(tmp_path, package)
    parts = {name: read_records(file) for name, file in files.items()}
    assert list(parts) == ["train", "valid", "test"]
    assert len(parts["train"]) > 60 > len(parts["valid"]) + len(parts["test"]) > 5
    names = {part: {r.context.split(" | ")[1] for r in records} for part, records in parts.items()}
    assert not names["train"] & (names["valid"] | names["test"]) and not names["valid"] & names["test"]
    assert any(len(group.completions) > 1 for group in grouped(parts["train"]))
    again = write_miniature(tmp_path / "again", package)
    assert [file.read_bytes() for file in again.values()] == [file.read_bytes() for file in files.values()]
