"""Stalls of every kind on a real stack, with the watcher and the daemon restarted in between."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
import jsonschema
import psycopg
import pytest
import receivers
import requests
from harness import Stream, wait_until

from cdc import resources

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES = "CREATE TABLE notes (id bigserial PRIMARY KEY, said text)"

SCHEMA = json.loads(resources.text("schemas/alert.json"))

#: Five minutes in twelve seconds: the watcher knows no other scale than its thresholds.
SCALED = """
[lag]
target = "12s"
warn = "7s"

[alert]
interval = "500ms"
for = "2s"
clear_for = "2s"
grace = "0s"
listen = "127.0.0.1:{port}"

[[alert.hooks]]
kind = "command"
argv = ["/bin/sh", "-c", "cat >> told.jsonl; echo >> told.jsonl"]

[[alert.hooks]]
kind = "webhook"
url = "{webhook}/told"
secret = "${{ALERT_SECRET}}"

[[alert.hooks]]
kind = "alertmanager"
urls = ["{alertmanager}"]
resend = "2s"
"""


@dataclasses.dataclass(slots=True)
class Watched:
    """r1 of a stream with its daemon and the watcher, and what the hooks were told."""

    stream: Stream
    server: receivers.Server
    port: int
    daemon: subprocess.Popen[bytes] | None = None
    watcher: subprocess.Popen[bytes] | None = None

    def run_daemon(self) -> None:
        self.daemon = self.stream.start("run", "-r", "r1")
        wait_until(
            lambda: "applying from" in self.stream.log(self.running_daemon), "the daemon applies"
        )

    def watch(self, number: int = signal.SIGTERM) -> None:
        """Begin to watch; where somebody does already, he is ended by a signal first."""
        if self.watcher is not None:
            self.watcher.send_signal(number)
            code = self.watcher.wait(60)
            assert code == (0 if number == signal.SIGTERM else -number), self.log
        self.watcher = self.stream.start("watch", "-r", "r1", name="cdc-lag-alert")
        wait_until(lambda: "watching r1" in self.log, "the watcher watches")

    @property
    def running_daemon(self) -> subprocess.Popen[bytes]:
        assert self.daemon is not None
        return self.daemon

    @property
    def log(self) -> str:
        assert self.watcher is not None
        return self.stream.log(self.watcher)

    def told(self) -> dict[str, list[str]]:
        """Return what each hook was told, as notifications or, by Alertmanager, states."""
        by_path: dict[str, list[Any]] = {"/told": [], "/from-alertmanager": []}
        for request in self.server.requests:
            by_path[request.path].append(request.document)
        documents = receivers.lines(self.stream.folder / "told.jsonl")
        for document in (*documents, *by_path["/told"]):
            jsonschema.validate(document, SCHEMA)
        return {
            "command": [d["notification"] for d in documents],
            "webhook": [d["notification"] for d in by_path["/told"]],
            "alertmanager": [d["status"] for d in by_path["/from-alertmanager"]],
        }

    def everyone_was_told(self, notifications: list[str]) -> bool:
        states = ["resolved" if n == "resolved" else "firing" for n in notifications]
        return self.told() == {
            "command": notifications,
            "webhook": notifications,
            "alertmanager": states,
        }

    def metrics(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text


@contextlib.contextmanager
def load(dsn: str) -> Iterator[None]:
    """Write a row ten times a second meanwhile, and thousands in one transaction now and then."""
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            for n in itertools.count():
                rows = 5000 if n % 50 == 49 else 1
                conn.execute(
                    "INSERT INTO notes (said) SELECT repeat('x', 50) FROM generate_series(1, %s)",
                    [rows],
                )
                if over.wait(0.1):
                    return

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            over.set()
            writing.result()


@pytest.fixture
def watched(stream: Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Give a watched replica that follows."""
    monkeypatch.setenv("ALERT_SECRET", "s3cret")
    with contextlib.ExitStack() as around:
        server = around.enter_context(receivers.server())
        manager = around.enter_context(receivers.alertmanager(tmp_path, server))
        port = receivers.free_port()
        # Debezium goes on trying for ever otherwise, and says that it runs.
        harness.edit(
            stream,
            r"^\[connect\]$",
            '[connect]\nheartbeat = "500ms"\noptions = { "errors.max.retries" = 0 }',
        )
        with stream.config.open("a", encoding="utf-8") as config:
            config.write(SCALED.format(port=port, webhook=server.url, alertmanager=manager))
        stream.sql("primary", TABLES)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        made = Watched(stream, server, port)
        made.run_daemon()
        stream.cdc("wait", "-r", "r1", "--now")
        yield made


def test_each_alert_is_told_once_each_way_whatever_is_restarted(watched: Watched) -> None:
    """Daemon stopped or killed, connector paused or failed: one notification each way per hook.

    The watcher is ended and killed, the daemon too, while alerts fire and while they are over.
    """
    stream, expected = watched.stream, list[str]()
    connector = f"{stream.connect}/connectors/cdc_{stream.name}"
    watched.watch()

    def told(notification: str) -> None:
        expected.append(notification)
        wait_until(
            lambda: watched.everyone_was_told(expected),
            f"every hook was told {expected}",
            timeout=90,
        )

    with load(stream.primary):
        wait_until(lambda: "cdc_alert_state" in watched.metrics(), "the first look")
        watched.running_daemon.send_signal(signal.SIGSTOP)
        told("new")
        watched.watch()
        watched.watch(signal.SIGKILL)
        watched.running_daemon.send_signal(signal.SIGCONT)
        told("resolved")
        watched.watch()

        watched.running_daemon.kill()
        watched.running_daemon.wait()
        told("new")
        assert "no daemon applies" in receivers.lines(stream.folder / "told.jsonl")[-1]["summary"]
        watched.watch(signal.SIGKILL)
        watched.run_daemon()
        told("resolved")

        requests.put(f"{connector}/pause", timeout=30).raise_for_status()
        told("new")
        watched.watch()
        requests.put(f"{connector}/resume", timeout=30).raise_for_status()
        told("resolved")

        stream.sql(
            "primary",
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE slot_name = 'cdc_' || current_database()",
        )
        told("new")
        told("resolved")
        assert "restarting its failed tasks (restarted 1 time)" in watched.log

    starts = [d["starts_at"] for d in receivers.lines(stream.folder / "told.jsonl")]
    assert starts[::2] == starts[1::2] == sorted(set(starts))
    assert 'cdc_alert_hook_runs_total{hook="command sh",outcome="ok"} 8.0' in watched.metrics()
    assert "s3cret" not in watched.log
