"""The daemon as a process: it catches up, stops, stands by, is waited for, and takes its time."""

from __future__ import annotations

import json
import signal
import threading
from typing import LiteralString

import compare
import psycopg
import pytest
import requests
from harness import Stream, wait_until

TABLES: LiteralString = "CREATE TABLE t (id int PRIMARY KEY, v text)"
WRITE: LiteralString = (
    "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(%s::int, %s::int) i"
)

#: Many pieces, so that a large transaction is in the works for long enough to interfere.
PIECES = "\n[apply]\nmax_batch_rows = {}\n"


@pytest.fixture
def filled(stream: Stream) -> Stream:
    """Give a stream with one table, filled."""
    stream.ready(TABLES)
    return stream


def equal(stream: Stream, *replicas: str) -> None:
    nodes = {"primary": stream.primary} | {r: stream.replicas[r] for r in replicas}
    assert compare.differences(nodes, ["t"]) == []


def in_the_middle(stream: Stream) -> bool:
    """Tell whether the daemon of r1 has written rows that it has not committed."""
    return stream.sql(
        "r1",
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name LIKE '%%/r1/apply' AND backend_xid IS NOT NULL"
        " AND datname = %s AND pg_relation_size('t') > 1000000",
        [stream.name],
    ) == [(1,)]


def state(stream: Stream, replica: str) -> tuple[int, dict[str, object]]:
    """Return the exit code of `cdc status` and what it says of one replica."""
    said = stream.cdc("status", "-r", replica, "--json", check=False)
    return said.returncode, json.loads(said.stdout)["replicas"][replica]


def test_until_caught_up(filled: Stream) -> None:
    """`--until-caught-up` ends by itself with everything committed before it began."""
    for first in range(1, 2000, 100):
        filled.sql("primary", WRITE, [first, first + 99])
    filled.cdc("run", "-r", "r1", "--until-caught-up")
    equal(filled, "r1")

    filled.cdc("run", "-r", "r1", "--until-caught-up")
    filled.sql("primary", "DELETE FROM t WHERE id > 1000")
    filled.cdc("run", "-r", "r1", "--until-caught-up")
    equal(filled, "r1")


def test_sigterm_in_the_middle_of_a_transaction(filled: Stream) -> None:
    """SIGTERM ends the daemon with 0; of a large open transaction nothing is seen, and later all."""
    filled.config.write_text(filled.config.read_text() + PIECES.format(100))
    daemon = filled.start("run", "-r", "r1")
    filled.sql("primary", "INSERT INTO t VALUES (0, 'before')")
    filled.sql("primary", WRITE, [1, 100_000])
    wait_until(lambda: in_the_middle(filled), "pieces of the transaction are written")
    daemon.send_signal(signal.SIGTERM)

    assert daemon.wait(60) == 0, filled.log(daemon)
    assert filled.sql("r1", "SELECT id FROM t") == [(0,)]

    filled.cdc("run", "-r", "r1", "--until-caught-up")
    equal(filled, "r1")


def test_a_transaction_that_begins_again(filled: Stream) -> None:
    """When Connect sends an open transaction anew, pieces of it already written are taken back once.

    Others commit right between its rows, so one of its rows stands at the very LSN that is stored.
    """
    filled.config.write_text(filled.config.read_text() + PIECES.format(1000))
    daemon = filled.start("run", "-r", "r1")
    before = filled.records()
    writer = threading.Thread(target=filled.sql, args=("primary", WRITE, [1, 120_000]))
    writer.start()
    with psycopg.connect(filled.primary, autocommit=True) as other:
        for _ in range(100):
            other.execute("SELECT pg_logical_emit_message(true, 'test', 'between')")
    writer.join()
    restart = f"{filled.connect}/connectors/cdc_{filled.name}/restart?includeTasks=true"
    # More than a piece of it, and by hand: a program that starts first may come when all has been sent.
    wait_until(
        lambda: filled.records() > before + 5000, "a part of the transaction is in the topic"
    )
    requests.post(restart, timeout=60).raise_for_status()
    filled.cdc("wait", "-r", "r1", "--now", "--timeout", "300s", timeout=330)

    assert "comes again whole from offset" in filled.log(daemon)
    equal(filled, "r1")


def test_a_hot_standby_takes_over(filled: Stream) -> None:
    """A second daemon waits while the first lives, and goes on when it is killed."""
    first = filled.start("run", "-r", "r1")
    wait_until(lambda: "applying from" in filled.log(first), "the first daemon applies")
    second = filled.start("run", "-r", "r1")
    wait_until(lambda: "standing by" in filled.log(second), "the second daemon stands by")
    filled.sql("primary", WRITE, [1, 100])
    filled.cdc("wait", "-r", "r1", "--now")
    assert "applying from" not in filled.log(second)

    first.kill()
    filled.sql("primary", WRITE, [101, 200])
    filled.cdc("wait", "-r", "r1", "--now")

    assert "applying from" in filled.log(second)
    equal(filled, "r1")


def test_a_column_added_on_both_ends(filled: Stream) -> None:
    """A column added on the replica first and then on the primary does not stop the daemon."""
    daemon = filled.start("run", "-r", "r1")
    filled.sql("primary", "INSERT INTO t VALUES (1, 'before')")
    filled.cdc("wait", "-r", "r1", "--now")
    for end in ("r1", "primary"):
        filled.sql(end, "ALTER TABLE t ADD COLUMN more int DEFAULT 7")
    filled.sql("primary", "INSERT INTO t VALUES (2, 'after', NULL)")
    filled.sql("primary", "UPDATE t SET more = 8 WHERE id = 1")
    filled.cdc("wait", "-r", "r1", "--now")

    assert daemon.poll() is None
    equal(filled, "r1")


def test_status_and_wait(filled: Stream) -> None:
    """`cdc status` tells a live daemon from a dead one, and `cdc wait` returns when rows are there."""
    daemon = filled.start("run", "-r", "r1")
    filled.sql("primary", WRITE, [1, 100])
    filled.cdc("wait", "-r", "r1", "--now")
    equal(filled, "r1")
    wait_until(lambda: state(filled, "r1")[0] == 0, "status says that all is well")
    assert state(filled, "r1")[1]["daemon"] == "applying"

    daemon.kill()
    daemon.wait()
    wait_until(lambda: state(filled, "r1")[1]["daemon"] == "not connected", "status says so")
    assert state(filled, "r1")[0] == 1
    late = filled.cdc("wait", "-r", "r1", "--now", "--timeout", "1s", check=False)
    assert late.returncode == 1
    assert "no daemon is connected" in late.stderr
