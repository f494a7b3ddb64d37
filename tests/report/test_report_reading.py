from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from run_folders import BEGAN, evaluation, finished, loss_at, run_folder, sample, status, steady, text_of, train

from lmtrain.core.errors import UserError
from lmtrain.core.runlog import RunLog
from lmtrain.report.log import Log
from lmtrain.report.reading import Reader, read_run, readers


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(finished(tmp_path / "book"))
    assert (run.name, run.state, run.step, run.steps, run.history.ignored) == ("book", "finished", 40, 40, 0)
    assert run.history.train["step"].tolist() == list(range(1, 41))
    assert run.history.train["loss"].tolist() == [loss_at(step) for step in range(1, 41)]
    assert run.history.evaluations["eval_loss"].step == [10, 20, 30, 40]
    assert run.data["ledger"]["tokens"] == 1000
    assert run.unreadable == ()


def test_half_written_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    """A process that is killed leaves half a line; the next one appends to that very line."""
    first = text_of([status("preparing", 0), train(1), train(2)])
    torn = text_of([train(3)])[:50]
    second = text_of([status("preparing", 100), status("training", 101, step=2), train(3), train(4)])
    run = read_run(run_folder(tmp_path / "torn", first + torn + second + text_of([train(5)])[:-20]))
    assert run.history.ignored == 2
    assert run.history.train["step"].tolist() == [1, 2, 3, 4]
    assert run.history.starts == 2, "the start behind the half line is read"


@pytest.mark.parametrize(
    "rubbish", ["nonsense", "[1, 2]", '{"no": "event"}', '{"event": 7}', "\x00\x00\x00", "{" * 5000]
)
def test_whatever_a_line_holds(tmp_path: Path, rubbish: str) -> None:
    log = text_of([train(1)]) + rubbish + "\n\n" + text_of([train(2)])
    history = read_run(run_folder(tmp_path / "odd", log)).history
    assert history.ignored == 1 and history.train["step"].tolist() == [1, 2]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "odd", "")
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\x80\n" + text_of([train(1)]).encode())
    history = read_run(folder).history
    assert history.ignored == 1 and history.train["step"].tolist() == [1]


def test_a_resumed_run_tells_each_step_once_as_it_was_the_last_time(tmp_path: Path) -> None:
    before = [
        status("preparing", 0),
        *(train(step, spike=step == 5) for step in range(1, 8)),
        evaluation(5),
        train(6),
        sample(5),
        sample(6),
    ]
    after = [
        status("preparing", 1000, step=4), status("training", 1001, step=4),
        *(train(step, loss=9.0, time=BEGAN + 1000 + step) for step in (5, 6, 7, 8, 9, 9)),
        {**evaluation(5), "eval_loss": 9.5, "time": BEGAN + 1006}, sample(5, completion=" again", time=BEGAN + 1006),
    ]  # fmt: skip
    history = read_run(run_folder(tmp_path / "resumed", text_of(before + after))).history
    assert history.train["step"].tolist() == list(range(1, 10))
    assert history.train["loss"].tolist() == [loss_at(step) for step in range(1, 5)] + [9.0] * 5
    assert history.spikes == []
    assert (history.evaluations["eval_loss"].step, history.evaluations["eval_loss"].values) == ([5], [9.5])
    assert [(told.step, told.completion) for told in history.samples] == [(5, " again")]
    seconds = history.train["seconds"]
    assert (seconds[1:] > seconds[:-1]).all()
    assert history.seconds < 30, "the time between the two starts is no time of the run"


def test_several_prompts_of_one_step_all_stay(tmp_path: Path) -> None:
    events = [sample(10, "a"), sample(10, "b"), sample(10, "b", " other"), sample(20, "a")]
    history = read_run(run_folder(tmp_path / "run", text_of(events))).history
    assert [(told.step, told.prompt) for told in history.samples] == [(10, "a"), (10, "b"), (10, "b"), (20, "a")]


def test_numbers_that_are_none(tmp_path: Path) -> None:
    events = [train(1, grad_norm=None), train(2, loss="nan"), train(3, loss="inf", mfu="much"), train(4)]
    history = read_run(run_folder(tmp_path / "run", text_of(events))).history
    loss = history.train["loss"]
    assert math.isnan(loss[1]) and math.isinf(loss[2]) and loss[3] == loss_at(4)
    assert math.isnan(history.train["grad_norm"][0]) and math.isnan(history.train["mfu"][2])


def test_what_the_run_log_writes_is_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "")
    with RunLog(folder / "metrics.jsonl") as log:
        log.event("train", step=1, loss=math.nan, tokens=5, spike=True)
        log.event("sample", step=1, prompt="[MASK]", completion="fox", masks=[[{"token": "fox", "probability": 0.4}]])
    history = read_run(folder).history
    assert math.isnan(history.train["loss"][0]) and history.spikes[0][0] == 1
    assert history.samples[0].fillings == ("fox 40%",)


def test_a_log_is_read_on_from_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = text_of(steady(20)).splitlines(keepends=True)
    path.write_text("")
    log = Log(path)
    for line in lines:  # each in two writes, with a look between them
        half = len(line) // 2
        with path.open("a") as stream:
            stream.write(line[:half])
        assert log.read().ignored == 1
        with path.open("a") as stream:
            stream.write(line[half:])
        assert log.read().ignored == 0
    whole = Log(path).read()
    assert log.read().train["loss"].tolist() == whole.train["loss"].tolist() == [loss_at(step) for step in range(1, 21)]
    assert log.read().events == whole.events
    path.write_text(text_of([train(1)]))  # another run in its place
    assert log.read().train["step"].tolist() == [1]


def test_another_run_that_takes_its_place_in_mid_reading_is_read_whole(tmp_path: Path) -> None:
    class Raced(type(tmp_path)):  # type: ignore[misc]
        def open(self, *args: Any, **kwargs: Any) -> Any:
            stream = super().open(*args, **kwargs)
            if other.exists():
                other.replace(self)
            return stream

    path, other = Raced(tmp_path / "metrics.jsonl"), tmp_path / "other"
    path.write_text(text_of([train(1)]))
    other.write_text(text_of([train(step) for step in range(1, 5)]))
    log = Log(path)
    assert log.read().train["step"].tolist() == [1]
    assert log.read().train["step"].tolist() == [1, 2, 3, 4]


def test_what_stands_behind_half_a_line_is_taken_once(tmp_path: Path) -> None:
    """The reader may come before the line has its end."""
    path = tmp_path / "metrics.jsonl"
    begins = text_of([status("preparing", 0)])
    path.write_text(begins + text_of([train(1)])[:50] + begins.rstrip("\n"))
    log = Log(path)
    log.read()
    assert log.read().starts == 1, "it may be half of a longer one"
    with path.open("a") as stream:
        stream.write("\n")
    assert log.read().starts == log.read().starts == 2


def test_parts_that_are_missing_or_broken(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / "run.json").write_text('{"command": ')
    (folder / "data.json").unlink()
    (folder / "decisions.json").write_text("[]")
    run = read_run(folder)
    assert run.unreadable == ("run.json", "decisions.json")
    assert (run.options, run.data) == ({}, {})


def test_states(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", text_of([train(1)]), state="training")
    about = {"state": "training", "pid": 2**22 + 1, "updated": BEGAN}
    (folder / "status.json").write_text(json.dumps(about))
    assert read_run(folder).state == "lost", "no such process, and nothing for long"
    (folder / "status.json").write_text(json.dumps({**about, "updated": time.time()}))
    assert read_run(folder).state == "training", "it may be another machine's"
    (folder / "status.json").write_text(json.dumps({**about, "pid": os.getpid(), "updated": time.time() - 1e5}))
    assert read_run(folder).state == "lost", "the number was given to a younger process"


def refusal(folder: Path | str) -> str:
    with pytest.raises(UserError) as error:
        Reader(str(folder)).read()
    (problem,) = error.value.problems
    assert problem.flag == "RUN" and "\n" not in problem.text
    return problem.text


def test_what_is_no_run(tmp_path: Path) -> None:
    assert "no such folder" in refusal(tmp_path / "nothing")
    (tmp_path / "book.txt").write_text("text")
    assert "is a file" in refusal(tmp_path / "book.txt")
    (tmp_path / "empty").mkdir()
    assert "has no log (metrics.jsonl)" in refusal(tmp_path / "empty")
    run = finished(tmp_path / "all" / "seed-110")
    (run / "checkpoint-10").mkdir()
    assert f"the run is its parent: {run}" in refusal(run / "checkpoint-10")
    assert f"runs inside: {run}" in refusal(tmp_path / "all")


def test_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    paths = [finished(tmp_path / where / "book") for where in ("one", "two")]
    assert [reader.name for reader in readers([str(path) for path in paths])] == ["one/book", "two/book"]
    assert [reader.name for reader in readers([str(paths[0])])] == ["book"]
    with pytest.raises(UserError, match="named twice"):
        readers([str(paths[0]), f"{paths[0]}/../book"])


def test_secrets_are_left_out(tmp_path: Path) -> None:
    token = "hf_" + "A1b2C3d4" * 4
    folder = finished(tmp_path / "run", hub_token=token, dataset_name="https://me:hunter2@example.org/data")
    about = json.loads((folder / "run.json").read_text())
    about["argv"] += ["--hub_token", "plainsecret", "--run_name", f"with-{token}"]
    (folder / "run.json").write_text(json.dumps(about))
    run = read_run(folder)
    kept = json.dumps(run.record)
    assert "hub_token" in kept, "the flag was given"
    for secret in (token, "plainsecret", "hunter2"):
        assert secret not in kept
