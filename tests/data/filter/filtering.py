"""``lmtrain filter`` with small segments and frequent checkpoints, as a process to be killed.

With SECONDS_A_SEGMENT in the environment each segment takes so long, also in the processes that it forks.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

from lmtrain.cli import main
from lmtrain.data.filter import meter, run
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Task

_segments = meter.segments_of


def slowly(task: Task, job: Job) -> Iterator[Segment]:
    for segment in _segments(task, job):
        time.sleep(float(os.environ["SECONDS_A_SEGMENT"]))
        yield segment


if __name__ == "__main__":
    if "SECONDS_A_SEGMENT" in os.environ:
        meter.segments_of = slowly
    run._CHECKPOINT = 0.05
    whole = run.filter_corpus
    run.filter_corpus = lambda options, **more: whole(options, segment_bytes=20_000, **more)  # type: ignore[assignment]
    raise SystemExit(main.main(sys.argv[1:]))
