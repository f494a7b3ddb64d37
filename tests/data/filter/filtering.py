"""``lmtrain filter`` with small segments and frequent checkpoints, as a process to be killed."""

from __future__ import annotations

import sys

from lmtrain.cli import main
from lmtrain.data.filter import run

if __name__ == "__main__":
    run._CHECKPOINT = 0.05
    whole = run.filter_corpus
    run.filter_corpus = lambda options, **more: whole(options, segment_bytes=20_000, **more)  # type: ignore[assignment]
    raise SystemExit(main.main(sys.argv[1:]))
