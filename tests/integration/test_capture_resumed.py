"""Resuming at a commit that lies inside another transaction: where Debezium drops that one's first rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from capture import EXACT, STOCK, Capture, Whole, capture, whole
from harness import Stack, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.long]

#: Rows before and after the one that stands where the connector resumes.
AROUND = 1000

#: Nothing but the test's own transactions may be the last one that is stored.
QUIET: dict[str, str | None] = {"heartbeat__interval__ms": "0", "heartbeat__action__query": None}


@pytest.fixture
def made(stack: Stack) -> Iterator[Capture]:
    with capture(stack) as fresh:
        fresh.sql("CREATE TABLE t (id int PRIMARY KEY)")
        yield fresh


def place(session: psycopg.Connection[Any]) -> int:
    """Return where the next record of the log will be written."""
    row = session.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
    assert row
    return int(row[0])


def insert(session: psycopg.Connection[Any], first: int, last: int) -> None:
    """Insert rows one by one: each is a record of its own in the log."""
    session.execute("INSERT INTO t SELECT i FROM generate_series(%s::int, %s) i", [first, last])


def resumed_at_a_row(made: Capture) -> tuple[int, Whole]:
    """Let the connector resume exactly at a row of a transaction that commits meanwhile.

    Return how many rows the transaction has, and what the topic has of it.
    """
    with psycopg.connect(made.dsn) as session:
        row = session.execute("SELECT pg_current_xact_id()::text::int").fetchone()
        assert row
        insert(session, 1, AROUND)
        keys = itertools.count(AROUND + 1)
        while not stopped_at(made, at := between(made, session, keys)):
            made.act("PUT", "/resume")
            made.running()
        rows = next(keys) - 1
        insert(session, rows + 1, rows + AROUND)
        session.commit()
    made.act("PUT", "/resume")
    made.running()
    (found,) = [t for t in whole(made.drained()) if t.txid == row[0]]
    assert found.end > at
    return rows + AROUND, found


def between(made: Capture, session: psycopg.Connection[Any], keys: Iterator[int]) -> int:
    """Commit other transactions, a row right behind each; return where the last such row stands."""
    sizes: list[int] = []
    # Records of the same kind have the same size: with more, another database has written between.
    while len(sizes) < 5 or sizes[-1] > min(sizes):
        made.mark()
        before, key = place(session), next(keys)
        insert(session, key, key)
        sizes.append(place(session) - before)
    return before


def stopped_at(made: Capture, place: int) -> bool:
    """Stop the connector; tell whether it will resume at `place`, not at another commit."""
    wait_until(lambda: _stored(made) >= place, "the commit is stored", 180)
    made.act("PUT", "/stop")
    wait_until(lambda: made.states() == ["STOPPED"], "the connector is stopped")
    return _stored(made) == place


def _stored(made: Capture) -> int:
    offset = made.stored()
    return 0 if offset is None else int(offset["lsn"])


def test_the_stock_connector_loses_the_rows_before(made: Capture) -> None:
    """Debezium searches that row, drops what comes before it, and END counts only the others."""
    made.start(connector__class=STOCK, converters=None, exact__type=None, **QUIET)
    made.drained()

    rows, found = resumed_at_a_row(made)

    assert AROUND == len(found.of("t"))
    assert AROUND < rows - AROUND
    assert [*range(rows - AROUND + 1, rows + 1)] == [
        e.after and e.after["id"] for e in found.of("t")
    ]


def test_no_row_is_missing(made: Capture) -> None:
    """The plugin lets Debezium search nothing: the transaction comes whole."""
    made.start(connector__class=EXACT, **QUIET)
    made.drained()

    rows, found = resumed_at_a_row(made)

    assert [str(n) for n in range(1, rows + 1)] == [
        e.after and e.after["id"] for e in found.of("t")
    ]
