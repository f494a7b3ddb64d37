"""Corpora for the tests of ``lmtrain filter``, and the filter of the Hugging Face course that it replaces."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from lmtrain.core.console import Say, silent
from lmtrain.data.filter.run import filter_corpus
from parsing import parse_command

SEGMENT = 20_000  # bytes: small, so that little corpora have many
KEYWORDS = ["pandas", "sklearn", "matplotlib", "seaborn"]


def any_keyword_in_string(string: str, keywords: Sequence[str]) -> bool:
    """What chapter 7.6 of the course keeps a document by: a keyword is a substring of the text."""
    return any(keyword in string for keyword in keywords)


def code(count: int, *, seed: int = 0, words: int = 60) -> list[dict[str, Any]]:
    """Records like those of the course's data set; about one in five names a library."""
    draw = random.Random(seed)
    names = ["alpha", "beta", "self", "return", "import os", "x = 1", "é", "日本", "def f():", "\t", '"quoted"', "\\n"]
    records = []
    for number in range(count):
        lines = [" ".join(draw.choices(names, k=6)) for _ in range(words // 6)]
        if draw.random() < 0.2:
            lines.insert(draw.randrange(len(lines)), f"import {draw.choice(KEYWORDS)} as lib")
        suffix = draw.choice([".py", ".py", ".js"])
        records.append({"path": f"src/{number}{suffix}", "size": number, "content": f"# {number}\n" + "\n".join(lines)})
    return records


def as_jsonl(records: Iterable[dict[str, Any]], *, ascii_only: bool = True) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=ascii_only).encode() + b"\n" for record in records)


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """In the format that the name says."""
    name = path.name
    if ".jsonl" in name:
        data = as_jsonl(records)
        if name.endswith(".gz"):
            data = gzip.compress(data)
        elif name.endswith(".zst"):
            data = zstandard.compress(data)
        path.write_bytes(data)
    elif name.endswith(".json"):
        path.write_text(json.dumps(list(records)), encoding="utf-8")
    elif name.endswith(".csv"):
        import csv

        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        table = pa.Table.from_pylist(list(records))
        if name.endswith(".arrow"):
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
                file.write_table(table, max_chunksize=100)
        else:
            pq.write_table(table, path, row_group_size=100)
    return path


def run(*words: Any, say: Say = silent) -> dict[str, Any]:
    """``lmtrain filter WORDS``, here and now: its report."""
    typed = [str(word) for word in words]
    if "--num_proc" not in typed:
        typed += ["--num_proc", "1"]
    return filter_corpus(parse_command("filter", typed), say=say, segment_bytes=SEGMENT)


def shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("part-"))


def kept(folder: Path) -> list[dict[str, Any]]:
    """The records of the output, read by other libraries than wrote them."""
    return [record for shard in shards(folder) for record in _read(shard)]


def _read(shard: Path) -> Iterator[dict[str, Any]]:
    if shard.suffix == ".parquet":
        yield from pq.read_table(shard).to_pylist()
        return
    with shard.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for line in io.TextIOWrapper(stream, "utf-8", newline="\n"):
            yield json.loads(line)


def contents(folder: Path) -> dict[str, bytes]:
    """The shards, byte by byte."""
    return {shard.name: shard.read_bytes() for shard in shards(folder)}
