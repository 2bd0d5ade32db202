"""What hooks tell, received: a command's file, an HTTP server, and an Alertmanager with its receiver."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import harness
import pytest


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A POST as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Server(ThreadingHTTPServer):
    """Keeps what is posted; answers with `status`, `delay` seconds later."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[Request] = []
        self.status = 200
        self.hangs = threading.Event()
        self.hangs.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def documents(self) -> list[Any]:
        return [request.document for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.hangs.wait(120)
        status = self.server.status
        if status == 200:
            self.server.requests.append(Request(self.path, dict(self.headers.items()), body))
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- as in the library
        """Keep quiet."""


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Give a server on a free loopback port."""
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield one
        finally:
            one.hangs.set()
            one.shutdown()
            thread.join()


def lines(file: Path) -> list[Any]:
    """Return the documents that a command appended to a file, one a line."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def needs(name: str) -> str:
    """Return where a program is; skip, saying how to install it, where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"there is no {name} on this machine: apt-get install {PACKAGES[name]}")
    return found


#: Debian's packages of the programs that tests of alerts run beside ours.
PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "haproxy": "haproxy",
}


@contextlib.contextmanager
def alertmanager(folder: Path, receiver: Server) -> Iterator[str]:
    """Run an Alertmanager that posts what it is told to `receiver`; give its address."""
    program = needs("prometheus-alertmanager")
    (folder / "alertmanager.yml").write_text(
        f"""\
route: {{receiver: test, group_by: [alertname, stream, replica], group_wait: 0s, group_interval: 1s}}
receivers:
- name: test
  webhook_configs: [{{url: "{receiver.url}/from-alertmanager", send_resolved: true}}]
"""
    )
    port = free_port()
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        harness.wait_until(lambda: harness.answers(f"{url}/-/ready"), "Alertmanager is ready")
        yield url
    finally:
        process.terminate()
        process.wait(30)
