"""The lag that is told, against rows that tell it by themselves, while everything is struck in turn.

`CDC_LAG_HOLD` and `CDC_LAG_IDLE` are the seconds that each blow and the idle time last, `CDC_LAG_ROWS` how
many rows the large transaction has (`make drill-lag`).
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from typing import Any, LiteralString

import harness
import markers
import psycopg
import pytest
import reporting
import requests
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from harness import Stack, Stream, wait_until
from markers import Markers
from schedule import Blow
from victims import Components, Daemons

from cdc import config as configuration
from cdc.lag import Lag
from cdc.observation import Observation, Observer
from cdc.unapplied import Log

pytestmark = [pytest.mark.stack, pytest.mark.long]

#: The bar: seconds by which the lag that is told may differ from the truth.
NEAR = 2.0

HOLD = float(os.environ.get("CDC_LAG_HOLD", "6"))
IDLE = float(os.environ.get("CDC_LAG_IDLE", "12"))

#: More than are written in one piece.
ROWS = int(os.environ.get("CDC_LAG_ROWS", "50000"))

#: Seconds between two looks, and between two heartbeats.
INTERVAL, HEARTBEAT = 0.5, "500ms"

TABLES: LiteralString = f"{markers.TABLE}; CREATE TABLE odd (id int PRIMARY KEY, v varbit)"

#: A legal value that no server can print: it would be longer than the GB that a text may have.
UNREADABLE: LiteralString = """
    INSERT INTO odd SELECT 1, v || v || v || v || v || v || v || v || v || v || v || v || v
    FROM (SELECT 0::bit(83886080)::varbit) zeros (v)
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack whose components may be struck."""
    with harness.own_stack(tmp_path_factory.mktemp("lag") / "stack", "--replicas", "1") as stack:
        yield stack


@pytest.fixture(scope="module")
def stream(own: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream with frequent heartbeats."""
    with harness.stream(own, tmp_path_factory.mktemp("lag-stream")) as made:
        harness.edit(made, r"^\[connect\]$", f'[connect]\nheartbeat = "{HEARTBEAT}"')
        made.ready(TABLES)
        yield made


class Witness:
    """Compares what observer and daemon tell with the markers, look by look."""

    def __init__(self, stream: Stream) -> None:
        config = configuration.load(stream.config)
        listen = config.replica("r1").listen
        assert listen is not None
        self.stream = stream
        self.url = f"http://{listen}/freshness"
        self.components = Components(stream.stack)
        self.daemons = Daemons(stream)
        self.markers = Markers(stream.primary, stream.dsn("r1"))
        self.observer = Observer(config, ["r1"], INTERVAL)
        self.worst = self.most = 0.0
        wait_until(lambda: self.markers.shown() > 0, "a marker has come to the replica")

    def close(self) -> None:
        self.components.release()
        self.markers.close()
        self.observer.close()

    def look(self, *, unknown: bool = False, served: bool = True) -> Observation:
        """Look once and compare; `unknown` tells that not to know the lag is right now.

        The truth lies between what the replica showed before the look and after it; it is no less
        than nothing where the replica shows all that was committed.
        """
        committed, before = self.markers.committed, self.markers.shown()
        seen = self.observer.look(markers.now())
        told, asked_at = self.ask() if served else (None, 0.0)
        after = self.markers.shown()
        after = max(after, markers.now()) if after >= committed else after
        found = seen.lag("r1")
        if found.seconds is None:
            assert unknown or {"r1", "primary"} & seen.unread.keys(), found
        else:
            self._compare(found.at, found.seconds, before, after, (found, seen.unread))
        if told is not None and told["lag_seconds"] is not None:
            self._compare(asked_at, told["lag_seconds"], before, after, told)
        return seen

    def _compare(self, at: float, told: float, before: float, after: float, what: object) -> None:
        most, least = at - before, at - after
        off = max(told - most, least - told, 0.0)
        self.worst, self.most = max(self.worst, off), max(self.most, told)
        assert off <= NEAR, f"told {told:.2f} s, true between {least:.2f} and {most:.2f}: {what}"

    def ask(self) -> tuple[dict[str, Any] | None, float]:
        """Return what the daemon answers, None where it does not, and when it was asked."""
        try:
            answer = requests.get(self.url, timeout=5)
        except requests.RequestException:
            return None, 0.0
        return dict(answer.json()), markers.now()

    def during(self, seconds: float, **how: bool) -> list[Lag]:
        """Look again and again for so many seconds."""
        until, seen = time.monotonic() + seconds, []
        while time.monotonic() < until:
            seen.append(self.look(**how).lag("r1"))
            time.sleep(INTERVAL)  # looks are a pace of their own, nothing is waited for
        return seen

    def recovered(self) -> None:
        """Look until the replica follows again, and its daemon says so."""

        def follows() -> bool:
            # A daemon that has been out of touch says for a moment what it knew before.
            seen = self.look(unknown=True, served=False)
            if seen.capture is not None and seen.capture.failed:
                # As after any failure of the primary that Debezium does not take for a passing one.
                self.stream.cdc("connectors", "restart")
            found, (told, _) = seen.lag("r1"), self.ask()
            return (
                found.state == "following"
                and (found.seconds or 0.0) < 1
                and told is not None
                and told["fresh"]
                and told["lag_seconds"] < NEAR
            )

        wait_until(follows, "the replica follows again", timeout=180)


@pytest.fixture(scope="module")
def running(stream: Stream) -> Iterator[Witness]:
    with contextlib.closing(Witness(stream)) as made:
        yield made


@pytest.fixture
def witness(running: Witness, request: pytest.FixtureRequest) -> Iterator[Witness]:
    """Give the witness of a replica that follows; tell afterwards what it has seen."""
    running.recovered()
    running.worst = running.most = 0.0
    began = time.monotonic()
    yield running
    reporting.note(
        request.node.name,
        seconds=round(time.monotonic() - began, 1),
        greatest_lag=round(running.most, 2),
        furthest_from_truth=round(running.worst, 2),
    )


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("target", ["daemon r1", "connect", "kafka", "r1", "primary"])
def test_the_lag_is_true_whatever_is_struck(witness: Witness, target: Any, how: Any) -> None:
    """Within two seconds of the truth while it lasts and afterwards, or rightly unknown."""
    blow = Blow(target, how, HOLD)
    daemon = target.startswith("daemon")
    victims = witness.daemons if daemon else witness.components
    witness.markers.shown()
    witness.markers.frozen = target == "r1"
    victims.strike(blow)
    try:
        seen = witness.during(HOLD, unknown=target in {"r1", "primary"}, served=not daemon)
    finally:
        if daemon:
            witness.daemons.restore(blow)
        else:
            witness.components.restore([blow])
        witness.markers.frozen = False
    witness.recovered()

    if target not in {"r1", "primary"}:
        assert (seen[-1].seconds or 0.0) > HOLD / 2, seen[-1]


def connector(witness: Witness, verb: str) -> None:
    name = f"cdc_{witness.stream.name}"
    requests.put(f"{witness.stream.connect}/connectors/{name}/{verb}", timeout=30)


def test_a_paused_connector(witness: Witness) -> None:
    """The lag grows though nothing is wrong with any server, and is explained."""
    connector(witness, "pause")
    try:
        wait_until(lambda: "PAUSED" in capture(witness.look()), "the connector is paused")
        last = witness.during(HOLD)[-1]
    finally:
        connector(witness, "resume")
    witness.recovered()

    assert "is held" in (last.why or "")
    assert (last.seconds or 0.0) > HOLD / 2


def capture(seen: Observation) -> str:
    return "" if seen.capture is None else seen.capture.state


def waits(stream: Stream) -> str:
    """Return what the daemon says that it waits for, nothing where it does not wait."""
    ((state, told),) = stream.sql("r1", "SELECT state, error FROM cdc.daemon")
    return str(told) if state == "waiting" else ""


def ends_amid(stream: Stream) -> bool:
    """Tell whether the topic ends amid the transaction that r1 has to apply next."""
    ((offset, lsn),) = stream.sql(
        "r1", "SELECT next_offset, (applied_lsn - '0/0')::bigint FROM cdc.position"
    )
    with contextlib.closing(Log(configuration.load(stream.config))) as log:
        end = log.end()
        first = log.first("r1", offset, lsn, end)
        return first is not None and log.cut(first, end) is not None


def told_lag(witness: Witness) -> float:
    """Return the lag that the daemon tells: it may not know it for a moment on a busy machine."""
    found: list[float] = []

    def known() -> bool:
        told, _ = witness.ask()
        assert told is not None
        if told["lag_seconds"] is not None:
            found.append(told["lag_seconds"])
        return bool(found)

    wait_until(known, "the daemon knows its lag", 10)
    return found[0]


def test_a_failed_connector(witness: Witness) -> None:
    """The lag grows, the failed task is named, with what it died of; mended, the same daemon goes on."""
    stream = witness.stream
    stream.sql("primary", "CREATE TABLE large (id int PRIMARY KEY, v text)")
    stream.cdc("setup")
    stream.cdc("bootstrap", "-r", "r1")
    limit(stream, 100_000)
    stream.sql(
        "primary",
        "INSERT INTO large SELECT 1, string_agg(md5(n::text), '') FROM generate_series(1, 10000) n",
    )
    try:
        wait_until(lambda: "FAILED" in capture(witness.look()), "the connector fails", timeout=120)
        witness.during(HOLD)
        seen = witness.look()
        # Connect may fail before it has sent the END: without it the daemon misses nothing yet.
        wait_until(
            lambda: waits(stream) != "" or ends_amid(stream), "the daemon says what it misses"
        )
        cut, waiting = ends_amid(stream), waits(stream)
    finally:
        limit(stream, 20 << 20)
        stream.cdc("connectors", "restart")
    wait_until(
        lambda: stream.sql("r1", "SELECT id FROM large") == [(1,)],
        "the transaction has come again whole",
        timeout=180,
    )
    witness.recovered()
    witness.daemons.alive()

    assert seen.capture is not None
    assert (0,) == seen.capture.failed
    assert "RecordTooLarge" in "".join(seen.capture.traces)
    assert cut or re.search(r"is not whole in the topic.*has failed.*RecordTooLarge", waiting)
    assert "RecordTooLarge" in (seen.lag("r1").why or "")


def test_a_value_that_cannot_be_read_is_named(witness: Witness) -> None:
    """Connect says RUNNING for ever, heartbeats stay out, the worker's log tells why; and the way out."""
    stream = witness.stream
    stream.sql("primary", UNREADABLE)
    wait_until(
        lambda: witness.during(INTERVAL)[-1].state == "not fed", "the standstill is seen as such"
    )
    seen = witness.look()
    # By a single look too, which has no looks before to compare with.
    wait_until(lambda: status(stream)["lag_state"] == "not fed", "status sees it as such")
    said = status(stream)

    # As docs/operations.md says: no restart helps, for the value stands in the log of the primary.
    stream.sql("primary", "DELETE FROM odd")
    stream.cdc("connectors", "delete", "--offsets")
    free = (
        "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'cdc_' || current_database()"
    )
    wait_until(lambda: stream.sql("primary", free) == [(True,)], "nobody reads from the slot")
    stream.sql("primary", "SELECT pg_drop_replication_slot('cdc_' || current_database())")
    stream.cdc("connectors", "apply")
    # It would halt after apply.missing_timeout; filled before that, it goes on by itself.
    wait_until(lambda: recorded(witness) in {"waiting", "halted"}, "it stands at what is left out")
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    witness.daemons.again("r1")
    witness.recovered()

    assert seen.capture is not None
    assert seen.capture.running
    why = seen.lag("r1").why or ""
    assert "though Connect says of it: connector RUNNING, task 0 RUNNING" in why
    assert "ERROR: invalid memory alloc request size" in why
    assert f'slot "cdc_{stream.name}"' in why
    assert "ERROR: invalid memory alloc request size" in said["error"]


def status(stream: Stream) -> dict[str, Any]:
    """Return what `cdc status` says of the replica."""
    said = stream.cdc("status", "--json", check=False).stdout
    return dict(json.loads(said)["replicas"]["r1"])


def recorded(witness: Witness) -> str | None:
    """Return what the daemon has recorded of itself."""
    said = witness.look().readings["r1"].daemon
    return None if said is None else said.state


def limit(stream: Stream, size: int) -> None:
    """Change how large a record of the topic may be."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, stream.topic, incremental_configs=[entry])
    kafka = AdminClient({"bootstrap.servers": stream.kafka})
    kafka.incremental_alter_configs([topic])[topic].result(30)


def test_an_idle_primary_is_no_lag(witness: Witness) -> None:
    """Nothing is written: the lag stays near 0 however long that lasts."""
    with witness.markers.quiet():
        until = time.monotonic() + IDLE
        most = 0.0
        while time.monotonic() < until:
            seen = witness.observer.look(markers.now()).lag("r1").seconds
            assert seen is not None
            most = max(most, seen, told_lag(witness))
            time.sleep(INTERVAL)  # as above

    assert most <= NEAR


def test_a_large_transaction(witness: Witness) -> None:
    """It counts from its commit; while it is read and applied the lag grows, and is true."""
    stream = witness.stream
    stream.sql("primary", "CREATE TABLE IF NOT EXISTS bulk (id int PRIMARY KEY, v text)")
    stream.cdc("setup")
    stream.cdc("bootstrap", "-r", "r1")
    witness.recovered()

    stream.sql("primary", "INSERT INTO bulk SELECT n, 'v' FROM generate_series(1, %s) n", [ROWS])
    wait_until(
        lambda: bool(witness.during(INTERVAL)) and arrived(stream),
        "it is applied",
        timeout=120 + ROWS / 1000,
    )
    witness.recovered()


def arrived(stream: Stream) -> bool:
    return stream.sql("r1", "SELECT count(*) FROM bulk") == [(ROWS,)]


def test_a_failing_heartbeat_is_told_from_a_standstill(witness: Witness) -> None:
    """Rows arrive, heartbeats do not: a state of its own, and the lag stays what it is."""
    function = "FUNCTION pg_catalog.pg_control_system()"
    role = f"cdc_{witness.stream.name}_connector"
    privileges = f"{function} FROM PUBLIC, {role}"
    witness.stream.sql("primary", f"REVOKE EXECUTE ON {privileges}")
    try:
        wait_until(
            lambda: witness.look().lag("r1").state == "heartbeat failing",
            "the heartbeat is seen to fail",
            timeout=120,
        )
        found = witness.during(2)[-1]
    finally:
        witness.stream.sql("primary", f"GRANT EXECUTE ON {function} TO PUBLIC")
    witness.recovered()

    assert "heartbeat query fails" in (found.why or "")
    assert (found.seconds or 0.0) < NEAR


def test_a_table_that_is_not_replicated_is_named(witness: Witness) -> None:
    """It matches the patterns and is on no replica: status says so and does not call it safe."""
    stream = witness.stream
    stream.sql("primary", "CREATE TABLE uncovered (id int PRIMARY KEY)")
    try:
        done = stream.cdc("status", "--json", check=False)
    finally:
        stream.sql("primary", "DROP TABLE uncovered")
    said = json.loads(done.stdout)

    assert (1, ["public.uncovered"]) == (done.returncode, said["uncovered"])
    assert "NOT replicated: 1 of the tables" in said["summary"]


def test_freshness_in_sql(witness: Witness) -> None:
    """Whoever may log in reads his own writes on the replica, and nothing else of the schema cdc."""
    stream = witness.stream
    with psycopg.connect(stream.dsn("r1"), autocommit=True) as reader:
        reader.execute("CREATE ROLE reader; GRANT SELECT ON marker TO reader; SET ROLE reader")
        try:
            ((written,),) = stream.sql(
                "primary", "INSERT INTO marker (at) VALUES (clock_timestamp()) RETURNING id"
            )
            ((lsn,),) = stream.sql("primary", "SELECT pg_current_wal_insert_lsn()::text")
            came = reader.execute("SELECT cdc.wait_for(%s::pg_lsn, '60s')", [lsn]).fetchone()
            seen = reader.execute("SELECT count(*) FROM marker WHERE id = %s", [written]).fetchone()
            fresh = reader.execute("SELECT complete, age < '1h' FROM cdc.freshness").fetchone()
            late = reader.execute("SELECT cdc.wait_for('FFFFFFFF/0', '50ms')").fetchone()
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("SELECT * FROM cdc.position")
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            with pytest.raises(psycopg.errors.ActiveSqlTransaction):
                reader.execute("SELECT cdc.wait_for('0/1')")
        finally:
            reader.execute("ROLLBACK")
            reader.execute("RESET ROLE; DROP OWNED BY reader; DROP ROLE reader")

    assert ((True,), (1,), (True, True), (False,)) == (came, seen, fresh, late)


def test_a_clock_that_is_wrong_here_changes_no_lag(witness: Witness) -> None:
    """The primary's clock alone counts; how far this machine's is off is told."""
    seen = witness.observer.look(markers.now() + 3600)
    found = seen.lag("r1")

    assert found.seconds is not None
    assert found.seconds <= NEAR
    assert -3600 == pytest.approx(seen.skew["primary"], abs=NEAR)


def test_watching_on_a_terminal(witness: Witness) -> None:
    """The answer, the replica and its bars in 80 columns, until somebody presses Ctrl-C."""
    stream = witness.stream
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (30, 80))
    watch = subprocess.Popen(
        [*harness.program(), "-c", str(stream.config), "status", "--watch"],
        cwd=stream.folder,
        env=harness.environment() | {"TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    said = bytearray()
    try:

        def read() -> None:
            if select.select([master], [], [], 0)[0]:
                said.extend(os.read(master, 65536))

        def drawn() -> bool:
            read()
            return b"1 replica, at most" in said and "▁".encode() in said

        def ended() -> bool:
            read()  # it draws once more, and a terminal that nobody reads takes little
            return watch.poll() is not None

        wait_until(drawn, "the replica and its bars are drawn")
        watch.send_signal(signal.SIGINT)
        wait_until(ended, "it ends")
        assert 130 == watch.returncode
    finally:
        watch.kill()
        watch.wait()
        os.close(slave)
        os.close(master)

    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode(errors="replace"))
    assert [] == [line for line in re.split(r"[\r\n]+", text) if len(line.rstrip()) > 80]


def test_history_shows_what_was(witness: Witness) -> None:
    """The daemon has kept samples; lines, CSV and a picture tell them."""
    stream = witness.stream
    picture = stream.folder / "lag.png"

    lines = stream.cdc("lag", "history", "-r", "r1", "--since", "1h").stdout
    csv = stream.cdc("lag", "history", "-r", "r1", "--csv").stdout.splitlines()
    stream.cdc("lag", "history", "-r", "r1", "--png", picture)

    assert re.match(r"r1: at most [\d.]+ s behind in the last 1 h, \d+ samples", lines)
    assert "at,lag_seconds,state,backlog_records" == csv[0]
    assert len(csv) > 2
    assert b"\x89PNG" == picture.read_bytes()[:4]
