"""``--dataset_name``: what ``datasets`` saved, and what it loads, is filtered as the Arrow files it lies in."""

from __future__ import annotations

from pathlib import Path

import pytest
from filter_corpora import KEYWORDS, any_keyword_in_string, code, contents, kept, run, write

from lmtrain.core.errors import UserError
from lmtrain.data.sources import Reading
from lmtrain.data.sources.hub import from_hub

datasets = pytest.importorskip("datasets")
RECORDS = code(400)
WANTED = [record for record in RECORDS if any_keyword_in_string(record["content"], KEYWORDS)]
RULE = ["--text_column", "content", "--keep_any", ",".join(KEYWORDS)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    data = datasets.Dataset.from_list(RECORDS)
    datasets.DatasetDict(train=data, validation=data.select(range(50))).save_to_disk(
        folder / "set", num_shards={"train": 3, "validation": 1}
    )
    return folder / "set"


def test_a_saved_data_set(tmp_path: Path, saved: Path) -> None:
    report = run("--dataset_name", saved, *RULE, "--output", tmp_path / "out")
    assert kept(tmp_path / "out") == WANTED and report["format"] == "parquet"
    assert [source["name"] for source in report["sources"]] == [f"{saved}/train"]
    run("--dataset_name", saved, *RULE, "--output", tmp_path / "two", "--num_proc", 2)
    assert contents(tmp_path / "two") == contents(tmp_path / "out")
    run("--dataset_name", saved, "--dataset_split", "validation", *RULE, "--output", tmp_path / "val")
    assert kept(tmp_path / "val") == [record for record in WANTED if record["size"] < 50]
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        run("--dataset_name", saved, "--dataset_split", "test", *RULE, "--output", tmp_path / "none")
    with pytest.raises(UserError, match=r"begun with other options: --dataset_split \(then train, now validation\)"):
        run("--dataset_name", saved, "--dataset_split", "validation", *RULE, "--output", tmp_path / "out")


def test_one_that_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder of ``datasets`` loads a local folder as it loads a repository of the hub."""
    repository = tmp_path / "data"
    repository.mkdir()
    write(repository / "train.jsonl", RECORDS)

    def loaded(name: str, config: str | None, split: str, reading: Reading, *, as_files: bool) -> object:
        return from_hub(str(repository), config, reading, None, tmp_path / "cache", False, as_files)

    monkeypatch.setattr("lmtrain.data.filter.inputs.hub_source", loaded)
    run("--dataset_name", "someone/code", *RULE, "--output", tmp_path / "out")
    assert kept(tmp_path / "out") == WANTED


def test_what_is_refused(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for words, said in (
        (["--dataset_name", saved, "--source", saved], "comes with its own splits"),
        (["--dataset_name", "nobody/nothing"], "not in the local cache and HF_HUB_OFFLINE is set"),
        (["--dataset_name", saved, "--mix", "a=1", "b=1"], "mixes files"),
        (["--source", saved / "train", "--dataset_split", "test"], "chooses a split of --dataset_name"),
    ):
        with pytest.raises(UserError, match=said):
            run(*words, *RULE, "--output", tmp_path / "out")
        assert not (tmp_path / "out").exists()
