"""A stand-in for the hub on this machine: as much of its HTTP interface as an upload asks for.

It keeps repositories in memory and can be told to fail at any one request: with a status, or by closing the connection
in the middle of what is being sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "hf_secretsecretsecret"  # of user "me", who belongs to "org" and may only read in "museum"
READING, UNKNOWN = "hf_readreadread", "hf_unknownunknown"
FINE_WITHOUT = "hf_finewithoutwriting"
ACCESS = {
    TOKEN: {"role": "write"},
    READING: {"role": "read"},
    FINE_WITHOUT: {"role": "fineGrained", "fineGrained": {"scoped": [{"permissions": ["repo.content.read"]}]}},
}


@dataclass
class Repository:
    private: bool = False
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: int = 0


@dataclass
class Hub:
    """``fail``: the part of a path (``"/commit/"``) and a status, or 0 for a connection that is closed."""

    port: int = 0
    repositories: dict[str, Repository] = field(default_factory=dict)
    closed: frozenset[str] = frozenset()  # repositories that may not be written to
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fail: tuple[str, int] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take_the_place(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        """Of the hub, for the library in this process, which has no token and does not wait between attempts."""
        from huggingface_hub import constants
        from huggingface_hub.utils import _http

        patch.setattr(constants, "ENDPOINT", self.endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
        patch.setattr(_http.time, "sleep", lambda seconds: None)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        path, _, _ = path.partition("?")
        if path == "/":
            return 200, {}
        if path.startswith("/blobs/"):  # signed addresses need no token
            if hashlib.sha256(body).hexdigest() != path.split("/")[-1]:
                return 400, {"error": "the bytes are not those of the hash"}
            self.blobs[path.split("/")[-1]] = body
            return 200, {}
        if token not in ACCESS:
            return 401, {"error": "Invalid credentials"}
        if path == "/api/whoami-v2":
            orgs = [{"name": "org", "roleInOrg": "write"}, {"name": "museum", "roleInOrg": "read"}]
            return 200, {"name": "me", "orgs": orgs, "auth": {"accessToken": ACCESS[token]}}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self.lfs(one) for one in json.loads(body)["objects"]]}
        _, _, kind, owner, name, *rest = path.split("/")
        assert kind == "models", path
        return self.of_repository(method, f"{owner}/{name}", rest, body)

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        answer = {"url": f"{self.endpoint}/{name}", "name": name}
        if name in self.repositories:
            return 409, answer
        self.repositories[name] = Repository(private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return 200, answer

    def lfs(self, asked: dict[str, Any]) -> dict[str, Any]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] not in self.blobs:
            answer["actions"] = {"upload": {"href": f"{self.endpoint}/blobs/{asked['oid']}"}}
        return answer

    def of_repository(self, method: str, name: str, rest: list[str], body: bytes) -> tuple[int, Any]:
        found = self.repositories.get(name)
        if found is None:
            return 404, {"error": "Repository not found"}
        what = rest[0] if rest else "revision"
        if what == "auth-check":
            return (403 if rest[1:] and name in self.closed else 200), {}
        if what == "branch":
            found.branches.setdefault(rest[1], dict(found.branches["main"]))
            return 200, {}
        files = found.branches.get(rest[1] if rest[1:] else "main")
        if files is None:
            return 404, {"error": "Revision not found"}
        if what == "tree":
            return 200, [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()]
        if what == "revision":
            return 200, {"id": name, "modelId": name, "sha": "0" * 40, "siblings": [{"rfilename": p} for p in files]}
        if what == "preupload":
            return 200, {"files": [self.mode(one, files) for one in json.loads(body)["files"]]}
        assert what == "commit", rest
        if name in self.closed:
            return 403, {"error": "You may not write here"}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.blobs[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        found.commits += 1
        oid = hashlib.sha1(body).hexdigest()
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.endpoint}/{name}/commit/{oid}"}

    @staticmethod
    def mode(asked: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
        path = asked["path"]
        large = path.endswith((".safetensors", ".bin"))
        oid = None
        if path in files:
            data = files[path]
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            oid = hashlib.sha256(data).hexdigest() if large else git
        return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path}")
        failing = hub.fail is not None and hub.fail[0] in self.path
        length = int(self.headers.get("Content-Length") or 0)
        if failing and hub.fail and hub.fail[1] == 0:
            self.rfile.read(length // 2)
            self.close_connection = True
            self.connection.close()
            return
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(length)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if failing and hub.fail:
            status, answer = hub.fail[1], {"error": "told to fail"}
        else:
            status, answer = hub.answer(self.command, self.path, token, body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815 -- the names that http.server calls

    def log_message(self, *_: Any) -> None:
        """Not in the output of tests."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at ``endpoint`` until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a connection that was closed on purpose
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
