"""A session over a pipe, line by line. In a terminal: tests/e2e/test_generate_session.py."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable

import pytest

from lmtrain.core.errors import UserError
from lmtrain.generate.interactive import session


def talk(monkeypatch: pytest.MonkeyPatch, text: str, answer: Callable[[str, Callable[[], bool]], object]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    session(answer)


def test_each_line_is_a_prompt_until_the_end_or_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    talk(monkeypatch, "one \r\n\n  \n  two\n /quit \nthree\n", lambda prompt, _: heard.append(prompt))
    assert heard == ["one ", "  two"]
    talk(monkeypatch, "three\nfour", lambda prompt, _: heard.append(prompt))
    assert heard[2:] == ["three", "four"]


def test_the_sign_of_a_terminal_is_not_among_answers_that_go_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("one\n"))
    session(lambda prompt, _: print(prompt.upper()))
    printed, said = capsys.readouterr()
    assert printed == "ONE\n" and said.count("> ") == 2


def test_what_is_wrong_with_a_prompt_is_said_and_the_session_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[str] = []

    def answer(prompt: str, _: Callable[[], bool]) -> None:
        if prompt == "bad":
            raise UserError("cannot be used", flag="--prompt")
        heard.append(prompt)

    talk(monkeypatch, "one\nbad\ntwo\n", answer)
    assert heard == ["one", "two"] and capsys.readouterr() == ("", "cannot be used\n")


def test_ctrl_c_is_told_to_the_answer_and_only_to_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    asked: list[bool] = []

    def answer(prompt: str, is_asked: Callable[[], bool]) -> None:
        if prompt == "long":
            os.kill(os.getpid(), signal.SIGINT)
        asked.append(is_asked())

    talk(monkeypatch, "long\nnext\n", answer)
    assert asked == [True, False] and signal.getsignal(signal.SIGINT) is before


def test_twice_it_interrupts_as_always(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)

    def answer(prompt: str, is_asked: Callable[[], bool]) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        talk(monkeypatch, "long\n", answer)
    assert signal.getsignal(signal.SIGINT) is before
