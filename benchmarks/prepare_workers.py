"""``lmtrain prepare`` with two workers against one, on plain text, JSON Lines and Parquet.

    python benchmarks/prepare_workers.py [--repeats 3] [--megabytes 200] [--forms text jsonl parquet] [--json OUT]

A worker is a process that reads, parses, encodes and writes with one thread (``--preprocessing_num_workers``). One
is the command's own process; two are two more, whose parts the command puts together. Whole commands are timed,
with their start, the hashing of the text and the flushing of the store; they run alternately, and the stores have to be
equal to the byte. Beside them: where the time of one worker goes, stage by stage.

The corpus is the running interpreter's own standard library, its files repeated with a line of their own each: several
files of plain text, of which each is a document, and one file of JSON Lines and of Parquet.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from prepare import environment
from side_by_side import Row, finish, parser, standard_library, tokenizer_folder

GOAL = 1.8
FORMS = ("text", "jsonl", "parquet")
SIDES = {"1 worker": ["--preprocessing_num_workers", "1"], "2 workers": ["--preprocessing_num_workers", "2"]}
TEXT_FILES = 8


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--megabytes", type=int, default=200)
    options.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS))
    args = options.parse_args()
    rows: list[Row] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        library = standard_library(work / "library")
        tokenizer = tokenizer_folder(None, library, work / "tokenizer")
        for form in args.forms:
            corpus = make_corpus(work / form, library, form, args.megabytes * 1_000_000)
            size = sum(file.stat().st_size for file in corpus.iterdir())
            seconds: dict[str, list[float]] = {side: [] for side in SIDES}
            stores = {prepare(work, corpus, tokenizer, words)[1] for words in SIDES.values()}  # also writes byte code
            for _ in range(args.repeats):
                for side, words in SIDES.items():
                    seconds[side].append(prepare(work, corpus, tokenizer, words)[0])
                    print(f"{form:<8} {side:<10} {seconds[side][-1]:6.2f} s", file=sys.stderr)
            one, two = (sorted(seconds[side])[args.repeats // 2] for side in ("1 worker", "2 workers"))
            same = "the same store" if len(stores) == 1 else "STORES DIFFER"
            rows.append(Row(f"prepare {size / 1e6:.0f} MB of {form}, two workers against one ({same})", f"{two:.1f} s",
                            f"{one:.1f} s", f"{one / two:.2f}×", f"≥ {GOAL}×",
                            len(stores) == 1 and one / two >= GOAL))  # fmt: skip
            stages = stages_of(work, corpus, tokenizer)
            details[form] = {"bytes": size, "seconds": seconds, "stages": stages}
            shutil.rmtree(corpus)
    return finish("prepare-workers", rows, details, args.json)


def make_corpus(folder: Path, library: Path, form: str, size: int) -> Path:
    """About ``size`` bytes of text."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(library.rglob("*.py"))]
    draw, number = random.Random(42), 0
    folder.mkdir()

    def drawn(most: int) -> list[str]:
        nonlocal number
        found, total = [], 0
        while total < most:
            number += 1
            found.append(f"# {number}\n{draw.choice(texts)}")
            total += len(found[-1])
        return found

    if form == "text":
        for part in range(TEXT_FILES):
            (folder / f"{part}.txt").write_text("".join(drawn(size // TEXT_FILES)), encoding="utf-8")
    elif form == "jsonl":
        with (folder / "corpus.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"id": at, "text": text}) + "\n" for at, text in enumerate(drawn(size)))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        found = drawn(size)
        table = pa.table({"id": range(len(found)), "text": found})
        pq.write_table(table, folder / "corpus.parquet", row_group_size=200)
    return folder


def prepare(work: Path, corpus: Path, tokenizer: Path, words: list[str]) -> tuple[float, str]:
    """Seconds of the whole command, and a hash of the store."""
    cache = work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, "-m", "lmtrain", "prepare", "--train_file", corpus, "--tokenizer_name", tokenizer,
               "--data_cache_dir", cache, "--validation_split_percentage", 0, "--json", *words]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=environment(work))
    seconds = time.perf_counter() - began
    store = Path(json.loads(done.stdout)["stores"]["train"]["folder"])
    digest = hashlib.sha256()
    for name in ("tokens.bin", "tokens.idx", "documents.bin"):
        digest.update((store / name).read_bytes())
    return seconds, digest.hexdigest()


def stages_of(work: Path, corpus: Path, tokenizer: Path) -> dict[str, float]:
    """Seconds of one worker's stages, each by itself in a fresh process with one thread."""
    command = [sys.executable, "-c", STAGES, str(corpus), str(tokenizer), str(work / "stages")]
    done = subprocess.run(command, check=True, capture_output=True, env=environment(work))
    found: dict[str, float] = json.loads(done.stdout)
    print("  ".join(f"{name} {seconds:.2f} s" for name, seconds in found.items()), file=sys.stderr)
    return found


STAGES = r"""
import json, shutil, sys, time
from pathlib import Path
began = time.perf_counter()
import numpy as np
from lmtrain.core.types import Tally
from lmtrain.data.fast_engine import limit_threads
from lmtrain.data.preparing.encoding import Account, Work, _batches, _pieces
from lmtrain.data.preparing.plan import segments_of
from lmtrain.data.preparing.request import SEGMENT
from lmtrain.data.seams import Seams
from lmtrain.data.sources import Reading, resolve_sources
from lmtrain.data.store_writer import StoreWriter
from lmtrain.data.tokenization import FastokensEncoder
from lmtrain.data.tokenizer_files import TokenizerFiles
limit_threads(1)
corpus, tokenizer, scratch = sys.argv[1], sys.argv[2], Path(sys.argv[3])
found = {}
def lap(name):
    global began
    now = time.perf_counter()
    found[name] = found.get(name, 0.0) + now - began
    began = now
files = TokenizerFiles.load(tokenizer, start=True)
encoder = FastokensEncoder(files.fast.result())
lap("start")
sources = resolve_sources([corpus], Reading(piece_bytes=1 << 19))
for source in sources:
    source.content_hash()
lap("hash")
segments = segments_of(sources, None, SEGMENT)
batches = iter(_batches(_pieces(Work.of(segments, sources, None), Seams(encoder), Account())))
scratch.mkdir()
with StoreWriter(scratch, files.n_ids) as writer:
    lap("write")
    while (batch := next(batches, None)) is not None:
        lap("read")
        ids, offsets = encoder.encode(batch.texts)
        lap("encode")
        writer.append(ids, offsets, batch.first, batch.n_bytes, batch.crc32)
        lap("write")
    lap("read")
    writer.finish({})
lap("write")
shutil.rmtree(scratch)
print(json.dumps(found))
"""

if __name__ == "__main__":
    sys.exit(main())
