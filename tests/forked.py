"""Python programs started by a fork of an interpreter that has imported the libraries already.

``python -m lmtrain ...`` spends five seconds of processor time on imports before it does anything. Tests that need
real processes (several ranks, signals, SIGKILL) and not the interpreter's own start fork theirs from one server that
has paid for the imports once. What a process does, its descriptors, environment, signals and exit code are its own.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import wait
from multiprocessing.forkserver import ForkServer
from pathlib import Path
from typing import Any

_IMPORTED = [
    "as_commands_do",
    "torch", "transformers.trainer", "transformers.models.gpt2.modeling_gpt2", "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama", "transformers.models.roberta.modeling_roberta",
    "transformers.models.distilbert.modeling_distilbert", "peft", "fastokens", "torch.utils.serialization",
    "lmtrain.cli.main", "lmtrain.cli.arguments", "lmtrain.cli.training", "lmtrain.recipes.whole_training",
    "lmtrain.engine.assembly", "lmtrain.rehearsal.rehearse", "worked_out",
]  # fmt: skip
_context = get_context("forkserver")
_context.set_forkserver_preload(_IMPORTED)
Ended = subprocess.CompletedProcess[str]


class Forked:
    """``subprocess.Popen([sys.executable, *words], text=True)`` as far as tests need it.

    Output goes to files, which may be read meanwhile; ``communicate`` returns (standard output, standard error).
    """

    def __init__(
        self,
        words: Sequence[object],
        *,
        said: Path | None = None,
        out: Path | None = None,
        server: ForkServer | None = None,
        **where: Any,
    ) -> None:
        """``server``: one that has imported something else (:func:`server_with`). ``where``:
        the ``env``, ``cwd`` and ``text`` (standard input; a path is read from) or ``terminal`` (its
        name: input and outputs, and its keys are signals); ``said``: a file that takes both outputs, ``out`` what takes
        standard output."""
        self.args = [str(word) for word in words]
        if said:
            said.touch()  # it may be read before the process has opened it
        self._outputs = [said] if said else [out or _new_file(), _new_file()]
        self._process: Any = _context.Process(target=_Program(self.args, self._outputs, **where))
        with nullcontext() if server is None else _served_by(server):
            _start(self._process)
        self.pid = int(self._process.pid)

    @property
    def sentinel(self) -> int:
        """What :func:`multiprocessing.connection.wait` waits for."""
        return int(self._process.sentinel)

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0, *map(self.output, (0, -1)))
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self.wait(timeout)
        return self.output(0), self.output(-1)

    def output(self, stream: int) -> str:
        """What was written so far: standard output (0) or standard error (-1)."""
        return self._outputs[stream].read_text(encoding="utf-8", errors="replace")


def server_with(first: str) -> ForkServer:
    """A server of its own, which imports the module ``first`` before torch."""
    server = ForkServer()
    server.set_forkserver_preload([*_IMPORTED[:1], first, *_IMPORTED[1:]])
    return server


@contextmanager
def _served_by(server: ForkServer) -> Iterator[None]:
    usual = forkserver.connect_to_new_process
    forkserver.connect_to_new_process = server.connect_to_new_process
    try:
        yield
    finally:
        forkserver.connect_to_new_process = usual


class _Program:
    """What the forked interpreter becomes."""

    def __init__(
        self,
        words: list[str],
        outputs: list[Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        text: str | Path = "",
        terminal: str = "",
    ) -> None:
        self.words, self.outputs, self.terminal = words, outputs, terminal
        self.input = text if isinstance(text, Path) else _new_file(text)
        self.environment = dict(os.environ if env is None else env)
        self.folder = str(cwd or Path.cwd())

    def __call__(self) -> None:
        gc.freeze()  # what was imported, which stays shared with the server where nobody looks for garbage in it
        if self.terminal:
            os.login_tty(os.open(self.terminal, os.O_RDWR))
        else:
            self._open()
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
        sys.stdout, sys.stderr = (  # the first kept back until it is flushed, but on a terminal
            os.fdopen(n, "w", encoding="utf-8", closefd=False, buffering=b) for n, b in ((1, -1), (2, 1))
        )
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        first, *rest = self.words
        paths = [path for path in self.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
        sys.path[:] = dict.fromkeys([self.folder if first == "-m" else str(Path(first).parent), *paths, *sys.path])
        importlib.invalidate_caches()
        if first == "-m":
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = self.words
            runpy.run_path(first, run_name="__main__")

    def _open(self) -> None:
        for number, path in enumerate((self.input, self.outputs[0], self.outputs[-1])):
            stream = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(stream, number)
            os.close(stream)


def run(words: Sequence[object], *, timeout: float = 300, **where: Any) -> Ended:
    """``subprocess.run([sys.executable, *words], capture_output=True, text=True)``."""
    return _end([Forked(words, **where)], timeout)[0]


def ranks(
    words: Sequence[object],
    count: int,
    *,
    env: Mapping[str, str] | None = None,
    own: Sequence[Mapping[str, str]] | None = None,
    **where: Any,
) -> list[Forked]:
    """The processes of a launcher, without a launcher that would end the others when one ends.

    ``own``: what each has in its environment alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    common = {**(os.environ if env is None else env), **group}
    return [
        Forked(words, env={**common, "RANK": str(n), "LOCAL_RANK": str(n), **(own[n] if own else {})}, **where)
        for n in range(count)
    ]


def run_ranks(words: Sequence[object], count: int, *, timeout: float = 300, **where: Any) -> list[Ended]:
    """How ``count`` processes end, by rank; when one fails the others are ended, as a launcher does."""
    return _end(ranks(words, count, **where) if count > 1 else [Forked(words, **where)], timeout)


def _end(processes: list[Forked], timeout: float) -> list[Ended]:
    running = {process.sentinel: process for process in processes}
    try:
        while running:
            ended: Any = wait(list(running), timeout)
            if not ended or any(running.pop(sentinel).wait() for sentinel in ended):
                break
    finally:
        for process in running.values():
            process.kill()
    return [subprocess.CompletedProcess(p.args, p.wait(), *p.communicate()) for p in processes]


@cache  # at the first use: a forked program imports this file too, and its end removes nothing
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="lmtrain-tests-")


def _new_file(text: str = "") -> Path:
    descriptor, name = tempfile.mkstemp(dir=_folder().name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return Path(name)


def _start(process: Any) -> None:
    """The server is started with the first process, and what the libraries read when imported is settled then."""
    paths = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    settled = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    before = {name: os.environ.get(name) for name in settled}
    os.environ.update(settled)
    try:
        process.start()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
