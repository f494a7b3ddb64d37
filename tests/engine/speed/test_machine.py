"""The machine's measured peak."""

from __future__ import annotations

import time

import pytest
import torch

from lmtrain.engine.speed import machine
from lmtrain.engine.speed.machine import Peak, _measured, best_device, peak_of

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.mark.parametrize(("said", "device"), [("", "cuda"), ("false", "cuda"), ("true", "cpu")])
def test_a_gpu_is_left_alone_when_the_launcher_says_so(said: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``accelerate launch --cpu``, which the Trainer heeds: what is decided for a GPU would be for another machine."""
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", said)
    assert best_device().type == device and best_device(use_cpu=True).type == "cpu"


def test_no_product_of_one_s_own_is_much_faster() -> None:
    """In one of a few looks: another program may have had the core during the rest."""
    assert any(0.3 < best_product() / measured().flops < 2 for _ in range(10))
    peak = measured()
    assert (peak.precision, peak.device, peak.threads) == ("fp32", "cpu", torch.get_num_threads())


def measured() -> Peak:
    _measured.cache_clear()
    return peak_of(CPU, "fp32")


def best_product() -> float:
    """Operations a second."""
    left, best = torch.randn(512, 512), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        torch.mm(left, left)
        best = min(best, time.perf_counter() - start)
    return 2 * 512**3 / best


def test_measuring_is_quick_and_done_once() -> None:
    _measured.cache_clear()
    start = time.process_time()
    first = peak_of(CPU, "fp32")
    assert time.process_time() - start < 10  # 0.3 s of one core
    assert peak_of(CPU, "fp32") is first and _measured.cache_info().misses == 1


@pytest.mark.parametrize(("flops", "side"), [(700e12, 8192), (5e12, 4096)])
def test_a_fast_machine_is_measured_on_large_products(flops: float, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its libraries take to begin; on small ones a GPU is waited for longer than it computes."""
    now = [0.0]

    class Product:
        begun = False

        def __init__(self, side: int, *_: object) -> None:
            self.side = side
            now[0] += 0.005 if Product.begun else 1.0
            Product.begun = True

        def seconds(self) -> float:
            taken = 2 * self.side**3 / flops + 2e-5
            now[0] += taken
            return taken

    monkeypatch.setattr(machine, "_Product", Product)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])
    _measured.cache_clear()
    found = peak_of(torch.device("cuda"), "bf16")
    _measured.cache_clear()
    assert found.side == side and found.flops == pytest.approx(flops, rel=0.02)


def test_the_run_s_random_stream_is_left_alone() -> None:
    _measured.cache_clear()
    state = torch.get_rng_state()
    peak_of(CPU, "fp32")
    assert torch.equal(state, torch.get_rng_state())


def test_a_run_keeps_its_yardstick_while_the_conditions_are_the_same() -> None:
    threads = torch.get_num_threads()
    before = Peak(1e15, "fp32", "cpu", threads, 1024)
    assert peak_of(CPU, "fp32", before.as_dict()) == before
    for changed in ({"threads": threads + 1}, {"precision": "bf16"}, {"device": "cuda"}, {"flops": None, "new": 1}):
        assert peak_of(CPU, "fp32", {**before.as_dict(), **changed}).flops < 1e14
