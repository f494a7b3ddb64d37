"""Which text a training reads: other text of the same size is noticed."""

from __future__ import annotations

from pathlib import Path

import torch

from lmtrain.config.options import DataOptions
from lmtrain.data.corpus import prepare_corpus
from lmtrain.data.layouts import Joined, Pairs
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.engine.batches.items import as_dataset
from lmtrain.engine.checkpoints.plan import plan_differences
from lmtrain.engine.checkpoints.text import text_of
from tiny import MemoryLayout
from tiny_models import gpt2_style


def test_other_text_of_the_same_size_is_another_training() -> None:
    pairs = [Pairs.from_ids([[1, 2], [3, last]], [[3], [4]], 8) for last in (5, 6)]
    texts = [MemoryLayout([[5, 6], [7, last]]) for last in (8, 9)]
    for same, other in (pairs, texts, [list(layout.data) for layout in texts], [{"input_ids": t.data} for t in texts]):
        same, other = as_dataset(same), as_dataset(other)
        before, now, later = (text_of(data) for data in (same, same, other))
        assert before == now and list(before) == ["text_sample"]
        assert plan_differences(before, now) == []
        assert plan_differences(before, later)[0].startswith("a sample of the training text: ")


def test_text_that_is_drawn_anew_or_comes_in_a_stream_is_not_compared() -> None:
    class Drawn:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> dict[str, list[int]]:
            return {"input_ids": torch.randint(0, 1000, (20,)).tolist()}

    assert text_of(Drawn()) == text_of(iter([])) == text_of([{"text": "no ids"}]) == {}


def test_the_text_of_a_store_is_its_key(tmp_path: Path) -> None:
    keys = []
    for text in ("the fox", "the fax", "the fox"):
        (tmp_path / "text.txt").write_text(text * 40)
        corpus = prepare_corpus(
            DataOptions(train_file=[str(tmp_path / "text.txt")], validation_split_percentage=0),
            TokenizerFiles.from_transformers(gpt2_style()), "clm", block_size=8, store_folder=tmp_path / text,
        )  # fmt: skip
        keys.append(text_of(corpus.splits["train"]))
    assert list(keys[0]) == ["text_store"] and keys[0] == keys[2] != keys[1]
    assert list(text_of(Joined({"a": corpus.splits["train"]}))) == ["text_store"]
