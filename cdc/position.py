"""Where a replica is: read and written in the transaction that writes the rows.

`next_offset` is always the next record to read. Rows and position commit together, so a crash at
any instant repeats nothing and loses nothing. A compare-and-set on the position keeps out a second
writer and any daemon whose idea of the tables is older than the last bootstrap (`generation`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import psycopg

from cdc import lsn as lsns
from cdc.errors import MalformedRecord, NotReady
from cdc.events import HEARTBEAT_PREFIX, End, Message
from cdc.names import TableName
from cdc.origins import Origin

Connection = psycopg.Connection[Any]


#: How many applied commits are remembered as witnesses of a repeated stretch.
RING = 64


class Fenced(Exception):  # noqa: N818 -- says what happened; the replicator reloads and goes on
    """Ends a turn for the reason given; the next one begins with a fresh position."""


class HeartbeatContent(msgspec.Struct, frozen=True):
    """What the connector's heartbeat query writes into the log (connectors/postgres.json).

    `ts` is the primary's clock in seconds since 1970, `lsn` its insert position then.
    """

    ts: Annotated[float, msgspec.Meta(ge=0, lt=2**40)]
    system: str
    timeline: int
    lsn: Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-F]{1,8}/[0-9A-F]{1,8}\Z")]

    @property
    def origin(self) -> Origin:
        return Origin(self.system, self.timeline)


@dataclasses.dataclass(frozen=True, slots=True)
class Position:
    """One row of cdc.position; `applied_ms` is when the last transaction committed, since 1970."""

    stream: str
    topic: str
    topic_id: str
    next_offset: int
    leader_epoch: int | None
    applied_lsn: int
    system_id: str
    timeline: int
    ring: tuple[tuple[int, int], ...]
    generation: int
    applied_ms: int | None = None

    @property
    def origin(self) -> Origin:
        """The server, and its timeline, whose commits it counts."""
        return Origin(self.system_id, self.timeline)


#: Of a table in cdc.tables; `cdc.filling` tells what each means.
State = Literal["registered", "copying", "copied"]


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """A table's row of cdc.tables: rows up to `snapshot_lsn` came with its copy.

    `relid` is its oid on the primary then, None where it was copied by an older release.
    """

    state: State
    snapshot_lsn: int | None
    relid: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What was written for a batch; unmatched ones found no row, though there must be one."""

    rows: int = 0
    unmatched_updates: int = 0
    unmatched_deletes: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.rows + other.rows,
            self.unmatched_updates + other.unmatched_updates,
            self.unmatched_deletes + other.unmatched_deletes,
        )


def try_lock(conn: Connection, stream: str) -> bool:
    """Take the session's advisory lock of the stream's only writer, if it is free."""
    row = conn.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [_lock(stream)]
    ).fetchone()
    return row is not None and bool(row[0])


def lock_holder(conn: Connection, stream: str) -> int | None:
    """Return the server process id that holds the writer's lock, if any."""
    row = conn.execute(
        "SELECT l.pid FROM pg_locks l, (SELECT hashtextextended(%s, 0) AS k) AS k"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND (l.classid::bigint << 32 | l.objid::bigint) = k.k",
        [_lock(stream)],
    ).fetchone()
    return None if row is None else int(row[0])


def _lock(stream: str) -> str:
    return f"cdc/apply/{stream}"


def load(conn: Connection, stream: str) -> tuple[Position, dict[TableName, Coverage]]:
    """Return the position of `stream` and the tables it covers, as of one snapshot.

    Raises NotReady when the replica was not set up or not filled.
    """
    try:
        row = conn.execute(
            "SELECT stream, topic, topic_id, next_offset, leader_epoch, applied_lsn - '0/0',"
            " system_id, timeline, ring, generation,"
            " (extract(epoch FROM applied_at) * 1000)::bigint, (SELECT jsonb_agg(jsonb_build_array("
            " schema_name, table_name, state, (snapshot_lsn - '0/0')::text,"
            # By this way it is also read where `cdc setup` has not been run since the last release.
            " to_jsonb(t) -> 'relid')) FROM cdc.tables t"
            " WHERE t.stream = p.stream) FROM cdc.position p WHERE stream = %s",
            [stream],
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        raise _not_ready(
            "the replica has no cdc schema", "run `cdc setup`, then `cdc bootstrap`"
        ) from None
    if row is None:
        raise _not_ready("the replica was not filled yet", "run `cdc bootstrap`")
    position = Position(
        stream=row[0],
        topic=row[1],
        topic_id=row[2],
        next_offset=row[3],
        leader_epoch=row[4],
        applied_lsn=int(row[5]),
        system_id=row[6],
        timeline=row[7],
        ring=tuple((int(txid), int(end)) for txid, end in row[8]),
        generation=row[9],
        applied_ms=row[10],
    )
    coverage = {
        TableName(schema, name): Coverage(state, None if at is None else int(at), relid)
        for schema, name, state, at, relid in row[11] or ()
    }
    return position, coverage


def generation(conn: Connection, stream: str) -> int | None:
    """Return the position's generation, None when the stream has none here any more."""
    row = conn.execute("SELECT generation FROM cdc.position WHERE stream = %s", [stream]).fetchone()
    return None if row is None else int(row[0])


def holds(applied_lsn: int, coverage: Iterable[Coverage]) -> int:
    """Return the LSN up to which commits of the primary may be on the replica, copies included."""
    return max([applied_lsn, *(table.snapshot_lsn or 0 for table in coverage)])


def advance(
    conn: Connection,
    position: Position,
    ends: list[End],
    heartbeat: HeartbeatContent | None,
    written: Written,
) -> Position:
    """Move the position past the transactions that end with `ends`, in the open transaction.

    Those that the bootstrap's snapshot holds already move only the offset. Raises Fenced when the
    row is not the one `position` was read from.
    """
    new = [end for end in ends if end.lsn > position.applied_lsn]
    moved = dataclasses.replace(
        position,
        next_offset=ends[-1].offset + 1,
        leader_epoch=ends[-1].leader_epoch,
        applied_lsn=new[-1].lsn if new else position.applied_lsn,
        ring=(*position.ring, *((end.txid, end.lsn) for end in new))[-RING:],
        applied_ms=new[-1].commit_ms if new else position.applied_ms,
    )
    updated = conn.execute(
        "UPDATE cdc.position SET next_offset = %(next)s, leader_epoch = %(epoch)s,"
        " applied_lsn = %(lsn)s::pg_lsn, applied_txid = coalesce(%(txid)s, applied_txid),"
        " applied_at = coalesce(to_timestamp(%(at)s::float8 / 1000), applied_at),"
        " heartbeat_at = coalesce(to_timestamp(%(heartbeat)s::float8), heartbeat_at),"
        " heartbeat_lsn = coalesce(%(heartbeat_lsn)s::pg_lsn, heartbeat_lsn),"
        " timeline = %(timeline)s, ring = %(ring)s::jsonb, rows_applied = rows_applied + %(rows)s,"
        " transactions_applied = transactions_applied + %(transactions)s,"
        " unmatched_updates = unmatched_updates + %(updates)s,"
        " unmatched_deletes = unmatched_deletes + %(deletes)s, updated_at = clock_timestamp()"
        " WHERE stream = %(stream)s AND next_offset = %(was)s AND generation = %(generation)s",
        {
            "next": moved.next_offset,
            "epoch": moved.leader_epoch,
            "lsn": lsns.show(moved.applied_lsn),
            "txid": new[-1].txid if new else None,
            "at": new[-1].commit_ms if new else None,
            "heartbeat": heartbeat and heartbeat.ts,
            "heartbeat_lsn": heartbeat and heartbeat.lsn,
            "timeline": moved.timeline,
            "ring": json.dumps(moved.ring),
            "rows": written.rows,
            "transactions": len(new),
            "updates": written.unmatched_updates,
            "deletes": written.unmatched_deletes,
            "stream": position.stream,
            "was": position.next_offset,
            "generation": position.generation,
        },
    ).rowcount
    if updated != 1:
        raise Fenced("somebody else moved the position, or a bootstrap changed the tables")
    return moved


def heartbeat(message: Message, at: Position) -> HeartbeatContent | None:
    """Return what a heartbeat of the connector says, None for any other message; MalformedRecord."""
    if message.prefix != HEARTBEAT_PREFIX or message.txid is None:
        return None
    try:
        found = msgspec.json.decode(message.content, type=HeartbeatContent)
    except ValueError as error:  # msgspec's own, and UnicodeDecodeError
        raise MalformedRecord(
            f"a heartbeat cannot be read: {error}",
            safe="nothing after it was applied; the replica is consistent as of its position",
            next="run `cdc connectors apply`: the heartbeat query must be the shipped one",
            topic=at.topic,
            offset=message.offset,
        ) from error
    return found


def _not_ready(what: str, next_step: str) -> NotReady:
    return NotReady(what, safe="nothing was changed", next=next_step)
