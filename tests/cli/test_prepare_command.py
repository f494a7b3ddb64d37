"""``lmtrain prepare`` as it is typed: what it imports, what it says of the bytes, what it does with a damaged store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # corpora

from corpora import CODE, byte_level_bpe

from lmtrain.cli import prepare
from lmtrain.cli.main import main
from lmtrain.config.commands.prepare import PrepareOptions
from lmtrain.data import store as stores
from lmtrain.data.sources import Reading, resolve_sources


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


def test_of_much_text_every_core_prepares_a_part(words: list[str], tmp_path: Path) -> None:
    """In a process of its own: the workers are copies of it."""
    (tmp_path / "text" / "large.py").write_text("".join(f"# {number}\n{CODE}" for number in range(150)))
    program = (
        "import resource, sys\n"
        "from lmtrain.cli import prepare\n"
        "from lmtrain.cli.main import main\n"
        "much, *words = sys.argv[1:]\n"
        "prepare._MUCH, prepare.cores = int(much), lambda: 2\n"
        "assert main(words) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime > 0)\n"
    )

    def prepared(name: str, much: int) -> tuple[bool, list[bytes]]:
        typed = [*words, "--output_dir", str(tmp_path / name), "--data_cache_dir", str(tmp_path / f"{name}-cache")]
        done = subprocess.run(
            [sys.executable, "-c", program, str(much), *typed], capture_output=True, text=True, check=True
        )
        made = [path.read_bytes() for path in sorted((tmp_path / name).rglob("*")) if path.suffix in (".bin", ".idx")]
        return done.stdout.splitlines()[-1] == "True", made

    (had_workers, one), (had_none, other) = prepared("many", 10_000_000), prepared("one", 1 << 40)
    assert had_workers and not had_none
    assert one == other and len(one) == 3


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({}, 3),
        ({"preprocessing_num_workers": 1}, 1),
        ({"preprocessing_num_workers": 7}, 7),
        ({"shard": "0/2"}, None),
        ({"merge": 2}, None),
        ({"engine": "ray"}, None),
    ],
)
def test_how_many_processes_are_begun(
    options: dict[str, Any], workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("x" * 1000)
    monkeypatch.setattr(prepare, "_MUCH", 800)
    monkeypatch.setattr(prepare, "cores", lambda: 3)
    sources = {"train": resolve_sources([str(tmp_path / "a.txt")], Reading())}
    assert prepare._workers(PrepareOptions(**options), sources) == workers
    monkeypatch.setattr(prepare, "_MUCH", 1001)
    assert prepare._workers(PrepareOptions(**options), sources) == options.get("preprocessing_num_workers")
