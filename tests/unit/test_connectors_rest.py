"""The REST client against an HTTP server that answers as a rebalancing worker does."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from cdc import config
from cdc.connect import PATIENCE, Connect
from cdc.errors import ConnectRefused, Unreachable


class Worker(ThreadingHTTPServer):
    """Answers requests from a list of (status, body); remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers: list[tuple[int, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.known: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://user:s3cret@127.0.0.1:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    server: Worker

    def do_GET(self) -> None:
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size)) if size else None
        self.server.asked.append((self.command, self.path, body))
        self.server.known.append(self.headers.get("authorization"))
        status, content = self.server.answers.pop(0)
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 -- the library calls them so

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as in the library
        """Keep quiet."""


def connect(url: str, patience: float = PATIENCE) -> Connect:
    return Connect(config.Connect(url=url), patience=patience)


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Give a server on a free loopback port."""
    with Worker() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def refusal(status: int, message: str) -> tuple[int, Any]:
    return status, {"error_code": status, "message": message}


def test_a_rebalance_is_waited_for(worker: Worker) -> None:
    """409 and a joining worker's 500 are not answers: the request is sent again, unchanged."""
    worker.answers = [
        refusal(409, "Cannot complete request momentarily due to stale configuration"),
        refusal(500, "Request timed out. The worker is currently ensuring membership"),
        (200, {"name": "c"}),
    ]

    connect(worker.url).put("c", {"a": "1"})

    assert [("PUT", "/connectors/c/config", {"a": "1"})] * 3 == worker.asked


def test_patience_ends(worker: Worker) -> None:
    """A rebalance that never ends is reported with what Connect says, and no credentials."""
    worker.answers = [refusal(409, "rebalance")] * 2

    with pytest.raises(ConnectRefused, match="409: rebalance") as raised:
        connect(worker.url, patience=0).put("c", {})

    assert "s3cret" not in str(raised.value)


def test_a_refusal_is_not_repeated(worker: Worker) -> None:
    """400 is final: the request is sent once."""
    worker.answers = [refusal(400, "invalid: 1 error(s):\nslot.name bad\nYou can also find more")]

    with pytest.raises(ConnectRefused, match=r"1 error\(s\): slot.name bad\n"):
        connect(worker.url).put("c", {})

    assert 1 == len(worker.asked)


def test_absence_is_an_answer(worker: Worker) -> None:
    """A connector that is not there is None or False at once, not an error."""
    worker.answers = [refusal(404, "not found")] * 3
    asked = connect(worker.url)

    assert (None, None, False) == (asked.config("c"), asked.status("c"), asked.delete("c"))


def test_names_are_escaped(worker: Worker) -> None:
    """A connector's name cannot change the path of a request."""
    worker.answers = [(204, None)]

    assert connect(worker.url).delete("a/../b?c")
    assert [("DELETE", "/connectors/a%2F..%2Fb%3Fc", None)] == worker.asked


def test_nobody_there(worker: Worker) -> None:
    """A port where nobody listens is Unreachable, and the message holds no credentials."""
    url = worker.url
    worker.server_close()

    with pytest.raises(Unreachable) as raised:
        connect(url).plugins()

    assert "s3cret" not in str(raised.value)


def test_user_and_password_are_sent_as_they_are(worker: Worker) -> None:
    """Basic authentication in UTF-8, rather than what the address says; a 401 names the keys."""
    worker.answers = [(200, []), refusal(401, "User cannot access the resource.")]
    known = Connect(config.Connect(url=worker.url, user="jörg", password="gehe:im ß"))
    known.plugins()

    with pytest.raises(ConnectRefused, match="with 401: User cannot") as raised:
        known.plugins()

    wanted = b64encode("jörg:gehe:im ß".encode()).decode()
    assert [f"Basic {wanted}"] * 2 == worker.known
    assert "connect.user and connect.password" in raised.value.next
