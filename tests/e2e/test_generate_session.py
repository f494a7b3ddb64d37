"""``lmtrain generate --interactive`` and ``--stream`` as processes of their own: over a pipe and in a terminal."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from pathlib import Path

import pytest

import forked
from tiny_models import SMALL, checkpoint

COMMAND = ["-m", "lmtrain", "generate", "--use_cpu", "--model_name_or_path"]
CTRL_C, CTRL_D = b"\x03", b"\x04"
pytestmark = pytest.mark.slow  # each process imports torch and transformers
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals and no SIGINT there")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return checkpoint("gpt2", tmp_path_factory.mktemp("gpt2") / "c")


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with room for so long a text that it can be interrupted in the middle."""
    before, SMALL["gpt2"] = SMALL["gpt2"], "n_embd=32,n_layer=2,n_head=4,n_positions=200000"
    try:
        return checkpoint("gpt2", tmp_path_factory.mktemp("endless") / "c")
    finally:
        SMALL["gpt2"] = before


def run(*words: str, text: str = "") -> str:
    done = forked.run([*COMMAND, *words], text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_piped_session_answers_as_one_call_does(gpt2: str) -> None:
    """The same prompt again is another sample here as there."""
    prompts = ["The fox", "a", "The fox"]
    text = "\n\n".join(prompts) + "\n/quit\nnever\n"
    session = run(gpt2, "--interactive", "--max_new_tokens", "6", text=text)
    records = [json.loads(line) for line in run(gpt2, "--json", "--max_new_tokens", "6", *prompts).splitlines()]
    assert session == "".join(f"{r['prompt']}{r['completion']}\n" for r in records)
    assert records[0]["completion"] != records[2]["completion"]


@POSIX
def test_a_session_outlives_a_bad_prompt_and_answers_line_by_line(gpt2: str, tmp_path: Path) -> None:
    """The other side may wait for an answer before it writes the next prompt."""
    os.mkfifo(tmp_path / "prompts")
    process = forked.Forked(
        [*COMMAND, gpt2, "--interactive", "--json", "--max_new_tokens", "4"], text=tmp_path / "prompts"
    )
    until = time.monotonic() + 120
    with (tmp_path / "prompts").open("w", buffering=1) as prompts:
        for prompt, answered in (("The fox", 1), ("a fox " * 60, 1), ("a dog", 2)):
            prompts.write(f"{prompt}\n")
            while process.output(0).count("\n") < answered:
                assert process.poll() is None and time.monotonic() < until, process.output(-1)
                time.sleep(0.01)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [(a["index"], a["prompt"], a["tokens"]) for a in answers] == [(0, "The fox", 4), (2, "a dog", 4)]
    [line] = [line for line in errors.splitlines() if "leaves no room" in line]
    assert "has 121 tokens" in line and "48 positions" in line and "Traceback" not in errors


@POSIX
def test_text_is_streamed_while_it_is_written_and_is_what_a_call_without_gives(endless: str, tmp_path: Path) -> None:
    whole = run(endless, "--max_new_tokens", "400", "The fox").encode()
    os.mkfifo(tmp_path / "pipe")
    process = forked.Forked(
        [*COMMAND, endless, "--stream", "--max_new_tokens", "400", "The fox"], out=tmp_path / "pipe"
    )
    with (tmp_path / "pipe").open("rb", buffering=0) as pipe:
        pieces = []
        while piece := pipe.read(1 << 16):
            pieces.append(piece)
            piece.decode()  # each is whole characters
    assert process.wait(60) == 0 and b"".join(pieces) == whole
    assert len(pieces) > 20, "it came all at once"


@POSIX
def test_in_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_the_session(endless: str) -> None:
    import pty

    ours, theirs = pty.openpty()
    process = forked.Forked(
        [*COMMAND, endless, "--interactive", "--max_new_tokens", "190000"],
        env={**os.environ, "TERM": "dumb"}, terminal=os.ttyname(theirs),
    )  # fmt: skip
    screen = Screen(ours)
    try:
        assert b"Ctrl-D or /quit ends" in screen.until(b"> ")
        os.write(ours, b"The fox\n")
        screen.until(b"The fox\r\nThe fox")  # as typed, and at the head of what is written
        screen.more(200)
        os.write(ours, CTRL_C)
        screen.until(b"(stopped)")
        screen.until(b"> ")
        # While nothing is written: a hint, and the session goes on. Python's readline does not see what comes between
        # the sign and its waiting for a key, so it is pressed until it is seen.
        screen.until(b"Ctrl-D or /quit ends", press=CTRL_C)
        screen.until(b"> ")
        os.write(ours, CTRL_D)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


class Screen:
    """What a terminal shows, read as far as a test needs."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._seen = b""

    def until(self, words: bytes, press: bytes = b"") -> bytes:
        """All up to ``words``; what comes behind them is left for the next call. ``press``: every two seconds."""
        while words not in self._seen:
            while press and not select.select([self._terminal], [], [], 0)[0]:
                os.write(self._terminal, press)
                select.select([self._terminal], [], [], 2)
            self._read()
        before, _, self._seen = self._seen.partition(words)
        return before

    def more(self, count: int) -> None:
        """Wait for so many bytes."""
        self._seen = b""
        while len(self._seen) < count:
            self._read()

    def _read(self) -> None:
        ready, _, _ = select.select([self._terminal], [], [], 60)
        assert ready, f"nothing more came after {self._seen[-500:]!r}"
        self._seen += os.read(self._terminal, 1 << 16)
