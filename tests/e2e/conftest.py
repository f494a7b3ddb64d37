"""What the command-line tests share: a tokenizer of each kind and a checkpoint of each, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from world import TEXT, World

from tiny_models import make

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    for kind in ("gpt2", "bert"):
        model, tokenizer = make(kind, root / kind)
        model.config.update(dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0))  # results are compared
        model.save_pretrained(root / kind)
        tokenizer.save_pretrained(root / kind)
    (root / "fox.txt").write_text(TEXT)
    return World(str(root / "gpt2"), str(root / "bert"), str(root / "fox.txt"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stores of a test stay in the test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LMTRAIN_CACHE", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in list(os.environ):
        if name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
            monkeypatch.delenv(name)
    return folder
