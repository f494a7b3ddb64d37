"""Our windows are those of the Hugging Face course, chapter 7.6: ``return_overflowing_tokens``, full lengths kept.

The chapter's ``tokenize`` is written here from its description. Tokenizers with and without special tokens around a
text; documents of many lengths, among them empty ones, some that fill windows exactly, and some that fill none.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lmtrain.config.options import DataOptions
from lmtrain.core.errors import UserError
from lmtrain.data.corpus import prepare_corpus
from lmtrain.data.layouts import Windows
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.tokenizer_files import TokenizerFiles
from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer

CODE = inspect.getsource(inspect)
DOCUMENTS = [
    *(part for part in CODE.split("\n\n") if part.strip()), CODE, "x", inspect.getsource(textwrap), "naïve café \t\n",
]  # fmt: skip


@pytest.fixture(scope="module", params=["plain", "with specials"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "code.txt").write_text(CODE)
    sources = resolve_sources([str(folder / "code.txt")], Reading(), flag="--train_file")
    train_tokenizer(sources, TokenizerPlan(vocab_size=600)).save(folder / "made")
    if request.param == "with specials":
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "made")
        end = ("<|endoftext|>", tokenizer.eos_token_id)
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{end[0]} $A {end[0]}", special_tokens=[end]
        )
        tokenizer.save_pretrained(folder / "made")
    lines = [json.dumps({"text": document}) for document in DOCUMENTS]
    (folder / "data.jsonl").write_text("\n".join(lines))
    return folder


def chapters_windows(tokenizer: Any, documents: list[str], context_length: int) -> list[list[int]]:
    """What the chapter's ``tokenize`` returns for a batch."""
    outputs = tokenizer(
        documents, truncation=True, max_length=context_length, return_overflowing_tokens=True, return_length=True
    )
    pairs = zip(outputs["length"], outputs["input_ids"], strict=True)
    return [ids for length, ids in pairs if length == context_length]


def prepared(folder: Path, **options: Any) -> Any:
    files = TokenizerFiles.load(folder / "made")
    data = DataOptions(train_file=[str(folder / "data.jsonl")], data_cache_dir=str(folder / "cache"),
                       validation_split_percentage=0, **options)  # fmt: skip
    return lambda block_size: prepare_corpus(data, files, "clm", block_size=block_size, wanted=("train",))


def keeps_what_overflows() -> bool:
    """tokenizers 0.23.1 cuts a text and returns none of what it cut off."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    return len(tokenizer.encode("a a a a").overflowing) == 1


@pytest.mark.skipif(not keeps_what_overflows(), reason="this version of tokenizers returns nothing of what it cuts off")
@pytest.mark.parametrize("context_length", [4, 16, 128])
def test_the_chapters_windows_in_the_chapters_order(folder: Path, context_length: int) -> None:
    expected = chapters_windows(AutoTokenizer.from_pretrained(folder / "made"), DOCUMENTS, context_length)
    corpus = prepared(folder, chunking="documents")(context_length)
    layout = corpus.splits["train"]
    assert isinstance(layout, Windows)
    found = [layout[i]["input_ids"].tolist() for i in range(len(layout))]
    assert found == expected and len(expected) > 10
    batch = layout.__getitems__([3, 0])
    assert batch.ids.tolist() == [expected[3], expected[0]]

    split = corpus.ledger.splits["train"]
    assert split.chunking.taken == "documents"
    assert (split.chunking.documents.examples, split.chunking.documents.dropped) == (split.examples, split.dropped)
    joined = prepared(folder)(context_length).ledger.splits["train"]
    assert joined.chunking.blocks == split.chunking.blocks, "the account of one way is that of the other run"
    assert (joined.chunking.blocks.examples, joined.chunking.blocks.dropped) == (joined.examples, joined.dropped)
    assert joined.chunking.blocks.specials == joined.specials
    assert joined.dropped < context_length < split.dropped


def test_the_account_in_words_and_as_json(folder: Path) -> None:
    ledger = prepared(folder)(64).ledger
    line = next(line for line in ledger.lines() if line.startswith("chunking"))
    assert line.startswith("chunking   train: blocks drops ") and "; documents would drop " in line
    assert json.loads(json.dumps(ledger.as_json()))["splits"]["train"]["chunking"]["documents"]["dropped"] > 0


def test_documents_that_fill_no_window_are_an_error(folder: Path) -> None:
    with pytest.raises(UserError, match="fills a window of 100,000 tokens") as error:
        prepared(folder, chunking="documents")(100_000)
    assert error.value.problems[0].flag == "--chunking"
