"""The lines that programs read, as the original writes them."""

import math
import re

import pytest
import torch

from lmtrain.recipes.gpt2_ft.log import Losses, evaluation_line, training_line
from lmtrain.recipes.gpt2_ft.order import Plan
from lmtrain.recipes.gpt2_ft.recorder import Intervals, Recorder


def test_lines_have_the_originals_words_and_widths() -> None:
    assert training_line(1, 100, 100, 0.0002, 52.1, [3.5, 3.25]) == (
        "| epoch   1 step      100 |    100 batches | lr 0.0002 | ms/batch 52.10 | loss  3.25 | avg loss  3.38 | "
        "ppl 29.22"
    )
    assert evaluation_line(2, 4000, 12.3, math.log(3), 2.9) == (
        "| Eval   2 at step     4000 | time: 12.30s | valid loss  1.10 | valid ppl  3.00 | best ppl  2.90 "
    )


def test_a_loss_beyond_all_floats_is_shown_and_ends_nothing() -> None:
    assert "ppl   inf" in training_line(1, 1, 1, 0.1, 1.0, [1000.0])
    assert "ppl   nan" in training_line(1, 1, 1, 0.1, 1.0, [math.nan])


def test_losses_are_read_once_and_kept() -> None:
    losses = Losses()
    losses.add(torch.tensor(1.5))
    assert losses.read() == [1.5]
    losses.add(torch.tensor(2.5))
    assert losses.read() == losses.read() == [1.5, 2.5]
    losses.start_over()
    assert losses.read() == []


class Events:
    """What a recorder does, in order."""

    def __init__(self, plan: Plan, intervals: Intervals) -> None:
        self.seen: list[str] = []
        self.time = 0.0
        self.recorder = Recorder(plan, intervals, self.evaluate, self.save, self.seen.append, clock=lambda: self.time)

    def evaluate(self, number: int) -> float:
        self.seen.append(f"evaluate {number}")
        return [0.0, math.log(3), math.log(2), math.log(4)][number]

    def save(self, number: int, everything: bool) -> None:
        self.seen.append(f"{'all' if everything else 'LoRA'} {number}")

    def run(self, begin: int, end: int) -> None:
        for number in range(begin, end + 1):
            self.time += 0.25
            self.recorder.after(number, 0.1, torch.tensor(float(number)))


def test_line_checkpoint_evaluation_and_then_the_epochs_end() -> None:
    events = Events(Plan(an_epoch=4, total=10, max_step=10), Intervals(log=2, save=2, evaluate=4))
    events.recorder.begin(0)
    events.run(1, 4)
    assert [line.split(" |")[0] for line in events.seen] == [
        "start to train the model................ 1",
        "| epoch   1 step        2", "LoRA 2",
        "| epoch   1 step        4", "evaluate 0", "-" * 100, "| Eval   1 at step        4", "-" * 100, "all 4",
        "start to train the model................ 2",
    ]  # fmt: skip
    assert "ms/batch 250.00" in events.seen[1]
    assert "loss  2.00 | avg loss  1.50" in events.seen[1]
    assert "loss  4.00 | avg loss  3.50" in events.seen[3]


def test_averages_and_the_best_begin_anew_with_the_epoch() -> None:
    events = Events(Plan(an_epoch=4, total=10, max_step=10), Intervals(log=3, save=99, evaluate=3))
    events.recorder.begin(0)
    events.run(1, 10)
    lines = [line for line in events.seen if line.startswith("| epoch")]
    assert [float(re.findall(r"avg loss\s+([\d.]+)", line)[0]) for line in lines] == [2.0, 5.5, 9.0]  # not of 4, 5, 6
    assert [float(re.findall(r"best ppl\s+([\d.]+)", line)[0]) for line in events.seen if "Eval" in line] == [1, 3, 2]
    assert [line for line in events.seen if line.startswith(("all", "LoRA"))] == ["all 4", "all 8", "all 10"]


@pytest.mark.parametrize("stopped", [3, 4, 5])
def test_a_recorder_goes_on_where_another_stopped(stopped: int) -> None:
    straight = Events(Plan(4, 10, 10), Intervals(log=2, save=99, evaluate=3))
    straight.recorder.begin(0)
    straight.run(1, stopped)
    before = len(straight.seen)
    other = Events(Plan(4, 10, 10), Intervals(log=2, save=99, evaluate=3))
    other.recorder.restore(straight.recorder.state())
    other.recorder.begin(stopped)
    straight.run(stopped + 1, 10)
    other.run(stopped + 1, 10)
    timed = re.compile(r"ms/batch +[\d.]+|time: +[\d.]+s")
    said = [[timed.sub("", line) for line in lines] for lines in (straight.seen[before:], other.seen[1:])]
    assert said[0] == said[1]
