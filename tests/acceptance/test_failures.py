"""What breaks on a replica and passes: the daemon stays, says what it waits for, and catches up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
import refusals
from harness import Stack, Stream, wait_until
from psycopg import sql

TABLES: LiteralString = """
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE u (id int PRIMARY KEY, v text);
    CREATE TABLE big (id int PRIMARY KEY, v text);
    CREATE TABLE parts (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
    CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
    INSERT INTO t VALUES (0, 'old');
    INSERT INTO u VALUES (0, 'old');
    INSERT INTO parts VALUES (0, 1, 'old');
"""
NAMES = ("t", "u", "big", "parts")


@pytest.fixture(scope="module")
def filled(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream that these tests share; r1 is filled."""
    with harness.stream(stack, tmp_path_factory.mktemp("failures")) as stream:
        # Debezium goes on trying for ever otherwise, and says that it runs.
        harness.edit(stream, r"^\[connect\]$", '[connect]\noptions = { "errors.max.retries" = 0 }')
        stream.sql("primary", TABLES)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        yield stream


@pytest.fixture
def daemon(filled: Stream) -> Iterator[subprocess.Popen[bytes]]:
    """Give r1's daemon, which applies; the test must leave it running."""
    started = filled.start("run", "-r", "r1")
    wait_until(lambda: "applying from" in filled.log(started), "the daemon applies")
    yield started
    ended = started.poll()
    stop(started)
    assert ended is None, filled.log(started)


def stop(daemon: subprocess.Popen[bytes]) -> None:
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0


def status(stream: Stream) -> tuple[str, str]:
    """Return what `cdc status` says of r1's daemon."""
    said = stream.cdc("status", "-r", "r1", "--json", check=False)
    found = json.loads(said.stdout)["replicas"]["r1"]
    return found["daemon"], found["error"] or ""


def says(stream: Stream, state: str, what: str) -> Callable[[], bool]:
    """Return a condition: `cdc status` gives the state, and says `what` in words."""

    def condition() -> bool:
        found, error = status(stream)
        return found == state and what in error

    return condition


def logged(stream: Stream, daemon: subprocess.Popen[bytes], what: str) -> Callable[[], bool]:
    return lambda: what in stream.log(daemon)


def caught_up(stream: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """Wait until r1 has everything; the rows are the same, and the daemon applies."""
    done = stream.cdc("wait", "-r", "r1", "--now", "--timeout", "120s", check=False, timeout=150)
    assert done.returncode == 0, done.stderr + stream.log(daemon)
    nodes = {"primary": stream.primary, "r1": stream.replicas["r1"]}
    assert compare.differences(nodes, NAMES) == []
    wait_until(says(stream, "applying", ""), "status says that it applies again")


@contextlib.contextmanager
def holding(stream: Stream, *statements: LiteralString) -> Iterator[psycopg.Connection[object]]:
    """Run statements on r1 as somebody else and keep the transaction open."""
    with psycopg.connect(stream.dsn("r1"), application_name="somebody") as other:
        for statement in statements:
            other.execute(statement)
        yield other
        other.rollback()


def sessions(stream: Stream) -> list[int]:
    """Return the server processes of r1's apply session."""
    return [
        pid
        for (pid,) in stream.sql(
            "r1",
            "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND a.datname = %s"
            " AND a.application_name LIKE '%%/r1/apply'",
            [stream.name],
        )
    ]


def test_a_lock_held_by_somebody(filled: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """Log and status name the session that holds the lock, and when its transaction began."""
    with holding(filled, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE") as other:
        holder = f"server process {other.info.backend_pid} (somebody, role postgres"
        filled.sql("primary", "UPDATE t SET v = 'locked' WHERE id = 0")
        wait_until(logged(filled, daemon, f"waiting for a lock held by {holder}"), "it looks")
        wait_until(says(filled, "waiting", holder), "status names the holder")
        assert "due to lock timeout (55P03); a lock held by" in filled.log(daemon)
    caught_up(filled, daemon)


def test_a_statement_is_canceled(filled: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """Somebody's pg_cancel_backend costs one try."""
    with holding(filled, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE"):
        filled.sql("primary", "UPDATE t SET v = 'canceled' WHERE id = 0")

        def canceled() -> bool:
            filled.sql(
                "r1",
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND wait_event_type = 'Lock'",
                [filled.name],
            )
            return "due to user request (57014); trying again" in filled.log(daemon)

        wait_until(canceled, "the statement was canceled")
    caught_up(filled, daemon)


def test_a_deadlock(filled: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """The daemon is PostgreSQL's victim, gives up its batch and writes it again."""
    # Time for the other session to close the circle before the daemon's backend looks for one.
    role = sql.SQL("ALTER ROLE {} IN DATABASE {} SET deadlock_timeout = '4s'")
    filled.sql("r1", role.format(sql.Identifier(filled.role), sql.Identifier(filled.name)))
    for pid in sessions(filled):
        filled.sql("r1", "SELECT pg_terminate_backend(%s)", [pid])

    def victim() -> bool:
        with holding(
            filled, "SET deadlock_timeout = '1h'", "LOCK TABLE u IN ACCESS EXCLUSIVE MODE"
        ) as other:
            with psycopg.connect(filled.primary) as primary:
                primary.execute("UPDATE t SET v = v || '+' WHERE id = 0")
                primary.execute("UPDATE u SET v = v || '+' WHERE id = 0")
            wait_until(lambda: blocked_by(filled, other.info.backend_pid), "the daemon waits")
            other.execute("UPDATE t SET v = v WHERE id = 0")
        return "deadlock detected (40P01)" in filled.log(daemon)

    # A machine that stands still for seconds lets the daemon's wait time out first.
    assert any(victim() for _ in range(5)), filled.log(daemon)
    caught_up(filled, daemon)


def blocked_by(stream: Stream, pid: int) -> bool:
    return bool(
        stream.sql(
            "r1",
            "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE '%%/r1/apply'"
            " AND pg_blocking_pids(pid) = ARRAY[%s::int]",
            [pid],
        )
    )


def test_a_serialization_failure(filled: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """A row that somebody moves between partitions under the daemon's update costs one try."""
    with holding(
        filled,
        "SET session_replication_role = replica",
        "UPDATE parts SET part = 2 WHERE id = 0",
        "UPDATE parts SET part = 1 WHERE id = 0",
    ) as other:
        filled.sql("primary", "UPDATE parts SET v = 'new' WHERE id = 0")
        wait_until(lambda: blocked_by(filled, other.info.backend_pid), "the daemon waits")
        other.commit()
        wait_until(logged(filled, daemon, "(40001); trying again"), "it failed")
    caught_up(filled, daemon)


def test_no_connection_is_left(filled: Stream, daemon: subprocess.Popen[bytes]) -> None:
    """A replica that lets nobody in any more is asked again until it does."""
    limit = sql.SQL("ALTER DATABASE {} CONNECTION LIMIT {}")
    name = sql.Identifier(filled.name)
    filled.sql("r1", limit.format(name, 0))
    try:
        for pid in sessions(filled):
            filled.sql("r1", "SELECT pg_terminate_backend(%s)", [pid])
        filled.sql("primary", "UPDATE t SET v = 'let in' WHERE id = 0")
        wait_until(logged(filled, daemon, "too many connections for database"), "it is refused")
        assert "terminating connection due to administrator command" in filled.log(daemon)
    finally:
        filled.sql("r1", limit.format(name, -1))
    caught_up(filled, daemon)


@pytest.fixture
def small(filled: Stream) -> Iterator[Path]:
    """Give a file system of 8 MB on which the replica's table `big` lies."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small file system")
    # Not below pytest's folder, which only root may enter.
    folder = Path(tempfile.mkdtemp(prefix="cdc-test-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=777", "cdc-small", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    (data,) = filled.sql("r1", "SHOW data_directory")[0]
    space = sql.Identifier(f"small_{filled.name}")
    server = filled.dsn("r1")
    try:
        os.chown(folder, Path(data).stat().st_uid, -1)
        location = sql.Literal(str(folder))
        harness.rows(server, sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, location))
        harness.rows(server, sql.SQL("ALTER TABLE big SET TABLESPACE {}").format(space))
        yield folder
        harness.rows(server, "ALTER TABLE big SET TABLESPACE pg_default")
        harness.rows(server, sql.SQL("DROP TABLESPACE {}").format(space))
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        folder.rmdir()


def test_the_disk_is_full(filled: Stream, small: Path, daemon: subprocess.Popen[bytes]) -> None:
    """Nothing is written until there is space again; then all of it is."""
    filled.sql(
        "primary",
        "INSERT INTO big SELECT i, (SELECT string_agg(md5((i + n)::text), '')"
        " FROM generate_series(1, 50) n) FROM generate_series(1, 10000) i",
    )
    wait_until(says(filled, "waiting", "No space left on device"), "status says that it is full")
    assert "(53100); trying again in" in filled.log(daemon)
    assert filled.sql("r1", "SELECT count(*) FROM big") == [(0,)]
    subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
    caught_up(filled, daemon)


class Cut(refusals.Gate):
    """A gate that breaks the line at the first COMMIT: before it gets through, or its answer."""

    def __init__(self, dsn: str, *, committed: bool) -> None:
        super().__init__(dsn)
        self._committed = committed
        self._answer_due = False
        self.cut = False

    def passes(self, block: bytes, *, from_client: bool) -> bool:
        if self._answer_due and not from_client:
            self._answer_due, self.cut = False, True
            return False
        if from_client and not self.cut and not self._answer_due and b"COMMIT\0" in block:
            self._answer_due, self.cut = self._committed, not self._committed
            return self._committed
        return True


@pytest.mark.parametrize("committed", [False, True])
def test_the_line_breaks_at_commit(filled: Stream, committed: bool) -> None:
    """Whether the commit had happened is read from the replica: nothing is lost or written twice."""
    gate = Cut(filled.replicas["r1"], committed=committed)
    witness = refusals.Witness(filled, [])
    config = witness.moved("r1", port=gate.port, password=witness.password("r1"))
    filled.cdc("run", "-r", "r1", "--until-caught-up")
    ((before,),) = filled.sql("r1", "SELECT rows_applied FROM cdc.position")
    filled.sql("primary", "UPDATE t SET v = v || '+' WHERE id = 0")
    filled.sql("primary", "UPDATE u SET v = v || '+' WHERE id = 0")
    gate.open()
    daemon = filled.start("-c", config, "run", "-r", "r1")
    try:
        wait_until(lambda: gate.cut, "the line broke at COMMIT", timeout=180)
        caught_up(filled, daemon)
    except AssertionError as error:
        error.add_note(filled.log(daemon))
        raise
    finally:
        stop(daemon)
        gate.close()
    assert "server closed the connection unexpectedly; trying again in" in filled.log(daemon)
    assert filled.sql("r1", "SELECT rows_applied FROM cdc.position") == [(before + 2,)]


def test_stopped_while_the_replica_does_not_answer(filled: Stream) -> None:
    """SIGTERM is answered also while a server process stands still; nothing is lost by it."""
    daemon = filled.start("run", "-r", "r1")
    with holding(filled, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE") as other:
        filled.sql("primary", "UPDATE t SET v = 'stopped' WHERE id = 0")
        wait_until(lambda: blocked_by(filled, other.info.backend_pid), "the daemon waits")
        (backend,) = sessions(filled)
        os.kill(backend, signal.SIGSTOP)
        try:
            stop(daemon)
        finally:
            os.kill(backend, signal.SIGCONT)
    filled.cdc("run", "-r", "r1", "--until-caught-up")
    nodes = {"primary": filled.primary, "r1": filled.replicas["r1"]}
    assert compare.differences(nodes, NAMES) == []


def test_the_connector_has_failed(filled: Stream) -> None:
    """A connector that cannot log in any more: status and log say so; then all is well again."""
    role = sql.Identifier(f"cdc_{filled.name}_connector")
    filled.sql("primary", sql.SQL("ALTER ROLE {} NOLOGIN").format(role))
    try:
        filled.sql(
            "primary",
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE database = %s AND active",
            [filled.name],
        )

        def failed() -> bool:
            return "has failed" in filled.cdc("status", check=False).stdout.splitlines()[0]

        wait_until(failed, "status says that the connector has failed", timeout=120)
        daemon = filled.start("run", "-r", "r1")  # looks at once; a running one every minute
        wait_until(logged(filled, daemon, "applying what the topic holds"), "the log says so")
    finally:
        filled.sql("primary", sql.SQL("ALTER ROLE {} LOGIN").format(role))
    filled.cdc("connectors", "restart")
    caught_up(filled, daemon)
    stop(daemon)
