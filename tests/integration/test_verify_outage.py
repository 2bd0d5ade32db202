"""`cdc-verify` while servers die under it, and while a standby holds up commits."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, LiteralString

import harness
import psycopg
import pytest
from harness import Stack, Stream
from psycopg import sql
from verifying import verified

from cdc.local import processes
from cdc.local.layout import Layout

pytestmark = pytest.mark.stack

TABLES: LiteralString = """
    CREATE TABLE a_first (id int PRIMARY KEY, v text);
    INSERT INTO a_first SELECT g, 'v' FROM generate_series(1, 100) AS g;
    CREATE TABLE rows (id int PRIMARY KEY, v text);
    INSERT INTO rows SELECT g, 'v' FROM generate_series(1, 30000) AS g;
    CREATE TABLE z_bare (v text); ALTER TABLE z_bare REPLICA IDENTITY FULL;
    INSERT INTO z_bare SELECT 'v' || g FROM generate_series(1, 100) AS g;
"""

#: What a standby holds up.
HELD: LiteralString = "UPDATE rows SET v = 'new' WHERE id = 7; INSERT INTO z_bare VALUES ('new')"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream with two running daemons on servers of its own."""
    with (
        harness.own_stack(tmp_path_factory.mktemp("outage") / "stack") as stack,
        harness.stream(stack, tmp_path_factory.mktemp("stream")) as stream,
    ):
        stream.running(TABLES)
        yield stream


def set_system(stream: Stream, name: str, value: str) -> None:
    statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
    stream.sql("primary", statement)
    stream.sql("primary", "SELECT pg_reload_conf()")


@contextlib.contextmanager
def unanswered(stream: Stream) -> Iterator[int]:
    """Let a commit wait for a standby that nobody is; give the process that waits."""
    set_system(stream, "synchronous_standby_names", "nobody")
    conn = psycopg.connect(stream.primary, autocommit=True)
    pid = conn.info.backend_pid
    commit = threading.Thread(target=conn.execute, args=[HELD])
    commit.start()
    try:
        yield pid
    finally:
        set_system(stream, "synchronous_standby_names", "")
        commit.join()
        conn.close()


def test_a_commit_that_a_standby_holds_up_is_no_difference(pair: Stream) -> None:
    """Applied on the replicas and not visible on the primary, a row is undecided, by its key as by its
    content; who waits is named.
    """
    with unanswered(pair) as pid:
        for replica in pair.replicas:
            harness.wait_until(
                lambda: pair.sql(replica, "SELECT v FROM rows WHERE id = 7") == [("new",)],  # noqa: B023 -- called before the next turn
                "the replica has what the primary does not show",
            )
        assert [("v",)] == pair.sql("primary", "SELECT v FROM rows WHERE id = 7")
        code, report = verified(pair)
        tables = [table for replica in report["replicas"] for table in replica["tables"][1:]]

        assert (3, []) == (code, report["findings"]), report
        assert [1, 1, 1, 1] == [t["unverified"] for t in tables]
        assert all(f"server processes {pid}" in t["undecided"][0]["reason"] for t in tables)
    code, report = verified(pair, "--resume")
    assert 0 == code, report


def halted(stream: Stream) -> subprocess.Popen[bytes]:
    """Start a verification and stop it in the pause after a chunk of the large table."""
    # At two percent the pause after a chunk is fifty times as long as the chunk.
    running = stream.start("--json", "--max-cpu", "2", name="cdc-verify")
    harness.wait_until(partial(remembered, stream), "a chunk is remembered")
    running.send_signal(signal.SIGSTOP)
    assert remembered(stream)
    return running


def remembered(stream: Stream) -> bool:
    """Tell whether the large table is read in part."""
    return bool(
        stream.sql("r1", "SELECT 1 FROM cdc.verified WHERE table_name = 'rows' AND NOT done")
    )


def report_of(stream: Stream, running: subprocess.Popen[bytes]) -> dict[str, Any]:
    (line,) = (line for line in stream.log(running).splitlines() if line.startswith("{"))
    return dict(json.loads(line))


@contextlib.contextmanager
def dead(stack: Stack, server: str) -> Iterator[None]:
    """Kill a PostgreSQL server and start it again."""
    process = processes.recorded(Layout(stack.config.parent).pid_file(server))
    assert process is not None
    processes.stop(process, [(signal.SIGQUIT, 60.0)])
    processes.reaped(process.pid, 30)
    try:
        yield
    finally:
        folder = stack.config.parent
        harness.run("local", "up", "--dir", folder, cwd=folder, timeout=300)


def test_a_replica_that_dies_meanwhile_costs_the_others_nothing(pair: Stream) -> None:
    """The replica that went away is exit 2 with what was proven of it; the other one is compared whole."""
    running = halted(pair)
    with dead(pair.stack, "r2"):
        running.send_signal(signal.SIGCONT)
        assert 2 == running.wait()
    report = report_of(pair, running)
    r1, r2 = report["replicas"]

    assert all(t["proven"] for t in r1["tables"])
    assert [True, False] == [t["proven"] for t in r2["tables"]]
    assert "the session on r2 broke" in r2["trouble"]
    assert "--resume" in r2["claim"]
    pair.caught_up()
    code, report = verified(pair, "--resume")
    assert (0, [30000, 30000]) == (code, [r["tables"][1]["rows"] for r in report["replicas"]])


def test_a_primary_that_dies_meanwhile_ends_the_run_with_what_was_proven(pair: Stream) -> None:
    """Exit 2, the tables before it proven on all replicas; --resume reads the rest."""
    running = halted(pair)
    with dead(pair.stack, "primary"):
        running.send_signal(signal.SIGCONT)
        assert 2 == running.wait()
    report = report_of(pair, running)

    for replica in report["replicas"]:
        assert [True, False] == [t["proven"] for t in replica["tables"]]
        assert "the session on the primary broke" in replica["trouble"]
    pair.cdc("connectors", "restart", check=False)
    pair.caught_up()
    code, report = verified(pair, "--resume")
    assert (0, [30000, 30000]) == (code, [r["tables"][1]["rows"] for r in report["replicas"]])
