"""What an editor and a type checker know of the Python functions is what they take."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from inspect import get_annotations
from pathlib import Path

import pytest

from lmtrain import api, typed_keywords
from lmtrain.config.training_arguments import installed_version

ROOT = Path(__file__).parents[1]
FUNCTIONS = ("clm", "mlm", "sft", "score", "train_tokenizer", "prepare", "complete")


def test_the_file_is_what_make_docs_writes() -> None:
    page = runpy.run_path(str(ROOT / "scripts" / "typed_keywords.py"))["page"]
    written = Path(typed_keywords.__file__).read_text(encoding="utf-8")
    if f"with transformers {installed_version()};" not in written:
        pytest.skip("it was generated with another version of transformers")
    assert written == page()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_its_keywords(name: str) -> None:
    kind = f"{name.title().replace('_', '')}Keywords"
    function = getattr(api, name)
    assert f"Unpack[{kind}]" in get_annotations(function).values()
    known = {*getattr(typed_keywords, kind).__annotations__}
    shown = {*function.__signature__.parameters} if name != "complete" else known
    assert shown - known <= {"tokenizer", "seed"}


CALLS = """
from pathlib import Path
from typing import Unpack
from typed_keywords import ClmKeywords, PrepareKeywords
def clm(**options: Unpack[ClmKeywords]) -> None: ...
def prepare(**options: Unpack[PrepareKeywords]) -> None: ...
clm(model_name_or_path=Path("gpt2"), train_file=["a.txt", Path("b.txt")], learning_rate=1, bf16=True, config=None)
prepare(train_file="a.txt", block_size=128)
clm(lerning_rate=1e-3)
clm(block_size="128")
clm(eval_strategy="never")
clm(mask_whole_words=True)
prepare(shard="1/2")
"""


def test_a_type_checker_finds_what_is_wrong(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    script = tmp_path / "calls.py"
    script.write_text(CALLS)
    shutil.copy(typed_keywords.__file__, tmp_path)  # by itself: with the package mypy would read torch too
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", str(script)]
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    wrong = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    first = CALLS.splitlines().index("clm(lerning_rate=1e-3)") + 1
    assert wrong == set(range(first, first + 5)), said
