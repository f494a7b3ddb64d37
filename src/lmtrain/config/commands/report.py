# ruff: noqa: RUF009 -- option() is dataclasses.field() with a description, not a call shared between objects
"""The options of ``lmtrain report``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lmtrain.config.about import option
from lmtrain.core.errors import Problems

_FORMATS = ("png", "svg", "csv")


@dataclass
class ReportOptions:
    """``lmtrain report RUN [RUN ...]``: a run, or several beside each other, as one page."""

    title: ClassVar[str] = "Report"

    runs: list[str] = option([], "Folders of runs: the --output_dir of a training.", metavar="RUN", positional=True)
    output: str | None = option(
        None, "The page.", metavar="FILE", shown_default="report.html in the run; of several runs, in this folder"
    )
    live: bool = option(False, "Serve the page on this machine alone (127.0.0.1), following the runs, until Ctrl-C.")
    port: int | None = option(
        None, "Port of --live; 0 takes any.", at_least=0, at_most=65535, shown_default="8765, or one of the next"
    )
    export: list[str] = option([], "Write every plot as files too: png, svg, csv or several of them.", metavar="KIND")
    export_dir: str | None = option(
        None, "Folder for --export.", metavar="FOLDER", shown_default="plots, beside the page"
    )
    open: bool = option(False, "Show the page in the browser.")
    json: bool = option(False, "Print what the runs came to as one JSON object.")

    def check(self, problems: Problems) -> None:
        """Add what is missing or has no meaning."""
        if not self.runs:
            problems.add("name a run, the --output_dir of a training: lmtrain report RUN", flag="RUN")
        for kind in self.export:
            if kind not in _FORMATS:
                problems.add(
                    f"{kind!r} is not one of {', '.join(_FORMATS)}; runs stand before the flags", flag="--export"
                )
        if self.export_dir and not self.export:
            problems.add("has no effect without --export", flag="--export_dir")
        if self.port is not None and not self.live:
            problems.add("has no effect without --live", flag="--port")
        for flag, given in (("--output", self.output), ("--export", self.export), ("--json", self.json)):
            if self.live and given:
                problems.add("writes a file once, and --live serves the page; give one of them" if flag != "--json" else
                             "prints a result once, and --live goes on; give one of them", flag=flag)  # fmt: skip
