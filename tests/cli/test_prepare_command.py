"""``lmtrain prepare`` as it is typed: what it imports, what it says of the bytes, what it does with a damaged store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # corpora

from corpora import CODE, byte_level_bpe

from lmtrain.cli.main import main
from lmtrain.data import store as stores


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_level_bpe(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def words(tokenizer: Path, tmp_path: Path) -> list[str]:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.py").write_text(CODE)
    (tmp_path / "text" / "package.json").write_text('{"name": "a", "license": "MIT"}')
    words = ["prepare", "--train_file", str(tmp_path / "text"), "--tokenizer_name", str(tokenizer)]
    return [*words, "--data_cache_dir", str(tmp_path / "cache"), "--block_size", "64"]


def test_it_imports_neither_torch_nor_transformers(words: list[str]) -> None:
    program = (
        "import sys; from lmtrain.cli.main import main\n"
        "codes = [main(sys.argv[1:]), main(sys.argv[1:])]  # made, and found\n"
        "print([*codes, *(name for name in ('torch', 'transformers', 'datasets') if name in sys.modules)])"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 0]"
    assert "prepared before" in done.stderr
    assert "skipped    1 file of records without text" in done.stdout
    assert "passed over 1 file without records that have a column 'text'" in done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks for speed")
def test_a_process_may_end_while_an_engine_is_loaded(tokenizer: Path) -> None:
    """As when all stores are found, or the command line is wrong: it took its exit code away."""
    program = (
        "import os, sys; from lmtrain.data.tokenizer_files import TokenizerFiles\n"
        "for _ in range(8):\n"
        "    if not (child := os.fork()):\n"
        "        files = TokenizerFiles.load(sys.argv[1])\n"
        "        files.fast.start()\n"
        "        sys.exit(3)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), end=' ', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tokenizer)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3"] * 8, done.stderr


@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_store_is_made_again(
    words: list[str], large: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A large one is compared whole by this command, not only beside it."""
    assert main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    tokens = Path(first["stores"]["train"]["folder"]) / "tokens.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    if large:
        monkeypatch.setattr(stores, "AT_ONCE", 0)
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "the bytes of tokens.bin have changed since it was written" in captured.err
    assert "making it again" in captured.err
    again = json.loads(captured.out)
    assert not again["stores"]["train"]["cached"] and tokens.read_bytes() == whole
    assert main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "is damaged" not in captured.err and json.loads(captured.out)["stores"]["train"]["cached"]


def test_a_damaged_store_at_output_dir_is_refused_with_what_to_type(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*words, "--output_dir", str(tmp_path / "mine")]
    assert main(words) == 0
    file = tmp_path / "mine" / "tokens.bin"
    file.write_bytes(b"x" + file.read_bytes()[1:])
    for size in (1 << 20, 0):
        monkeypatch.setattr(stores, "AT_ONCE", size)
        capsys.readouterr()
        assert main(words) == 2
        said = capsys.readouterr().err
        assert f"the token store {tmp_path}/mine is damaged: the bytes of tokens.bin have changed" in said
        assert "prepare it again with --overwrite_cache" in said
    assert main([*words, "--overwrite_cache"]) == 0
