from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from run_folders import (
    BEGAN,
    TABLE,
    evaluation,
    finished,
    ranks,
    recipe,
    run_folder,
    sample,
    status,
    steady,
    text_of,
    train,
)

from lmtrain.core.errors import UserError
from lmtrain.report import History, drawing, page, read_run, readers, write_page
from lmtrain.report.facts import about, command_line, compared, configuration, figures, state_of
from lmtrain.report.happenings import happenings
from lmtrain.report.markup import element, joined
from lmtrain.report.page import for_script
from lmtrain.report.ranks import held_up_by
from lmtrain.report.sections import evenly

BREAKS_OUT = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)><!--"


class Parts(HTMLParser):
    """What a page consists of: its elements with their attributes, its texts by element, script by script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._within = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def test_a_page_holds_all_its_parts(tmp_path: Path) -> None:
    events = [*steady(40), sample(10), sample(20, "Once", " there was")]
    parts = Parts(page([read_run(run_folder(tmp_path / "book", text_of(events)))]))
    text = " ".join(parts.texts)
    for said in ("book", "finished", "validation loss", "validation perplexity", "bits per byte", "train loss, last",
                 "tokens/s", "MFU", "What became of the text", "960", "43", "7 blank lines", "a note", "abababab",
                 "Once", " there was", "--learning_rate", "0.0003", "5e-05", "A Fast One", "2.13.0",
                 "lmtrain clm --model_type gpt2 --train_file book.txt --learning_rate 0.0003", "in /home/me",
                 "40 steps planned, 1.2 M parameters", "4 checkpoints saved", "no bf16 here"):  # fmt: skip
        assert said in text, said
    plots = {plot["id"]: plot for plot in parts.data["drawing"]["plots"]}
    assert list(plots) == [
        "loss", "perplexity", "bits_per_byte", "accuracy", "learning_rate", "grad_norm", "tokens_per_second", "mfu",
        "memory", "waiting_for_data",
    ]  # fmt: skip
    assert [line["label"] for line in plots["loss"]["lines"]] == ["train", "validation"]
    assert parts.data["stamp"] is None


def test_a_page_needs_nothing_else(tmp_path: Path) -> None:
    text = page([read_run(finished(tmp_path / "book"))])
    parts = Parts(text)
    for tag, attributes in parts.elements:
        assert tag not in ("link", "img", "iframe", "object", "base", "form"), tag
        assert "src" not in attributes and not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert not re.search(r"https?://(?!www\.w3\.org)", text), "an address, be it in a style or a script"
    assert "@import" not in text and "url(#" in text and not re.search(r"url\((?!#)", text)
    (policy,) = (a["content"] for tag, a in parts.elements if tag == "meta" and a.get("http-equiv"))
    assert policy and "default-src 'none'" in policy and "connect-src 'none'" in policy and "unsafe" not in policy


def test_text_of_the_user_stays_text(tmp_path: Path) -> None:
    events = [*steady(20), sample(10, BREAKS_OUT, BREAKS_OUT), status("failed", 99, reason=BREAKS_OUT)]
    folder = run_folder(tmp_path / "book", text_of(events), tokenizer_name=BREAKS_OUT, train_file=[BREAKS_OUT])
    about = json.loads((folder / "run.json").read_text())
    about["argv"] += [BREAKS_OUT]
    about["machine"]["cpu"] = about["working_folder"] = BREAKS_OUT
    (folder / "run.json").write_text(json.dumps(about))
    data = json.loads((folder / "data.json").read_text())
    data["ledger"]["notes"] = data["ledger"]["skipped"] = {BREAKS_OUT: 1}
    data["stores"]["train"]["sources"][0]["name"] = BREAKS_OUT
    (folder / "data.json").write_text(json.dumps(data))
    (folder / "decisions.json").write_text(json.dumps({BREAKS_OUT: {"choice": BREAKS_OUT, "reason": BREAKS_OUT}}))
    (folder / "status.json").write_text(json.dumps({"state": "failed", "reason": BREAKS_OUT}))
    parts = Parts(page([read_run(folder)]))
    assert len(parts.scripts) == 2 and not any(tag == "img" for tag, _ in parts.elements)
    assert sum(BREAKS_OUT in text for text in parts.texts) >= 10
    hostile = tmp_path / "<script>alert(1)<"
    assert len(Parts(page([read_run(finished(hostile))])).scripts) == 2, "nor does the name of a folder break out"


def test_json_inside_a_page() -> None:
    value = {"text": "</script><!--\u2028&", "number": 1.5}
    text = for_script(value)
    assert "<" not in text and "\u2028" not in text and json.loads(text) == value


def test_markup_escapes_what_it_did_not_make() -> None:
    assert element("td", "a < b & c", class_='x"y') == '<td class="x&quot;y">a &lt; b &amp; c</td>'
    assert joined("<", element("b", "<"), None) == "&lt;<b>&lt;</b>"
    assert element("input", type="range", hidden=True, value=None) == '<input type="range" hidden>'


def test_several_runs_show_what_differs(tmp_path: Path) -> None:
    folders = [finished(tmp_path / "slow"), finished(tmp_path / "quick", 60, learning_rate=1e-3, block_size=128)]
    runs = [reader.read() for reader in readers([str(folder) for folder in folders])]
    made = read_run(finished(tmp_path / "made", 4, model_size="10m", config_overrides=None))
    assert about(made) == "gpt2, 10m · causal language model · trained on book.txt"
    differing, chosen, rest = configuration(runs)
    assert {row.name: row.texts for row in differing} == {
        "learning_rate": ("0.0003", "0.001"),
        "block_size": ("64", "128"),
    }
    assert {row.name for row in chosen} == {
        "model_type",
        "config_overrides",
        "tokenizer_name",
        "train_file",
        "output_dir",
    }
    assert rest == [], "an option that neither run has is not listed"
    parts = Parts(page(runs))
    text = " ".join(parts.texts)
    assert "What differs" in text and "slow, quick" in text
    labels = {line["label"] for plot in parts.data["drawing"]["plots"] for line in plot["lines"]}
    assert {"slow, train", "quick, validation", "slow", "quick"} <= labels
    best = [a for tag, a in parts.elements if tag == "td" and "best" in (a.get("class") or "")]
    assert best, "the better score is marked"
    better = {row.name: at for row, at in compared(runs)}
    assert (better["validation loss"], better["steps"]) == (1, None)
    assert "same tokens" not in text


@pytest.mark.parametrize("other", ["tokenizer", "objective"])
def test_scores_by_the_token_have_a_best_only_among_the_same_tokens(tmp_path: Path, other: str) -> None:
    runs = []
    for at, folder in enumerate([finished(tmp_path / "slow"), finished(tmp_path / "quick", 60)]):
        run = read_run(folder)
        tokenizer = {"fingerprint": f"{at}" if other == "tokenizer" else "one"}
        run.data["stores"]["train"]["tokenizer"] = tokenizer
        run.record["command"] = "mlm" if at and other == "objective" else "clm"
        runs.append(run)
    better = {row.name: at for row, at in compared(runs)}
    assert {better[name] for name in ("validation loss", "train loss, last", "validation accuracy")} == {None}
    assert better["validation bits per byte"] == 1
    assert "Not all have the same tokens" in " ".join(Parts(page(runs)).texts)


def test_scores_of_the_texts_stand_beside_the_published_ones(tmp_path: Path) -> None:
    """Of a data-to-text recipe, whose folder stands for its trainings; each training's page has them too."""
    folder = recipe(tmp_path / "e2e")
    for named, title in ((folder, "e2e/seed-110, e2e/seed-111"), (folder / "seed-111", "seed-111")):
        text = page([reader.read() for reader in readers([str(named)])])
        parts = Parts(text)
        assert f'<h1 id="title">{title}</h1>' in text and parts.texts.count("Scores of the texts") == 1
        rows = re.findall(r'<tr class="(ours|seed|published)"><th scope="row">([^<]*)</th>(.*?)</tr>', text)
        assert [(kind, name) for kind, name, _ in rows] == [(row["kind"], row["name"]) for row in TABLE["rows"]]
        for (_, _, cells), row in zip(rows, TABLE["rows"], strict=True):
            assert re.findall(r'<td class="number">([^<]*)</td>', cells) == row["cells"]
        assert set(TABLE["notes"]) <= set(parts.texts)
    runs = [read_run(folder / "seed-110"), read_run(recipe(tmp_path / "dart", runs=["seed-110"]) / "seed-110")]
    assert re.findall("<h3>(e2e|dart)</h3>", page(runs)) == ["e2e", "dart"]


def test_scores_of_one_seed_have_their_intervals_and_no_markup(tmp_path: Path) -> None:
    row = {"name": BREAKS_OUT, "kind": BREAKS_OUT, "cells": ["1.00", BREAKS_OUT], "below": ["[0.50, 1.50]", ""]}
    folder = recipe(tmp_path / "e2e", columns=["BLEU", BREAKS_OUT], rows=[row], notes=[BREAKS_OUT])
    text = page([read_run(folder / "seed-110")])
    assert '<td class="number">1.00<br><span class="faint">[0.50, 1.50]</span></td>' in text
    assert len(Parts(text).scripts) == 2 and Parts(text).texts.count(BREAKS_OUT) == 4


@pytest.mark.parametrize("beside", ["[1, 2]", "{", '{"table": 7}', '{"table": {"runs": ["other"], "rows": []}}'])
def test_what_lies_beside_a_run_is_no_part_of_it(tmp_path: Path, beside: str) -> None:
    run = finished(tmp_path / "book")
    (tmp_path / "scores.json").write_text(beside)
    found = read_run(run)
    assert found.scores == {} and found.unreadable == ()
    assert '<div id="scores"></div>' in page([found])


def test_what_happened_is_told_in_order(tmp_path: Path) -> None:
    events = [
        *list(steady(20))[:-1], train(21, spike=True, loss=9.0),
        {"event": "bad_step", "time": BEGAN + 22, "step": 22, "loss": "nan", "grad_norm": "inf", "examples": [4, 7]},
        status("interrupted", 23, reason="SIGTERM; saved at step 22"), status("preparing", 9000, step=22),
        status("training", 9001, step=22), {"event": "overlap", "time": BEGAN + 9002, "share": 0.5},
    ]  # fmt: skip
    run = read_run(run_folder(tmp_path / "book", text_of(events), state="interrupted", step=22))
    told = [(happening.step, happening.text, happening.weight) for happening in happenings(run)]
    assert told[-6:] == [
        (21, "the loss spikes to 9", "notable"),
        (22, "no update: its loss is nan, the norm of its gradient inf (examples 4, 7)", "bad"),
        (None, "interrupted: SIGTERM; saved at step 22", "notable"),
        (22, "preparing", "plain"),
        (22, "at step 22", "plain"),
        (None, "overlap: share 0.5", "plain"),
    ]
    assert "2 starts" in page([run]) and drawing([run]).marks == ((22,),)


def test_states_in_words(tmp_path: Path) -> None:
    log = text_of(list(steady(40))[:-30])
    folder = run_folder(tmp_path / "run", log)
    (folder / "status.json").write_text(json.dumps({"state": "training", "pid": 1, "updated": time.time(), "step": 0}))
    assert state_of(read_run(folder)).startswith("training at step ") and state_of(read_run(folder)).endswith("s left")
    (folder / "status.json").write_text(json.dumps({"state": "failed", "reason": "the disk is full"}))
    assert state_of(read_run(folder)).endswith(": the disk is full")


def test_the_scores_of_a_finished_run_are_those_of_its_results(tmp_path: Path) -> None:
    folder = finished(tmp_path / "book")
    (folder / "all_results.json").write_text(json.dumps({"eval_loss": 1.5, "perplexity": 4.48, "test_loss": 2.5}))
    found = {figure.name: figure.text for figure in figures(read_run(folder))}
    assert (found["validation loss"], found["validation perplexity"], found["test loss"]) == (
        "1.5000",
        "4.48",
        "2.5000",
    )
    (folder / "status.json").write_text(json.dumps({"state": "interrupted"}))  # results of before it was extended
    found = {figure.name: figure.text for figure in figures(read_run(folder))}
    assert found["validation loss"] != "1.5000" and "test loss" not in found


def test_a_rate_is_all_tokens_by_all_seconds(tmp_path: Path) -> None:
    quick = train(1, tokens=1000, tokens_per_second=1000.0, mfu=0.4, waiting_for_data=0.11)
    slow = train(2, tokens=2000, tokens_per_second=100.0, mfu=0.04, waiting_for_data=0.0)
    found = {
        figure.name: figure.value for figure in figures(read_run(run_folder(tmp_path / "run", text_of([quick, slow]))))
    }
    assert found["tokens/s"] == pytest.approx(2000 / 11)
    assert found["MFU"] == pytest.approx((0.4 * 1 + 0.04 * 10) / 11)
    assert found["waiting for data"] == pytest.approx(0.01)


def test_a_run_shorter_than_its_logging_has_the_rates_of_the_whole(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", text_of([status("training", 0), status("finished", 1)]), step=6)
    results = {"train_tokens_per_second": 49708.7, "train_mfu": 0.052, "train_waiting_for_data": 0.066}
    (folder / "all_results.json").write_text(json.dumps(results))
    found = {figure.name: figure.text for figure in figures(read_run(folder))}
    assert (found["tokens/s"], found["MFU"], found["waiting for data"]) == ("49.7 k", "5.2%", "6.6%")


def test_a_run_without_a_command_line_gets_one(tmp_path: Path) -> None:
    folder = finished(tmp_path / "book", lora_target_modules=["q", "v"])
    about = json.loads((folder / "run.json").read_text())
    about["argv"] = []
    (folder / "run.json").write_text(json.dumps(about))
    line = command_line(read_run(folder))
    assert line.startswith("lmtrain clm --model_type gpt2 ") and "--lora_target_modules q v" in line
    assert "--precision" not in line


def test_a_run_of_several_processes_is_repeated_with_its_launcher(tmp_path: Path) -> None:
    folder = finished(tmp_path / "book")
    about = json.loads((folder / "run.json").read_text())
    alone = command_line(read_run(folder))
    for words, program in (("torchrun --nproc_per_node 2", "-m lmtrain"), ("srun --nodes 2", "python -m lmtrain")):
        (folder / "run.json").write_text(json.dumps({**about, "launcher": words.split()}))
        assert command_line(read_run(folder)) == alone.replace("lmtrain", f"{words} {program}", 1)


def test_a_run_in_which_nothing_was_logged_yet(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "new", text_of([status("preparing", 0)]))
    for name in ("data.json", "decisions.json", "run.json"):
        (folder / name).unlink()
    parts = Parts(page([read_run(folder)]))
    assert parts.data["drawing"]["plots"] == []


def test_a_masked_model_is_called_so(tmp_path: Path) -> None:
    folder = finished(tmp_path / "bert")
    about = json.loads((folder / "run.json").read_text())
    about["command"] = about["options"]["command"] = "mlm"
    (folder / "run.json").write_text(json.dumps(about))
    run = read_run(folder)
    assert "validation masked-token perplexity" in [figure.name for figure in figures(run)]
    assert "Masked-token perplexity" in [plot.title for plot in drawing([run]).plots]


def test_evaluations_of_several_sets_and_with_keys(tmp_path: Path) -> None:
    scores = {"eval_books_loss": 2.0, "eval_news_loss": 3.0, "eval_loss_with_keys": 1.0}
    events = [train(1), train(10), {"event": "evaluation", "time": BEGAN + 5, "step": 5, **scores}]
    shown = drawing([read_run(run_folder(tmp_path / "run", text_of(events)))])
    assert [line.label for line in shown.plots[0].lines] == [
        "train",
        "validation books",
        "validation news",
        "validation, with keys",
    ]
    assert shown.tables[0]["eval_books_loss"].tokens.tolist() == pytest.approx([512 * 5]), "between the lines around it"


def test_samples_beyond_what_a_page_can_hold() -> None:
    kept = evenly(range(1000), 200)
    assert len(kept) == 200 and kept[0] == 0 and kept[-1] == 999 and kept == sorted(set(kept))
    assert evenly([1, 2], 200) == [1, 2]


def test_what_is_there_and_no_report_is_not_written_over(tmp_path: Path) -> None:
    run = read_run(finished(tmp_path / "book"))
    path = tmp_path / "report.html"
    write_page(path, [run])
    write_page(path, [run])
    thesis = tmp_path / "thesis.html"
    thesis.write_text("<html>years of work")
    with pytest.raises(UserError, match="no report of ours"):
        write_page(thesis, [run])
    assert thesis.read_text() == "<html>years of work"
    with pytest.raises(UserError, match="is a folder"):
        write_page(tmp_path, [run])


def test_a_hundred_thousand_steps_within_five_seconds(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "long", text_of(steady(100_000, every=1000)), step=100_000)
    for _ in range(3):  # a processor with other work is a slower one
        began = time.process_time()
        write_page(folder / "report.html", [read_run(folder)])
        if (seconds := time.process_time() - began) < 5:
            break
    assert seconds < 5
    assert (folder / "report.html").stat().st_size < 2_000_000
    parts = Parts((folder / "report.html").read_text())
    last = parts.data["drawing"]["runs"][0]["tables"]["train"]["last"]
    assert last[-1] == 100_000 and evaluation(100_000)["eval_loss"] > 3


@pytest.mark.parametrize(
    "value", [None, 7, "text", [], [1], {}, {"a": {"b": None}}, {"splits": {"train": 3}, "skipped": {"x": "y"}}]
)
def test_records_of_another_make(tmp_path: Path, value: Any) -> None:
    """By another version, or by hand: what is not understood is left out, and the rest is shown."""
    events = [*steady(10), {"event": "begin", "time": BEGAN, "steps": value}, {"event": "bad_step", "step": value},
              {"event": "save", "step": value, "bytes": value}, {"event": "status", "state": "training", "step": value},
              {"event": "sample", "step": 3, "masks": value, "prompt": value}]  # fmt: skip
    folder = run_folder(tmp_path / "odd", text_of(events))
    for name, keys in (("run.json", ["argv", "options", "versions", "machine"]), ("data.json", ["ledger", "stores"]),
                       ("decisions.json", ["peak", "kernel"])):  # fmt: skip
        (folder / name).write_text(json.dumps({"command": "clm", **dict.fromkeys(keys, value)}))
    assert "odd" in page([read_run(folder)])
    assert read_run(folder).history.train["step"].tolist() == list(range(1, 11))


# ---- several processes ----------------------------------------------------------------------------


def several(folder: Path, *told: dict[str, Any], steps: int = 6) -> Path:
    return run_folder(folder, text_of([*steady(steps), *told]), step=steps)


def test_the_process_that_all_wait_for_is_told_and_drawn(tmp_path: Path) -> None:
    told = [ranks(step, slow=2 if step < 6 else None, count=3) for step in range(1, 7)]
    run = read_run(several(tmp_path / "book", *told))
    parts = Parts(page([run]))
    text = " ".join(parts.texts)
    for said in ("Processes", "3 processes; the time of a step", "283.3 ms", "200.0 ms", "memory, most",
                 "1.0 GB (rank 2)",
                 "Rank 2 computes 1.4x as long as the others and all wait for it, in 5 of 6 log lines."):  # fmt: skip
        assert said in text, said
    assert "ranks: " not in text, "an event of its own place is no happening"
    plots = {plot["id"]: plot for plot in parts.data["drawing"]["plots"]}
    assert [line["label"] for line in plots["computing_by_rank"]["lines"]] == ["rank 0", "rank 1", "rank 2"]
    assert {"data_by_rank", "collectives_by_rank"} <= plots.keys()
    held = drawing([run]).tables[0]["ranks"]
    assert held.curves["computing 2"].mean.tolist() == [0.3] * 5 + [0.2]
    assert held.tokens.tolist() == [512 * step for step in range(1, 7)]
    named = {figure.name: figure.text for figure in figures(run)}
    assert named["processes"] == "3" and named["in collectives"] == f"{(5 * 0.12 + 0.12) / (6 * 0.33):.1%}"


def test_steps_that_were_made_twice_are_told_as_they_were_the_last_time(tmp_path: Path) -> None:
    run = read_run(several(tmp_path / "book", ranks(1), ranks(2), ranks(3), ranks(2, slow=0), ranks(3, slow=0)))
    assert [(event["step"], event["held_up_by"]["rank"]) for event in run.history.ranks] == [(1, 1), (2, 0), (3, 0)]


@pytest.mark.parametrize(("lines", "told"), [(10, [("computing", 1, 1)]), (11, [])])
def test_who_held_all_up_in_a_tenth_of_the_log_lines_is_told(lines: int, told: list[tuple[str, int, int]]) -> None:
    events = [ranks(1), *(ranks(step, slow=None) for step in range(2, lines + 1))]
    assert held_up_by(History(ranks=events)) == told


def test_of_many_processes_those_are_drawn_that_compute_longest(tmp_path: Path) -> None:
    run = read_run(several(tmp_path / "book", *(ranks(step, slow=60, count=64, processes=1024) for step in (1, 2))))
    text = page([run])
    assert "1,024 processes" in text and "The log tells of 64" in text
    lines = next(plot.lines for plot in drawing([run]).plots if plot.id == "computing_by_rank")
    assert len(lines) == 7 and "rank 60" in [line.label for line in lines]


def test_exchanges_that_cannot_be_told_apart_are_said_to_be_in_computing(tmp_path: Path) -> None:
    event = ranks(1, slow=None)
    del event["collectives"], event["transfers"]
    text = page([read_run(several(tmp_path / "book", event))])
    assert "Computing holds the exchanges too" in text
    assert "collectives_by_rank" not in text and "all wait for it" not in text


def test_one_process_has_no_such_part(tmp_path: Path) -> None:
    run = read_run(finished(tmp_path / "book"))
    assert '<div id="processes"></div>' in page([run]) and "by_rank" not in page([run])
    assert "processes" not in {figure.name for figure in figures(run)}


@pytest.mark.parametrize("broken", [{"rank": None}, {"computing": 3}, {"computing": ["x"]}, {"steps": "many"},
                                    {"held_up_by": [1]}, {"processes": None}, {"host": ["a"]}])  # fmt: skip
def test_a_damaged_event_breaks_no_page(broken: dict[str, Any], tmp_path: Path) -> None:
    assert "Curves" in page([read_run(several(tmp_path / "book", ranks(1), ranks(2, **broken)))])
