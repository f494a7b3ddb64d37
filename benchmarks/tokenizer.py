"""Training a tokenizer: ours against ``tokenizers`` itself, on the same files, to the same number of tokens.

    python benchmarks/tokenizer.py [--corpus FOLDER] [--vocab_size 16384] [--repeats 3] [--json OUT]

Byte-level BPE. Fresh processes, alternating; the time is from the first file read to the saved tokenizer, imports of
its own library included. Ours also keeps one chunk in twenty back (at most 2 MB), counts its tokens and tries that
every byte comes back; the peer only trains, on all of the text. So some tokens differ: the row says how many are the
same. Without ``--corpus`` the running interpreter's own standard library.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from side_by_side import HERE, Row, alternate, finish, median, parser, standard_library

GOAL = 1.0


def main() -> int:
    words = parser(__doc__)
    words.add_argument("--corpus", type=Path)
    words.add_argument("--vocab_size", type=int, default=16_384)
    args = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="lmtrain-bench-") as scratch:
        work = Path(scratch)
        corpus = args.corpus or standard_library(work / "corpus")
        size = sum(path.stat().st_size for path in corpus.rglob("*") if path.is_file())
        script = HERE.parent / "side_tokenizer.py"
        figures: dict[str, list[dict[str, float]]] = {}
        for _ in range(args.repeats):  # a folder of ours is not written over
            for side in ("lmtrain", "tokenizers"):
                saved = work / side
                shutil.rmtree(saved, ignore_errors=True)
                saved.unlink(missing_ok=True)
                command = [sys.executable, script, "OUT", side, corpus, args.vocab_size, saved]
                figures.setdefault(side, []).extend(alternate({side: command}, 1, work)[side])
        same = shared(work / "lmtrain" / "tokenizer.json", work / "tokenizers")
    ours, theirs = (median(figures[side], "seconds") for side in ("lmtrain", "tokenizers"))
    row = Row(
        f"tokenizer of {args.vocab_size:,} tokens from {size / 1e6:.0f} MB, against `tokenizers` ({same:.1%} the same)",
        f"{ours:.1f} s", f"{theirs:.1f} s", f"{theirs / ours:.2f}×", f"≥ {GOAL:.0f}×", theirs / ours >= GOAL,
    )  # fmt: skip
    return finish("tokenizer", [row], {"figures": figures}, args.json)


def shared(*files: Path) -> float:
    """The part of the first vocabulary that is in the second too."""
    mine, theirs = (set(json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]) for file in files)
    return len(mine & theirs) / len(mine)


if __name__ == "__main__":
    sys.exit(main())
