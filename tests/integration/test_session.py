"""A session in which something else is done while the server works."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from harness import Stack

from cdc import postgres

pytestmark = pytest.mark.stack

#: Runs until somebody else lets the lock go that it waits for.
WAITS = "SELECT 7 FROM pg_advisory_xact_lock(11)"


def test_it_works_while_the_server_does(stack: Stack) -> None:
    """What is to be done meanwhile is done until there is no more or the answer comes, then that is returned."""
    with (
        closing(postgres.connect(stack.primary, "test")) as conn,
        psycopg.connect(stack.primary) as other,
    ):
        other.execute("SELECT pg_advisory_xact_lock(11)")
        left = [3, 2, 1]

        def meanwhile() -> bool:
            if not left:
                other.rollback()
                return False
            return bool(left.pop())

        conn.meanwhile = meanwhile

        assert (7,) == conn.execute(WAITS).fetchone()
        assert [] == left
        with conn.cursor().copy("COPY (SELECT repeat('x', 100000)) TO STDOUT") as copy:
            assert b"x" * 100_000 + b"\n" == b"".join(copy)
        with pytest.raises(psycopg.errors.DivisionByZero):
            conn.execute("SELECT 1 / 0")


def test_what_is_raised_meanwhile_comes_out(stack: Stack) -> None:
    """It ends the statement here, and the session is closed without waiting for the server."""
    with (
        closing(postgres.connect(stack.primary, "test")) as conn,
        psycopg.connect(stack.primary) as other,
    ):
        other.execute("SELECT pg_advisory_xact_lock(11)")
        conn.meanwhile = lambda: bool(1 / 0)
        with pytest.raises(ZeroDivisionError):
            conn.execute(WAITS)
