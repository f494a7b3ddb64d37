"""The sides of the benchmark of ``lmtrain filter``. Each counts its imports; ours is a whole command.

python benchmarks/side_filter.py OUT SIDE SOURCE FOLDER

SIDE: ``chapter`` (chapter 7.6 of the Hugging Face course: `datasets` streaming and a list of what is kept), ``loop`` (a
plain loop over lines) or ``ours``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

KEYWORDS = ["pandas", "sklearn", "matplotlib", "seaborn"]


def chapter(source: Path) -> tuple[int, int]:
    """What the chapter does: documents seen and kept. Its list of what is kept becomes a data set, also here."""
    from collections import defaultdict

    from datasets import Dataset, load_dataset

    kind = "parquet" if source.suffix == ".parquet" else "json"
    data = load_dataset(kind, data_files=str(source), split="train", streaming=True)
    kept: dict[str, list[Any]] = defaultdict(list)
    seen = 0
    for sample in data:
        seen += 1
        if any(keyword in sample["content"] for keyword in KEYWORDS):
            for key, value in sample.items():
                kept[key].append(value)
    return seen, len(Dataset.from_dict(kept))


def loop(source: Path, folder: Path) -> tuple[int, int]:
    """One process, one line after another; what is kept is written as it is."""
    seen = kept = 0
    with source.open("rb") as lines, (folder / "kept.jsonl").open("wb") as out:
        for line in lines:
            seen += 1
            text = json.loads(line)["content"]
            if any(keyword in text for keyword in KEYWORDS):
                kept += 1
                out.write(line)
    return seen, kept


def ours(source: Path, folder: Path) -> tuple[int, int]:
    command = [sys.executable, "-m", "lmtrain", "filter", "--source", str(source), "--text_column", "content"]
    command += ["--keep_any", ",".join(KEYWORDS), "--output", str(folder / "out"), "--overwrite", "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return report["seen"]["documents"], report["kept"]["documents"]


def main() -> None:
    out, side, name, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    began = time.perf_counter()
    folder.mkdir(exist_ok=True)
    if side == "ours":
        seen, kept = ours(name, folder)
    else:
        seen, kept = chapter(name) if side == "chapter" else loop(name, folder)
    out.write_text(json.dumps({"seconds": time.perf_counter() - began, "seen": seen, "kept": kept}))


if __name__ == "__main__":
    main()
