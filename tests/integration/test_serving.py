"""The daemon's HTTP port: real requests, answered from a gauge as the loop leaves it."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator

import harness
import pytest
import requests

from cdc import gauge as gauges
from cdc import serving
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.freshness import Look
from cdc.gauge import Gauge
from cdc.lag import Lag
from cdc.measuring import Measuring
from cdc.position import Position
from cdc.serving import Serving
from cdc.units import Address


def free() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return Address(f"127.0.0.1:{found.getsockname()[1]}")


@pytest.fixture
def gauge() -> Gauge:
    """Give the gauge of a loop that applies, up to a heartbeat of this moment."""
    found = Gauge("r1", doing="applying")
    found.loaded(Position("app", "cdc.app", "id", 50, None, 0x7000, "7", 1, (), 0), {})
    found.heartbeat_at, found.known_at = time.time(), time.monotonic() + 3600
    return found


@pytest.fixture
def measured(gauge: Gauge) -> Measuring:
    """Give its measurement right after a look that found nothing wrong."""
    config = Config(
        name="app",
        primary=Primary(dsn=""),
        kafka=Kafka(bootstrap_servers="127.0.0.1:1"),
        connect=Connect(url="http://127.0.0.1:1"),
        replicas={"r1": Replica(dsn="")},
    )
    made = Measuring(config, "r1", gauge)
    now, clock = time.time(), time.monotonic()
    made._look = Look(Lag("r1", now, 0.0, "following"), now, now, now - clock, clock)
    return made


@contextlib.contextmanager
def open_port(measured: Measuring, listen: Address) -> Iterator[Serving]:
    made = Serving(listen, measured)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def url(measured: Measuring) -> Iterator[str]:
    """Give the address at which it answers."""
    listen = free()
    with open_port(measured, listen):
        harness.wait_until(lambda: harness.answers(f"http://{listen}/livez"), "the port is open")
        yield f"http://{listen}"


def status(url: str) -> int:
    return requests.get(url, timeout=10).status_code


def test_a_loop_that_does_not_step_is_dead(url: str, gauge: Gauge) -> None:
    """A minute without a step means restart; while a batch is written or waited for it does not."""
    gauge.tick -= 2 * gauges.HANGS
    hangs = status(f"{url}/livez")
    gauge.writing(None)
    writes = status(f"{url}/livez")
    gauge.busy, gauge.doing = False, "waiting"

    assert (503, 200, 200) == (hangs, writes, status(f"{url}/livez"))


def test_only_a_daemon_that_applies_to_a_complete_replica_is_ready(url: str, gauge: Gauge) -> None:
    """Standing by, waiting and filling each say why not."""
    ready = status(f"{url}/readyz")
    gauge.unfilled, gauge.known_at, gauge.loaded_at = 1, time.monotonic(), time.monotonic()
    filling = requests.get(f"{url}/readyz", timeout=10)
    gauge.unfilled, gauge.doing, gauge.trouble = 0, "waiting", "the replica is full"
    waiting = requests.get(f"{url}/readyz", timeout=10)

    assert (200, 503, 503) == (ready, filling.status_code, waiting.status_code)
    assert "one point" in filling.json()["why"]
    assert "the replica is full" == waiting.json()["why"]


def test_freshness_answers_routers(url: str, gauge: Gauge) -> None:
    """In and out by max_lag and min_lsn, with the number in a header that no cache may keep."""
    fresh = requests.get(f"{url}/freshness?max_lag=30s&min_lsn=0/7000", timeout=10)
    beyond = status(f"{url}/freshness?min_lsn=0/7001")
    gauge.heartbeat_at = time.time() - 100
    late = requests.get(f"{url}/freshness?max_lag=60s", timeout=10)

    assert (200, 503, 503) == (fresh.status_code, beyond, late.status_code)
    assert "no-store" == fresh.headers["Cache-Control"]
    assert {
        "fresh": True,
        "state": "following",
        "applied_lsn": "0/7000",
    }.items() <= fresh.json().items()
    assert 90 < float(late.headers["X-Replica-Lag-Seconds"]) == late.json()["lag_seconds"]


def test_what_is_not_known_is_not_fresh(url: str, measured: Measuring) -> None:
    """Neither 0 nor a number that was true once."""
    measured._look = None

    found = requests.get(f"{url}/freshness", timeout=10)

    assert (503, None, "unknown") == (
        found.status_code,
        found.json()["lag_seconds"],
        found.headers["X-Replica-Lag-Seconds"],
    )
    assert "cdc_replica_lag_seconds{" not in requests.get(f"{url}/metrics", timeout=10).text


@pytest.mark.parametrize("query", ["max_lag=300", "max_lag=", "min_lsn=here", "maxlag=3s"])
def test_a_question_that_is_wrong_is_told_so(query: str, url: str) -> None:
    """A typo must not make a router believe an answer to another question."""
    found = requests.get(f"{url}/freshness?{query}", timeout=10)

    assert (400, True) == (found.status_code, "error" in found.json())


def test_methods(url: str) -> None:
    """GET, HEAD without a body, OPTIONS; anything else is refused with what is allowed."""
    head = requests.head(f"{url}/freshness", timeout=10)
    options = requests.options(f"{url}/freshness", timeout=10)
    post = requests.post(f"{url}/freshness", timeout=10)

    assert (200, b"") == (head.status_code, head.content)
    assert (204, "GET, HEAD, OPTIONS") == (options.status_code, options.headers["Allow"])
    assert (405, "GET, HEAD, OPTIONS") == (post.status_code, post.headers["Allow"])
    assert 404 == status(f"{url}/other")


def test_a_taken_port_is_said_counted_and_tried_again(
    measured: Measuring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever has it may end; until then the daemon goes on without."""
    monkeypatch.setattr(serving, "_AGAIN", 0.05)
    monkeypatch.setattr(logging.getLogger("cdc"), "propagate", True)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Address(f"127.0.0.1:{taken.getsockname()[1]}")
        with open_port(measured, listen) as made:
            harness.wait_until(lambda: made.failures > 1, "it has tried twice")
            taken.close()
            harness.wait_until(lambda: harness.answers(f"http://{listen}/livez"), "it is open")
            said = requests.get(f"http://{listen}/metrics", timeout=10).text

    assert 1 == caplog.text.count("replicas.r1.listen")
    assert 'cdc_listen_failures_total{replica="r1"} 0.0' not in said


def test_clients_that_say_nothing_hold_nobody_up(url: str) -> None:
    """More of them than are served at once: those who ask are answered as soon as they have gone."""
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as silent:
        for _ in range(40):
            silent.enter_context(socket.create_connection((host, int(port))))

    harness.wait_until(lambda: harness.answers(f"{url}/livez"), "it answers")
