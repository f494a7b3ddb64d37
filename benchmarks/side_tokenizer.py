"""One side of benchmarks/tokenizer.py: side_tokenizer.py OUT SIDE FOLDER VOCAB_SIZE SAVED

Learns a byte-level BPE from the text files of a folder and writes the seconds from reading to the saved file.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def stock(folder: Path, vocab_size: int, saved: Path) -> None:
    """``tokenizers`` by itself: each file whole, as its documentation trains from files' texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=2, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    backend.train_from_iterator((path.read_text(encoding="utf-8") for path in files), trainer)
    backend.save(str(saved))


def ours(folder: Path, vocab_size: int, saved: Path) -> None:
    from lmtrain.data.sources import Reading, resolve_sources
    from lmtrain.data.train_tokenizer import TokenizerPlan, train_tokenizer

    sources = resolve_sources([str(folder)], Reading(), flag="--train_file")
    train_tokenizer(sources, TokenizerPlan(vocab_size=vocab_size)).save(saved)


def main() -> None:
    out, side, folder, vocab_size, saved = sys.argv[1:]
    began = time.perf_counter()
    (ours if side == "lmtrain" else stock)(Path(folder), int(vocab_size), Path(saved))
    Path(out).write_text(json.dumps({"seconds": time.perf_counter() - began}))


if __name__ == "__main__":
    main()
