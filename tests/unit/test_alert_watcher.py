"""What follows from a look: samples, grace, silence about what only starts, looks that never end."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from cdc.alert import alertmanager, courier, sampling, watcher, watching
from cdc.alert.clock import Clock
from cdc.alert.judgement import Reason, Sample
from cdc.alert.machine import Kind
from cdc.alert.payload import Frame
from cdc.alert.settings import Alert, CommandHook
from cdc.alert.store import State, Store
from cdc.alert.watcher import Watcher
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import Unreachable
from cdc.lag import Lag
from cdc.names import TableName
from cdc.observation import Observation, Slot
from cdc.position import Position
from cdc.readings import Capture, Daemon, ReplicaReading, Writer
from cdc.strays import Stray
from cdc.units import Duration
from cdc.verify.gauges import Gauges

FAILED = "the connector cdc_app has failed (task 0 FAILED): a trace"


def config(**alert: Any) -> Config:
    return Config(
        name="app",
        primary=Primary(dsn="dbname=app"),
        kafka=Kafka(bootstrap_servers="localhost:1"),
        connect=Connect(url="http://localhost:1"),
        replicas={"r1": Replica(dsn="dbname=app")},
        alert=Alert(hooks=(CommandHook(argv=("page",)),), **alert),
    )


RUNNING = Capture("RUNNING", True, (), (), None)
WRITER = Writer(7, 0.0)


def reading(writer: Writer | None = WRITER, daemon: Daemon | None = None) -> ReplicaReading:
    place = Position(
        stream="app", topic="cdc.app", topic_id="x", next_offset=1, leader_epoch=None,
        applied_lsn=1, system_id="1", timeline=1, ring=(), generation=0,
    )  # fmt: skip
    return ReplicaReading(0.0, place, 0.0, 1, 1, 0, [], daemon, writer, Gauges())


def seen(
    lag: Lag,
    capture: Capture = RUNNING,
    said: ReplicaReading | None = None,
    **more: Any,
) -> Observation:
    given: dict[str, Any] = {
        "at": 0.0, "lags": (lag,), "capture": capture, "slot": None, "strays": (), "skew": {},
        "unread": {}, "readings": {"r1": said or reading()}, "oldest_transaction": None,
    }  # fmt: skip
    return Observation(**(given | more))


def lag(seconds: float | None = 1.0, state: Any = "following", why: str | None = None) -> Lag:
    return Lag("r1", 0.0, seconds, state, why, applied_lsn=0x16B374D848)


def test_a_replica_that_follows() -> None:
    """Its lag and place are taken as they are."""
    assert {"r1": Sample(1.0, "", None, "16/B374D848", ())} == sampling.samples(seen(lag()))
    assert not sampling.failed(seen(lag()))


def test_what_cannot_be_read_is_why_the_lag_is_unknown() -> None:
    """The server's own error stands in the alert."""
    down = Unreachable("cannot connect to PostgreSQL at db2", safe="", next="")
    found = sampling.samples(seen(lag(None, "unknown"), unread={"r1": down}))["r1"]

    assert (None, "cannot connect to PostgreSQL at db2") == (found.lag, found.why)
    assert "not filled" in sampling.samples(seen(lag(None, "filling", "not filled")))["r1"].why


def test_what_has_certainly_ended_the_flow_is_named() -> None:
    """Connector, slot, daemon, another primary: each in its own words, though the lag is small."""
    failed = seen(lag(), Capture("task 0 FAILED", False, (0,), ("a trace",), FAILED))
    lost = seen(lag(), slot=Slot(False, "lost", None, None))
    alone = seen(lag(), said=reading(None))
    halted = seen(lag(), said=reading(None, Daemon("halted", "a column differs\n  data: …", 9.0)))
    diverged = seen(lag(None, "diverged", "the primary was failed over"))

    stopped = [
        sampling.samples(look)["r1"].stopped for look in (failed, lost, alone, halted, diverged)
    ]
    assert stopped == [
        FAILED,
        "the primary has dropped log that the connector has not read: its slot is lost",
        "no daemon applies",
        "no daemon applies; it last said that it was halted: a column differs",
        "the primary was failed over",
    ]
    assert sampling.failed(failed)
    assert sampling.failed(seen(lag(), Capture("connector FAILED", False, (), (), FAILED)))


def test_grace_is_given_after_a_pause_and_not_after_a_restart() -> None:
    """What may only be starting is not told; a watcher that is restarted again and again tells."""
    errands = courier.errands(config().alert.hooks, Frame.of(config()))

    def begins(state: State, now: float) -> State:
        return watcher.begun(state, now, config(), ["r1"], errands)

    first = begins(State(), 1000.0)
    assert 1000.0 == first.begun_at
    again = begins(dataclasses.replace(first, seen_at=1050.0), 1060.0)
    assert 1000.0 == again.begun_at
    later = begins(dataclasses.replace(first, seen_at=1050.0), 1111.0)
    assert 1111.0 == later.begun_at
    back = begins(dataclasses.replace(first, seen_at=1050.0), 900.0)
    assert (900.0, 850.0) == (back.seen_at, back.begun_at)


def test_who_is_watched_or_told_no_more_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """An alert whose end nobody will hear of, and notices to a hook that is gone, are said."""
    rules = watcher.rules(config(for_=Duration(0)))
    state, _ = watcher.advance(State(), {"r2": Sample(200.0)}, 1000.0, rules, boxes=["old"])
    errands = courier.errands(config().alert.hooks, Frame.of(config()))
    begun = watcher.begun(state, 1010.0, config(), ["r1"], errands)

    assert "hook old is configured no more; 1 notices to it are dropped" in caplog.text
    assert "r2 is watched no more" in caplog.text
    assert ({}, {"command page"}) == (begun.replicas, set(begun.outboxes))


def test_what_fires_in_the_grace_is_told_after_it(tmp_path: Path) -> None:
    """Nobody hears of it while everything may only be starting; then, if it still fires, they do."""
    settings = config(for_=Duration(0), clear_for=Duration(0), grace=Duration(60))
    moment = [1000.0]
    clock = Clock(lambda: moment[0], lambda: moment[0])
    kept = Store(tmp_path)
    errands = courier.errands(settings.alert.hooks, Frame.of(settings))
    one = Watcher(settings, ["r1"], kept, clock, errands)
    told = []
    for _ in range(14):
        one.judge({"r1": Sample(200.0)})
        told.append(len(kept.state.outboxes["command page"].notices))
        moment[0] += 5.0

    assert [0] * 12 + [1] * 2 == told
    (notice,) = kept.state.outboxes["command page"].notices
    assert (Kind.NEW, 1060.0, 1000.0) == (notice.kind, notice.at, notice.starts_at)


NEW = Stray(TableName("app", "later"), "unpublished", ("r1", "r2"))
GONE = Stray(TableName("app", "old"), "gone", ("r2",))


def test_tables_of_a_replica_are_known_or_not() -> None:
    """Those of another replica are not its own; unread ends say nothing of tables."""
    down = Unreachable("no", safe="", next="")

    assert (NEW,) == sampling.samples(seen(lag(), strays=(NEW, GONE)))["r1"].strays
    assert sampling.samples(seen(lag(), tables_known=False))["r1"].strays is None
    unread = sampling.samples(seen(lag(), unread={"r1": down}, readings={}))
    assert unread["r1"].strays is None


def test_tables_are_told_beside_the_lag() -> None:
    """By name, as a warning, once each way; what is told of the lag meanwhile begins and ends by itself."""
    rules = watcher.rules(config(for_=Duration(30), clear_for=Duration(60), repeat=Duration(0)))
    state, told = State(), list[tuple[float, str, str, str]]()

    def look(now: float, sample: Sample) -> None:
        nonlocal state
        state, notices = watcher.advance(state, {"r1": sample}, now, rules)
        told.extend((now, n.about, n.kind, n.severity.name) for n in notices)
        for notice in notices:
            assert notice.id.startswith("r1/tables/" if notice.about == "tables" else "r1/")
        if any(n.about == "tables" and n.kind == "new" for n in notices):
            assert "app.later matches the patterns and is not published" in notices[0].summary
            assert Reason.UNCOVERED is notices[0].reason

    for now in range(0, 1000, 10):
        look(float(now), Sample(1.0, strays=(NEW,)))
    for now in range(1000, 1100, 10):
        look(float(now), Sample(400.0, strays=(NEW,)))
    both = [a["labels"] for a in alertmanager.alerts(state, Frame.of(config()), 1100.0, 30.0)]
    for now in range(1100, 1300, 10):
        look(float(now), Sample(1.0, strays=(NEW,)))
    for now in range(1300, 1400, 10):
        look(float(now), Sample(None, "down", strays=None))
    look(1400.0, Sample(1.0, strays=()))
    for now in range(1410, 1600, 10):
        look(float(now), Sample(1.0, strays=()))

    assert told == [
        (900.0, "tables", "new", "WARNING"),
        (1030.0, "lag", "new", "CRITICAL"),
        (1160.0, "lag", "resolved", "CRITICAL"),
        (1330.0, "lag", "new", "CRITICAL"),
        (1460.0, "lag", "resolved", "CRITICAL"),
        (1460.0, "tables", "resolved", "WARNING"),
    ]
    assert [("CdcReplicaLag", "critical"), ("CdcReplicaTables", "warning")] == [
        (labels["alertname"], labels["severity"]) for labels in both
    ]


def test_a_jump_of_the_clock_fires_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An hour forward while something is pending is no hour; it is said and counted."""
    settings = config(grace=Duration(0))
    wall, steady = [1000.0], [0.0]
    clock = Clock(lambda: wall[0], lambda: steady[0])
    kept = Store(tmp_path)
    one = Watcher(settings, ["r1"], kept, clock, courier.errands((), Frame.of(settings)))
    one.judge({"r1": Sample(200.0)})
    wall[0] += 3605.0
    steady[0] += 5.0
    one.judge({"r1": Sample(200.0)})

    assert ("pending", 4600.0) == (kept.state.replicas["r1"].phase, kept.state.replicas["r1"].since)
    assert 1 == one.jumps
    assert "was set forward by 3600 s" in caplog.text


def test_a_look_that_never_ends_or_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """What hangs, or a defect, makes the lag unknown; when the look ends it is taken."""
    goes_on = threading.Event()
    answers: list[Any] = [lambda: goes_on.wait(60), lambda: 1 / 0, lambda: "seen"]

    def look(_now: float) -> Any:
        return answers.pop(0)()

    looking = watching.Looking(look, 0.01)
    assert "looking at it has not ended within 0 s" == looking.look(0.0)
    goes_on.set()
    looking = watching.Looking(look, 60.0)
    with caplog.at_level(logging.CRITICAL, "cdc"):
        assert "failed by a defect of this program (ZeroDivisionError)" in str(looking.look(0.0))
    assert "seen" == looking.look(0.0)
