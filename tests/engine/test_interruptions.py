"""A signal where an error is taken for an answer: it is none, and ends the command."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmtrain.config.groups import ModelOptions
from lmtrain.core.errors import Interrupted
from lmtrain.core.stopping import Stop
from lmtrain.data.tokenization import FastokensEncoder, choose_encoder
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.speed import compiling
from lmtrain.engine.speed.compiling import choose_compiling
from lmtrain.models import load_tokenizer
from lmtrain.models.isolation_proof import prove_isolation
from tiny import MemoryLayout, gpt2, rows
from tiny_models import checkpoint


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    with Stop().listening():
        yield


def end(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError("it went on")


def test_while_a_model_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_cannot", lambda model, device: "")
    monkeypatch.setattr(compiling, "compile_layers", lambda model: None)  # its first pass compiles
    with pytest.raises(Interrupted, match="SIGTERM"):
        choose_compiling("on", gpt2(), lambda: None, end, 100)


def test_while_packed_examples_are_proven_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2()
    monkeypatch.setattr(model, "forward", end)
    with pytest.raises(Interrupted, match="SIGTERM"):
        prove_isolation(model, MemoryLayout(rows(12)).__getitems__(range(12)), causal=True)


def test_while_the_tokenizer_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    checkpoint("gpt2", tmp_path / "model")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", end)
    with pytest.raises(Interrupted, match="SIGTERM"):
        load_tokenizer(ModelOptions(model_name_or_path=str(tmp_path / "model")))


def test_while_a_tokenizers_engines_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastokens")
    checkpoint("gpt2", tmp_path / "model")
    files = TokenizerFiles.load(tmp_path / "model")
    monkeypatch.setattr(FastokensEncoder, "encode", end)
    with pytest.raises(Interrupted, match="SIGTERM"):
        choose_encoder(files, ["a text"])
