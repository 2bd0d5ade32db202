"""What the replica records of being filled, which is what its daemon goes by.

A table of cdc.tables is `registered` (the daemon stops before its next event), `copying` with the
LSN of its snapshot (events of transactions that end at or below it are skipped, later ones wait) or
`copied` (later ones are applied). Whoever changes this raises the position's generation, so that
a daemon's open batch, decided on older knowledge, does not commit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import barrier, postgres, state
from cdc import lsn as lsns
from cdc.config import Config
from cdc.errors import NotReady, PositionLost
from cdc.names import TableName
from cdc.position import Coverage, State
from cdc.progress import Tally
from cdc.tables import Table

Connection = psycopg.Connection[Any]

#: How often emptying the tables is tried again when it and the daemon stand in each other's way.
_ATTEMPTS = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """The first position of a stream on a replica."""

    topic: str
    topic_id: str
    next_offset: int
    leader_epoch: int | None
    applied_lsn: int
    system_id: str
    timeline: int


@dataclasses.dataclass(frozen=True, slots=True)
class Reached:
    """Where the replica's position stands, as far as bootstrap needs it."""

    topic_id: str
    next_offset: int
    applied_lsn: int
    system_id: str
    timeline: int


def lock_name(stream: str) -> str:
    return f"cdc/bootstrap/{stream}"


def lock(conn: Connection, stream: str) -> None:
    """Keep other bootstraps of this stream and replica out while `conn` lives.

    Raises NotReady if one runs, or where we may not write beside the schema cdc that is there.
    """
    state.require(conn)
    row = conn.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [lock_name(stream)]
    ).fetchone()
    if row is None or not row[0]:
        raise NotReady(
            "another `cdc bootstrap` is filling this replica",
            safe="nothing was changed by this one",
            next="wait until it has ended; if its machine is gone, end its session on the replica "
            "(application_name ends in /bootstrap)",
        )


def load(conn: Connection, stream: str) -> tuple[Reached | None, dict[TableName, Coverage]]:
    """Return the position, if there is one, and the tables recorded; NotReady without `cdc setup`."""
    try:
        with conn.transaction():
            place = conn.execute(
                "SELECT topic_id, next_offset, applied_lsn - '0/0', system_id, timeline"
                " FROM cdc.position WHERE stream = %s",
                [stream],
            ).fetchone()
            rows = conn.execute(
                "SELECT schema_name, table_name, state, snapshot_lsn - '0/0', relid FROM cdc.tables"
                " WHERE stream = %s",
                [stream],
            ).fetchall()
    except (
        psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedColumn
    ) as error:  # fmt: skip
        raise NotReady(
            "the replica has no schema cdc, or one of an older release",
            safe="nothing was changed",
            next="run `cdc setup`, then `cdc bootstrap`",
        ) from error
    reached = place and Reached(place[0], place[1], int(place[2]), place[3], place[4])
    return reached, {
        TableName(schema, name): Coverage(state, None if at is None else int(at), relid)
        for schema, name, state, at, relid in rows
    }


def register(conn: Connection, stream: str, names: Sequence[TableName], *, alone: bool) -> None:
    """Make the daemon stop before the next event of each table; forget other tables if `alone`."""
    with conn.transaction():
        conn.cursor().executemany(
            "INSERT INTO cdc.tables (stream, schema_name, table_name, state, updated_at)"
            " VALUES (%s, %s, %s, 'registered', clock_timestamp())"
            " ON CONFLICT (stream, schema_name, table_name) DO UPDATE SET state = 'registered',"
            " snapshot_lsn = NULL, rows = NULL, bytes = NULL, updated_at = clock_timestamp()",
            [(stream, n.schema, n.name) for n in names],
        )
        if alone:
            conn.execute(
                "DELETE FROM cdc.tables t WHERE stream = %s AND NOT EXISTS (SELECT"
                " FROM unnest(%s::text[], %s::text[]) AS w (schema, name)"
                " WHERE w.schema = t.schema_name AND w.name = t.table_name)",
                [stream, [n.schema for n in names], [n.name for n in names]],
            )
        _raise_generation(conn, stream)


def withdraw(
    conn: Connection, stream: str, names: Sequence[TableName], before: Mapping[TableName, Coverage]
) -> None:
    """Take a registration back: tables new to the stream are forgotten, filled ones are filled again.

    Only before `begin`: until then the daemon has waited, and skipped nothing of these tables.
    """
    with conn.transaction():
        for name in names:
            record = before.get(name)
            if record is None:
                conn.execute(
                    "DELETE FROM cdc.tables WHERE stream = %s AND schema_name = %s AND table_name = %s",
                    [stream, name.schema, name.name],
                )
            elif record.state == "copied":
                _set(conn, stream, name, "copied", record.snapshot_lsn)
        _raise_generation(conn, stream)


def begin(conn: Connection, stream: str, found: Sequence[Table], lsn: int, start: Start | None,
          *, fires_triggers: bool) -> None:  # fmt: skip
    """Empty the tables and record the snapshot they are filled from, in one transaction.

    `start` becomes the position when there is none yet, or replaces one that leads nowhere.
    Raises NotReady when somebody keeps a table locked.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with conn.transaction():
                empty(conn, [t.name for t in found], fires_triggers=fires_triggers)
                for table in found:
                    _set(conn, stream, table.name, "copying", lsn)
                    conn.execute(
                        "UPDATE cdc.tables SET columns = %s, relid = %s, rows = NULL, bytes = NULL"
                        " WHERE stream = %s AND schema_name = %s AND table_name = %s",
                        [_described(table), table.oid, stream, table.name.schema, table.name.name],
                    )
                conn.cursor().executemany(
                    "DELETE FROM cdc.filling"
                    " WHERE stream = %s AND schema_name = %s AND table_name = %s",
                    [(stream, t.name.schema, t.name.name) for t in found],
                )
                # After the tables: the daemon takes its locks in this order too.
                _raise_generation(conn, stream)
                if start is not None:
                    _place(conn, stream, start)
        except psycopg.errors.DeadlockDetected:
            if attempt == _ATTEMPTS:
                raise
        except psycopg.errors.LockNotAvailable as error:
            raise NotReady(
                f"a table on the replica is locked by somebody else: {postgres.first_line(error)}",
                safe="no table was emptied",
                next="end the sessions that use the tables (pg_stat_activity, pg_locks), then run "
                "`cdc bootstrap` again",
            ) from error
        else:
            return


def whole(conn: Connection, stream: str, table: Table, tally: Tally) -> None:
    """Record that all rows of a table have been copied."""
    conn.execute(
        "UPDATE cdc.tables SET state = 'copied', rows = %s, bytes = %s, updated_at = clock_timestamp()"
        " WHERE stream = %s AND schema_name = %s AND table_name = %s",
        [tally.rows, tally.bytes, stream, table.name.schema, table.name.name],
    )


def joined(conn: Connection, stream: str, table: Table, lsn: int, tally: Tally) -> None:
    """Record, in the open transaction, a table that was filled beside the stream.

    A record of the same table under the name that it had before goes.
    """
    conn.execute(
        "DELETE FROM cdc.tables WHERE stream = %s AND relid = %s AND (schema_name, table_name) <> (%s, %s)",
        [stream, table.oid, table.name.schema, table.name.name],
    )
    conn.execute(
        "INSERT INTO cdc.tables AS t (stream, schema_name, table_name, state, snapshot_lsn, columns, relid,"
        " rows, bytes) VALUES (%s, %s, %s, 'copied', %s::pg_lsn, %s, %s, %s, %s)"
        " ON CONFLICT (stream, schema_name, table_name) DO UPDATE SET state = excluded.state,"
        " snapshot_lsn = excluded.snapshot_lsn, columns = excluded.columns, relid = excluded.relid,"
        " rows = excluded.rows, bytes = excluded.bytes, updated_at = clock_timestamp()",
        [stream, table.name.schema, table.name.name, lsns.show(lsn), _described(table), table.oid,
         tally.rows, tally.bytes],
    )  # fmt: skip
    _raise_generation(conn, stream)


def _described(table: Table) -> str:
    return json.dumps([[c.name, c.type] for c in table.columns])


def still_there(conn: Connection, config: Config, replica: str) -> None:
    """Raise PositionLost if the topic was cut past the position while rows were copied."""
    reached, _recorded = load(conn, config.name)
    low, _high = barrier.bounds(config)
    if reached is not None and reached.next_offset < low:
        raise PositionLost(
            "the copy took longer than the topic keeps records: it begins at offset "
            f"{low} by now, the replica needs {reached.next_offset}",
            safe="the copied rows are right as of the snapshot, but cannot be brought further",
            next="raise kafka.topic.retention, run `cdc setup`, then `cdc bootstrap --overwrite`",
            replica=replica,
            topic=config.topic,
        )


def sections(conn: Connection, stream: str) -> set[str]:
    """Return the sections of the primary's whole schema that were restored here."""
    rows = conn.execute("SELECT section FROM cdc.schema_load WHERE stream = %s", [stream])
    return {section for (section,) in rows}


def section_done(conn: Connection, stream: str, section: str) -> None:
    conn.execute(
        "INSERT INTO cdc.schema_load (stream, section, done_at) VALUES (%s, %s, clock_timestamp())"
        " ON CONFLICT (stream, section) DO NOTHING",
        [stream, section],
    )


def with_rows(conn: Connection, names: Collection[TableName]) -> list[TableName]:
    """Return which of the tables, all existing, have rows."""
    found = []
    for name in sorted(names):
        row = conn.execute(
            sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(name.sql)
        ).fetchone()
        if row is not None and row[0]:
            found.append(name)
    return found


def _set(conn: Connection, stream: str, name: TableName, state: State, lsn: int | None) -> None:
    conn.execute(
        "UPDATE cdc.tables SET state = %s, snapshot_lsn = %s::pg_lsn, updated_at = clock_timestamp()"
        " WHERE stream = %s AND schema_name = %s AND table_name = %s",
        [state, None if lsn is None else lsns.show(lsn), stream, name.schema, name.name],
    )


def _raise_generation(conn: Connection, stream: str) -> None:
    conn.execute(
        "UPDATE cdc.position SET generation = generation + 1, updated_at = clock_timestamp()"
        " WHERE stream = %s",
        [stream],
    )


def _place(conn: Connection, stream: str, start: Start) -> None:
    conn.execute(
        "INSERT INTO cdc.position (stream, topic, topic_id, next_offset, leader_epoch, applied_lsn,"
        " system_id, timeline, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s::pg_lsn, %s, %s, clock_timestamp())"
        " ON CONFLICT (stream) DO UPDATE SET topic = excluded.topic, topic_id = excluded.topic_id,"
        " next_offset = excluded.next_offset, leader_epoch = excluded.leader_epoch,"
        " applied_lsn = excluded.applied_lsn, applied_txid = NULL, applied_at = NULL,"
        " heartbeat_at = NULL, heartbeat_lsn = NULL, system_id = excluded.system_id,"
        " timeline = excluded.timeline, ring = '[]', updated_at = excluded.updated_at",
        [stream, start.topic, start.topic_id, start.next_offset, start.leader_epoch,
         lsns.show(start.applied_lsn), start.system_id, start.timeline],
    )  # fmt: skip


def empty(conn: Connection, names: Sequence[TableName], *, fires_triggers: bool) -> None:
    """Empty exactly these tables, partitions and inheritance children of theirs not included."""
    referencing = conn.execute(
        "WITH w AS (SELECT c.oid FROM unnest(%s::text[], %s::text[]) AS w (schema, name)"
        " JOIN pg_namespace n ON n.nspname = w.schema"
        " JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name)"
        " SELECT DISTINCT n.nspname, c.relname, f.conrelid::regclass::text FROM pg_constraint f"
        " JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE f.contype = 'f' AND f.confrelid IN (SELECT oid FROM w)"
        " AND f.conrelid NOT IN (SELECT oid FROM w)",
        [[n.schema for n in names], [n.name for n in names]],
    ).fetchall()
    if referencing and fires_triggers:
        raise NotReady(
            "foreign keys of tables that stay filled refer to tables to be emptied: "
            + ", ".join(f"{child} → {schema}.{name}" for schema, name, child in referencing),
            safe="no table was emptied",
            next='drop these foreign keys on the replica (with triggers = "disabled" it needs '
            "none), or fill those tables too",
        )  # fmt: skip
    # PostgreSQL refuses to truncate a table that others refer to, even an unreferenced row of it.
    referenced = {TableName(schema, name) for schema, name, _child in referencing}
    for name in sorted(referenced):
        conn.execute(sql.SQL("DELETE FROM ONLY {}").format(name.sql))
    if plain := [n for n in names if n not in referenced]:
        conn.execute(
            sql.SQL("TRUNCATE {}").format(
                sql.SQL(", ").join(sql.SQL("ONLY {}").format(n.sql) for n in sorted(plain))
            )
        )
