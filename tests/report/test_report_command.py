from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import finished, run_folder, steady, text_of

from lmtrain.cli.main import main
from lmtrain.core.errors import ExitCode


def test_a_run_becomes_a_page_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(tmp_path / "book")
    assert main(["report", str(folder)]) == ExitCode.OK
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert "book" in (folder / "report.html").read_text()


def test_several_runs_their_plots_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torn = text_of(steady(20)) + '{"event": "tra'
    folders = [finished(tmp_path / "one"), run_folder(tmp_path / "two", torn, step=20)]
    words = ["report", *map(str, folders), "--export", "svg", "csv", "--json"]
    assert main(words) == ExitCode.OK
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["report"] == "report.html" and (tmp_path / "report.html").is_file()
    assert [run["name"] for run in told["runs"]] == ["one", "two"]
    assert [run["ignored_lines"] for run in told["runs"]] == [0, 1] and "1 half-written line" in said.err
    assert told["runs"][0]["step"] == 40 and told["runs"][0]["validation loss"] > 3
    assert {Path(file).suffix for file in told["files"]} == {".svg", ".csv"}
    assert all((tmp_path / file).is_file() for file in told["files"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name a run"),
        (["empty"], "empty has no log (metrics.jsonl)"),
        (["nowhere"], "no such folder: nowhere"),
        (["run", "--export", "gif"], "'gif' is not one of png, svg, csv"),
        (["run", "--export_dir", "plots"], "no effect without --export"),
        (["run", "--port", "1"], "no effect without --live"),
        (["run", "--live", "--port", "70000"], "too large"),
        (["run", "--live", "--output", "x.html"], "give one of them"),
        (["run", "--output", "book.txt"], "no report of ours"),
        (["run", "--output", "nix/da/book.txt/x.html"], ""),
    ],
)
def test_wrong_input_is_one_line(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    finished(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "book.txt").write_text("text")
    (tmp_path / "nix").write_text("a file where a folder is meant")
    assert main(["report", *words]) == ExitCode.WRONG_INPUT
    heading, line = capsys.readouterr().err.strip().splitlines()
    assert heading.startswith("lmtrain report: 1 thing") and says in line


def test_neither_torch_nor_transformers_is_imported(tmp_path: Path) -> None:
    folder = finished(tmp_path / "book")
    script = (
        "import sys\nfrom lmtrain.cli.main import main\n"
        f"assert main(['report', {str(folder)!r}, '--export', 'svg', 'csv']) == 0\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
