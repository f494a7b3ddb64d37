"""A text and models in miniature, so that every example runs at once and without a download.

The text is Python's own language reference, which the interpreter brings along for ``help()``; the tokenizers are
learned from it, and the models are new. With a text or a checkpoint of one's own none of this is needed.
"""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, set_seed

import lmtrain


def texts() -> list[str]:
    """The chapters of the reference, some 700 kB of English."""
    return [topics[name].strip() for name in sorted(topics)]


def text_files(folder: Path, chapters: int = 30) -> tuple[Path, Path]:
    """``train.txt`` and ``validation.txt`` in ``folder``; the second has every tenth chapter."""
    parts = {"train.txt": [], "validation.txt": []}
    for number, chapter in enumerate(texts()[:chapters]):
        parts["train.txt" if number % 10 else "validation.txt"].append(chapter)
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in parts.items():
        (folder / name).write_text("\n\n".join(chosen), encoding="utf-8")
    return folder / "train.txt", folder / "validation.txt"


def gpt2(folder: Path) -> Path:
    """A checkpoint of the GPT-2 type. Its tokenizer has, as GPT-2's, an end-of-text token and no pad token."""
    tokenizer = _tokenizer(folder, "bpe", 1000)
    set_seed(1)
    shape = GPT2Config(
        n_embd=64, n_layer=2, n_head=2, n_positions=128, vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(shape).save_pretrained(folder)
    return folder


def bert(folder: Path) -> Path:
    """A checkpoint of the BERT type."""
    tokenizer = _tokenizer(folder, "wordpiece", 1000)
    set_seed(1)
    shape = BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, max_position_embeddings=128,
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    BertForMaskedLM(shape).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, kind: str, size: int):
    if not (folder / "tokenizer.json").exists():
        text, _ = text_files(folder)
        lmtrain.train_tokenizer(train_file=text, output_dir=folder / "tokenizer", type=kind, vocab_size=size)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokenizer.save_pretrained(folder)
    return tokenizer
