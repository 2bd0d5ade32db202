"""Whatever is struck on a real stack: every hook is told once each way, watcher restarted in between.

Thresholds are scaled down; `make drill-lag` runs stalls at full scale: `CDC_ALERT_TARGET` are the seconds of
the target, `CDC_ALERT_HEALTHY` those of healthy load before `CDC_ALERT_STALLS` stalls, `CDC_ALERT_RATE` the
transactions a second in it and `CDC_ALERT_BURST` the rows of one that is large.
"""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import harness
import jsonschema
import psycopg
import pytest
import receivers
import reporting
import requests
from harness import Stack, Stream, wait_until
from schedule import Blow
from victims import Components, Daemons

from cdc import resources

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES = "CREATE TABLE notes (id bigserial PRIMARY KEY, said text)"

SCHEMA = json.loads(resources.text("schemas/alert.json"))

TARGET = float(os.environ.get("CDC_ALERT_TARGET", "10"))
HEALTHY = float(os.environ.get("CDC_ALERT_HEALTHY", "5"))
STALLS = int(os.environ.get("CDC_ALERT_STALLS", "1"))
RATE = float(os.environ.get("CDC_ALERT_RATE", "10"))
BURST = int(os.environ.get("CDC_ALERT_BURST", "5000"))

#: Seconds between two large transactions.
BETWEEN = max(5.0, TARGET / 10)

#: Of the target, everything in the same ratio as the defaults to five minutes.
SCALED = """
[lag]
target = "{target}s"
warn = "{warn}s"

[alert]
interval = "{interval}s"
for = "{patience}s"
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


class Watched:
    """r1 of a stream with its daemon and the watcher, and what the hooks were told."""

    def __init__(self, stream: Stream, server: receivers.Server, port: int) -> None:
        self.stream, self.server, self.port = stream, server, port
        self.components, self.daemons = Components(stream.stack), Daemons(stream)
        self.watcher: subprocess.Popen[bytes] | None = None
        self.expected: list[str] = []
        self.restarts = itertools.cycle([signal.SIGTERM, signal.SIGKILL])

    def watch(self) -> None:
        """Begin to watch; where somebody does already, he is ended or killed first, in turn."""
        if self.watcher is not None:
            number = next(self.restarts)
            self.watcher.send_signal(number)
            code = self.watcher.wait(60)
            assert code == (0 if number == signal.SIGTERM else -number), self.log
        self.watcher = self.stream.start("watch", "-r", "r1", name="cdc-lag-alert")
        wait_until(lambda: "watching r1" in self.log, "the watcher watches")

    @property
    def log(self) -> str:
        assert self.watcher is not None
        return self.stream.log(self.watcher)

    @property
    def documents(self) -> list[Any]:
        """Return what the command was told."""
        return receivers.lines(self.stream.folder / "told.jsonl")

    def told(self) -> dict[str, list[str]]:
        """Return what each hook was told, as notifications or, by Alertmanager, states."""
        by_path: dict[str, list[Any]] = {"/told": [], "/from-alertmanager": []}
        for request in list(self.server.requests):
            by_path[request.path].append(request.document)
        for document in (*self.documents, *by_path["/told"]):
            jsonschema.validate(document, SCHEMA)
        return {
            "command": [d["notification"] for d in self.documents],
            "webhook": [d["notification"] for d in by_path["/told"]],
            "alertmanager": [d["status"] for d in by_path["/from-alertmanager"]],
        }

    def becomes(self, notification: str) -> Any:
        """Wait until every hook is told one more thing, and see that nothing else was; return it."""
        self.expected.append(notification)
        states = ["resolved" if n == "resolved" else "firing" for n in self.expected]
        wanted = {"command": self.expected, "webhook": self.expected, "alertmanager": states}
        wait_until(lambda: self.told() == wanted, f"{wanted} is told", timeout=180 + TARGET)
        return self.documents[-1]

    def metrics(self) -> str:
        return requests.get(f"http://127.0.0.1:{self.port}/metrics", timeout=10).text

    def history(self) -> dict[str, Any]:
        """Return what was written so far, and how far the daemon says it was behind meanwhile."""
        ((rows,),) = self.stream.sql("primary", "SELECT count(*) FROM notes")
        kept = self.stream.cdc("lag", "history", "-r", "r1", "--since", "2h", "--csv").stdout
        lags = [line["lag_seconds"] for line in csv.DictReader(kept.splitlines())]
        known = sorted(float(lag) for lag in lags if lag)
        return {
            "rows": rows,
            "samples": len(lags),
            "unknown": len(lags) - len(known),
            "median_lag": known[len(known) // 2] if known else None,
            "greatest_lag": known[-1] if known else None,
        }


@contextlib.contextmanager
def load(dsn: str) -> Iterator[None]:
    """Write a row RATE times a second meanwhile, and BURST in one transaction now and then."""
    over, burst = threading.Event(), round(RATE * BETWEEN)

    def write() -> None:
        numbers = itertools.count()
        while not over.is_set():
            # The primary is struck as well; whoever writes comes again.
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(dsn, autocommit=True) as conn,
            ):
                while not over.wait(1 / RATE):
                    rows = 1 if next(numbers) % burst < burst - 1 else BURST
                    conn.execute(
                        "INSERT INTO notes (said) SELECT 'x' FROM generate_series(1, %s)", [rows]
                    )
            over.wait(0.1)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            yield
        finally:
            over.set()
            writing.result()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack whose components may be struck."""
    with harness.own_stack(tmp_path_factory.mktemp("alerts") / "stack", "--replicas", "1") as own:
        yield own


@pytest.fixture(scope="module")
def shared(own: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Give a replica that is watched, under load."""
    folder = tmp_path_factory.mktemp("alerts-stream")
    with contextlib.ExitStack() as around:
        around.enter_context(pytest.MonkeyPatch.context()).setenv("ALERT_SECRET", "s3cret-of-all")
        stream = around.enter_context(harness.stream(own, folder))
        server = around.enter_context(receivers.server())
        manager = around.enter_context(receivers.alertmanager(folder, server))
        port = receivers.free_port()
        # Debezium goes on trying for ever otherwise, and says that it runs.
        options = 'heartbeat = "500ms"\noptions = { "errors.max.retries" = 0 }'
        harness.edit(stream, r"^\[connect\]$", f"[connect]\n{options}")
        with stream.config.open("a", encoding="utf-8") as config:
            config.write(
                SCALED.format(
                    target=TARGET,
                    warn=0.6 * TARGET,
                    interval=min(5.0, TARGET / 20),
                    patience=TARGET / 10,
                    port=port,
                    webhook=server.url,
                    alertmanager=manager,
                )
            )
        stream.ready(TABLES)
        made = Watched(stream, server, port)
        around.callback(made.components.release)
        stream.cdc("wait", "-r", "r1", "--now")
        made.watch()
        around.enter_context(load(stream.primary))
        yield made


@pytest.fixture
def watched(shared: Watched) -> Watched:
    """Give it with nothing that fires."""
    assert shared.expected[-1:] in ([], ["resolved"]), "an earlier test left an alert"
    return shared


def test_a_stall_is_told_before_the_target_is_missed(watched: Watched) -> None:
    """Nobody is told of bursts; a stall is predicted, told as critical, and told once."""
    until = time.monotonic() + HEALTHY
    while time.monotonic() < until:  # the time itself is what is tested: nothing may be told in it
        time.sleep(min(HEALTHY, 5.0))
        assert watched.told() == {"command": [], "webhook": [], "alertmanager": []}
    reporting.note("healthy", seconds=HEALTHY, notices=0, **watched.history())
    for _ in range(STALLS):
        # An alert is over before everything is caught up with: each stall begins with no lag.
        watched.stream.cdc("wait", "-r", "r1", "--now")
        stalled = time.time()
        watched.daemons.strike(blow := Blow("daemon r1", "stop", 0))
        first = watched.becomes("new")
        watched.watch()
        watched.daemons.restore(blow)
        over = watched.becomes("resolved")

        assert ("critical", "will_breach") == (first["severity"], first["reason"])
        # Half of what is allowed has gone by at least: a prediction from less would cry wolf.
        assert 0.5 * TARGET < first["lag_seconds"] < TARGET
        assert first["starts_at"] == over["starts_at"]
        after = dt.datetime.fromisoformat(first["at"]).timestamp() - stalled
        reporting.note(
            "stall", target=TARGET, told_after=round(after, 1), lag_then=first["lag_seconds"]
        )


@pytest.mark.parametrize(
    ("target", "how"),
    [
        ("daemon r1", "kill"), ("connect", "stop"), ("connect", "kill"), ("kafka", "stop"),
        ("kafka", "kill"), ("r1", "stop"), ("r1", "kill"), ("primary", "stop"), ("primary", "kill"),
    ],
)  # fmt: skip
def test_whatever_is_struck_is_told_once_each_way(watched: Watched, target: Any, how: Any) -> None:
    """While it is struck and afterwards the watcher is ended or killed: nothing is told twice."""
    blow = Blow(target, how, 0)
    daemon = target.startswith("daemon")
    (watched.daemons if daemon else watched.components).strike(blow)
    try:
        watched.becomes("new")
        watched.watch()
    finally:
        if daemon:
            watched.daemons.restore(blow)
        else:
            watched.components.restore([blow])
    watched.becomes("resolved")


def test_a_paused_connector_is_told_before_the_lag_shows_it(watched: Watched) -> None:
    """What has certainly ended the flow is told as such."""
    connector = f"{watched.stream.connect}/connectors/cdc_{watched.stream.name}"
    requests.put(f"{connector}/pause", timeout=30).raise_for_status()
    told = watched.becomes("new")
    watched.watch()
    requests.put(f"{connector}/resume", timeout=30).raise_for_status()
    watched.becomes("resolved")

    assert (told["reason"], told["severity"]) == ("stopped", "critical")
    assert "is held: connector PAUSED" in told["summary"]


def test_a_failed_connector_is_restarted_and_told(watched: Watched) -> None:
    """Its trace stands in the alert; `watch` restarts it, says so, and the alert ends by itself."""
    watched.stream.sql(
        "primary",
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
        " WHERE slot_name = 'cdc_' || current_database()",
    )
    told = watched.becomes("new")
    watched.becomes("resolved")

    assert told["reason"] == "stopped"
    assert "has failed" in told["summary"]
    assert "restarting its failed tasks (restarted " in watched.log
    assert "cdc_connector_restarts_total 0.0" not in watched.metrics()


def test_what_the_hooks_did_is_counted_through_all_restarts(watched: Watched) -> None:
    """Each notification was one run of each hook, no secret was logged, each alert has its beginning."""
    told = float(len(watched.expected))
    runs = watched.metrics()
    assert f'cdc_alert_hook_runs_total{{hook="command sh",outcome="ok"}} {told}' in runs
    assert 'cdc_alert_state{replica="r1"} 0.0' in runs
    logs = "".join(f.read_text(errors="replace") for f in watched.stream.folder.glob("*.log"))
    assert "s3cret-of-all" not in logs
    starts = [document["starts_at"] for document in watched.documents]
    assert starts[::2] == starts[1::2] == sorted(set(starts))
