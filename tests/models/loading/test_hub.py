"""A name is a folder, a mistyped folder, or a hub name; which one is said within seconds."""

import time

import huggingface_hub.constants
import pytest

from lmtrain.config.options import ModelOptions
from lmtrain.core.errors import UserError
from lmtrain.models.loading.hub import locate


@pytest.fixture
def no_network(monkeypatch):
    """The hub at a port nobody listens on, and the library not told to stay offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")


def test_what_exists_is_taken_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    origin = locate("gpt2", ModelOptions(), "--model_name_or_path")
    assert origin.path is not None and origin.keywords == {}


@pytest.mark.parametrize("name", ["./mdel", "/nowhere/model", "~/no-such-model", "a/b/c", "runs/mdel", "model.json"])
def test_a_mistyped_path_is_not_taken_for_a_hub_name(tmp_path, monkeypatch, name):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--model_name_or_path: no such folder"):
        locate(name, ModelOptions(), "--model_name_or_path")


def test_the_neighbour_with_a_similar_name_is_suggested(tmp_path):
    (tmp_path / "my-model").mkdir()
    with pytest.raises(UserError, match=r"did you mean .*my-model\?"):
        locate(str(tmp_path / "my-modle"), ModelOptions(), "--model_name_or_path")
    with pytest.raises(UserError, match=r"my-modle does not exist\).*did you mean .*my-model\?"):
        locate(str(tmp_path / "my-modle" / "checkpoint-3"), ModelOptions(), "--model_name_or_path")


@pytest.mark.parametrize("name", ["a model", "model:7b", "hf.co@x/y"])
def test_what_can_be_neither_says_so(name):
    with pytest.raises(UserError, match="neither a folder here nor a name a hub model can have"):
        locate(name, ModelOptions(), "--model_name_or_path")


def test_without_network_the_answer_comes_in_seconds_and_names_the_reason(tmp_path, no_network):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"no folder openai-community/gpt2 here.*no answer from http://127\.0\.0\.1:9"):
        locate("openai-community/gpt2", ModelOptions(cache_dir=str(tmp_path)), "--model_name_or_path")
    assert time.monotonic() - start < 20, "its client alone tries for 23 seconds"


def test_a_model_downloaded_before_is_used_without_network(tmp_path, no_network):
    """The cache as the hub's client lays it out: refs name the commit, snapshots hold its files."""
    repository = tmp_path / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text('{"model_type": "gpt2"}')
    origin = locate("someone/tiny", ModelOptions(cache_dir=str(tmp_path)), "--model_name_or_path")
    assert origin.path is None and origin.keywords["local_files_only"] is True
