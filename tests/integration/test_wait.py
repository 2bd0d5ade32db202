"""`cdc wait` on the real stack: it never says "reached" too early, and says why when it gives up."""

from __future__ import annotations

import json
import threading
from typing import LiteralString

import psycopg
import pytest
from harness import Stream

pytestmark = pytest.mark.stack

TABLES: LiteralString = """
    CREATE TABLE mine (id int PRIMARY KEY);
    CREATE TABLE noise (id serial PRIMARY KEY, n int);
"""


def filled(stream: Stream) -> Stream:
    stream.sql("primary", TABLES)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    stream.cdc("bootstrap", "-r", "r1")
    return stream


def test_own_writes_are_read_under_concurrent_writes(stream: Stream) -> None:
    """After `cdc wait --now`, what was committed before it is on the replica, every time."""
    filled(stream)
    stream.start("run", "-r", "r1")
    stop = threading.Event()

    def write(dsn: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.wait(0.02):
                conn.execute("INSERT INTO noise (n) VALUES (1)")

    writers = [threading.Thread(target=write, args=(stream.primary,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        for i in range(10):
            stream.sql("primary", "INSERT INTO mine VALUES (%s)", [i])
            stream.cdc("wait", "-r", "r1", "--now")
            assert stream.sql("r1", "SELECT count(*) FROM mine WHERE id = %s", [i]) == [(1,)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def test_an_lsn_taken_after_a_commit(stream: Stream) -> None:
    """An LSN that an application took after its commit is waited for, and printed."""
    filled(stream)
    stream.start("run", "-r", "r1")
    with psycopg.connect(stream.primary, autocommit=True) as conn:
        for i in range(5):
            conn.execute("INSERT INTO mine VALUES (%s)", [i])
            row = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
            assert row is not None
            done = stream.cdc("wait", "-r", "r1", "--lsn", row[0], "--json")
            assert json.loads(done.stdout)["lsn"] == row[0]
            assert stream.sql("r1", "SELECT count(*) FROM mine WHERE id = %s", [i]) == [(1,)]


def test_without_a_daemon_it_gives_up_and_says_so(stream: Stream) -> None:
    """Nobody applies: exit 1 naming where the replica is and that no daemon is connected."""
    filled(stream)

    done = stream.cdc("wait", "-r", "r1", "--now", "--timeout", "500ms", check=False)

    (position,) = stream.sql("r1", "SELECT applied_lsn::text FROM cdc.position")
    assert done.returncode == 1
    assert f"it is at {position[0]}, no daemon is connected" in done.stderr
    assert "cdc run -r r1" in done.stderr
    assert done.stdout == ""


def test_a_table_still_to_be_filled_is_not_reached(stream: Stream) -> None:
    """While a table is being copied the replica has not got everything, wherever its position is."""
    filled(stream)
    stream.sql("r1", "UPDATE cdc.tables SET state = 'copying' WHERE table_name = 'mine'")

    done = stream.cdc("wait", "-r", "r1", "--lsn", "0/1", "--timeout", "100ms", check=False)

    assert done.returncode == 1
    assert "1 of its tables are not filled yet" in done.stderr


def test_another_history_cannot_be_waited_for(stream: Stream) -> None:
    """LSNs of another primary or timeline are never compared."""
    filled(stream)
    stream.sql("r1", "UPDATE cdc.position SET timeline = timeline + 1")

    done = stream.cdc("wait", "-r", "r1", "--now", check=False)

    assert done.returncode == 1
    assert "cannot be compared" in done.stderr


def test_what_to_wait_for_must_be_said(stream: Stream) -> None:
    """Neither or both of --lsn and --now, or a malformed value, is a usage error."""
    for args in ((), ("--now", "--lsn", "0/1"), ("--lsn", "x"), ("--now", "--timeout", "soon")):
        done = stream.cdc("wait", "-r", "r1", *args, check=False)
        assert done.returncode == 2, args
