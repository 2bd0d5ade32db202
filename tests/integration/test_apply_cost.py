"""What writing a batch costs the replica, counted in the protocol: nothing here is timed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from harness import Stream
from psycopg import pq, sql

from cdc import postgres, writing
from cdc.apply import Applier
from cdc.events import Change, Row
from cdc.names import TableName

pytestmark = pytest.mark.stack

T = TableName("public", "t")

#: Round trips of a batch of one table: BEGIN and COMMIT are the caller's. A savepoint goes around it; what
#: changes rows is staged in a table that is looked at first, then joined.
ROUND_TRIPS = {"c": 3, "u": 5, "d": 5}

#: Rows from which on they are staged.
MANY = 4


@pytest.fixture
def applying(stream: Stream) -> Iterator[tuple[psycopg.Connection[Any], Applier]]:
    """Give a session as the daemon's, and an applier that has written batches of each kind."""
    stream.sql("r1", "CREATE TABLE t (id int PRIMARY KEY, v text)")
    dsn = stream.dsn("r1")
    with closing(postgres.connect(dsn, "test", autocommit=True, settings=writing.SETTINGS)) as conn:
        conn.execute("SET session_replication_role = replica")
        applier = Applier(conn, dsn, "test")
        for _ in range(6):  # from the fifth time on a statement is prepared
            for op in ROUND_TRIPS:
                for rows in (3, MANY):
                    holds(conn, 0 if op == "c" else rows)
                    write(conn, applier, op, rows)
        yield conn, applier


def write(conn: psycopg.Connection[Any], applier: Applier, op: str, rows: int) -> None:
    conn.execute("BEGIN")
    applier.write([change(op, number) for number in range(1, rows + 1)])
    conn.execute("COMMIT")


def change(op: str, number: int) -> Change:
    row: Row = {"id": str(number), "v": f"value {number} of {op}"}
    before, after = (row, None) if op == "d" else (None, row)
    return Change(op, T, before, after, 7, number, number, number, 10)  # type: ignore[arg-type]  # one of the three


def traced(
    conn: psycopg.Connection[Any], folder: Path, applier: Applier, op: str, rows: int
) -> tuple[Counter[str], int]:
    """Return how often each message of the protocol came in a batch, and the bytes of COPY."""
    return counted(conn, folder, applier, [change(op, number) for number in range(1, rows + 1)])


def counted(
    conn: psycopg.Connection[Any], folder: Path, applier: Applier, batch: list[Change]
) -> tuple[Counter[str], int]:
    conn.execute("BEGIN")
    with (folder / "trace").open("w+") as file:
        conn.pgconn.trace(file.fileno())
        conn.pgconn.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS)
        applier.write(batch)
        conn.pgconn.untrace()
        said = re.findall(r"^([FB])\t(\d+)\t(\w+)", (folder / "trace").read_text(), re.MULTILINE)
    conn.execute("COMMIT")
    copied = sum(int(size) - 4 for _, size, name in said if name == "CopyData")
    return Counter(name for _, _, name in said), copied


def test_a_batch_costs_the_same_round_trips_whatever_its_rows(
    applying: tuple[psycopg.Connection[Any], Applier], tmp_path: Path
) -> None:
    """Four rows or two thousand: as many statements and answers; COPY carries each value once."""
    conn, applier = applying
    for op, trips in ROUND_TRIPS.items():
        for rows in (MANY, 2000):
            holds(conn, 0 if op == "c" else rows)

            messages, copied = traced(conn, tmp_path, applier, op, rows)

            written = "{0}\n" if op == "d" else "{0}\tvalue {0} of " + op + "\n"
            assert trips == messages["ReadyForQuery"], (op, rows, messages)
            assert sum(len(written.format(n)) for n in range(1, rows + 1)) == copied, (op, rows)


def test_a_few_rows_are_written_by_a_statement_each(
    applying: tuple[psycopg.Connection[Any], Applier], tmp_path: Path
) -> None:
    """A row alone is one round trip; a few have a savepoint around them; nothing is staged."""
    conn, applier = applying
    for op in ROUND_TRIPS:
        for rows, trips in ((1, 1), (3, 5)):
            holds(conn, 0 if op == "c" else rows)

            messages, copied = traced(conn, tmp_path, applier, op, rows)

            assert trips == messages["ReadyForQuery"], (op, rows, messages)
            assert (0, 0) == (copied, messages["CopyData"])


def test_a_row_of_each_of_many_tables_is_a_statement_each(
    applying: tuple[psycopg.Connection[Any], Applier], tmp_path: Path
) -> None:
    """What counts is how many rows a table has in a batch: no table is staged for one."""
    conn, applier = applying
    names = [TableName("public", f"t{number}") for number in range(2 * MANY)]
    for name in names:
        conn.execute(
            sql.SQL(
                "CREATE TABLE {} (id int PRIMARY KEY, v text); INSERT INTO {} VALUES (1, '')"
            ).format(name.sql, name.sql)
        )
    batch = [msgspec.structs.replace(change("u", 1), table=name) for name in names]
    conn.execute("BEGIN")
    applier.write(batch)  # reads what the tables are
    conn.execute("COMMIT")

    messages, copied = counted(conn, tmp_path, applier, batch)

    assert len(names) + 2 == messages["ReadyForQuery"]
    assert copied == 0


def holds(conn: psycopg.Connection[Any], rows: int) -> None:
    """Give the table so many rows."""
    conn.execute("TRUNCATE public.t")
    conn.execute("INSERT INTO public.t SELECT n, '' FROM generate_series(1, %s) n", [rows])
