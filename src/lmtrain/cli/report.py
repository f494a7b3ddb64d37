"""``lmtrain report RUN [RUN ...]``: runs as one page, written once or served while they go on."""

from __future__ import annotations

import json
import math
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmtrain.config.commands.report import ReportOptions
from lmtrain.config.values import user_path
from lmtrain.core.console import amount, counted, say
from lmtrain.core.errors import ExitCode

if TYPE_CHECKING:
    from lmtrain.report import Run


def run(options: ReportOptions) -> int:
    from lmtrain.report import drawing, export, readers, write_page
    from lmtrain.report.images import require_png

    if "png" in options.export:
        require_png()
    if options.live:
        return _live(options)
    runs = [reader.read() for reader in readers(options.runs)]
    for one in runs:
        if ignored := one.history.ignored:
            say("attention", f"{one.path}: {counted(ignored, 'half-written line')} of the log passed over")
    path = _page_of(options)
    write_page(path, runs)
    say("report", f"{path}, {amount(path.stat().st_size, 'B')}")
    files: list[Path] = []
    if options.export:
        folder = user_path(options.export_dir) if options.export_dir else path.parent / "plots"
        files = export(drawing(runs), list(dict.fromkeys(options.export)), folder)
        say("plots", f"{counted(len(files), 'file')} in {folder}")
    if options.open:
        webbrowser.open(path.resolve().as_uri())
    if options.json:
        print(json.dumps({"report": str(path), "files": [str(file) for file in files], "runs": _summaries(runs)}))
    else:
        print(path)
    return ExitCode.OK


def _page_of(options: ReportOptions) -> Path:
    if options.output:
        return user_path(options.output)
    return user_path(options.runs[0]) / "report.html" if len(options.runs) == 1 else Path("report.html")


def _summaries(runs: list[Run]) -> list[dict[str, Any]]:
    from lmtrain.report.facts import figures

    return [
        {
            "path": str(run.path),
            "name": run.name,
            "state": run.state,
            "step": run.step,
            "ignored_lines": run.history.ignored,
            **{f.name: f.value if math.isfinite(f.value) else str(f.value) for f in figures(run) if f.name != "steps"},
        }
        for run in runs
    ]


def _live(options: ReportOptions) -> int:
    from lmtrain.report import serve

    try:
        with serve(options.runs, options.port) as server:
            print(server.address, flush=True)
            say("report", "follows the run at this address, on this machine alone; Ctrl-C ends it")
            if options.open:
                webbrowser.open(server.address)
            server.serve_forever()
    except KeyboardInterrupt:  # how it is meant to end
        say("report", "ended")
    return ExitCode.OK
