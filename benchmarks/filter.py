"""``lmtrain filter`` against the streaming loop of the Hugging Face course (chapter 7.6), over JSONL and Parquet.

    python benchmarks/filter.py [--repeats 3] [--megabytes 1000] [--json OUT]

The corpus is the running interpreter's own standard library, its files repeated in another order with a line of their
own each until there are enough megabytes; about 3 % of them name a library to be kept, as in the course. All sides run
as whole processes, alternately, and have to keep as many documents. Ours uses as many processes as there are cores,
and writes compressed shards; the chapter's loop makes a `Dataset` in memory, the plain loop writes lines.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from itertools import islice
from pathlib import Path

from side_by_side import HERE, Row, alternate, finish, median, parser, standard_library
from side_filter import KEYWORDS

GOALS = {"jsonl": 10.0, "parquet": 2.0}
GOAL_SPEED = 300.0  # MB/s of JSONL on 2 cores
SHARE = 0.03


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--megabytes", type=int, default=1000)
    args = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        corpus = make_corpus(work, args.megabytes * 1_000_000)
        table = as_parquet(corpus)
        little = work / "little.jsonl"
        with corpus.open("rb") as lines:
            little.write_bytes(b"".join(islice(lines, 500)))
        alternate(sides_of(work, little, as_parquet(little)), 1, work)  # writes the byte code that all sides then find
        print("warm", file=sys.stderr)
        figures = alternate(sides_of(work, corpus, table), args.repeats, work)
        sizes = {"jsonl": corpus.stat().st_size, "parquet": text_bytes(table)}
    counts = {(run["seen"], run["kept"]) for runs in figures.values() for run in runs}
    same = len(counts) == 1
    speed = {side: sizes[side.split()[1]] / median(runs, "seconds") / 1e6 for side, runs in figures.items()}
    rows = [
        Row(f"filter {sizes[name] / 1e6:.0f} MB of {name}, against the course's loop"
            f" ({'the same documents' if same else 'DOCUMENTS DIFFER'})",
            f"{speed[f'ours {name}']:.0f} MB/s", f"{speed[f'chapter {name}']:.0f} MB/s",
            f"{speed[f'ours {name}'] / speed[f'chapter {name}']:.1f}×", f"≥ {goal:.0f}×",
            same and speed[f"ours {name}"] >= goal * speed[f"chapter {name}"])
        for name, goal in GOALS.items()
    ]  # fmt: skip
    ours, loop = speed["ours jsonl"], speed["loop jsonl"]
    rows.append(Row(f"filter JSONL, {os.cpu_count()} cores, beside a plain loop on one", f"{ours:.0f} MB/s",
                    f"{loop:.0f} MB/s", f"{ours / loop:.1f}×", f"≥ {GOAL_SPEED:.0f} MB/s",
                    ours >= GOAL_SPEED))  # fmt: skip
    return finish("filter", rows, {"megabytes_per_second": speed, "runs": figures, "bytes": sizes}, args.json)


def sides_of(work: Path, corpus: Path, table: Path) -> dict[str, list[object]]:
    """The commands by their names."""
    return {
        f"{side} {name}": [sys.executable, HERE.parent / "side_filter.py", "OUT", side, file, work / f"{side}-{name}"]
        for name, file in (("jsonl", corpus), ("parquet", table))
        for side in ("ours", "chapter", "loop")
        if (side, name) != ("loop", "parquet")
    }


def make_corpus(work: Path, size: int) -> Path:
    """Records with the fields of the course's data set."""
    texts = [(str(file), file.read_text(encoding="utf-8"))
             for file in sorted(standard_library(work / "library").rglob("*.py"))]  # fmt: skip
    draw = random.Random(42)
    path, number = work / "corpus.jsonl", 0
    with path.open("wb") as stream:
        while stream.tell() < size:
            number += 1
            name, text = draw.choice(texts)
            first = f"import {draw.choice(KEYWORDS)}\n" if draw.random() < SHARE else ""
            record = {"repo_name": f"someone/{number}", "path": name, "copies": "1", "size": str(len(text)),
                      "content": f"# {number}\n{first}{text}", "license": "psf"}  # fmt: skip
            stream.write(json.dumps(record).encode("ascii") + b"\n")
    return path


def as_parquet(corpus: Path) -> Path:
    """The same records in row groups of a thousand, as `datasets` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, writer, records = corpus.with_suffix(".parquet"), None, []
    with corpus.open("rb") as lines:
        for line in lines:
            records.append(json.loads(line))
            if len(records) == 1000:
                table = pa.Table.from_pylist(records)
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
                records = []
    table = pa.Table.from_pylist(records)
    writer = writer or pq.ParquetWriter(path, table.schema)
    writer.write_table(table)
    writer.close()
    return path


def text_bytes(table: Path) -> int:
    """Bytes of the text of a table: what its speed is counted in."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(table) as file:
        batches = file.iter_batches(columns=["content"])
        return sum(pc.sum(pc.binary_length(batch.column(0))).as_py() or 0 for batch in batches)


if __name__ == "__main__":
    sys.exit(main())
