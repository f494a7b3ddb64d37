"""An S3-compatible server on loopback, for as long as a test needs it, that can be made to fail.

moto's server (https://docs.getmoto.org, Apache-2.0) keeps objects in memory and asks nothing of the network. In front
of it stands a WSGI layer that counts requests, goes silent, spoils bytes, or refuses.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

SECRET = "wJalrXUtnFEMIexampleKEY"
KEY_ID = "AKIAEXAMPLEKEYID"
BUCKET = "corpora"


class Storage:
    """A server with one bucket. ``answer`` stands between: (path, answer) → answer; None lets everything through."""

    def __init__(self, endpoint: str, client: Any) -> None:
        self.endpoint = endpoint
        self.client = client
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        self.refuses: str | None = None  # an error code of S3, given for every object
        self.failing: Callable[[str, str], bool] = lambda method, path: False  # answers 503

    def put(self, key: str, data: bytes) -> str:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def names(self, prefix: str = "") -> list[str]:
        found = self.client.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return sorted(each["Key"] for each in found)

    def put_folder(self, folder: Path, prefix: str) -> str:
        for file in folder.iterdir():
            self.put(f"{prefix}/{file.name}", file.read_bytes())
        return f"s3://{BUCKET}/{prefix}"

    def of_tokens(self) -> list[str]:
        """The ranges of tokens.bin that were read."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith("tokens.bin")]


_SAYS = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
    "<Message>The AWS Access Key Id you provided does not exist in our records.</Message>"
    "<AWSAccessKeyId>{key}</AWSAccessKeyId></Error>"
)


class _InFront:
    def __init__(self, app: Any, storage: list[Storage]) -> None:
        self.app, self._storage = app, storage

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        if not self._storage:
            return self.app(environ, start)
        here, method, path = self._storage[0], environ["REQUEST_METHOD"], environ["PATH_INFO"]
        is_ours = "boto3" not in environ.get("HTTP_USER_AGENT", "").lower()
        here.requests.append((method, path, environ.get("HTTP_RANGE", "")) if is_ours else ("", "", ""))
        if is_ours and here.failing(method, path):
            start("503 Service Unavailable", [("Content-Length", "0")])
            return [b""]
        if is_ours and here.refuses:
            text = _SAYS.format(code=here.refuses, key=KEY_ID).encode()
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
            return [b"" if method == "HEAD" else text]
        return self.app(environ, start)


@contextmanager
def object_storage() -> Iterator[Storage]:
    """A server, and the environment that leads there; skips where moto or s3fs is missing."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    import boto3
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    known: list[Storage] = []
    app = _InFront(server_module.DomainDispatcherApplication(server_module.create_backend_app), known)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    setting = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in setting}
    os.environ.update(setting)
    try:
        client = boto3.client("s3")
        with urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")):  # what an earlier server held
            pass
        client.create_bucket(Bucket=BUCKET)
        storage = Storage(endpoint, client)
        known.append(storage)
        yield storage
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        import fsspec

        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.shutdown()
        server.server_close()
        thread.join()
