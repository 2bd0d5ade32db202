"""A replica's table that is not as simple as it looks: altered meanwhile, or with constraints that wait."""

from __future__ import annotations

from contextlib import closing

import pytest
from harness import Stream

from cdc import postgres, writing
from cdc.apply import Applier
from cdc.events import Change
from cdc.names import TableName

pytestmark = pytest.mark.stack

T = TableName("public", "t")

#: Rows in a batch: alone, a few, and so many that they are staged.
SIZES = (1, 3, 20)


def test_values_that_fit_since_a_column_was_widened_are_taken(stream: Stream) -> None:
    """However often rows were written before by that session, and however many there are in a batch."""
    stream.sql("r1", "CREATE TABLE t (id int PRIMARY KEY, n int)")
    dsn = stream.dsn("r1")
    with closing(postgres.connect(dsn, "test", autocommit=True, settings=writing.SETTINGS)) as conn:
        applier = Applier(conn, dsn, "test")

        def write(op: str, rows: int, start: int, n: int) -> None:
            conn.execute("BEGIN")
            applier.write(
                [
                    Change(op, T, None, {"id": str(start + i), "n": str(n)}, 7, i, i, i, 10)  # type: ignore[arg-type]  # c or u
                    for i in range(1, rows + 1)
                ]
            )
            conn.execute("COMMIT")

        for rows in SIZES:
            for again in range(8):
                write("c" if not again else "u", rows, 100 * rows, again)
        stream.sql("r1", "ALTER TABLE t ALTER n TYPE bigint")
        for rows in SIZES:
            write("u", rows, 100 * rows, 3_000_000_000)

    assert [(sum(SIZES),)] == stream.sql("r1", "SELECT count(*) FROM t WHERE n = 3000000000")


def test_keys_that_swap_in_one_statement_are_taken_where_constraints_are_checked(
    stream: Stream,
) -> None:
    """As by a daemon whose role may not set session_replication_role, and of a large transaction in pieces."""
    stream.sql("r1", "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE, n int)")
    stream.sql("r1", "ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 1), (2, 2)")
    dsn = stream.dsn("r1")
    with closing(postgres.connect(dsn, "test", autocommit=True, settings=writing.SETTINGS)) as conn:
        applier = Applier(conn, dsn, "test")
        conn.execute("BEGIN")
        for n in (1, 2):
            before, after = {"id": str(n), "n": str(n)}, {"id": str(3 - n), "n": str(n)}
            applier.write([
                Change("d", T, before, None, 7, n, 2 * n - 1, n, 10),  # type: ignore[arg-type]  # dict is invariant
                Change("c", T, None, after, 7, n, 2 * n, n, 10),  # type: ignore[arg-type]  # as above
            ])  # fmt: skip
        conn.execute("COMMIT")

    assert [(1, 2), (2, 1)] == stream.sql("r1", "SELECT id, n FROM t ORDER BY id")
