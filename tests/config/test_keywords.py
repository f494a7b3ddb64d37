"""Keyword arguments are understood as a command line is."""

from pathlib import Path

import numpy as np
import pytest

from lmtrain.config.keywords import from_keywords
from lmtrain.config.options import Resolved
from lmtrain.core.errors import UserError


def test_keywords_and_words_give_the_same_options(tmp_path: Path) -> None:
    from lmtrain.cli.arguments import parse

    text = tmp_path / "a.txt"
    text.write_text("a")
    called = from_keywords(
        "clm",
        {"model_type": "gpt2", "tokenizer_name": tmp_path, "train_file": (text,), "block_size": np.int64(8),
         "learning_rate": np.float32(1), "append_eos": False, "do_train": True, "output_dir": tmp_path / "run",
         "max_grad_norm": None},
    )  # fmt: skip
    assert isinstance(called.options, Resolved)
    assert called.options == parse(called.words[0], called.words[1:]).options
    assert called.options.data.train_file == [str(text)] and called.options.training["learning_rate"] == 1.0


def test_a_file_of_options_is_weaker_than_keywords(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("block_size: 8\nseed: 3\n")
    given = {"config": file, "model_type": "gpt2", "tokenizer_name": "t", "train_file": file, "output_dir": "x"}
    options = from_keywords("clm", {**given, "seed": 4}).options
    assert (options.data.block_size, options.training["seed"]) == (8, 4)


def test_what_is_no_option_and_what_is_no_value() -> None:
    with pytest.raises(UserError, match=r"--blok_size: no such option; did you mean --block_size\?"):
        from_keywords("clm", {"blok_size": 8})
    with pytest.raises(UserError, match="is no option's value"):
        from_keywords("clm", {"block_size": object()})
