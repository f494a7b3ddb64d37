from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from lmtrain.core.errors import UserError
from lmtrain.recipes.corpus import build_corpus, compressed_bits_per_byte


def library(folder: Path, files: int = 60) -> Path:
    for number in range(files):
        file = folder / f"package{number % 5}" / f"module{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def function{number}(x):\n    return x + {number}\n")
    return folder


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*.py")}


def test_files_are_split_whole_and_nothing_held_out_is_trained_on(tmp_path: Path) -> None:
    source = library(tmp_path / "lib")
    (source / "copy.py").write_text((source / "package0" / "module0.py").read_text())
    corpus = build_corpus(source, tmp_path / "corpus", one_in=4)
    assert corpus.train_files + corpus.held_out_files == 60, "a copy counts once"
    assert corpus.held_out_files > 0
    assert not contents(corpus.train) & contents(corpus.held_out)
    assert contents(corpus.train) | contents(corpus.held_out) == contents(source)
    assert corpus.train_bytes == sum(p.stat().st_size for p in corpus.train.rglob("*.py"))


def test_the_choice_depends_on_content_and_not_on_names(tmp_path: Path) -> None:
    source = library(tmp_path / "lib")
    before = contents(build_corpus(source, tmp_path / "a", one_in=4).held_out)
    for number, path in enumerate(sorted(source.rglob("*.py"))):
        path.rename(path.with_name(f"renamed{number}.py"))
    assert contents(build_corpus(source, tmp_path / "b", one_in=4).held_out) == before


def test_other_packages_and_binary_files_are_left_out(tmp_path: Path) -> None:
    source = library(tmp_path / "lib")
    (source / "site-packages").mkdir()
    (source / "site-packages" / "foreign.py").write_text("import foreign\n")
    (source / "latin.py").write_bytes(b"# na\xefve\n")
    (source / "empty.py").write_text("\n")
    (source / "data.bin").write_bytes(bytes(100))
    corpus = build_corpus(source, tmp_path / "corpus", one_in=4)
    assert corpus.train_files + corpus.held_out_files == 60


def test_too_little_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="too few"):
        build_corpus(tmp_path / "one", tmp_path / "corpus")
    with pytest.raises(UserError, match="no such folder"):
        build_corpus(tmp_path / "nowhere", tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_compressors_see_all_files_as_one_stream(tmp_path: Path) -> None:
    source = library(tmp_path / "lib", 10)
    whole = b"".join(path.read_bytes() for path in sorted(source.rglob("*.py")))
    bits = compressed_bits_per_byte(source)
    assert bits["gzip -9"] == len(gzip.compress(whole, 9)) * 8 / len(whole)
    assert bits["xz -9"] == len(lzma.compress(whole, preset=9)) * 8 / len(whole)
