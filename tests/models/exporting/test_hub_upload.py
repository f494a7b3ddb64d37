"""An upload to a stand-in of the hub: the bytes that arrive, each refusal in words, and the rights beforehand."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_stand_in import FINE_WITHOUT, READING, TOKEN, UNKNOWN, Hub, Repository, serving
from lmtrain.core.errors import UserError
from lmtrain.models import save_model
from lmtrain.models.exporting.exported_files import exported_files
from lmtrain.models.exporting.hub_upload import Destination, HubError, check_rights, repo_name, upload
from tiny_models import make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving() as served:
        served.take_the_place(monkeypatch, tmp_path)
        yield served


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return make("gpt2", tmp_path_factory.mktemp("t"))


@pytest.fixture
def folder(tmp_path: Path, made: tuple[Any, Any]) -> Path:
    """A run's folder: the model among what has no business on the hub."""
    run = tmp_path / "book"
    save_model(*made, run)
    (run / "checkpoint-3").mkdir()
    for name in (
        "run.lock",
        "metrics.jsonl",
        "status.json",
        "all_results.json",
        "checkpoint-3/optimizer.pt",
        "notes.txt",
    ):
        (run / name).write_text("{}")
    (run / "run.json").write_text(json.dumps({"argv": ["clm", "--train_file", "a b.txt", "--hub_token", "..."]}))
    return run


def problem(caught: pytest.ExceptionInfo[UserError]) -> tuple[str | None, str]:
    [found] = caught.value.problems
    assert "\n" not in found.text and TOKEN not in found.text
    return found.flag, found.text


# ---- the upload ------------------------------------------------------------------------------------


def test_the_bytes_of_the_model_arrive_and_nothing_else_of_the_run(hub: Hub, folder: Path) -> None:
    done = upload(folder, Destination("org/book", TOKEN, private=True))
    there = hub.repositories["org/book"]
    assert there.private and there.commits == 1 and done.url.startswith(f"{hub.endpoint}/org/book/commit/")
    files = dict(there.branches["main"])
    card = files.pop("README.md").decode()
    assert files == {path.name: path.read_bytes() for path in exported_files(folder)}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= files.keys()
    assert not {"status.json", "run.json", "notes.txt", "metrics.jsonl"} & files.keys()
    assert "lmtrain clm --train_file 'a b.txt' --hub_token ..." in card and "pipeline_tag: text-generation" in card
    assert not (folder / "README.md").exists()


def test_the_folders_name_and_a_page_of_ones_own(hub: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("# mine\n")
    done = upload(folder, Destination(None, TOKEN))
    assert done.repository == "me/book"
    assert hub.repositories["me/book"].branches["main"]["README.md"] == b"# mine\n"


def test_a_second_upload_sends_what_changed_and_removes_a_model_without_a_successor(hub: Hub, folder: Path) -> None:
    upload(folder, Destination("me/book", TOKEN))
    there = hub.repositories["me/book"].branches["main"]
    there["model-00001-of-00002.safetensors"] = there["adapter_model.safetensors"] = there["adapter_config.json"] = b"o"
    there["picture.png"] = b"theirs"
    hub.requests.clear()
    upload(folder, Destination("me/book", TOKEN))
    assert "picture.png" in there and not any(n.startswith(("model-0", "adapter")) for n in there)
    assert not any(request.startswith("PUT") for request in hub.requests), "the weights lie there"


def test_a_branch(hub: Hub, folder: Path) -> None:
    upload(folder, Destination("me/book", TOKEN, revision="v2"))
    branches = hub.repositories["me/book"].branches
    assert not branches["main"] and "config.json" in branches["v2"]


PLACES = ["/api/repos/create", "/tree/", "/preupload/", "/info/lfs/objects/batch", "/blobs/", "/commit/"]
FAILURES = {401: "does not accept this access token", 403: "may not write there", 500: "500", 0: ""}


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_fails_is_told_in_a_line_and_the_next_upload_goes_through(
    hub: Hub, folder: Path, place: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fail = (place, status)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with caplog.at_level(logging.DEBUG), pytest.raises(HubError) as caught:
        upload(folder, Destination("me/book", TOKEN))
    _, text = problem(caught)
    assert FAILURES[status] in text and caught.value.exit_code == 69
    assert TOKEN not in caplog.text
    assert not any(r.branches["main"] for r in hub.repositories.values()), "no part of a model is visible"
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    hub.fail = None
    upload(folder, Destination("me/book", TOKEN))
    arrived = hub.repositories["me/book"].branches["main"]
    assert arrived["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_a_destination_does_not_show_its_token() -> None:
    assert TOKEN not in repr(Destination("me/book", TOKEN))


# ---- what is complete ------------------------------------------------------------------------------


def spoil(folder: Path, what: str) -> None:
    weights = folder / "model.safetensors"
    if what == "no configuration":
        (folder / "config.json").unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "cut short":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif what == "no header":
        weights.write_bytes(b"\xff" * 20)
    elif what == "a shard missing":
        weights.unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    elif what == "changed since":
        about = {"bytes": weights.stat().st_size, "sha256": "0" * 64}
        (folder / "export.json").write_text(json.dumps({"files": {"model.safetensors": about}}))
    elif what == "gone since":
        (folder / "export.json").write_text(json.dumps({"files": {"vocab.json": {"bytes": 1, "sha256": "0" * 64}}}))


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("no configuration", "holds no exported model"),
        ("no weights", "no weights"),
        ("cut short", "is not whole"),
        ("no header", "deserializing header"),
        ("a shard missing", "lacks model-1.safetensors"),
        ("changed since", "not what the run exported"),
        ("gone since", "is gone since"),
    ],
)
def test_a_folder_without_a_complete_model_is_refused(hub: Hub, folder: Path, what: str, text: str) -> None:
    spoil(folder, what)
    with pytest.raises(UserError) as caught:
        upload(folder, Destination("me/book", TOKEN))
    assert text in problem(caught)[1] and not hub.requests


def test_no_folder(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        exported_files(tmp_path / "nothing", "FOLDER")


# ---- rights ----------------------------------------------------------------------------------------


def test_rights_that_are_there(hub: Hub, folder: Path) -> None:
    for name in ("me/book", "org/book", "book", None):
        check_rights(name, TOKEN, folder=folder)
    check_rights(None, TOKEN)
    hub.repositories["me/book"] = Repository()
    check_rights("me/book", TOKEN)
    assert not any(request.startswith(("POST", "PUT")) for request in hub.requests), "nothing is changed"


@pytest.mark.parametrize(
    ("name", "token", "flag", "text"),
    [
        ("me/book", None, "--push_to_hub", "access token"),
        ("me/book", UNKNOWN, "--hub_token", "does not know this access token"),
        ("me/book", READING, "--hub_token", "may only read"),
        ("me/new", FINE_WITHOUT, "--push_to_hub", "may not make"),
        ("you/book", TOKEN, "--hub_model_id", "you is not me"),
        ("museum/new", TOKEN, "--push_to_hub", "may not make"),
        ("org/closed", TOKEN, "--push_to_hub", "does not let this access token write"),
        ("a b/c", TOKEN, "--hub_model_id", "no name that a repository can have"),
    ],
)
def test_rights_that_are_missing(hub: Hub, name: str, token: str | None, flag: str, text: str) -> None:
    hub.repositories["org/closed"] = Repository()
    hub.closed = frozenset({"org/closed"})
    with pytest.raises(UserError) as caught:
        check_rights(name, token)
    found = problem(caught)
    assert found[0] == flag and text in found[1]


def test_a_hub_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for status in (503, 404):  # a mirror may know no such question
        hub.fail = ("whoami", status)
        with pytest.raises(HubError, match=str(status)):
            check_rights("me/book", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="cannot be reached"):
        check_rights("me/book", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        check_rights("me/book", TOKEN)


def test_a_folders_name_that_is_none_of_a_repository(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder is called 'my run'"):
        repo_name(None, tmp_path / "my run")
