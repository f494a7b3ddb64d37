"""What a run prints and writes, from runs of the real trainer; the pace with a clock of the test's own."""

import io
import json
import re
from pathlib import Path

import pytest
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lmtrain.core.runlog import RunLog, read_events
from lmtrain.engine.display import Lines, Terminal, describe_evaluation, describe_train, duration
from lmtrain.engine.progress import Progress
from lmtrain.engine.trainer import LMTrainer
from tiny import MemoryLayout, arguments, llama, rows


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


class TimedLayout(MemoryLayout):
    """A layout whose batches take time, by the clock of the test."""

    def __init__(self, clock: FakeClock, seconds: float, count: int) -> None:
        super().__init__([[5, 6, 7]] * count)
        self.clock, self.seconds = clock, seconds

    def __getitems__(self, indices):
        self.clock.now += self.seconds
        return super().__getitems__(indices)


def test_a_slow_evaluation_does_not_show_in_the_pace_of_training(tmp_path: Path) -> None:
    """A batch of training takes a second and is read one step ahead; each of the evaluation takes 1000."""
    clock = FakeClock()
    args = arguments(tmp_path, max_steps=6, per_device_train_batch_size=4, logging_steps=2,
                     eval_strategy="steps", eval_steps=3)  # fmt: skip
    with RunLog(tmp_path / "metrics.jsonl") as log:
        progress = Progress(log, stream=io.StringIO())
        train, evaluation = TimedLayout(clock, 1, 24), TimedLayout(clock, 1000, 8)
        trainer = LMTrainer(llama(), args, train, evaluation, callbacks=[progress])
        trainer.meter.clock = clock
        trainer.train()
    events = [e for e in read_events(tmp_path / "metrics.jsonl") if e["event"] == "train"]
    assert [e["waiting_for_data"] for e in events] == [1.0, 1.0, 1.0]  # by this clock nothing else takes time
    assert [e["tokens_per_second"] for e in events] == [8.0, 12.0, 24.0]  # 24 tokens in 3, 2 and 1 s
    assert [e["time_left"] for e in events] == [6.0, 2.5, 0.0]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (58.4, "0:58"), (190, "3:10"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_waiting_for_data_is_said_when_it_matters() -> None:
    values = {"loss": 2.0, "tokens_per_second": 1234.5, "mfu": 0.431, "waiting_for_data": 0.02}
    assert describe_train(values) == "loss 2.000  1,234 tok/s  MFU 43%"
    assert (
        describe_train({**values, "waiting_for_data": 0.13}) == "loss 2.000  1,234 tok/s  MFU 43%  waiting for data 13%"
    )


def test_evaluations_are_named_by_their_data_set() -> None:
    line = describe_evaluation({"eval_loss": 2.0, "eval_books_perplexity": 7.389, "eval_runtime": 3.0, "epoch": 1})
    assert line == "evaluation  loss 2.0000  books perplexity 7.39"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[dict], int]:
    """Text and events of a run of 6 steps with an evaluation after step 3, and its real tokens."""
    folder = tmp_path_factory.mktemp("progress")
    stream, data = io.StringIO(), rows(12)
    args = arguments(
        folder,
        max_steps=6,
        per_device_train_batch_size=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=3,
    )
    with RunLog(folder / "metrics.jsonl") as log:
        layout = MemoryLayout(data)
        LMTrainer(llama(), args, layout, layout, callbacks=[Progress(log, stream=stream)]).train()
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    return stream.getvalue(), list(read_events(folder / "metrics.jsonl")), 2 * sum(map(len, data))


def test_a_file_gets_plain_lines(run: tuple[str, list[dict], int]) -> None:
    text = run[0]
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "train 6 steps"
    assert [line.split()[1] for line in lines[1:]] == ["2/6", "3", "4/6", "6/6", "6"]
    assert all("loss" in line for line in lines[1:])
    assert "tok/s" in lines[1] and "MFU" in lines[1] and "left" in lines[1] and "GB" in lines[1]


def test_every_event_is_complete(run: tuple[str, list[dict], int]) -> None:
    _, events, tokens = run
    assert [event["event"] for event in events] == [
        "begin",
        "train",
        "evaluation",
        "train",
        "train",
        "evaluation",
        "trained",
    ]
    assert events[0]["steps"] == 6 and events[0]["parameters"] == sum(w.numel() for w in llama().parameters())
    steps = [event for event in events if event["event"] == "train"]
    for event in steps:
        for name in ("step", "epoch", "tokens", "loss", "learning_rate", "grad_norm", "tokens_per_second",
                     "tflops", "mfu", "waiting_for_data", "time_left", "memory"):  # fmt: skip
            assert isinstance(event[name], int | float), name
        assert event["memory"] > 10_000_000
    assert [event["step"] for event in steps] == [2, 4, 6]
    assert steps[-1]["tokens"] == events[-1]["tokens"] == tokens  # two epochs, padding not counted
    assert steps[-1]["time_left"] == 0


def test_a_terminal_gets_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    stream, layout = Tty(), MemoryLayout(rows(8))
    args = arguments(tmp_path, max_steps=4, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=2)
    progress = Progress(stream=stream)
    assert isinstance(progress.display, Terminal)
    LMTrainer(llama(), args, layout, layout, callbacks=[progress]).train()
    text = stream.getvalue()
    assert "4/4" in text and "loss" in text and "tok/s" in text
    assert "perplexity" in text


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (60, "loss 3.457  12,345 tok/s"),
        (80, "loss 3.457  12,345 tok/s  1:02:03 left  3.2 GB"),
        (100, "loss 3.457  12,345 tok/s  1:02:03 left  3.2 GB  waiting for data 23%"),
    ],
)
def test_what_matters_least_is_left_out_of_a_narrow_terminal(
    width: int, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    screen = Tty()
    display = Terminal(screen)
    display.begin(0, 30_000)
    values = {"loss": 3.4567, "tokens_per_second": 12_345.0, "memory": 3.2e9, "waiting_for_data": 0.23}
    display.train(1_200, 30_000, {**values, "time_left": 3_723.0})
    display.evaluated(1_200, "books [old] :x:")
    display.end()
    assert "step 1200  books [old] :x:" in screen.getvalue(), "as it is, whatever it looks like"
    line = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").rstrip().rpartition("\n")[2]
    assert line.startswith("  train ") and line.rstrip().endswith(f" 1200/30000 {shown}") and len(line) <= width


def test_the_stock_bars_are_gone_unless_asked_for(tmp_path: Path) -> None:
    plain = LMTrainer(llama(), arguments(tmp_path, disable_tqdm=False))
    stock = (ProgressCallback, PrinterCallback)
    assert not any(isinstance(c, stock) for c in plain.callback_handler.callbacks)
    assert sum(isinstance(c, Progress) for c in plain.callback_handler.callbacks) == 1
    asked = LMTrainer(llama(), arguments(tmp_path), callbacks=[PrinterCallback()])
    assert any(isinstance(c, PrinterCallback) for c in asked.callback_handler.callbacks)


def test_no_terminal_means_lines() -> None:
    assert isinstance(Progress(stream=io.StringIO()).display, Lines)
    assert isinstance(Progress(stream=io.StringIO(), terminal=True).display, Terminal)


def test_a_caller_with_a_line_of_its_own_keeps_the_evaluation_quiet_but_written_down(tmp_path: Path) -> None:
    stream, layout = io.StringIO(), MemoryLayout(rows(8))
    args = arguments(tmp_path, max_steps=2, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=2)
    with RunLog(tmp_path / "metrics.jsonl") as log:
        trainer = LMTrainer(llama(), args, layout, layout, callbacks=[Progress(log, stream=stream, summaries=False)])
        trainer.train()
        assert stream.getvalue().count("evaluation") == 1, "the one in training is progress"
        trainer.evaluate()
    assert stream.getvalue().count("evaluation") == 1
    assert [event["event"] for event in read_events(tmp_path / "metrics.jsonl")].count("evaluation") == 2


def test_an_interruption_takes_the_bar_away(tmp_path: Path) -> None:
    class Stops(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            raise KeyboardInterrupt

    progress = Progress(stream=io.StringIO(), terminal=True)
    trainer = LMTrainer(llama(), arguments(tmp_path, max_steps=4), MemoryLayout(rows(8)), callbacks=[progress, Stops()])
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert isinstance(progress.display, Terminal)
    assert progress.display._bar is None
