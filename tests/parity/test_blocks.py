"""Our blocks are those of the scripts' recipe: ``datasets.map`` with the tokenizer, then grouping.

The recipe is written here from its description (run_clm and run_mlm of transformers): every row is tokenized
with its special tokens; the rows of a map batch (1,000 unless said otherwise) are concatenated; the
concatenation is cut into blocks and what is left of the batch is dropped.
"""

from __future__ import annotations

import inspect
import json
import textwrap
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmtrain.config.options import DataOptions
from lmtrain.data.corpus import prepare_corpus
from lmtrain.data.layouts import Blocks
from lmtrain.data.tokenizer_files import TokenizerFiles

datasets = pytest.importorskip("datasets")

TEXT = (
    inspect.getsource(inspect) + inspect.getsource(textwrap) + "\r\nnaïve\u2028 café\x0c x\n \n\t\nlast line, no break"
)


@pytest.fixture(scope="module", params=["clm", "mlm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE in the manner of GPT-2, or a WordPiece with [CLS] and [SEP] in the manner of BERT."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "clm":
        tokenizer, named = Tokenizer(models.BPE()), {"eos_token": "<|endoftext|>"}
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer: Any = trainers.BpeTrainer(
            vocab_size=700, special_tokens=[*named.values()], initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=700, special_tokens=[*named.values()], show_progress=False)
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def recipe(
    file: Path, tokenizer_folder: Path, block_size: int, rows: str, batch_size: int, **loading: Any
) -> list[list[int]]:
    """The scripts' blocks of ``rows`` ("train", "train[:5%]", ...); ``loading`` is for the loader of text files."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    cache = str(tokenizer_folder / "datasets")
    data = datasets.load_dataset("text", data_files={"train": str(file)}, split=rows, cache_dir=cache, **loading)
    tokenized = data.map(lambda batch: {"input_ids": tokenizer(batch["text"])["input_ids"]}, batched=True,
                         remove_columns=["text"])  # fmt: skip

    def group(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        ids = list(chain(*batch["input_ids"]))
        whole = len(ids) // block_size * block_size
        return {"input_ids": [ids[i : i + block_size] for i in range(0, whole, block_size)]}

    return list(tokenized.map(group, batched=True, batch_size=batch_size)["input_ids"])


def ours(layout: Any) -> list[list[int]]:
    return [layout[i]["input_ids"].tolist() for i in range(len(layout))]


@pytest.mark.parametrize(("block_size", "keep_linebreaks"), [(32, None), (100, None), (100, True)])
def test_with_the_compatibility_switch_blocks_are_the_scripts(
    folder: Path, tmp_path: Path, block_size: int, keep_linebreaks: bool | None
) -> None:
    """Token for token, blank lines, odd line breaks and the split of the first per cent included. Since transformers
    4.10 run_clm keeps line breaks unless told otherwise."""
    objective: Any = folder.name.rstrip("0123456789")
    file = tmp_path / "corpus.txt"
    file.write_bytes(TEXT.encode())
    compat: Any = f"run_{objective}"
    options = DataOptions(train_file=[str(file)], compat=compat, data_cache_dir=str(tmp_path / "cache"),
                          keep_linebreaks=keep_linebreaks)  # fmt: skip
    corpus = prepare_corpus(options, TokenizerFiles.load(folder), objective, block_size=block_size)
    assert len(corpus.stores["train"].store) > 3000, "more than three map batches"
    loading = {"keep_linebreaks": True} if keep_linebreaks else {}
    for split, rows in (("train", "train[5%:]"), ("validation", "train[:5%]")):
        assert ours(corpus.splits[split]) == recipe(file, folder, block_size, rows, 1000, **loading)


def test_over_the_whole_corpus_blocks_are_one_map_batch(folder: Path, tmp_path: Path) -> None:
    """Without the scripts' batches of 1,000 rows: less than one block is dropped, not one a batch."""
    objective: Any = folder.name.rstrip("0123456789")
    file = tmp_path / "corpus.txt"
    file.write_bytes(TEXT.encode())
    compat: Any = f"run_{objective}"
    options = DataOptions(train_file=[str(file)], compat=compat, data_cache_dir=str(tmp_path / "cache"))
    tokenizer = TokenizerFiles.load(folder)
    corpus = prepare_corpus(options, tokenizer, objective, block_size=64)
    store = corpus.stores["train"].store
    import numpy as np

    blocks = Blocks(store, np.arange(len(store)), 64, *tokenizer.around_document(objective, append_eos=False))
    assert ours(blocks) == recipe(file, folder, 64, "train", 10**9)
    assert blocks.ledger.dropped < 64
