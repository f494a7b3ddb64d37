"""Predictions and references as the scorers read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtrain.core.errors import UserError
from lmtrain.data.nlg.records import Record, grouped
from lmtrain.data.nlg.text import (
    Filter,
    by_context,
    chosen,
    ended,
    hypotheses_of,
    processed,
    split_at_marks,
    write_grouped_references,
    write_hypotheses,
    write_reference_files,
)

RECORDS = [
    Record("a", "First A.", True),
    Record("b", "Only B.", False),
    Record("a", "Second A,\nin two lines.", True),
    Record("a", "Third A.<|endoftext|> and more", True),
]


def test_a_prediction_ends_at_the_end_of_text_or_at_an_empty_line() -> None:
    assert ended(" It is.\nGood. <|endoftext|>more<|endoftext|>") == "It is.\nGood."
    assert ended("It is.\n\nNext<|endoftext|>") == "It is."
    assert ended("<|endoftext|>It is.") == "" and ended("\n\nIt is.") == ""


def test_marks_stand_by_themselves() -> None:
    assert split_at_marks(" Don't stop_it  -- at 3.5 £!") == "Don ' t stop_it - - at 3 . 5 £ !"
    assert processed("It's ÉTÉ", tokenize=True, lower=True) == "it ' s été"
    assert processed("It's ÉTÉ", lower=True) == "it's été"
    assert processed("one\r\ntwo\n three\u2028four\x0bfive\x85") == "one two  three four five"


def test_the_original_processing() -> None:
    """The rule of gpt2_decode.py, as it is described: put a space around each non-word character, then collapse."""
    for text in ("", "a.b", "...", "x  y\tz", "naïve–test", "1,000.5%"):
        spaced = "".join(c if c.isalnum() or c == "_" else f" {c} " for c in text)
        assert split_at_marks(text) == " ".join(spaced.split())


def test_seen_and_unseen_categories() -> None:
    assert [r.context for r in chosen(RECORDS, "seen")] == ["a", "a", "a"]
    assert [r.context for r in chosen(RECORDS, "unseen")] == ["b"]
    assert chosen(RECORDS) == RECORDS
    with pytest.raises(UserError, match="--filter: only records of WebNLG"):
        chosen([Record("a", "b")], "seen")


def test_predictions_belong_to_contexts(tmp_path: Path) -> None:
    groups = grouped(RECORDS)
    found = by_context(RECORDS, [(1, "B!<|endoftext|>x"), (0, "A once"), (3, " A twice\nover ")])
    assert hypotheses_of(groups, found) == ["A twice\nover", "B!"], "of several the last"
    write_hypotheses(tmp_path / "pred", hypotheses_of(groups, found), lower=True)
    assert (tmp_path / "pred").read_text() == "a twice over\nb!\n", "a line each, or all that follow would shift"
    with pytest.raises(UserError, match="1 of 2 inputs have no prediction; the first is 'b'"):
        hypotheses_of(groups, {"a": "x"})
    with pytest.raises(UserError, match="record 4, and the records are 0 to 3"):
        by_context(RECORDS, [(4, "x")])


def test_references_of_e2e_stand_in_groups(tmp_path: Path) -> None:
    write_grouped_references(tmp_path / "ref", grouped(RECORDS))
    assert (tmp_path / "ref").read_text() == "First A.\nSecond A, in two lines.\nThird A.\n\nOnly B.\n\n"


def test_references_of_webnlg_stand_in_files(tmp_path: Path) -> None:
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "mine").touch()
    files = write_reference_files(tmp_path / "refs", grouped(RECORDS), count=4, tokenize=True, lower=True)
    assert [file.name for file in files] == ["reference0", "reference1", "reference2", "reference3"]
    assert [file.read_text().splitlines() for file in files] == [
        ["first a .", "only b ."],
        ["second a , in two lines .", "only b ."],
        ["third a .", "only b ."],
        ["first a .", "only b ."],
    ]
    write_reference_files(tmp_path / "refs", grouped(RECORDS), count=2)
    assert {file.name for file in (tmp_path / "refs").iterdir()} == {"mine", "reference0", "reference1"}


MIRROR = Path(os.environ.get("LMTRAIN_LORA_REPOSITORY", "no repository"))  # of microsoft/LoRA
GPT2 = Path("/work/shared/data/gpt2")
PREDICTED = {0: "A once", 1: "B's, [unseen]!", 2: " It's A\u00e9<|endoftext|>more", 3: "Third A\n\nmore"}


@pytest.mark.skipif(not MIRROR.is_dir() or not GPT2.is_dir(), reason=f"needs {MIRROR} and {GPT2}")
@pytest.mark.parametrize(
    ("form", "which", "flags"), [("e2e", "all", {}), ("webnlg", "seen", {"tokenize": True, "lower": True})]
)
def test_the_files_are_the_original_ones(tmp_path: Path, form: str, which: Filter, flags: dict[str, Any]) -> None:
    """gpt2_decode.py itself, fed with the ids of the predictions."""
    from tokenizers import Tokenizer

    records = [r for r in RECORDS if "\n" not in r.completion] + [Record("b", "It's B, twice.", False)]
    for name in ("gpt2_decode.py", "encoder.py"):
        command = ["git", "-C", MIRROR, "show", f"HEAD:examples/NLG/src/{name}"]
        (tmp_path / name).write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    (tmp_path / "encoder.json").symlink_to(GPT2 / "vocab.json")
    (tmp_path / "vocab.bpe").symlink_to(GPT2 / "merges.txt")
    encode = Tokenizer.from_file(str(GPT2 / "tokenizer.json")).encode
    samples = [{"id": number, "predict": encode(text).ids} for number, text in PREDICTED.items()]
    (tmp_path / "samples").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    (tmp_path / "input").write_text("".join(record.line() for record in records))
    options = ["--vocab", ".", "--sample_file", "samples", "--input_file", "input", "--ref_type", form]
    options += ["--filter", which, "--output_ref_file", "their_ref", "--output_pred_file", "their_pred"]
    options += [f"--{flag}" for flag in flags]
    subprocess.run([sys.executable, "gpt2_decode.py", *options], cwd=tmp_path, check=True, capture_output=True)

    groups = grouped(chosen(records, which))
    write_hypotheses(tmp_path / "pred", hypotheses_of(groups, by_context(records, PREDICTED.items())), **flags)
    assert (tmp_path / "pred").read_bytes() == (tmp_path / "their_pred").read_bytes()
    if form == "e2e":
        write_grouped_references(tmp_path / "ref", groups, **flags)
        assert (tmp_path / "ref").read_bytes() == (tmp_path / "their_ref").read_bytes()
    else:
        for file in write_reference_files(tmp_path / "refs", groups, count=4, **flags):
            assert file.read_bytes() == (tmp_path / "their_ref" / file.name).read_bytes()
