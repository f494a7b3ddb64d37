"""Signals: at once where nothing is lost, after the step where something would be."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from lmtrain.core.errors import Interrupted
from lmtrain.core.stopping import SAME_MOMENT, Stop

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def stop(clock: Clock, said: list[str]) -> Iterator[Stop]:
    with Stop(clock=clock, say=lambda topic, text: said.append(text)).listening() as stop:
        yield stop


@pytest.mark.parametrize("number", SIGNALS)
def test_where_nothing_is_lost_it_ends_at_once(stop: Stop, number: int) -> None:
    with pytest.raises(Interrupted, match=signal.Signals(number).name):
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_in_training_the_first_is_only_noted(stop: Stop, said: list[str], number: int) -> None:
    with stop.deferred():
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked and stop.reason == signal.Signals(number).name
    assert len(said) == 1 and "saved first" in said[0]


def test_what_a_scheduler_sends_within_a_moment_is_one_request(stop: Stop, clock: Clock) -> None:
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        clock.now += SAME_MOMENT / 2
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason == "SIGTERM"


def test_a_second_deliberate_one_does_not_wait(stop: Stop, clock: Clock) -> None:
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        clock.now += SAME_MOMENT + 0.1
        with pytest.raises(Interrupted, match="second"):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(RuntimeError), Stop().listening():
        assert signal.getsignal(signal.SIGTERM) not in before
        raise RuntimeError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_what_nohup_ignores_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def listen() -> None:
        with Stop().listening():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert during == [before]


def test_the_time_leaves_room_for_what_comes_until_the_next_look_and_a_checkpoint(clock: Clock) -> None:
    said: list[str] = []
    stop = Stop(minutes=1, clock=clock, say=lambda topic, text: said.append(text))
    stop.begin_looking()
    asked_at = None
    for step in range(1, 100):
        clock.now += 2.0 if step == 5 else 1.0
        if stop.look(save_seconds=7.0 if step > 10 else 0.0):
            asked_at = clock.now
            break
    assert asked_at is not None and 60 - 9 <= asked_at < 60 - 9 + 1, "the slowest step took 2 s, the save 7"
    assert "1 min 00 s of --max_minutes" in str(stop.reason)


def test_a_save_is_no_part_of_what_comes_until_the_next_look(clock: Clock) -> None:
    stop = Stop(minutes=1, clock=clock)
    stop.begin_looking()
    for _ in range(3):
        clock.now += 1.0
        assert not stop.look(save_seconds=10.0)
        clock.now += 10.0
        stop.begin_looking()
    clock.now += 15.0  # 48 of 60 seconds, and 10 for a save: another one of 15 does not fit
    assert stop.look(save_seconds=10.0)


def test_without_a_limit_time_asks_for_nothing(clock: Clock) -> None:
    stop = Stop(clock=clock)
    stop.begin_looking()
    for _ in range(10):
        clock.now += 1e6
        assert not stop.look(1.0)


TIMED = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no such timer")


@TIMED
def test_where_nobody_looks_the_end_of_the_time_is_a_signal() -> None:
    began, before = time.monotonic(), signal.getsignal(signal.SIGALRM)
    with pytest.raises(Interrupted, match="--max_minutes are over"), Stop(minutes=0.002).listening():
        time.sleep(20)
    assert 0.1 < time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL)[0] == 0


@TIMED
def test_where_what_there_is_is_saved_first_the_end_of_the_time_is_noted(said: list[str]) -> None:
    with Stop(minutes=0.001, say=lambda topic, text: said.append(text)).listening() as stop, stop.deferred():
        until = time.monotonic() + 10
        while not stop.asked and time.monotonic() < until:
            time.sleep(0.01)
        assert "--max_minutes" in str(stop.reason) and len(said) == 1
        os.kill(os.getpid(), signal.SIGTERM)  # the first of the cluster: it leaves the checkpoint its time
    assert "once more" not in said[0] and "once more ends at once" in said[1] and len(said) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows starts processes anew")
def test_a_copy_of_the_process_leaves_signals_to_it(stop: Stop) -> None:
    """As a data loader's worker is one: in a terminal ^C reaches both."""
    child = os.fork()
    if not child:
        code = 1
        try:
            os.kill(os.getpid(), signal.SIGINT)
            code = 2 if stop.asked else 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not stop.asked
