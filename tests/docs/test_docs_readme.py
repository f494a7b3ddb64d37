"""README.md: its figures are those of benchmarks/results.json, to the digits shown, and its answer is the command's."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from documents import ROOT

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode

BENCHMARKS = ROOT / "benchmarks"
RESULTS = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))
RUN = runpy.run_path(str(BENCHMARKS / "run.py"))
_FIGURE = re.compile(r"(?<![\w.])(\d[\d,]*(?:\.\d+)?)(?: (GB|MB)(?!/))?")


def figures(text: str) -> list[tuple[float, int, str]]:
    """Each number, how many digits stand behind its point, and ``GB`` or ``MB`` where it is one."""
    found = _FIGURE.findall(text)
    return [(float(number.replace(",", "")), len(number.partition(".")[2]), unit) for number, unit in found]


def measured(command: str) -> list[tuple[float, str]]:
    """The figures of what ``benchmarks/RESULTS.md`` says of a command; sizes in GB too."""
    lines = [
        line
        for name, result in RESULTS.items()
        if result["command"] == command
        for line in RUN["ROWS"].get(name, RUN["_rows"])(result)
    ]
    assert lines, f"no result of {command}"
    found = [(number, unit) for line in lines for number, _, unit in figures(line)]
    return found + [(number / 1000, "GB") for number, unit in found if unit == "MB"]


def rows() -> list[tuple[str, str, str]]:
    """(what, both sides, command) of each row of the table under *Measured*."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Measured")[2].partition("\n## ")[0]
    found: list[tuple[str, str, str]] = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and ("`" in cells[3] or cells[3] == "the same"):
            command = found[-1][2] if cells[3] == "the same" else cells[3].strip("`")
            found.append((cells[0], f"{cells[1]} {cells[2]}", command))
    return found


BENCHMARKED = [row for row in rows() if row[2].startswith("python ")]


def test_the_page_is_that_of_the_results() -> None:
    assert (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8") == RUN["page"](RESULTS)


def test_the_table_is_found() -> None:
    assert len(rows()) >= 13 and len(BENCHMARKED) == len(rows()) - 1, "the demo's figures are printed by the demo"


@pytest.mark.parametrize("row", BENCHMARKED, ids=lambda row: row[0][:40])
def test_a_figure_is_the_measured_one(row: tuple[str, str, str]) -> None:
    what, sides, command = row
    known = measured(command)
    shown = figures(sides)
    assert shown, what
    for number, digits, unit in shown:
        near = [value for value, of in known if of == unit and abs(value - number) <= 0.5 * 10**-digits + 1e-9]
        assert near, f"{what}: {number} {unit} is none of {sorted(value for value, of in known if of == unit)}"


def test_the_answer_to_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(r"^\$ lmtrain (.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M | re.S)
    typed, _, answer = shown.partition("\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2", "n_positions": 1024}')
    (tmp_path / "data.csv").write_text("title,body,score\nA,text,1\n")
    assert main(shlex.split(typed)) == ExitCode.WRONG_INPUT
    assert capsys.readouterr().err.split() == answer.split()
