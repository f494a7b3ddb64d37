"""The page as a browser shows it: what is drawn, what is said, what is asked for, on a screen and on a phone."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from run_folders import loss_at, ranks, recipe, run_folder, sample, status, steady, text_of, train

from lmtrain.report import drawing, read_run, readers, serve, write_page
from lmtrain.report.series import smoothed

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
BREAKS_OUT = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture
def clean(browser: Browser) -> Browser:
    browser.said.clear()
    browser.asked.clear()
    browser.screen(1280)
    return browser


def one_run(tmp_path: Path, steps: int = 60, **options: object) -> Path:
    said = [
        *steady(steps),
        sample(10, "Once", " upon"),
        sample(20, BREAKS_OUT, BREAKS_OUT),
        sample(20, "Once", " again"),
    ]
    folder = run_folder(tmp_path / "book", text_of(said), step=steps, **options)
    write_page(folder / "report.html", [read_run(folder)])
    return folder


def show(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri())
    browser.wait_for("document.documentElement.dataset.drawn === 'yes'")


def colours(path: Path) -> dict[tuple[int, int, int], int]:
    image = pytest.importorskip("PIL.Image")
    with image.open(path) as picture:
        return {colour: count for count, colour in picture.convert("RGB").getcolors(1 << 24)}


def test_every_plot_is_drawn_and_nothing_is_asked_for(clean: Browser, tmp_path: Path) -> None:
    folder = one_run(tmp_path)
    show(clean, folder / "report.html")
    plots = clean.evaluate("[...document.querySelectorAll('.plot')].map((plot) => plot.id.slice(5))")
    assert plots == [plot.id for plot in drawing([read_run(folder)]).plots]
    lengths = clean.evaluate("[...document.querySelectorAll('.plot path.line')].map((line) => line.getTotalLength())")
    assert len(lengths) >= len(plots) and min(lengths) > 100, "curves as wide as their plots"
    assert clean.said == [], "neither errors nor refusals of the page's own policy"
    assert clean.asked == [(folder / "report.html").as_uri()]
    assert clean.evaluate("document.title") == "book", "no text of the user ran as a script"
    assert BREAKS_OUT in clean.evaluate("document.querySelector('#samples').textContent")


def test_pixels_are_where_the_numbers_are(clean: Browser, tmp_path: Path) -> None:
    """The picture of the loss holds pixels of both curves, at the height of their values."""
    show(clean, one_run(tmp_path) / "report.html")
    clean.evaluate("byId('plot-loss').scrollIntoView()")
    found = colours(clean.picture(tmp_path / "light.png"))
    for colour in ((0x00, 0x67, 0xB0), (0xC8, 0x50, 0x0A)):
        near = sum(n for c, n in found.items() if max(abs(a - b) for a, b in zip(c, colour, strict=True)) < 8)
        assert near > 200, colour
    script = """(() => {
      const chart = view.charts.get('loss'), {toX, toY} = chart.scale;
      const circles = [...chart.svg.querySelectorAll('circle.dot')];
      const dots = circles.map((dot) => [+dot.getAttribute('cx'), +dot.getAttribute('cy')]);
      return [dots, [10, 20, 30, 40, 50, 60].map((step) => [toX(step), step])];
    })()"""
    dots, places = clean.evaluate(script)
    assert [x for x, _ in dots] == pytest.approx([x for x, _ in places], abs=0.1)
    clipped_at = clean.evaluate(
        "(({x, width}) => x + width)(document.querySelector('#plot-loss clipPath rect').getBBox())"
    )
    assert clipped_at > dots[-1][0] + 3, "the last dot is whole"
    heights = [y for _, y in dots]
    losses = [loss_at(step) + 0.1 for _, step in places]
    slope = (heights[-1] - heights[0]) / (losses[-1] - losses[0])
    assert slope < 0, "less loss is lower on the screen"
    assert heights == pytest.approx([heights[0] + slope * (loss - losses[0]) for loss in losses], abs=0.2)


def test_light_dark_and_the_button_between(clean: Browser, tmp_path: Path) -> None:
    page = one_run(tmp_path) / "report.html"
    pictures = []
    for dark in (False, True):
        clean.screen(1280, dark=dark)
        show(clean, page)
        pictures.append(colours(clean.picture(tmp_path / f"{dark}.png")))
    light, dark_ = (max(found, key=lambda colour: found[colour]) for found in pictures)
    assert min(light) > 200 and max(dark_) < 60
    assert (
        clean.evaluate("getComputedStyle(document.querySelector('#plot-loss path.line')).stroke") == "rgb(90, 180, 240)"
    )
    clean.click("#theme")
    ground = clean.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(246, 246, 243)", "the button turns a dark page light"
    show(clean, page)
    assert clean.evaluate("document.documentElement.dataset.theme") == "light", "and it stays so"
    clean.evaluate("localStorage.clear()")


def test_scores_of_texts_are_read_on_a_phone_and_in_the_dark(clean: Browser, tmp_path: Path) -> None:
    folder = recipe(tmp_path / "e2e")
    write_page(folder / "report.html", [reader.read() for reader in readers([str(folder)])])
    clean.screen(390, 844, mobile=True, dark=True)
    show(clean, folder / "report.html")
    assert clean.evaluate("document.documentElement.scrollWidth") == 390, "the table scrolls in its own box"
    box = clean.evaluate(
        "(({scrollWidth, clientWidth}) => [scrollWidth, clientWidth])(byId('scores').querySelector('.scroll'))"
    )
    assert box[0] > box[1] > 300
    tint = "[...document.querySelectorAll('#scores tr.%s td')].map((one) => getComputedStyle(one).color)"
    assert set(clean.evaluate(tint % "ours")) == {"rgb(232, 234, 236)"}
    assert set(clean.evaluate(tint % "published")) == {"rgb(168, 176, 184)"}
    widths = clean.evaluate(
        "[...document.querySelectorAll('#scores tbody th')].map((one) => one.getBoundingClientRect().width)"
    )
    assert max(widths) < 200, "names leave room for numbers"
    clean.evaluate("byId('scores').scrollIntoView()")
    clean.picture(tmp_path / "scores.png")
    assert clean.evaluate("byId('scores').closest('section').hidden") is False and clean.said == []


@pytest.mark.parametrize("several", [False, True])
def test_a_phone_shows_it_without_scrolling_sideways(clean: Browser, tmp_path: Path, several: bool) -> None:
    folders = [one_run(tmp_path, activation_checkpointing_kwargs={"use_reentrant": False}, project="w" * 60)]
    if several:
        long_name = "a_run_with_a_very_long_name_" * 3
        folders.append(run_folder(tmp_path / long_name, text_of(steady(40)), train_file=["x" * 300, "y " * 200]))
    page = tmp_path / "page.html"
    write_page(page, [reader.read() for reader in readers([str(folder) for folder in folders])])
    clean.screen(390, 844, mobile=True)
    show(clean, page)
    for details in ("false", "true"):
        clean.evaluate(f"document.querySelectorAll('details').forEach((one) => {{ one.open = {details}; }})")
        assert clean.evaluate("document.documentElement.scrollWidth") == 390
    widths = clean.evaluate(
        "[...document.querySelectorAll('.box svg')].map((svg) => svg.getBoundingClientRect().width)"
    )
    assert len(widths) == 10 and all(300 < width < 390 for width in widths)
    broken = """[...document.querySelectorAll('.options tbody th')].filter((one) => {
      const range = new Range();
      range.setStart(one.firstChild, 0);
      range.setEnd(one.firstChild, 3);
      return range.getClientRects().length > 1;
    }).length"""
    assert clean.evaluate(broken) == 0, "'--' stands with what it belongs to"
    heads = "[...document.querySelectorAll('.options thead th')].map((one) => one.getBoundingClientRect().height)"
    assert several or max(clean.evaluate(heads)) < 30, "no 'defa ult'"
    size = clean.evaluate("getComputedStyle(document.body).fontSize")
    assert float(size.removesuffix("px")) >= 14
    assert clean.said == []


def drag(browser: Browser, selector: str, start: float, end: float) -> None:
    x, y, width, height = browser.box(selector)
    middle = y + height / 2
    browser.mouse("mousePressed", x + start * width, middle, button="left", buttons=1, clickCount=1)
    browser.mouse("mouseMoved", x + end * width, middle, button="left", buttons=1)
    browser.mouse("mouseReleased", x + end * width, middle, button="left", clickCount=1)


def test_zoom_axis_smoothing_and_legend(clean: Browser, tmp_path: Path) -> None:
    show(clean, one_run(tmp_path) / "report.html")
    whole = clean.evaluate("view.span()")
    drag(clean, "#plot-loss .box svg", 0.4, 0.8)
    low, high = clean.evaluate("view.span()")
    assert whole[0] < low < high < whole[1]
    assert clean.evaluate("view.charts.get('learning_rate').scale.left") == low, "all plots show the same steps"
    clean.click("#whole")
    assert clean.evaluate("view.span()") == whole

    clean.evaluate("byId('axis').value = 'tokens'; byId('axis').dispatchEvent(new Event('change'))")
    assert clean.evaluate("view.span()[1]") == 512 * 60
    clean.evaluate("byId('range').value = '0.5'; byId('range').dispatchEvent(new Event('change'))")
    assert clean.evaluate("view.span()[0]") == pytest.approx(512 * 30, rel=0.02)
    clean.evaluate("byId('range').value = '1'; byId('range').dispatchEvent(new Event('change'))")

    script = "document.querySelectorAll('#plot-loss path.line').length"
    assert clean.evaluate(script) == 3, "train as it is and smoothed, and validation"
    clean.click("#plot-loss .legend button")
    assert clean.evaluate(script) == 1
    assert clean.evaluate("document.activeElement.textContent") == "train", "who uses keys is still there"
    clean.click("#plot-loss .legend button")
    clean.evaluate("byId('smoothing').value = 0; byId('smoothing').dispatchEvent(new Event('input'))")
    assert clean.evaluate(script) == 2

    before = clean.evaluate("document.querySelector('#plot-loss path.line').getAttribute('d')")
    clean.click("#plot-loss .tools button")
    assert clean.evaluate("document.querySelector('#plot-loss path.line').getAttribute('d')") != before, "log"
    assert clean.said == []


def test_the_pointer_tells_the_values(clean: Browser, tmp_path: Path) -> None:
    show(clean, one_run(tmp_path) / "report.html")
    clean.evaluate("byId('smoothing').value = 0; byId('smoothing').dispatchEvent(new Event('input'))")
    x, y, _, height = clean.box("#plot-loss .box svg")
    clean.mouse("mouseMoved", x + clean.evaluate("view.charts.get('loss').scale.toX(30)"), y + height / 2)
    told = clean.evaluate("document.querySelector('#plot-loss .tip').textContent")
    assert told.startswith("step 30") and f"{loss_at(30):.4f}".rstrip("0") in told
    crosses = clean.evaluate("document.querySelectorAll('.plot .cross').length")
    assert crosses == 10, "the place is marked in every plot"
    clean.evaluate("document.querySelector('#plot-loss .box svg').focus()")
    for kind in ("rawKeyDown", "keyUp"):
        clean.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)
    assert "step 29" in clean.evaluate("document.querySelector('#plot-loss .tip').textContent")


def test_the_script_smooths_as_the_package_does(clean: Browser, tmp_path: Path) -> None:
    show(clean, one_run(tmp_path) / "report.html")
    random = np.random.default_rng(3)
    x, y = np.cumsum(random.uniform(0.5, 2, 40)), random.normal(size=40)
    theirs = clean.evaluate(f"smoothed({json.dumps(x.tolist())}, {json.dumps(y.tolist())}, 3.5)")
    assert theirs == pytest.approx(smoothed(x, y, 3.5).tolist(), abs=1e-12)


def test_plots_are_saved(clean: Browser, tmp_path: Path) -> None:
    show(clean, one_run(tmp_path) / "report.html")
    saved = tmp_path / "saved"
    clean.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(saved))
    for kind in ("SVG", "PNG", "CSV"):
        clean.click(f'#plot-perplexity [data-save="{kind}"]')
        path = saved / f"book-perplexity.{kind.lower()}"
        end = time.monotonic() + 30
        while not path.is_file() and time.monotonic() < end:
            time.sleep(0.05)
        assert path.is_file(), kind
    root = ElementTree.fromstring((saved / "book-perplexity.svg").read_text())
    assert "Perplexity" in [node.text for node in root.iter() if node.tag.endswith("text")]
    strokes = {node.get("stroke") for node in root.iter() if node.tag.endswith("path")}
    assert {"rgb(0, 103, 176)", "rgb(200, 80, 10)"} <= strokes, "colours that need no style sheet"
    found = colours(saved / "book-perplexity.png")
    assert (0x00, 0x67, 0xB0) in found and (0xC8, 0x50, 0x0A) in found
    rows = list(csv.DictReader(io.StringIO((saved / "book-perplexity.csv").read_text())))
    values = [float(row["value"]) for row in rows if row["curve"] == "train"]
    assert values == pytest.approx([math.exp(loss_at(step)) for step in range(1, 61)], rel=1e-4)
    assert clean.said == []


def test_samples_one_step_at_a_time(clean: Browser, tmp_path: Path) -> None:
    show(clean, one_run(tmp_path) / "report.html")
    script = "[...document.querySelectorAll('.sampled')].filter((one) => !one.hidden).map((one) => one.dataset.step)"
    assert clean.evaluate(script) == ["20"], "the last ones first"
    clean.evaluate(
        "(() => { const slider = document.querySelector('.picker input'); slider.value = 0; "
        "slider.dispatchEvent(new Event('input')); })()"
    )
    assert clean.evaluate(script) == ["10"]


def test_a_hundred_thousand_steps_are_drawn(clean: Browser, tmp_path: Path) -> None:
    begin = {"event": "begin", "time": 1.795e9, "step": 0, "steps": 120_000}
    events = (
        train(step, loss=9.0 if step == 77_777 else loss_at(step), time=1.795e9 + step) for step in range(1, 100_001)
    )
    folder = run_folder(tmp_path / "long", text_of([begin, *events]), state="failed", step=100_000)
    write_page(folder / "report.html", [read_run(folder)])
    show(clean, folder / "report.html")
    high = clean.evaluate("Math.max(...view.runs[0].tables.train.curves.loss.high)")
    assert high == 9.0 and clean.evaluate("document.querySelectorAll('#plot-loss .band').length") == 1
    figures = "[...document.querySelectorAll('dd')].map((one) => [one.textContent, one.scrollWidth - one.clientWidth])"
    told = clean.evaluate(figures)
    assert "100,000 of 120,000" in dict(told) and {wider for _, wider in told} == {0}, "no figure runs into the next"
    milliseconds = "(() => { const began = performance.now(); view.render(); return performance.now() - began; })()"
    assert any(clean.evaluate(milliseconds) < 3000 for _ in range(10)), "on a processor without other work"
    assert clean.said == []


def test_a_run_is_followed_while_it_goes_on(clean: Browser, tmp_path: Path) -> None:
    events = [*list(steady(30))[:-1], sample(10), sample(20)]
    folder = run_folder(tmp_path / "book", text_of(events))
    working = {"state": "training", "pid": os.getpid(), "updated": time.time(), "step": 0}
    (folder / "status.json").write_text(json.dumps(working))
    server = serve([str(folder)], 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        clean.open(server.address)
        clean.wait_for("byId('live').textContent === 'live'")
        drag(clean, "#plot-loss .box svg", 0.4, 0.8)
        clean.click("#plot-loss .legend button")
        clean.evaluate("document.querySelector('[data-key=options], details').open = true")
        zoomed = clean.evaluate("view.span()")
        with (folder / "metrics.jsonl").open("a") as log:
            log.write(text_of([*(train(step) for step in range(31, 41)), status("finished", 41, step=40)]))
        (folder / "status.json").write_text(json.dumps({"state": "finished", "step": 40}))
        clean.wait_for("document.querySelector('.chip').textContent === 'finished'")
        assert clean.evaluate("view.runs[0].tables.train.step.length") == 40
        assert clean.evaluate("view.span()") == zoomed, "what one looks at stays"
        assert clean.evaluate("document.querySelectorAll('#plot-loss path.line').length") == 1
        assert clean.evaluate("document.querySelectorAll('details[open]').length") == 1
        assert clean.evaluate("document.querySelectorAll('.picker').length") == 1
        clean.wait_for("byId('live').textContent === 'live, nothing is at work'")
        assert clean.said == []
        assert {address.split("?")[0] for address in clean.asked} <= {
            server.address, f"{server.address}data.json", f"{server.address}favicon.ico",
        }  # fmt: skip
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    clean.wait_for("byId('live').className === 'live off'")
    assert clean.evaluate("document.querySelectorAll('.plot').length") == 10, "the last state stays"


def test_the_processes_of_a_run_are_shown_and_drawn(clean: Browser, tmp_path: Path) -> None:
    told = [*steady(20), *(ranks(step, slow=1, count=4) for step in range(1, 21))]
    folder = run_folder(tmp_path / "four", text_of(told), step=20)
    write_page(folder / "report.html", [read_run(folder)])
    show(clean, folder / "report.html")
    assert clean.evaluate("document.querySelectorAll('#processes tbody tr').length") == 4
    assert "all wait for it" in clean.evaluate("document.querySelector('#processes').textContent")
    assert clean.evaluate("document.querySelector('[data-of=processes]').hidden") is False
    slow, usual = clean.evaluate(
        "[1, 0].map((at) => getComputedStyle(document.querySelectorAll('#processes tbody tr')[at].children[0]).color)"
    )
    assert slow != usual
    lines = clean.evaluate("document.querySelectorAll('#plot-computing_by_rank path.line').length")
    assert lines >= 4 and clean.said == []
