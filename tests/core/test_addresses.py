"""What of an address may be shown, and what is one."""

from __future__ import annotations

import pytest

from lmtrain.config.options import DataOptions, MaskingOptions, ModelOptions, Resolved, RunOptions
from lmtrain.config.save import as_dict, without_secrets
from lmtrain.core.addresses import is_address, shown


@pytest.mark.parametrize(
    ("typed", "printed"),
    [
        ("s3://bucket/part-?.jsonl", "s3://bucket/part-?.jsonl"),
        ("s3://bucket/a b#1.txt", "s3://bucket/a b#1.txt"),
        ("https://host/a.txt?X-Amz-Signature=12ab&X-Amz-Credential=AKIA", "https://host/a.txt?…"),
        ("https://me:hush@host:8080/a.txt", "https://host:8080/a.txt"),
        ("https://token@host/a.txt#part", "https://host/a.txt#…"),
        ("code=https://h/a?sig=1", "code=https://h/a?…"),
        ("could not open https://h/a?sig=1, nor s3://b/c", "could not open https://h/a?… nor s3://b/c"),
        ("C:/texts?", "C:/texts?"),
    ],
)
def test_addresses_are_shown_without_what_opens_them(typed: str, printed: str) -> None:
    assert shown(typed) == printed


def test_addresses_are_told_from_paths() -> None:
    assert all(map(is_address, ["s3://b/c", "hf://datasets/a/b", "https://h/a", "memory://a"]))
    assert not any(map(is_address, ["a/b", "C:\\texts", "c:/texts", "-", "", "//host/share", "s3:/b"]))


def test_a_run_writes_down_no_signature() -> None:
    signed = "https://me:hush@host/a.txt?sig=12ab"
    data = DataOptions(train_file=[signed], validation_file=["s3://b/v?.txt"])
    written = as_dict(Resolved("clm", ModelOptions(), data, MaskingOptions(), RunOptions()))
    assert written["train_file"] == ["https://host/a.txt?…"] and written["validation_file"] == ["s3://b/v?.txt"]
    words = without_secrets("clm", ["--train_file", signed, f"--test_file={signed}", "--token", "hf_x"])
    assert words == ["--train_file", "https://host/a.txt?…", "--test_file=https://host/a.txt?…", "--token", "..."]
