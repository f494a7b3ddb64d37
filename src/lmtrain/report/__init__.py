"""Run folders as pages and plots: read files, draw, import no torch.

``RUN/metrics.jsonl`` → :class:`History` → :class:`Run` → :class:`Drawing` and sections → one HTML page, or image files.
"""

from lmtrain.report.charts import Drawing, drawing
from lmtrain.report.images import export
from lmtrain.report.live import Server, serve
from lmtrain.report.log import History, Sample
from lmtrain.report.page import page, write_page
from lmtrain.report.reading import Reader, Run, read_run, readers

__all__ = [
    "Drawing",
    "History",
    "Reader",
    "Run",
    "Sample",
    "Server",
    "drawing",
    "export",
    "page",
    "read_run",
    "readers",
    "serve",
    "write_page",
]
