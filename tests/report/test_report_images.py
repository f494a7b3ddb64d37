from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from run_folders import BEGAN, evaluation, finished, loss_at, run_folder, status, text_of, train

from lmtrain.core.errors import UserError
from lmtrain.report import Drawing, drawing, export, read_run, readers
from lmtrain.report.images import csv_of, svg_of, ticks, written

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawn(tmp_path: Path) -> Drawing:
    return drawing([read_run(finished(tmp_path / "book"))])


def test_every_plot_as_svg_and_csv(drawn: Drawing, tmp_path: Path) -> None:
    files = export(drawn, ["svg", "csv"], tmp_path / "plots")
    assert len(files) == 2 * len(drawn.plots) == 20
    for path in files:
        if path.suffix == ".svg":
            root = ElementTree.fromstring(path.read_text())
            lines = [shape for shape in root.iter(f"{SVG}path") if shape.get("stroke-width") == "1.8"]
            plot = next(plot for plot in drawn.plots if plot.id == path.stem)
            assert len(lines) == len(plot.lines)
            assert all(len(line.get("d", "")) > 20 for line in lines)
            heights = [float(at) for line in lines for at in re.findall(r",([\d.-]+)", line.get("d", ""))]
            assert min(heights) >= 64 and max(heights) <= 320, "within the axes, be they logarithmic"
            assert plot.title in [text.text for text in root.iter(f"{SVG}text")]


def test_legend_and_dashes_of_several_runs(tmp_path: Path) -> None:
    """Of a run all lines have one colour: each evaluation has its own dashes; and the legend stays in the picture."""
    parts = {f"eval_loss_{part}_keys": 4.0 for part in ("with", "without")}
    log = text_of([train(1), {**evaluation(1), **parts}, train(2), {**evaluation(2), **parts}])
    runs = [read_run(run_folder(tmp_path / f"a_run_with_a_long_name_{n}", log)) for n in range(3)]
    drawn = drawing(runs)
    plot = drawn.plots[0]
    looks = [(line.colour, line.dash) for line in plot.lines]
    assert len(looks) == 3 * 4 and len(set(looks)) == len(looks)
    root = ElementTree.fromstring(svg_of(drawn, plot))
    labels = [text for text in root.iter(f"{SVG}text") if text.text in {line.label for line in plot.lines}]
    assert len(labels) == 12
    assert all(float(text.get("x", "")) + 6 * len(text.text or "") <= float(root.get("width", "")) for text in labels)
    rows = {float(text.get("y", "")) for text in labels}
    assert len(rows) > 1 and float(root.get("height", "")) == 360 + 18 * (len(rows) - 1)
    assert max(rows) < min(_tops_of_grid(root))


def _tops_of_grid(root: ElementTree.Element) -> list[float]:
    """Where the lines of the grid lie, moved as their group is."""
    group = next(g for g in root.iter(f"{SVG}g") if "translate" in g.get("transform", ""))
    moved = float(group.get("transform", "").split()[1].rstrip(")"))
    lines = [re.match(r"M74 ([\d.]+)H", path.get("d", "")) for path in group.iter(f"{SVG}path")]
    return [float(line[1]) + moved for line in lines if line]


def test_csv_holds_the_numbers_of_the_log(drawn: Drawing) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_of(drawn, drawn.plots[0]))))
    trained = [row for row in rows if row["curve"] == "train"]
    assert [int(row["step"]) for row in trained] == list(range(1, 41))
    assert [float(row["value"]) for row in trained] == pytest.approx([loss_at(step) for step in range(1, 41)])
    assert [int(row["step"]) for row in rows if row["curve"] == "validation"] == [10, 20, 30, 40]
    assert [int(row["tokens"]) for row in rows if row["curve"] == "validation"] == [5120, 10240, 15360, 20480]
    perplexity = list(csv.DictReader(io.StringIO(csv_of(drawn, drawn.plots[1]))))
    assert float(perplexity[0]["value"]) == pytest.approx(math.exp(loss_at(1)))


def test_png(drawn: Drawing, tmp_path: Path) -> None:
    pytest.importorskip("resvg_py")
    image = pytest.importorskip("PIL.Image")
    (path, *_) = export(drawn, ["png"], tmp_path / "plots")
    with image.open(path) as picture:
        assert picture.size == (1440, 720)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert (0x00, 0x67, 0xB0) in colours and (0xC8, 0x50, 0x0A) in colours, "both curves are there"


def test_names_and_numbers_that_are_hard_to_draw(tmp_path: Path) -> None:
    log = text_of(
        [status("preparing", 0), train(1, loss="nan"), train(2, loss="inf", grad_norm=0.0), train(3, time=BEGAN)]
    )
    folders = [run_folder(tmp_path / "a<b>&", log), finished(tmp_path / "plain")]
    shown = drawing([reader.read() for reader in readers([str(folder) for folder in folders])])
    for plot in shown.plots:
        root = ElementTree.fromstring(svg_of(shown, plot))
        assert "nan" not in "".join(shape.get("d", "") for shape in root.iter(f"{SVG}path"))
    assert "a<b>&, train" in [
        text.text for text in ElementTree.fromstring(svg_of(shown, shown.plots[0])).iter(f"{SVG}text")
    ]


def test_many_steps_are_drawn_with_their_extremes(tmp_path: Path) -> None:
    events = [train(step, loss=9.0 if step == 3333 else 3.0) for step in range(1, 5001)]
    shown = drawing([read_run(run_folder(tmp_path / "run", text_of(events)))])
    rows = list(csv.DictReader(io.StringIO(csv_of(shown, shown.plots[0]))))
    assert max(float(row["high"]) for row in rows) == 9.0
    assert 'fill-opacity="0.14"' in svg_of(shown, shown.plots[0])


def test_a_folder_that_cannot_be_written(drawn: Drawing, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        export(drawn, ["svg"], tmp_path / "file")


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.31, 0.39) == pytest.approx([0.32, 0.34, 0.36, 0.38])
    assert ticks(5, 5) == [5]
    assert ticks(0.5, 20_000, log=True) == [1, 10, 100, 1000, 10_000]
    assert all(
        2 <= len(ticks(low, low + span)) <= 8 for low in (-3.7, 0.0, 1e6) for span in (0.013, 1.0, 99.0, 12345.0)
    )


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(0.25, "percent", "25 %"), (11.2e9, "bytes", "11.2 GB"), (100_000, "rate", "100 k"), (3e-4, "number", "0.0003"),
     (5e-5, "number", "5e-5"), (0, "rate", "0"), (2.5e6, "number", "2.5 M")],
)  # fmt: skip
def test_numbers_at_the_axes(value: float, form: str, text: str) -> None:
    assert written(value, form) == text
