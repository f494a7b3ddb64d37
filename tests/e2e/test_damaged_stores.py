"""A bit of a large store has turned over: the run that reads it stops with one line, the same command mends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from world import TEXT, World

from lmtrain.cli.main import main
from lmtrain.data import store as stores


def test_a_flipped_bit_stops_the_run_and_the_same_command_mends_it(
    world: World, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The damage is told by a loader's worker, whose errors come with its traceback."""
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "fox.txt").write_text(TEXT)
    assert main(["prepare", "--train_file", str(tmp_path / "text"), "--tokenizer_name", world.gpt2]) == 0
    (tokens,) = (own_cache / "stores").glob("*/tokens.bin")
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    monkeypatch.setattr(stores, "AT_ONCE", 0)
    command = (
        f"clm --model_name_or_path {world.gpt2} --train_file {tmp_path}/text --output_dir {tmp_path}/out --max_steps 2 "
        "--block_size 16 --use_cpu --save_strategy no --dataloader_num_workers 1 --skip_check"
    ).split()
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "1 thing to change" in said and "Traceback" not in said
    line = next(line for line in said.splitlines() if "is damaged" in line)
    assert f"the token store {tokens.parent} is damaged: the bytes of tokens.bin have changed" in line
    assert "the same command makes it again" in line and "may have read the damaged text" in line
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "tokens.bin have changed" in said and "making it again" in said
    assert tokens.read_bytes() == whole and (tmp_path / "out" / "model.safetensors").exists()
