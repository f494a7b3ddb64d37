"""The report as a page that follows its runs: a server that only this machine can ask.

A page of some other site, open in the same browser, can have its name resolve to 127.0.0.1 (DNS rebinding) and then ask
as if it were at home. Its requests carry its own name, so every request must name this server: see :data:`HOSTS`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from lmtrain.core.errors import UserError
from lmtrain.report.page import content_of, page
from lmtrain.report.reading import Reader, Run, readers, state_now

ADDRESS: Final = "127.0.0.1"
PORT: Final = 8765
HOSTS: Final = (ADDRESS, "localhost")
_TRIES: Final = 20  # ports after PORT that are tried when none was asked for


class Live:
    """The newest state of the runs in some folders, read again where a file has changed.

    The folders are looked through each time: a recipe begins one training after the other.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = list(folders)
        self._lock = threading.Lock()
        self._stamp = ""
        self._readers: dict[tuple[Path, str], Reader] = {}
        self._runs: list[Run] = []
        self.look()

    def look(self) -> str:
        """A stamp that changes whenever the report does."""
        with self._lock:
            found = {(reader.path, reader.name): reader for reader in readers(self._folders)}
            self._readers = {key: self._readers.get(key, reader) for key, reader in found.items()}
            seen = "\n".join(f"{key} {reader.signature()}" for key, reader in self._readers.items())
            if self._stamped(seen) != self._stamp:
                self._runs = [reader.read() for reader in self._readers.values()]
                self._stamp = self._stamped(seen)
            return self._stamp

    def _stamped(self, seen: str) -> str:
        states = [state_now(run.status, run.history) for run in self._runs]  # a killed run changes no file
        return hashlib.sha256(f"{seen}\n{states}".encode()).hexdigest()[:16]

    def page(self) -> str:
        stamp = self.look()
        with self._lock:
            return page(self._runs, stamp=stamp)

    def news(self, since: str) -> str | None:
        """The content as JSON; None where ``since`` is the newest stamp."""
        stamp = self.look()
        if stamp == since:
            return None
        with self._lock:
            return json.dumps({**content_of(self._runs), "stamp": stamp}, ensure_ascii=False, allow_nan=False)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "lmtrain"
    sys_version = ""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in [f"{host}:{port}" for host in HOSTS]:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to 127.0.0.1 and localhost only.\n")
            return
        address = urlsplit(self.path)
        try:
            if address.path == "/":
                self._answer(HTTPStatus.OK, self.server.live.page(), "text/html")
            elif address.path == "/data.json":
                news = self.server.live.news(parse_qs(address.query).get("since", [""])[0])
                if news is None:
                    self._answer(HTTPStatus.NO_CONTENT, "")
                else:
                    self._answer(HTTPStatus.OK, news, "application/json")
            else:
                self._answer(HTTPStatus.NOT_FOUND, "There is only the report, at /.\n")
        except UserError as error:  # the folder was taken away while somebody looks
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")

    def _answer(self, status: HTTPStatus, text: str, kind: str = "text/plain") -> None:
        body = text.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a line for every question would hide what matters."""


class Server(ThreadingHTTPServer):
    """Serves ``live`` on the loopback interface, nothing else. ``port`` 0 takes any that is free."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        super().__init__((ADDRESS, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    def handle_error(self, *_: Any) -> None:
        """A browser that has gone away in the middle of an answer is no error."""


def serve(folders: Sequence[str], port: int | None = None) -> Server:
    """A server for the report of the runs in ``folders``, not yet at work: call ``serve_forever``.

    Without a ``port`` it takes :data:`PORT` or one of the next that are free. Raises :class:`UserError` when there is
    none, or the one asked for is taken.
    """
    live = Live(folders)
    for candidate in range(PORT, PORT + _TRIES) if port is None else (port,):
        try:
            return Server(live, candidate)
        except (OSError, OverflowError):
            continue
    taken = f"ports {PORT} to {PORT + _TRIES - 1} are" if port is None else f"port {port} is"
    raise UserError(f"{taken} taken or not to be had; name another, or 0 for any", flag="--port")
