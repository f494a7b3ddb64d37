from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_folders import finished, recipe, run_folder, steady, text_of, train

from lmtrain.core.errors import UserError
from lmtrain.report import Server, serve
from lmtrain.report.live import Live


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / "book", text_of(list(steady(20))[:-1]))
    (folder / "status.json").write_text(
        json.dumps({"state": "training", "pid": os.getpid(), "updated": time.time(), "step": 0})
    )
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with serve([str(folder)], 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: Server, path: str = "/", host: str | None = None) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    named = f"127.0.0.1:{server.server_address[1]}" if host is None else host
    connection.request("GET", path, headers={"Host": named})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), answer.headers
    connection.close()
    return found


def test_the_page_may_ask_its_own_server_only(server: Server) -> None:
    code, text, headers = ask(server)
    assert code == 200 and "connect-src &#x27;self&#x27;" in text and '"stamp":"' in text
    assert headers["Cache-Control"] == "no-store" and "Access-Control-Allow-Origin" not in headers
    assert server.server_address[0] == "127.0.0.1"


def test_news_come_when_there_are_some(server: Server, folder: Path) -> None:
    code, text, _ = ask(server, "/data.json")
    news = json.loads(text)
    assert code == 200 and news["working"] and len(news["drawing"]["runs"][0]["tables"]["train"]["step"]) == 20
    assert ask(server, f"/data.json?since={news['stamp']}")[:2] == (204, "")
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(text_of([train(21)]))
    code, text, _ = ask(server, f"/data.json?since={news['stamp']}")
    newer = json.loads(text)
    assert code == 200 and newer["stamp"] != news["stamp"]
    assert newer["drawing"]["runs"][0]["tables"]["train"]["step"][-1] == 21
    (folder / "status.json").write_text(json.dumps({"state": "finished", "step": 21}))
    last = json.loads(ask(server, f"/data.json?since={newer['stamp']}")[1])
    assert not last["working"] and "finished" in last["sections"]["state"]


def test_trainings_that_a_recipe_begins_later_join(tmp_path: Path) -> None:
    folder = recipe(tmp_path / "e2e")
    for seed in ("seed-110", "seed-111"):
        (folder / seed).rename(tmp_path / seed)
    live, stamp, seen = Live([str(folder)]), "", []
    for seed in (None, "seed-110", "seed-111"):
        if seed is not None:
            (tmp_path / seed).rename(folder / seed)
        news = json.loads(live.news(stamp) or "{}")
        stamp = news["stamp"]
        seen.append([run["name"] for run in news["drawing"]["runs"]])
    assert seen == [["e2e"], ["e2e/seed-110"], ["e2e/seed-110", "e2e/seed-111"]]
    assert live.news(stamp) is None


def test_a_run_that_dies_without_a_word_shows_too(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes no file when it dies."""
    monkeypatch.setattr("lmtrain.report.reading._RECENT", 0.0)
    with subprocess.Popen(["sleep", "60"]) as process:
        (folder / "status.json").write_text(
            json.dumps({"state": "training", "pid": process.pid, "updated": time.time()})
        )
        news = json.loads(ask(server, "/data.json")[1])
        assert news["working"]
        process.kill()
    news = json.loads(ask(server, f"/data.json?since={news['stamp']}")[1])
    assert not news["working"] and "stopped without a word" in news["sections"]["state"]
    assert ask(server, f"/data.json?since={news['stamp']}")[:2] == (204, "")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1:1",
        "127.0.0.1",
        "",
        "[::1]:{port}",
        "x@127.0.0.1.evil.example:{port}",
        "127.0.0.1:port",
    ],
)
def test_other_names_are_refused(server: Server, host: str) -> None:
    """A site whose name resolves to 127.0.0.1 must not read the report."""
    port = server.server_address[1]
    code, text, _ = ask(server, "/data.json", host.format(port=port))
    assert code == 421 and "loss" not in text
    assert ask(server, "/", f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "path", ["/run.json", "/../run.json", "/metrics.jsonl", "//etc/passwd", "/data.json/x", "/report.html"]
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    code, text, _ = ask(server, path)
    assert code == 404 and len(text) < 100


def test_the_folder_goes_away(server: Server, folder: Path) -> None:
    (folder / "metrics.jsonl").unlink()
    code, text, _ = ask(server, "/data.json?since=x")
    assert code == 503 and "has no log" in text


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    found = [str(finished(tmp_path / "book"))]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"):
            serve(found, port)
    with serve(found) as first, serve(found) as second:
        assert first.server_address[1] != second.server_address[1], "without --port the next free one"


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lmtrain", "report", str(finished(tmp_path / "book")), "--live", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in said and "ended" in said
