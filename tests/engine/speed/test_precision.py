import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmtrain.core.errors import UserError
from lmtrain.engine.parts import _precision
from lmtrain.engine.speed import precision
from lmtrain.engine.speed.precision import Decision, choose_precision, compute_dtype
from lmtrain.models.formats import FORMATS, products_in
from parsing import parse_training

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert choose_precision("fp32", CPU).arguments == {"bf16": False, "fp16": False}
    assert choose_precision("bf16", CPU).arguments == {"bf16": True, "fp16": False}


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
def test_a_name_stands_for_one_format(name: str) -> None:
    with products_in(name, CPU):
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    asked = SimpleNamespace(bf16=name == "bf16", fp16=name == "fp16")
    assert made.dtype == FORMATS[name] == compute_dtype(asked, torch.nn.Linear(2, 2))
    assert precision.precision_of(asked, torch.nn.Linear(2, 2)) == name
    assert compute_dtype(asked, torch.nn.Linear(2, 2).double()) == (torch.float64 if name == "fp32" else made.dtype)
    held = torch.nn.Linear(2, 2).to(FORMATS[name])
    assert precision.precision_of(SimpleNamespace(bf16=False, fp16=False), held) == name, "as the weights are held"


def test_fp16_on_a_cpu_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"--precision: fp16 .* CPU"):
        choose_precision("fp16", CPU)
    with pytest.raises(UserError, match=r"--fp16: fp16 .* CPU.*leave it out"):
        choose_precision("fp16", CPU, "--fp16", "leave it out")
    with pytest.raises(UserError, match="fp8 is not one of"):
        choose_precision("fp8", CPU)


def test_auto_decides_on_this_machine_in_fifty_milliseconds() -> None:
    torch.mm(torch.ones(8, 8), torch.ones(8, 8))
    seconds = []
    for _ in range(5):  # the best one counts: others may be working on this machine
        start = time.perf_counter()
        decision = choose_precision("auto", CPU)
        seconds.append(time.perf_counter() - start)
        assert decision.name in ("fp32", "bf16")
        assert "CPU" in decision.reason
    if not precision._cpu_has_bf16():
        assert decision.name == "fp32" and min(seconds) < 0.05


@pytest.mark.parametrize(("fp32", "bf16", "name"), [(4.0, 1.0, "bf16"), (1.2, 1.0, "fp32"), (1.0, 9.0, "fp32")])
def test_a_cpu_that_claims_bf16_must_show_it(monkeypatch, fp32: float, bf16: float, name: str) -> None:
    """The measured times are given here: no machine of the tests has all three kinds of CPU."""
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_seconds", {torch.float32: fp32, torch.bfloat16: bf16}.__getitem__)
    decision = choose_precision("auto", CPU)
    assert decision.name == name
    assert f"{fp32 / bf16:.1f}×" in decision.reason


def test_the_measurement_keeps_its_budget() -> None:
    seconds = []
    for _ in range(5):  # the best one counts: others may be working on this machine
        start = time.perf_counter()
        product = precision._seconds(torch.float32)
        seconds.append((time.perf_counter() - start, product))
    whole, product = min(seconds)
    assert 0 < product < 0.05 and whole < 0.1


def test_processes_of_one_run_do_not_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement near the threshold would come out differently on two ranks, and they would drift apart."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "_seconds", lambda dtype: pytest.fail("measured"))
    assert precision.choose_precision("auto", torch.device("cpu")).name == "bf16"


@pytest.mark.parametrize("words", [["--bf16", "false"], ["--no_bf16"], ["--config", "run.json"]])
def test_a_no_to_bf16_is_heard_by_auto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.json").write_text('{"bf16": false}')
    Path("a.txt").write_text("text")
    base = ["--model_name_or_path", "m", "--train_file", "a.txt", "--output_dir", "out"]
    monkeypatch.setattr(precision, "_automatic", lambda device: Decision("bf16", "fast at it"))
    free, asked = parse_training("clm", base), parse_training("clm", [*base, *words])
    assert _precision(free, CPU, {}).name == "bf16"
    assert _precision(asked, CPU, {}) == Decision("fp32", "bf16 is switched off")
    began = {"precision": {"choice": "bf16"}}
    assert _precision(asked, CPU, began).name == "bf16", "a run goes on as it began"
