"""Data sets by name and from save_to_disk, without a network."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import HTTPError
from test_sources_text import read

from lmtrain.config.options import DataOptions, ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.core.types import Source, Tally
from lmtrain.data.named_text import sources_of
from lmtrain.data.sources import Reading, hub_source
from lmtrain.data.sources.hub import DatasetRows, Split, from_hub
from lmtrain.data.sources.records import RecordSource
from lmtrain.models.loading.hub import locate

datasets = pytest.importorskip("datasets")
TEXTS = [f"text {i}\n" for i in range(600)]


def texts_of(source: Source, tally: Tally | None = None) -> list[str]:
    return [piece.text for piece in source.pieces(tally if tally is not None else Tally())]


@pytest.fixture(scope="module")
def data() -> object:
    return datasets.Dataset.from_dict({"id": list(range(len(TEXTS))), "text": TEXTS})


def test_a_saved_data_set(tmp_path: Path, data: datasets.Dataset) -> None:
    data.save_to_disk(tmp_path / "one", num_shards=3)
    splits = hub_source(str(tmp_path / "one"))
    assert list(splits) == ["train"]
    tally = Tally()
    assert texts_of(splits["train"], tally) == TEXTS
    assert (tally.files, tally.documents) == (3, len(TEXTS))
    assert read(tmp_path / "one") == TEXTS  # as a folder of --train_file too
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    assert hub_source(str(tmp_path / "copy"))["train"].content_hash() == splits["train"].content_hash()


def test_a_selection_is_saved_as_what_was_selected(tmp_path: Path, data: datasets.Dataset) -> None:
    data.select([5, 3]).save_to_disk(tmp_path / "some")
    assert texts_of(hub_source(str(tmp_path / "some"))["train"]) == [TEXTS[5], TEXTS[3]]


def test_a_saved_data_set_of_splits(tmp_path: Path, data: datasets.Dataset) -> None:
    both = datasets.DatasetDict(train=data, validation=data.select(range(2)))
    both.save_to_disk(tmp_path / "both")
    splits = hub_source(str(tmp_path / "both"), reading=Reading())
    assert {name: len(texts_of(source)) for name, source in splits.items()} == {"train": 600, "validation": 2}
    assert list(hub_source(str(tmp_path / "both"), split="validation")) == ["validation"]
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        hub_source(str(tmp_path / "both"), split="test")
    with pytest.raises(UserError, match=r"several splits.*--dataset_name"):
        read(tmp_path / "both")


def test_splits_of_other_names_are_named(
    tmp_path: Path, data: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.DatasetDict(train_sft=data, test_sft=data).save_to_disk(tmp_path / "set")
    options = DataOptions(dataset_name=str(tmp_path / "set"))
    with pytest.raises(UserError, match=r"has the splits train_sft, test_sft, and none of train") as told:
        sources_of(options)
    options.dataset_name = str(told.value).split("--dataset_name ")[-1]
    assert [texts_of(source) for source in sources_of(options)["train"]] == [TEXTS], "the advice"
    monkeypatch.setattr("lmtrain.data.named_text.hub_source", lambda *_, **__: {"train_sft": None})
    with pytest.raises(UserError, match=r"load_dataset\('some/chats', split='train_sft'\)\.save_to_disk"):
        sources_of(DataOptions(dataset_name="some/chats"))


def test_an_incomplete_saved_data_set(tmp_path: Path, data: datasets.Dataset) -> None:
    data.save_to_disk(tmp_path / "one")
    shard = next((tmp_path / "one").glob("*.arrow"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no complete Arrow file"):
        texts_of(hub_source(str(tmp_path / "one"))["train"])
    shard.unlink()
    with pytest.raises(UserError, match="no such file"):
        hub_source(str(tmp_path / "one"))
    for state in ("{", "{}", '{"_data_files": [{}]}', '{"_data_files": 3}', "[]"):
        (tmp_path / "one" / "state.json").write_text(state)
        with pytest.raises(UserError, match="save it again"):
            hub_source(str(tmp_path / "one"))


@pytest.mark.parametrize("streamed", [False, True])
def test_rows_of_a_loaded_data_set(data: datasets.Dataset, streamed: bool) -> None:
    rows = DatasetRows(data.to_iterable_dataset() if streamed else data)
    source = RecordSource(Split("x/train", "state"), rows, Reading())
    tally = Tally()
    assert texts_of(source, tally) == TEXTS
    assert tally.bytes_read == sum(map(len, TEXTS))
    assert source.content_hash() == "state"


def test_rows_whose_columns_are_not_declared() -> None:
    def rows() -> object:
        yield {"title": "a", "body": "b"}

    streamed = datasets.IterableDataset.from_generator(rows)
    assert streamed.features is None
    with pytest.raises(UserError, match=r"title \(text\), body \(text\)"):
        texts_of(RecordSource(Split("x/train", ""), DatasetRows(streamed), Reading()))
    source = RecordSource(Split("x/train", ""), DatasetRows(streamed), Reading(text_column="body"))
    assert texts_of(source) == ["b"]


@pytest.mark.parametrize("streamed", [False, True])
def test_the_way_through_datasets(tmp_path: Path, streamed: bool) -> None:
    """Its builder loads a local folder as it loads a repository of the hub."""
    repository = tmp_path / "data"
    repository.mkdir()
    (repository / "train.jsonl").write_text('{"n": 1, "body": "one"}\n{"n": 2, "body": "two"}\n')
    (repository / "test.jsonl").write_text('{"n": 3, "body": "three"}\n')
    splits = from_hub(str(repository), None, Reading(), None, tmp_path / "cache", streamed)
    tally = Tally()
    assert {name: texts_of(source, tally) for name, source in splits.items()} == {
        "train": ["one", "two"],
        "test": ["three"],
    }
    assert tally.notes == ["text is read from column 'body', the only one that holds text"]
    assert splits["train"].name == f"{repository}/train"
    assert len({source.content_hash() for source in splits.values()}) == 2
    with pytest.raises(UserError, match="nonsense") as caught:
        from_hub(str(repository), "nonsense", Reading(), None, tmp_path / "cache", streamed)
    assert caught.value.problems[0].flag == "--dataset_config_name"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Dataset scripts are no longer supported, but found squad.py"), "made by a script"),
        (HTTPError("peer closed connection"), "could not be loaded: peer closed connection"),
    ],
)
def test_what_datasets_gives_up_on_is_one_line(
    error: Exception, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset_builder", fails)
    monkeypatch.setattr("lmtrain.data.sources.hub.why_unreachable", lambda *_: None)
    with pytest.raises(UserError, match=f"--dataset_name: someone/squad .*{said}"):
        hub_source("someone/squad", cache_dir=tmp_path)


def test_a_connection_lost_while_streaming_is_no_fault_of_lmtrain() -> None:
    def rows() -> object:
        yield from ({"text": f"text {number}"} for number in range(300))
        raise ConnectionError("Server Disconnected")

    source = RecordSource(Split("x/train", ""), DatasetRows(datasets.IterableDataset.from_generator(rows)), Reading())
    with pytest.raises(UserError, match="--dataset_name: x/train could not be loaded: Server Disconnected"):
        texts_of(source)


def test_local_files_and_scripts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"--train_file {tmp_path}"):
        hub_source(str(tmp_path))
    (tmp_path / "script.py").write_text("raise SystemExit('must not run')")
    with pytest.raises(UserError, match="a script, which is not run"):
        hub_source(str(tmp_path / "script.py"))


def test_offline_a_name_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"not in the local cache and HF_HUB_OFFLINE is set.*--train_file"):
        hub_source("nobody/nothing", cache_dir=tmp_path)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("variable", ["HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_models_and_data_ask_once_whether_the_hub_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:9/{variable}")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    session = huggingface_hub.utils.get_session()

    def refused(address: str, **_: object) -> None:
        asked.append(address)
        raise OSError("nobody listens")

    monkeypatch.setattr(session, "head", refused)
    with pytest.raises(UserError, match=r"not in the local cache and the hub cannot be reached"):
        hub_source("nobody/nothing", cache_dir=tmp_path)
    with pytest.raises(UserError, match=r"no answer from http://127"):
        locate("nobody/nothing", ModelOptions(cache_dir=str(tmp_path)), "--model_name_or_path")
    assert len(asked) == 1
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UserError, match=f"not in the local cache and {variable} is set"):
        hub_source("nobody/nothing", cache_dir=tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="needs network namespaces")
def test_without_a_network_it_is_said_in_seconds(tmp_path: Path) -> None:
    """huggingface_hub alone tries five times in 23 seconds. Here in a network namespace without a route."""
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    program = (
        "import sys, time, datasets; from lmtrain.data.sources import hub_source; began = time.monotonic()\n"
        "try: hub_source('nobody/nothing', cache_dir=sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, error, time.monotonic() - began)"
    )
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", program, str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    kind, *said, seconds = done.stdout.split()
    assert kind == "UserError"
    assert "cannot be reached" in " ".join(said)
    assert float(seconds) < 10
    assert "Retrying" not in done.stderr
