"""From text on object storage to a store there, and from that to a model: as from local files, to the bit."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from safetensors.numpy import load_file

from forked import ranks
from launching import MARKS
from lmtrain.cli.main import main
from lmtrain.data import store_writer
from lmtrain.data.remote import retrying
from object_store import BUCKET, KEY_ID, SECRET, Storage, object_storage

TEXT = "\n\n\n".join(inspect.getsource(module) for module in (inspect, textwrap, tempfile, shutil))
CHUNK = 4096
STORE = f"s3://{BUCKET}/store"
BOUND = 15 * CHUNK / 1e9  # of some 40 chunks


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    with object_storage() as found:
        yield found


@pytest.fixture(scope="module")
def folder(storage: Storage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer; the text in pieces in the bucket; the store made of them, there and in ``local``."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "text.txt").write_text(TEXT)
    command = ["tokenizer", "--source", folder / "text.txt", "--vocab_size", "400", "--output_dir", folder / "tok"]
    assert main([*map(str, command)]) == 0
    for number, part in enumerate(part for part in TEXT.split("\n\n\n") if part.strip()):
        storage.put(f"text/{number:04}.txt", part.encode())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store_writer, "CHUNK_BYTES", CHUNK)
        assert prepare(folder, STORE) == 0
    (folder / "local").mkdir()
    for name in storage.names("store/"):
        (folder / "local" / name.rpartition("/")[2]).write_bytes(storage.get(name))
    return folder


def prepare(folder: Path, out: str, text: str = f"s3://{BUCKET}/text/*.txt") -> int:
    words = ["prepare", "--train_file", text, "--tokenizer_name", folder / "tok", "--data_cache_dir", folder / "made"]
    return main([*map(str, [*words, "--output_dir", out])])


def command(folder: Path, out: Path, store: str, *words: Any) -> list[str]:
    given = [
        "clm", "--train_file", store, "--tokenizer_name", folder / "tok", "--model_type", "gpt2", "--config_overrides",
        "n_embd=16,n_layer=1,n_head=2,n_positions=64", "--output_dir", out, "--use_cpu", "--max_steps", 24,
        "--per_device_train_batch_size", 4, "--gradient_accumulation_steps", 2, "--logging_steps", 1, "--save_steps",
        9, "--report_to", "none", "--precision", "fp32", "--compile", "off", "--block_size", 64, "--skip_check",
        "--data_cache_dir", folder / "cache", "--data_cache_gb", BOUND, "--do_train", *words,
    ]  # fmt: skip
    return list(map(str, given))


def clm(folder: Path, out: Path, store: str, *words: Any) -> int:
    return main(command(folder, out, store, *words))


def losses(run: Path) -> list[float]:
    log = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return [line["loss"] for line in log if "loss" in line]


def same(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a) and losses(one) == losses(other)


def test_a_store_over_there_trains_as_a_local_copy(folder: Path, storage: Storage, tmp_path: Path) -> None:
    storage.requests.clear()
    assert clm(folder, tmp_path / "far", STORE) == 0
    manifest = json.loads((folder / "local/manifest.json").read_text())
    chunks = len(manifest["chunks"]["crc32"])
    fetched = storage.of_tokens()  # 24 steps of 8 blocks are most of an epoch
    assert chunks > 30 and 15 <= len(fetched) <= 1.4 * chunks, "each hardly more than once"
    kept = sum(file.stat().st_size for file in (folder / "cache/remote").rglob("*.chunk"))
    assert 0 < kept <= BOUND * 1e9 < manifest["files"]["tokens.bin"]["bytes"] / 2
    order = json.loads((tmp_path / "far/decisions.json").read_text())["order"]
    assert order["choice"] == "in windows" and order["bytes"] == int(BOUND * 1e9 / 4)
    window = ["--shuffle_window", order["bytes"] / 1e9]
    assert clm(folder, tmp_path / "near", str(folder / "local"), *window) == 0
    assert same(tmp_path / "far", tmp_path / "near")
    known = json.loads((tmp_path / "far/data.json").read_text())["stores"]["train"]
    assert known["key"] == manifest["key"] and len(known["sources"]) == len(storage.names("text/"))
    written = "".join(file.read_text() for file in (tmp_path / "far").glob("*.json*"))
    assert SECRET not in written and KEY_ID not in written


def test_a_storage_that_is_gone_ends_with_a_checkpoint(
    folder: Path, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retrying, "PATIENCE", 1.0)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    assert clm(folder, tmp_path / "straight", STORE) == 0
    shutil.rmtree(folder / "cache")
    left = [14]

    def fails(method: str, path: str) -> bool:
        left[0] -= path.endswith("tokens.bin")
        return left[0] < 0

    storage.failing = fails
    capsys.readouterr()
    assert clm(folder, tmp_path / "run", STORE, "--dataloader_num_workers", 0) == 75
    said = capsys.readouterr().err
    assert "does not answer" in said and "; saved at step " in said and "Traceback" not in said
    step = json.loads((tmp_path / "run/status.json").read_text())["step"]
    assert 0 < step < 24 and (tmp_path / f"run/checkpoint-{step}").is_dir()
    storage.failing = lambda method, path: False
    # With another bound, which says nothing about the order of a run that has begun.
    assert clm(folder, tmp_path / "run", STORE, "--data_cache_gb", 2 * BOUND) == 0
    assert same(tmp_path / "run", tmp_path / "straight")
    assert f"goes on from step {step}" in capsys.readouterr().err


def small_files(storage: Storage) -> list[str]:
    """The reads of those that are fetched whole."""
    names = [path.rpartition("/")[2] for method, path, _ in storage.requests if method == "GET"]
    return sorted(name for name in names if name in ("tokens.idx", "documents.bin"))


@MARKS[0]
@MARKS[1]
def test_two_processes_read_through_one_cache_and_go_on(folder: Path, storage: Storage, tmp_path: Path) -> None:
    """The weights of one process with a local copy, but for rounding; where the storage goes away, both end, and the
    same command goes on from the last checkpoint that was due, to the bits of a run that was not disturbed."""
    shape = "n_embd=16,n_layer=1,n_head=2,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0"  # else they draw anew
    plain = ("--config_overrides", shape, "--learning_rate", 0.01)
    together = (*plain, "--gradient_accumulation_steps", 1, "--save_steps", 3, "--dataloader_num_workers", 0)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

    def run(out: str, *start: object) -> list[Any]:
        words = [*(start or ("-m", "lmtrain")), *command(folder, tmp_path / out, STORE, *together)]
        processes = ranks(words, 2, env=environment)
        said = [process.communicate(timeout=240)[1] for process in processes]
        assert "Traceback" not in "".join(said), said
        return [process.returncode for process in processes]

    shutil.rmtree(folder / "cache", ignore_errors=True)
    storage.requests.clear()
    assert run("two") == [0, 0]
    assert small_files(storage) == ["documents.bin", "tokens.idx"], "once a machine"
    kept = sum(file.stat().st_size for file in (folder / "cache/remote").rglob("*.chunk"))
    assert 0 < kept <= BOUND * 1e9
    order = json.loads((tmp_path / "two/decisions.json").read_text())["order"]
    window = ("--shuffle_window", order["bytes"] / 1e9)
    assert clm(folder, tmp_path / "one", str(folder / "local"), *plain, *window) == 0
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-6)

    shutil.rmtree(folder / "cache")
    storage.failing = lambda method, path: path.endswith("tokens.bin") and (tmp_path / "cut/checkpoint-3").is_dir()
    try:
        assert run("cut", Path(__file__).with_name("remote_ranks.py"), 0.5) == [75, 75]
    finally:
        storage.failing = lambda method, path: False
    status = json.loads((tmp_path / "cut/status.json").read_text())
    assert status["state"] == "interrupted" and 3 <= status["step"] < 24
    assert run("cut") == [0, 0]
    assert same(tmp_path / "cut", tmp_path / "two")


@pytest.mark.parametrize(
    ("words", "flag", "says"),
    [
        (["--tokenizer_name", "OTHER"], "--train_file", "was made with another tokenizer"),
        (["--train_file", "TEXT"], "--train_file", "is a token store, and stands beside 1 other"),
        (["--shuffle_documents"], "--shuffle_documents", "random documents joined do not"),
        (["--data_cache_gb", "1e-6"], "--data_cache_gb", "hold fewer than 4 chunks"),
        (["--train_file", f"s3://{BUCKET}/nothing"], "--train_file", "is not there"),
    ],
)
def test_what_does_not_go(
    words: list[str], flag: str, says: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "OTHER" in words:
        other = ["tokenizer", "--source", folder / "text.txt", "--vocab_size", 300, "--output_dir", folder / "other"]
        assert main([*map(str, other)]) == 0
    known = {"OTHER": str(folder / "other"), "TEXT": str(folder / "text.txt")}
    capsys.readouterr()
    assert clm(folder, tmp_path / "run", STORE, *(known.get(word, word) for word in words)) == 2
    said = capsys.readouterr().err
    assert f"{flag} " in said and says in said and "Traceback" not in said
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.json"))


def test_refused_credentials_end_every_command_with_one_line(
    folder: Path, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.refuses = "InvalidAccessKeyId"
    try:
        capsys.readouterr()
        assert clm(folder, tmp_path / "run", STORE) == 2
        assert prepare(folder, f"s3://{BUCKET}/mine", str(folder / "text.txt")) == 2
    finally:
        storage.refuses = None
    said = capsys.readouterr()
    assert (said.out + said.err).count("the credentials were refused") == 2
    assert SECRET not in said.out + said.err and KEY_ID not in said.out + said.err


def test_two_stores_are_prepared_again_where_they_lie(
    folder: Path, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "held.txt").write_text(TEXT[:2000])
    words = ["prepare", "--train_file", folder / "text.txt", "--validation_file", tmp_path / "held.txt"]
    words += ["--tokenizer_name", folder / "tok", "--data_cache_dir", tmp_path, "--output_dir", f"s3://{BUCKET}/two"]
    assert main([*map(str, words)]) == 0
    assert {name.split("/")[1] for name in storage.names("two/")} == {"train", "validation"}
    capsys.readouterr()
    assert main([*map(str, words)]) == 0
    assert capsys.readouterr().err.count("lies there already") == 2


@pytest.mark.parametrize("out", ["here", f"s3://{BUCKET}/store"])
def test_a_store_is_not_made_into_a_store(
    out: str, folder: Path, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = storage.names("store/")
    words = ["prepare", "--train_file", STORE, "--tokenizer_name", folder / "tok", "--data_cache_dir", tmp_path]
    target = out if "://" in out else str(tmp_path / out)
    assert main([*map(str, [*words, "--overwrite_cache", "--output_dir", target])]) == 2
    assert f"{STORE} is a token store already" in capsys.readouterr().err
    assert storage.names("store/") == before and not (tmp_path / "here").exists()
    storage.requests.clear()
    assert main([*map(str, words)]) == 0, "without a target it tells of the store"
    assert not storage.of_tokens(), "and reads none of it for that"


def test_a_store_is_no_text(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["tokenizer", "--source", STORE, "--output_dir", str(folder / "none")]
    assert main(command) == 2
    assert "is a token store (made by lmtrain prepare) and holds no text" in capsys.readouterr().err


def test_a_folder_of_stores_is_no_text(folder: Path, storage: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (folder / "local").iterdir():
        storage.put(f"several/train/{file.name}", file.read_bytes())
    shutil.copytree(folder / "local", folder / "several/train", dirs_exist_ok=True)
    for place in (f"s3://{BUCKET}/several", str(folder / "several")):
        assert main(["tokenizer", "--source", place, "--output_dir", str(folder / "none")]) == 2
        assert f"{place} holds token stores; name one of them: {place}/train" in capsys.readouterr().err


def test_a_corpus_over_there_is_filtered(storage: Storage, tmp_path: Path) -> None:
    for number in range(2):
        storage.put(f"raw/{number}.jsonl", b'{"text": "kept"}\n{"text": "kept"}\n{"text": "number %d"}\n' % number)
    command = ["filter", "--source", f"s3://{BUCKET}/raw", "--deduplicate", "exact", "--output", str(tmp_path / "kept")]
    assert main(command) == 0
    (shard,) = (tmp_path / "kept").glob("*.zst")
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(shard.read_bytes()).splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["kept", "number 0", "number 1"]
