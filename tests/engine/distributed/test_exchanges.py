"""What a process waits for when its own gradients are done, with an exchange whose length the test chooses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from lmtrain.engine.distributed.exchanges import Exchanges, _parameter_groups

CPU = torch.device("cpu")
LONG = 0.2  # seconds


def between(least: float, most: float, measured: Callable[[], float]) -> bool:
    """In one of a few looks: a machine with other work wakes nobody in time."""
    return any(least <= measured() <= most for _ in range(10))


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    if distributed.is_initialized():
        pytest.skip("a test before this one left its group")
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


def exchange_takes(model: DistributedDataParallel, seconds: float) -> None:
    """The exchange is over so many seconds after it was begun, while the pass goes on."""

    def hook(_, bucket):  # DDP looks at annotations, and knows no strings
        future = torch.futures.Future()
        threading.Timer(seconds, future.set_result, [bucket.buffer()]).start()
        return future

    model.register_comm_hook(None, hook)


def waited(exchanges: Exchanges, model: nn.Module, *, before: float = 0.0, behind: float = 0.0) -> float:
    """Seconds waited in a step whose backward pass sleeps ``before`` and ``behind`` its last exchange begins."""
    already = exchanges.seconds
    given = torch.ones(2, 4, requires_grad=True) * 1
    given.register_hook(lambda _: time.sleep(behind))
    hidden = model(given)
    hidden.register_hook(lambda _: time.sleep(before))
    loss = hidden.sum()
    exchanges.watch_backward(loss)
    loss.backward()
    return exchanges.seconds - already


@pytest.mark.usefixtures("group")
def test_what_is_waited_for_is_the_exchange_and_not_the_pass() -> None:
    plain, ddp = nn.Linear(4, 3), DistributedDataParallel(nn.Linear(4, 3))
    exchange_takes(ddp, LONG)
    exchanges = Exchanges(CPU)
    assert between(LONG * 0.9, LONG * 1.5, lambda: waited(exchanges, ddp, before=LONG))
    nothing = between(0, LONG / 4, lambda: waited(exchanges, plain, before=LONG))
    assert nothing, "a pass without an exchange waits for none"
    with torch.no_grad():
        exchanges.watch_backward(plain(torch.ones(2, 4)).sum())  # an evaluation's


@pytest.mark.usefixtures("group")
def test_an_exchange_that_the_pass_hides_costs_nothing() -> None:
    ddp = DistributedDataParallel(nn.Linear(4, 3))
    exchange_takes(ddp, LONG)
    exchanges = Exchanges(CPU)
    half = between(LONG / 4, LONG * 3 / 4, lambda: waited(exchanges, ddp, behind=LONG / 2))
    assert half, "half of it is hidden"
    assert between(0, LONG / 4, lambda: waited(exchanges, ddp, behind=2 * LONG)), "all of it is"


@pytest.mark.usefixtures("group")
def test_buffers_are_watched_where_there_are_some_and_the_model_is_left_alone_afterwards() -> None:
    model = nn.BatchNorm1d(4)
    ddp = DistributedDataParallel(model)
    exchanges = Exchanges(CPU)
    exchanges.watch_forward(ddp)
    exchanges.watch_forward(ddp)
    assert len(ddp._forward_pre_hooks) == len(model._forward_pre_hooks) == 1
    began = time.perf_counter()
    with exchanges.step(ddp):
        ddp(torch.ones(2, 4))
        assert 0 < exchanges.seconds < time.perf_counter() - began
        before = exchanges.seconds
        model(torch.ones(2, 4))
    ddp(torch.ones(2, 4))
    assert exchanges.seconds == before, "no exchange without DDP around it, none that counts outside of a step"
    exchanges.leave()
    assert not ddp._forward_pre_hooks and not model._forward_pre_hooks
    exchanges.watch_forward(DistributedDataParallel(nn.Linear(4, 4)))
    assert not exchanges._hooks, "nothing to send"


@pytest.mark.usefixtures("group")
def test_of_a_sharded_model_the_wait_for_the_last_gradients_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for part in (*model, model):
        fully_shard(part, mesh=init_device_mesh("cpu", (1,)))
    (kind,) = {type(group) for group in _parameter_groups(model)}
    finalize = kind.finalize_backward

    def slow(group: Any) -> None:
        finalize(group)
        now[0] += 1

    monkeypatch.setattr(kind, "finalize_backward", slow)
    exchanges = Exchanges(CPU, lambda: now[0])
    with exchanges.step(model):
        model(torch.ones(2, 4)).sum().backward()
    assert exchanges.seconds == now[0] > 0
    exchanges.leave()
    model(torch.ones(2, 4)).sum().backward()
    assert exchanges.seconds < now[0], "its methods are its own again"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_events_tell_without_holding_python_up() -> None:
    exchanges, started = Exchanges(torch.device("cuda")), time.perf_counter()
    with exchanges.waiting():
        torch.cuda._sleep(int(2e9))  # about a second of the stream's time
    assert time.perf_counter() - started < 0.2
    assert exchanges.seconds > 0.5


def test_a_block_is_counted() -> None:
    exchanges, began = Exchanges(CPU), time.perf_counter()
    for _ in range(2):
        with exchanges.waiting():
            time.sleep(0.05)
    assert 0.1 <= exchanges.seconds <= time.perf_counter() - began
