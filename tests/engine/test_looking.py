"""A look at each evaluation: once a step, on the first process, in a run that has begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState

from lmtrain.core.runlog import read_events
from lmtrain.engine.looking import Looking
from lmtrain.engine.runs.run_folder import METRICS, RunFolder
from tiny import arguments


class Seen:
    """What was looked at and said."""

    def __init__(self, folder: Path) -> None:
        self.models: list[Any] = []
        self.lines: list[tuple[str, str]] = []
        self.run = RunFolder(folder)
        self.looking = Looking(self._look, self.run, lambda topic, text: self.lines.append((topic, text)))
        self.args = arguments(folder)

    def _look(self, model: Any) -> list[dict[str, Any]]:
        self.models.append(model)
        return [
            {"index": 0, "prompt": "one\ntwo", "completion": "three " * 100},
            {"index": 1, "prompt": "", "completion": "x"},
        ]

    def evaluate(self, step: int, first: bool = True) -> None:
        state = TrainerState(global_step=step, is_world_process_zero=first)
        self.looking.on_evaluate(self.args, state, TrainerControl(), model=f"model of step {step}")


def test_once_a_step_on_the_first_process_of_a_run_that_has_begun(tmp_path: Path) -> None:
    seen = Seen(tmp_path)
    seen.evaluate(0)  # a rehearsal
    with seen.run:
        seen.evaluate(5)
        seen.evaluate(5)  # another data set
        seen.evaluate(7, first=False)
        seen.evaluate(9)
    assert seen.models == ["model of step 5", "model of step 9"]
    events = [event for event in read_events(tmp_path / METRICS) if event["event"] == "sample"]
    assert [(e["step"], e["index"], e["prompt"]) for e in events] == [
        (5, 0, "one\ntwo"), (5, 1, ""), (9, 0, "one\ntwo"), (9, 1, ""),
    ]  # fmt: skip
    assert events[0]["completion"] == "three " * 100, "whole, whatever is shown of it"
    [(topic, text), _] = seen.lines
    heading, first, second = text.split("\n")
    assert (topic, heading, second) == ("sample", "step 5", " ▸ x")
    assert first.startswith("one⏎two ▸ three three") and first.endswith("…") and len(first) == 110
