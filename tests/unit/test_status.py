"""What `cdc status` says of a look, and in how many columns."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cdc import readings, status
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import CdcError, Unreachable
from cdc.lag import Lag, State
from cdc.names import TableName
from cdc.observation import Observation, Slot
from cdc.position import Position
from cdc.readings import Capture, Daemon, ReplicaReading, Writer
from cdc.strays import Stray
from cdc.verify.gauges import Gauges

CONFIG = Config(
    name="app",
    primary=Primary(dsn=""),
    kafka=Kafka(bootstrap_servers="k:1"),
    connect=Connect(url="http://c:1"),
    replicas={"r1": Replica(dsn=""), "r2": Replica(dsn="")},
)
RUNS = Capture("connector RUNNING, task 0 RUNNING", True, (), (), None)
POSITION = Position("app", "cdc.app", "id", 50, None, 0x18E1C10, "7", 1, (), 0, 1_000_000)


def replica(**known: Any) -> ReplicaReading:
    """Return a replica whose daemon applies, verified two hours ago."""
    given: dict[str, Any] = {
        "clock": 10_000.0,
        "position": POSITION,
        "heartbeat_at": 9_999.0,
        "transactions": 7,
        "rows": 9,
        "unmatched": 0,
        "tables": [("public", "t", "copied", 1)],
        "daemon": Daemon("applying", None, 5.0),
        "writer": Writer(1, 0.1),
        "verified": Gauges(last=10_000.0 - 7200, exit_code=0, whole=True),
    }
    return ReplicaReading(**given | known)


def seen(
    *found: ReplicaReading, state: State = "following", seconds: float | None = 0.4, **known: Any
) -> Observation:
    names = [f"r{n}" for n in range(1, len(found) + 1)]
    given: dict[str, Any] = {
        "at": 10_000.0,
        "lags": tuple(Lag(name, 10_000.0, seconds, state) for name in names),
        "capture": RUNS,
        "slot": Slot(True, "reserved", 2048, None),
        "strays": (),
        "skew": {},
        "unread": {},
        "readings": dict(zip(names, found, strict=True)),
        "oldest_transaction": None,
    }
    return Observation(**given | known)


DEAD = Capture("task 0 FAILED", False, (0,), ("boom",), "the connector cdc_app has failed: boom")


@pytest.mark.parametrize(
    ("look", "safe", "said"),
    [
        (
            seen(replica(), replica()),
            True,
            "2 replicas, at most 0.4 s behind, last verified 2 h ago: identical",
        ),
        (seen(replica(verified=Gauges())), True, "1 replica, at most 0.4 s behind, never verified"),
        (
            seen(replica(), replica(verified=Gauges(last=9_940.0, exit_code=1, different=3))),
            True,
            "2 replicas, at most 0.4 s behind, last verified 1 min ago: 3 rows differ (r2)",
        ),
        (
            seen(replica(), seconds=400.0),
            False,
            "1 replica, at most 400.0 s behind (target 300 s MISSED), last verified 2 h ago: identical",
        ),
        (
            seen(replica(), state="not fed", seconds=40.0),
            True,
            (
                "1 replica, at most 40.0 s behind, nothing arrives: r1, "
                "last verified 2 h ago: identical"
            ),
        ),
        (
            seen(replica(), state="not moving", seconds=40.0),
            True,
            (
                "1 replica, at most 40.0 s behind, stands still: r1, "
                "last verified 2 h ago: identical"
            ),
        ),
        (
            seen(replica(), strays=(Stray(TableName("public", "new"), "unfilled", ("r1",)),)),
            False,
            (
                "1 replica, at most 0.4 s behind, NOT replicated: 1 of the tables, "
                "last verified 2 h ago: identical"
            ),
        ),
        (
            seen(replica(), strays=(Stray(TableName("public", "old"), "gone", ("r1",)),)),
            False,
            (
                "1 replica, at most 0.4 s behind, NOT as on the primary: 1 of the tables, "
                "last verified 2 h ago: identical"
            ),
        ),
        (
            seen(replica(unmatched=3)),
            True,
            (
                "1 replica, at most 0.4 s behind, changed by someone else: r1, run `cdc-verify`, "
                "last verified 2 h ago: identical"
            ),
        ),
        (
            seen(replica(daemon=Daemon("halted", "a value", 3.0), writer=None)),
            False,
            "1 of 1 replicas not in order: r1 live, daemon halted",
        ),
        (
            seen(replica(writer=None)),
            False,
            "1 of 1 replicas not in order: r1 live, daemon not connected",
        ),
        (
            seen(replica(), capture=DEAD),
            False,
            "nothing new comes from the primary: the connector cdc_app has failed: boom",
        ),
    ],
)
def test_the_first_line_answers_whether_one_is_safe(
    look: Observation, safe: bool, said: str
) -> None:
    """Each way not to be safe stands in the first line."""
    found = status.of(CONFIG, look)

    assert (safe, said) == (found.safe(CONFIG.lag.target), status.headline(CONFIG, found))


def test_a_server_that_cannot_be_read_is_named() -> None:
    """What is not known is not called safe, and why it is not known is said."""
    gone: CdcError = Unreachable("cannot connect to PostgreSQL at db:1/app", safe="", next="")
    look = seen(replica(), state="unknown", seconds=None, unread={"r1": gone})

    found = status.of(CONFIG, look)

    assert not found.safe(300)
    assert "unreachable" == found.replicas[0].state
    assert gone.what in "\n".join(status.text(CONFIG, found))


def test_the_last_error_of_a_daemon_that_is_gone_is_shown() -> None:
    """Whatever else is wrong, a person sees what the daemon died of."""
    halted = replica(
        daemon=Daemon("halted", "a value does not fit\n  next: mend it", 3.0), writer=None
    )

    lines = status.text(CONFIG, status.of(CONFIG, seen(halted, state="not moving")))

    assert ["  a value does not fit", "    next: mend it"] == [x for x in lines if "it" in x][:2]


def test_lines_fit_a_terminal() -> None:
    """Nothing is wider than 80 columns, and nothing is lost by that."""
    long = dataclasses.replace(DEAD, standstill="the connector has failed: " + "why " * 60)
    lines = status.text(CONFIG, status.of(CONFIG, seen(replica(), capture=long)))

    found = status.wrapped(lines)

    assert max(map(len, found)) <= 80
    assert "".join(" ".join(lines).split()) == "".join(" ".join(found).split())


def test_what_a_worker_complained_of_is_found_in_its_log(tmp_path: Path) -> None:
    """The last error counts, with its deepest cause; a log without one says nothing."""
    log = tmp_path / "connect.log"
    log.write_text(
        "2026-01-01T00:00:00.000 ERROR Old: long ago\nCaused by: of old\n"
        "2026-01-01T00:00:01.000 ERROR ErrorHandler: Producer failure\n"
        "java.lang.RuntimeException: io\n\tat x.Y\nCaused by: a\n\tat x.Z\n"
        "Caused by: java.lang.NumberFormatException: Value 2500000000 out of range\n"
        "2026-01-01T00:00:02.000 INFO  Committing\n"
    )

    assert readings.complaint(log, "cdc_app") == (
        "2026-01-01T00:00:01.000 ERROR ErrorHandler: Producer failure; "
        "Caused by: java.lang.NumberFormatException: Value 2500000000 out of range"
    )
    assert readings.complaint(tmp_path / "none", "cdc_app") is None


def test_another_connector_s_error_is_not_taken_for_ours(tmp_path: Path) -> None:
    """The last trouble that names the connector counts, with where PostgreSQL says that it was."""
    log = tmp_path / "connect.log"
    log.write_text(
        "[2026-01-01 00:00:00,000] WARN WorkerSourceTask{id=cdc_app-0} failed to poll records\n"
        "org.apache.kafka.connect.errors.RetriableException: An exception occurred\n\tat x.Y\n"
        "Caused by: org.postgresql.util.PSQLException: ERROR: invalid memory alloc request size 1\n"
        '  Where: slot "cdc_app", in the change callback, associated LSN 0/1E037B8\n\tat x.Z\n'
        "[2026-01-01 00:00:01,000] ERROR WorkerSourceTask{id=cdc_app2-0} failed\n"
        "[2026-01-01 00:00:02,000] WARN WorkerSourceTask{id=cdc_app-0} is slow\n"
    )

    ours, other = readings.complaint(log, "cdc_app"), readings.complaint(log, "cdc_other")

    assert (ours or "").split("; ") == [
        "[2026-01-01 00:00:00,000] WARN WorkerSourceTask{id=cdc_app-0} failed to poll records",
        "Caused by: org.postgresql.util.PSQLException: ERROR: invalid memory alloc request size 1",
        'Where: slot "cdc_app", in the change callback, associated LSN 0/1E037B8',
    ]
    assert other == "[2026-01-01 00:00:01,000] ERROR WorkerSourceTask{id=cdc_app2-0} failed"
