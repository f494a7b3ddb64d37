"""What is kept of a task, by the form of what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from lmtrain.data.filter import documents, json_lines, tables
from lmtrain.data.filter.segment import Job, Segment
from lmtrain.data.filter.tasks import Form, Task
from lmtrain.data.sources.decoding import misfit

_READERS: Final[dict[Form, Callable[[Task, Job], Iterator[Segment]]]] = {
    "lines": json_lines.stretch,
    "stream": json_lines.stream,
    "table": tables.rows,
    "texts": documents.texts,
}


def segments_of(task: Task, job: Job) -> Iterator[Segment]:
    """What is kept of ``task``, in order."""
    try:
        yield from _READERS.get(task.form, documents.records)(task, job)
    except UnicodeDecodeError as error:  # of texts, which may be several, their source has told
        raise misfit(task.files[0], job.reading) from error
