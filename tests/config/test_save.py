"""What is written down of a command, and what is not."""

from __future__ import annotations

import json

import pytest

from lmtrain.config.save import as_dict, without_secrets
from parsing import parse_training

SECRET = "hf_secret"


@pytest.mark.parametrize(
    "words",
    [
        ["--token", SECRET],
        [f"--token={SECRET}"],
        ["--use_auth_token", SECRET],
        ["--use-auth-token", SECRET],
        ["--hub_token", SECRET],
        ["--push_to_hub_token", SECRET],
    ],
)
def test_tokens_are_not_written_down(words: list[str]) -> None:
    argv = ["clm", "--model_name_or_path", "gpt2", *words, "--block_size", "64"]
    written = without_secrets("clm", argv)
    assert SECRET not in " ".join(written)
    assert written[:3] == argv[:3] and written[-2:] == argv[-2:]
    options = parse_training("clm", [*argv[1:], "--validation_file", "-"])
    assert SECRET in (options.model.token, options.training.get("hub_token"))
    assert SECRET not in json.dumps(as_dict(options))


def test_everything_else_is() -> None:
    argv = ["clm", "--unknown", "x", "--train_file", "a b.txt", "-", "--config=c.json", "positional"]
    assert without_secrets("clm", argv) == argv
