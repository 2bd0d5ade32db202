"""PostgreSQL's own replication of a stream's tables: the subscription `bench` and its slot."""

from __future__ import annotations

from typing import LiteralString

import harness
import servers
from harness import Stream
from psycopg import conninfo, sql


def reachable(stream: Stream) -> str:
    """Return how the worker reaches the primary: as PostgreSQL's user, who may not read the stack's password file."""
    primary = conninfo.conninfo_to_dict(stream.primary)
    del primary["passfile"]
    return conninfo.make_conninfo("", **primary, password=servers.password(stream, "primary"))


def create(stream: Stream, dsn: str, options: sql.Composable | None = None) -> None:
    """Make the subscription in the database at `dsn`, whose tables are there; by default it copies them first."""
    statement = sql.SQL("CREATE SUBSCRIPTION bench CONNECTION {} PUBLICATION {}").format(
        sql.Literal(reachable(stream)), sql.Identifier(f"cdc_{stream.name}")
    )
    if options is not None:
        statement += sql.SQL(" WITH ({})").format(options)
    harness.rows(dsn, statement)


def from_slot(slot: str) -> sql.Composed:
    """Return the options of one that begins where a slot stands, and is not enabled yet."""
    return sql.SQL(
        "slot_name = {}, create_slot = false, enabled = false, copy_data = false"
    ).format(sql.Literal(slot))


def from_now(slot: str) -> sql.Composed:
    """Return the options of one that follows from now on, by a slot of that name which it makes."""
    return sql.SQL("slot_name = {}, copy_data = false").format(sql.Literal(slot))


def drop(dsn: str) -> None:
    """Take the subscription away, not its slot."""
    harness.rows(dsn, "ALTER SUBSCRIPTION bench DISABLE")
    harness.rows(dsn, "ALTER SUBSCRIPTION bench SET (slot_name = NONE)")
    harness.rows(dsn, "DROP SUBSCRIPTION bench")


def let_go(stream: Stream, slot: str) -> None:
    """Wait until nobody reads a slot."""
    inactive: LiteralString = "SELECT NOT active FROM pg_replication_slots WHERE slot_name = %s"
    harness.wait_until(
        lambda: stream.sql("primary", inactive, [slot]) == [(True,)], f"{slot} is let go of"
    )
