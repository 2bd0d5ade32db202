"""A snapshot of the primary at an exact LSN, kept open for as many sessions as need it.

A temporary logical slot gives both: a snapshot and the LSN (`consistent_point`) such that exactly
the transactions whose commit record ends above it are not in the snapshot. A session of ours
imports the snapshot and exports it again, so that the slot, which holds back WAL, lives for a
moment only.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import select
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import pq, sql

from cdc import lsn as lsns
from cdc import postgres
from cdc.errors import NotReady, SchemaMismatch, Unreachable
from cdc.names import TableName

Connection = psycopg.Connection[Any]

#: A copy may take hours: no time limit of the server may end a session that keeps its snapshot.
ENDURING = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "60s",
}

#: Seconds between two looks at who holds up the slot.
_LOOK_EVERY = 2.0

_SAFE = "nothing was copied and no table was emptied"


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Which server and which history of it LSNs belong to."""

    system_id: str
    timeline: int


@dataclasses.dataclass(frozen=True, slots=True)
class Snapshot:
    """An exported snapshot: `name` for SET TRANSACTION SNAPSHOT, usable while `keeper` is open."""

    server: Server
    lsn: int
    name: str
    keeper: Connection


@dataclasses.dataclass(frozen=True, slots=True)
class Blocker:
    """A session (pid 0: a prepared transaction) that another one waits for."""

    pid: int
    who: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.who})" if self.pid else f"prepared transaction {self.who}"


@contextlib.contextmanager
def exported(
    dsn: str,
    application: str,
    timeout: float,
    note: Callable[[str], None],
    *,
    look_dsn: str | None = None,
) -> Iterator[Snapshot]:
    """Open a snapshot of the database at `dsn`.

    Raises NotReady naming the sessions in the way when the server cannot give one within
    `timeout` seconds: it waits for every transaction that was open before. `look_dsn` may be a
    role that sees more of other sessions.
    """
    with contextlib.closing(_walsender(dsn, application)) as walsender:
        server = _identify(walsender)
        look = functools.partial(_look, look_dsn or dsn, application, walsender.pgconn.backend_pid)
        lsn, first_name = _create_slot(walsender.pgconn, look, timeout, note)
        keeper = session(dsn, application, first_name)
    with contextlib.closing(keeper):
        row = keeper.execute("SELECT pg_export_snapshot()").fetchone()
        assert row is not None
        yield Snapshot(server, lsn, row[0], keeper)


def session(dsn: str, application: str, name: str) -> Connection:
    """Open a session whose one transaction, read-only, sees the exported snapshot `name`."""
    conn = postgres.connect(dsn, application, settings=ENDURING)
    conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    conn.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(name)))
    return conn


def hold(conn: Connection, names: Sequence[TableName]) -> None:
    """Keep the tables from being rewritten until `conn`'s transaction ends.

    Raises SchemaMismatch when one was rewritten after the snapshot: its rows would be read as
    none at all, without an error. NotReady when a lock cannot be had.
    """
    for name in names:
        try:
            conn.execute(sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(name.sql))
        except psycopg.errors.UndefinedTable as error:
            raise _changed(name, "was dropped or renamed") from error
        except psycopg.errors.LockNotAvailable as error:
            raise NotReady(
                f"{name} is locked on the primary: {postgres.first_line(error)}",
                safe="tables that were copied whole stay; nothing else counts as filled",
                next="let the schema change on the primary finish, then run `cdc bootstrap` again: "
                "it continues",
                table=str(name),
            ) from error
    # relfilenode is as the snapshot has it, pg_relation_filenode() as the table is now.
    for schema, table in conn.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " JOIN unnest(%s::text[], %s::text[]) AS w (schema, name)"
        " ON w.schema = n.nspname AND w.name = c.relname"
        " WHERE c.relkind = 'r' AND c.relfilenode IS DISTINCT FROM pg_relation_filenode(c.oid)",
        [[n.schema for n in names], [n.name for n in names]],
    ):
        raise _changed(TableName(schema, table), "was rewritten (ALTER TABLE, CLUSTER or the like)")


def blockers(conn: Connection, pid: int) -> list[Blocker]:
    """Return who session `pid` waits for."""
    rows = conn.execute(
        "SELECT b.pid, a.usename, a.application_name, a.state,"
        " extract(epoch FROM clock_timestamp() - a.xact_start)::int"
        " FROM (SELECT DISTINCT unnest(pg_blocking_pids(%s)) AS pid) AS b"
        " LEFT JOIN pg_stat_activity a ON a.pid = b.pid WHERE b.pid <> 0 ORDER BY 1",
        [pid],
    ).fetchall()
    found = [
        Blocker(blocking, f"{user or 'unknown user'}, {application or 'no application name'}, "
                f"{state or 'state not visible'}, open for {_age(seconds)}")
        for blocking, user, application, state, seconds in rows
    ]  # fmt: skip
    if not found:
        found = [
            Blocker(0, f"{gid!r} of {owner}")
            for gid, owner in conn.execute(
                "SELECT gid, owner FROM pg_prepared_xacts WHERE database = current_database()"
                " ORDER BY prepared"
            )
        ]
    return found


def _age(seconds: int | None) -> str:
    return "unknown time" if seconds is None else f"{seconds} s"


def _changed(name: TableName, how: str) -> SchemaMismatch:
    return SchemaMismatch(
        f"{name} {how} on the primary while bootstrap was at work",
        safe="the table was not copied and counts as empty; tables copied whole stay",
        next="run `cdc bootstrap` again: it takes a new snapshot and continues",
        table=str(name),
    )


def _walsender(dsn: str, application: str) -> Connection:
    return postgres.connect(
        dsn, application, autocommit=True, settings={"wal_sender_timeout": "0"}, replication="database"
    )  # fmt: skip


def _identify(walsender: Connection) -> Server:
    result = walsender.pgconn.exec_(b"IDENTIFY_SYSTEM")
    values = _row(result)
    return Server(values[0], int(values[1]))


def _row(result: pq.abc.PGresult) -> list[str]:
    if result.status != pq.ExecStatus.TUPLES_OK:
        message = result.error_message.decode(errors="replace").strip()
        raise NotReady(
            f"the primary refuses a replication command: {message}",
            safe=_SAFE,
            next="run `cdc setup`; the role needs REPLICATION, wal_level = logical and a free slot "
            "and sender (max_replication_slots, max_wal_senders)",
        )
    return [(result.get_value(0, i) or b"").decode() for i in range(result.nfields)]


def _look(dsn: str, application: str, pid: int) -> list[Blocker]:
    with contextlib.closing(postgres.connect(dsn, application, autocommit=True)) as conn:
        return blockers(conn, pid)


def _create_slot(
    pgconn: pq.abc.PGconn,
    look: Callable[[], list[Blocker]],
    timeout: float,
    note: Callable[[str], None],
) -> tuple[int, str]:
    """Create the temporary slot; return its consistent point and the snapshot's name."""
    slot = f"cdc_bootstrap_{uuid.uuid4().hex[:16]}"
    command = f"CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
    pgconn.send_query(command.encode())
    deadline = time.monotonic() + timeout
    in_the_way: list[Blocker] = []
    while True:
        left = deadline - time.monotonic()
        select.select([pgconn.socket], [], [], max(0.0, min(left, _LOOK_EVERY)))
        try:
            pgconn.consume_input()
        except psycopg.OperationalError as error:
            raise Unreachable(
                f"the primary closed the session: {postgres.first_line(error)}",
                safe=_SAFE,
                next="look into the primary's log, then run `cdc bootstrap` again",
            ) from error
        if not pgconn.is_busy():
            break
        seen = look()
        if seen != in_the_way and seen:
            in_the_way = seen
            note("the snapshot waits for transactions open on the primary: "
                 + "; ".join(str(b) for b in seen))  # fmt: skip
        if left <= 0:
            pgconn.get_cancel().cancel()
            raise _blocked(timeout, in_the_way)
    result = pgconn.get_result()
    assert result is not None
    values = _row(result)
    while pgconn.get_result() is not None:
        pass
    return lsns.parse(values[1]), values[2]


def _blocked(timeout: float, in_the_way: Sequence[Blocker]) -> NotReady:
    who = "; ".join(str(b) for b in in_the_way) or "a transaction that has ended by now"
    return NotReady(
        f"no snapshot within {timeout:g} s: transactions that are open on the primary must end "
        f"first: {who}",
        safe=_SAFE,
        next="end them (SELECT pg_terminate_backend(PID), ROLLBACK PREPARED) or raise "
        "bootstrap.slot_timeout, then run `cdc bootstrap` again",
    )
