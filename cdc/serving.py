"""The daemon over HTTP: /livez, /readyz, /freshness and /metrics, all from memory.

Threads at the edge: whoever asks, and however slowly, replication goes on. A port that is taken is
said, counted and tried again.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from cdc import __version__, freshness, samples
from cdc import lsn as lsns
from cdc.exposition import Exposition
from cdc.measuring import Measuring
from cdc.units import Address

log = logging.getLogger(__name__)

#: Seconds between two tries to open a port that is taken, and that a client has for its request.
_AGAIN, _PATIENCE = 10.0, 5.0

#: Requests answered at once; whoever comes then is turned away, and may come again.
_AT_ONCE = 32

_METHODS = "GET, HEAD, OPTIONS"

#: An answer: status, body (a JSON object, or bytes with their type), further headers.
Answer = tuple[HTTPStatus, dict[str, Any] | tuple[bytes, str], dict[str, str]]


class Serving:
    """Opens the port and answers, in threads of its own, until it is stopped."""

    def __init__(self, listen: Address, measured: Measuring) -> None:
        self.failures = 0
        self._listen = listen
        self._measured = measured
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(Exposition(measured, lambda: self.failures))
        self._stop = threading.Event()
        self._server: _Server | None = None
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._server is not None:
            self._server.shutdown()

    def _run(self) -> None:
        said = None
        while not self._stop.is_set():
            try:
                with _Server(self._listen, self._answer) as self._server:
                    log.info("listening at http://%s", self._listen)
                    self._server.serve_forever(poll_interval=0.5)
                    return
            except OSError as error:
                self.failures += 1
                if said != str(error):
                    said = str(error)
                    log.warning(
                        "the HTTP port %s cannot be opened: %s; replication goes on, trying again every "
                        "%.0f s (replicas.%s.listen)",
                        self._listen,
                        error.strerror or error,
                        _AGAIN,
                        self._measured.replica,
                    )
                self._stop.wait(_AGAIN)

    def _answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        match path:
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
            case "/freshness":
                return self._freshness(query)
            case "/metrics":
                return (
                    HTTPStatus.OK,
                    (generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4),
                    {},
                )
        return (
            HTTPStatus.NOT_FOUND,
            {"error": "there are /livez, /readyz, /freshness, /metrics"},
            {},
        )

    def _livez(self) -> Answer:
        """Whether the loop goes on; a restart helps where it does not."""
        gauge = self._measured.gauge
        status = HTTPStatus.OK if gauge.alive else HTTPStatus.SERVICE_UNAVAILABLE
        return status, {"alive": gauge.alive, "doing": gauge.doing, "trouble": gauge.trouble}, {}

    def _readyz(self) -> Answer:
        """Whether this daemon applies to a replica that is complete."""
        gauge, found = self._measured.gauge, self._measured.current()
        why = None
        if gauge.doing != "applying":
            why = gauge.trouble or gauge.doing
        elif found.state in {"filling", "unknown"}:
            why = found.why or "not measured yet"
        status = HTTPStatus.OK if why is None else HTTPStatus.SERVICE_UNAVAILABLE
        return status, {"ready": why is None, "why": why}, {}

    def _freshness(self, query: dict[str, list[str]]) -> Answer:
        """Whether the replica is fresh enough for max_lag and min_lsn."""
        target = float(self._measured.config.lag.target)
        if unknown := query.keys() - {"max_lag", "min_lsn"}:
            error = f"unknown parameter {min(unknown)!r}: max_lag and min_lsn are known"
            return HTTPStatus.BAD_REQUEST, {"error": error}, {}
        try:
            limit = freshness.limit(query["max_lag"][-1]) if "max_lag" in query else target
            least = lsns.parse(query["min_lsn"][-1]) if "min_lsn" in query else 0
        except ValueError as wrong:
            return HTTPStatus.BAD_REQUEST, {"error": str(wrong)}, {}
        found, inside = self._measured.current(), self._measured.open(limit)
        reached = found.applied_lsn is not None and found.applied_lsn >= least
        fresh = found.seconds is not None and inside and reached
        lag = None if found.seconds is None else round(found.seconds, 3)
        body = {
            "fresh": fresh,
            "lag_seconds": lag,
            "state": found.state,
            "why": found.why,
            "as_of": samples.moment(found.at) if found.state != "unknown" else None,
            "target": target,
            "max_lag": limit,
            "applied_lsn": None if found.applied_lsn is None else lsns.show(found.applied_lsn),
        }
        headers = {"X-Replica-Lag-Seconds": "unknown" if lag is None else str(lag)}
        return HTTPStatus.OK if fresh else HTTPStatus.SERVICE_UNAVAILABLE, body, headers


class _Server(ThreadingHTTPServer):
    """Answers a bounded number of requests at once, each in a thread."""

    daemon_threads = True

    def __init__(
        self, listen: Address, answer: Callable[[str, dict[str, list[str]]], Answer]
    ) -> None:
        self.answer = answer
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
        super().__init__((listen.host, listen.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- the base's signature
        log.debug("a client of the HTTP port went away")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request and closes."""

    server: _Server
    timeout = _PATIENCE
    server_version = f"cdc/{__version__}"
    sys_version = ""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self._send(*self.server.answer(parts.path, parse_qs(parts.query, keep_blank_values=True)))

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_OPTIONS(self) -> None:
        self._send(HTTPStatus.NO_CONTENT, (b"", "text/plain"), {"Allow": _METHODS})

    def do_POST(self) -> None:
        error = {"error": f"only {_METHODS} are answered"}
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, error, {"Allow": _METHODS})

    do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815 -- the base looks for these names

    def _send(
        self, status: HTTPStatus, body: dict[str, Any] | tuple[bytes, str], headers: dict[str, str]
    ) -> None:
        if isinstance(body, dict):
            body = (json.dumps(body).encode() + b"\n", "application/json")
        text, kind = body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the base's signature
        log.debug("HTTP %s", format % args)
