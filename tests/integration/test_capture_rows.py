"""No row is missing, whatever happens to the connector in the middle of a transaction."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString

import harness
import psycopg
import pytest
from capture import STOCK, Block, Capture, Event, Whole, capture, whole
from harness import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.long]

#: A COPY of so many narrow rows has hundreds of rows with one LSN, over and over.
COPIED = 250_000

#: Records between two interruptions: well inside each transaction.
STEP = 25_000

NONE = Block("", 0)

TABLES: LiteralString = """
    CREATE TABLE copied (id int PRIMARY KEY);
    CREATE TABLE moved (id int PRIMARY KEY, v text);
    CREATE TABLE emptied_a (id int PRIMARY KEY);
    CREATE TABLE emptied_b (id int PRIMARY KEY, a int REFERENCES emptied_a);
    CREATE TABLE around (id int PRIMARY KEY);
"""


class Breakable:
    """A stack of its own, whose worker may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.up()
        self.stack = Stack.at(folder)

    def up(self) -> None:
        args = ("local", "up", "--replicas", "1", "--dir", self.folder)
        elsewhere = {"TZ": "Asia/Kolkata"}  # the task refuses sessions in another zone than UTC
        harness.run(*args, cwd=self.folder.parent, timeout=600, env=elsewhere)

    def kill_worker(self) -> None:
        """End the worker as a power cut would, and start it again."""
        said = harness.run(
            "local", "status", "--json", "--dir", self.folder, cwd=self.folder.parent
        )
        pid = json.loads(said.stdout)["pids"]["connect"]
        os.kill(pid, signal.SIGKILL)
        self.up()


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Breakable]:
    folder = tmp_path_factory.mktemp("breakable") / "local"
    try:
        yield Breakable(folder)
    finally:
        harness.take_down(folder)


@pytest.fixture
def exact(breakable: Breakable) -> Iterator[Capture]:
    with capture(breakable.stack) as fresh:
        fresh.sql(TABLES)
        yield fresh


def restart(exact: Capture) -> None:
    exact.act("POST", "/restart?includeTasks=true")


def pause(exact: Capture) -> None:
    exact.act("PUT", "/pause")
    wait_until(lambda: exact.states() == ["PAUSED", "PAUSED"], "the connector is paused")
    exact.act("PUT", "/resume")


def stop(exact: Capture) -> None:
    exact.act("PUT", "/stop")
    wait_until(lambda: exact.states() == ["STOPPED"], "the connector is stopped")
    exact.act("PUT", "/resume")


def copy(
    session: psycopg.Connection[tuple[object, ...]], table: str, first: int, count: int
) -> None:
    with session.cursor().copy(f"COPY {table} FROM STDIN".encode()) as stream:
        for start in range(first, first + count, 10_000):
            ids = range(start, min(start + 10_000, first + count))
            stream.write("".join(f"{n}\n" for n in ids))


def copying(session: psycopg.Connection[tuple[object, ...]]) -> None:
    copy(session, "copied", 1, COPIED)


def inserting(session: psycopg.Connection[tuple[object, ...]]) -> None:
    session.execute("INSERT INTO copied SELECT i FROM generate_series(1000001, 1001000) i")


def moving(session: psycopg.Connection[tuple[object, ...]]) -> None:
    copy(session, "around", 1, 30_000)
    session.execute("UPDATE moved SET id = id + 1000000")
    copy(session, "around", 30_001, 30_000)


def emptying(session: psycopg.Connection[tuple[object, ...]]) -> None:
    copy(session, "around", 100_001, 60_000)
    session.execute("TRUNCATE emptied_a, emptied_b")
    copy(session, "around", 160_001, 60_000)


def interrupted(
    exact: Capture,
    work: Callable[[psycopg.Connection[tuple[object, ...]]], None],
    interruptions: list[Callable[[], None]],
    step: int = STEP,
) -> int:
    """Commit one transaction and interrupt the connector while it sends it; its txid.

    Each interruption comes when `step` more records are in the topic.
    """
    exact.running()
    with psycopg.connect(exact.dsn) as session:
        row = session.execute("SELECT pg_current_xact_id()::text::int").fetchone()
        assert row
        work(session)
        reached = exact.records()
    for interrupt in interruptions:
        exact.reach(reached + step)
        interrupt()
        exact.running()
        reached = exact.records()
    return int(row[0])


def ids(events: list[Event], op: str, image: str) -> list[int]:
    found = (getattr(e, image) for e in events if e.op == op)
    return [int(i["id"]) for i in found]


def test_no_row_is_missing(breakable: Breakable, exact: Capture) -> None:
    """COPY, INSERT, key change and TRUNCATE come whole through restarts, pauses, stops and SIGKILLs."""
    exact.sql("INSERT INTO moved SELECT i, 'v' FROM generate_series(1, 40000) i")
    exact.sql("INSERT INTO emptied_a VALUES (1); INSERT INTO emptied_b VALUES (1, 1)")
    exact.start()
    exact.drained()  # a first END is stored before anything is interrupted
    kill = breakable.kill_worker

    copied = interrupted(
        exact,
        copying,
        [lambda: restart(exact), lambda: pause(exact), kill, lambda: stop(exact)],
    )
    inserted = interrupted(exact, inserting, [kill], step=1)
    moved = interrupted(exact, moving, [kill])
    emptied = interrupted(exact, emptying, [lambda: restart(exact)])
    found: dict[int, Whole] = {t.txid: t for t in whole(exact.read(exact.mark()))}

    assert [*range(1, COPIED + 1)] == ids(found[copied].of("copied"), "c", "after")
    assert [*range(1_000_001, 1_001_001)] == ids(found[inserted].of("copied"), "c", "after")
    assert [*range(1, 60_001)] == ids(found[moved].of("around"), "c", "after")
    keys = found[moved].of("moved")
    assert {*range(1, 40_001)} == {*ids(keys, "d", "before")}
    assert {*range(1_000_001, 1_040_001)} == {*ids(keys, "c", "after")}
    assert 80_000 == len(keys)
    truncated = [e.source.table for e in found[emptied].events if e.op == "t" and e.source]
    assert ["emptied_a", "emptied_b"] == sorted(truncated)
    assert [*range(100_001, 220_001)] == ids(found[emptied].of("around"), "c", "after")


def test_the_first_transaction_is_whole(breakable: Breakable, exact: Capture) -> None:
    """A SIGKILL inside the very first transaction, before any offset exists, loses nothing."""
    exact.start(heartbeat__interval__ms="0", heartbeat__action__query=None)

    first = interrupted(exact, lambda s: copy(s, "copied", 1, 100_000), [breakable.kill_worker])
    found = {t.txid: t for t in whole(exact.read(exact.mark()))}

    assert [*range(1, 100_001)] == ids(found[first].of("copied"), "c", "after")


def test_the_stock_connector_loses_rows(exact: Capture) -> None:
    """The same restarts with Debezium's own connector lose rows, which no count shows."""
    exact.start(connector__class=STOCK, converters=None, exact__type=None)
    exact.drained()

    def again() -> None:
        restart(exact)

    for attempt in range(5):
        exact.sql("TRUNCATE copied")
        txid = interrupted(exact, copying, [again, again, again])
        there = set()
        ends = {}
        for event in exact.read(exact.mark()):
            if event.status == "END" and event.id:
                ends[int(event.id.split(":")[0])] = event.event_count
            elif (
                event.op == "c"
                and event.after
                and (event.transaction or NONE).id.startswith(f"{txid}:")
            ):
                there.add(event.after["id"])
        missing = [*itertools.filterfalse(there.__contains__, range(1, COPIED + 1))]
        print(f"round {attempt}: {len(missing)} rows missing, END counts {ends[txid]}")
        # A task that Connect gave up may still send rows that its successor counts not at all.
        if missing and ends[txid] == COPIED - len(missing):
            return
    raise AssertionError("the stock connector lost no row unseen in five rounds: is it mended?")


def test_the_slot_never_passes_the_stored_offset(exact: Capture) -> None:
    """The server keeps everything after the last stored END, and lets go of what lies before."""
    exact.start()
    exact.drained()
    wait_until(lambda: exact.stored() is not None, "Connect has stored an offset")
    confirmed: LiteralString = (
        "SELECT (confirmed_flush_lsn - '0/0'::pg_lsn)::bigint FROM pg_replication_slots"
        " WHERE slot_name = %s"
    )

    def positions() -> tuple[int, int]:
        """Return what the server has been told, then what Connect has stored by now."""
        told = exact.sql(confirmed, exact.connector)[0][0]
        stored = exact.stored()
        assert stored
        assert stored["messageType"] == "COMMIT"
        assert "transaction_id" not in stored
        assert stored["lsn"] == stored["lsn_proc"] == stored["lsn_commit"]
        return told, stored["lsn"]

    with psycopg.connect(exact.dsn) as session:
        copying(session)
        before = exact.records()
        session.commit()
    end = exact.sql("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")[0][0]
    within = 0
    while (records := exact.records()) < before + COPIED:
        told, stored = positions()
        assert told <= stored
        within += before + STEP < records and stored < end
    assert within, "the sending was never seen on its way"
    wait_until(lambda: min(positions()) >= end, "the slot has followed")
