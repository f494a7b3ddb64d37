"""What a run writes down about where it was made."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata

import pytest
import torch

import lmtrain
from lmtrain.engine.runs.versions import machine, process, versions


def test_versions_are_those_that_are_installed() -> None:
    found = versions()
    assert found["python"] == platform.python_version() and found["torch"] == metadata.version("torch")
    assert {"transformers", "accelerate", "tokenizers", "safetensors", "numpy"} <= found.keys()
    assert all(version == metadata.version(name) for name, version in found.items() if name != "python")


def test_what_is_not_installed_is_left_out(monkeypatch) -> None:
    asked = metadata.version

    def without(name: str) -> str:
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return asked(name)

    monkeypatch.setattr(metadata, "version", without)
    assert "peft" not in versions() and "torch" in versions()


def test_the_machine_as_a_checkpoint_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine()
    assert found == json.loads(json.dumps(found)), "it is written as JSON"
    assert found["cores"] == os.cpu_count() and found["torch_threads"] == torch.get_num_threads()
    assert found["cpu"] and found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    kernels = set()
    for answers in (True, False):
        monkeypatch.setattr("lmtrain.engine.runs.versions.answers_for_mkl", lambda answers=answers: answers)
        kernels.add(machine()["matrix_kernels"])
    assert kernels == {"as on Intel's", "the library's choice"}
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert machine()["torch_threads"] == process()["threads"] == before + 1, "as it is now"
    finally:
        torch.set_num_threads(before)


def test_a_log_begins_with_the_process(monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "3")
    found = process()
    assert found["lmtrain"] == lmtrain.__version__ and found["torch"] == metadata.version("torch")
    if torch.accelerator.current_accelerator(check_available=True) is None:
        assert found["device"] == "cpu"
    else:
        assert found["device"].endswith(":3")
