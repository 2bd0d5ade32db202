"""What primary, replicas and Kafka Connect say when asked from outside.

Each reader keeps its session between questions and gives up after `PATIENCE` seconds: a server that
hangs must not hold up the look at the others. What cannot be read raises; nothing is kept or guessed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from cdc import connectors, postgres, tables
from cdc.config import Config
from cdc.connect import Connect
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.position import Position
from cdc.strays import Inventory
from cdc.verify import gauges
from cdc.verify.gauges import Gauges

#: Seconds that a server has to answer.
PATIENCE = 2.0

#: What the end of a worker's log is looked through for: the beginning of an entry, one that is an error, and
#: one that tells of trouble though it may be called a warning, as when Debezium tries again.
_ENTRY = re.compile(r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_ERROR = re.compile(r"\bERROR\b|\bSEVERE\b")
_TROUBLE = re.compile(rf"{_ERROR.pattern}|^Caused by:")

#: Bytes of a worker's log that are looked through, and characters of a line that are told.
_TAIL, _LONG = 256 << 10, 300

_SAFE = "nothing was changed"

_PRIMARY = """
SELECT json_build_object(
  'clock', extract(epoch FROM clock_timestamp()),
  'lsn', (pg_current_wal_lsn() - '0/0'),
  'oldest_transaction', (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))
     FROM pg_stat_activity WHERE backend_type = 'client backend' AND backend_xid IS NOT NULL),
  'slot', (SELECT json_build_object('active', active, 'wal_status', wal_status,
       'retained', (pg_current_wal_lsn() - restart_lsn),
       'confirmed', (confirmed_flush_lsn - '0/0'), 'left', safe_wal_size)
     FROM pg_replication_slots WHERE slot_name = {slot}))::text
"""

_REPLICA = """
SELECT json_build_object(
  'clock', extract(epoch FROM clock_timestamp()),
  'position', (SELECT json_build_object('stream', stream, 'topic', topic, 'topic_id', topic_id,
       'next_offset', next_offset, 'leader_epoch', leader_epoch, 'applied_lsn', applied_lsn - '0/0',
       'system_id', system_id, 'timeline', timeline, 'ring', ring, 'generation', generation,
       'applied_ms', (extract(epoch FROM applied_at) * 1000)::bigint)
     FROM cdc.position WHERE stream = {stream}),
  'heartbeat_at', (SELECT extract(epoch FROM heartbeat_at) FROM cdc.position
     WHERE stream = {stream}),
  'transactions', (SELECT transactions_applied FROM cdc.position WHERE stream = {stream}),
  'rows', (SELECT rows_applied FROM cdc.position WHERE stream = {stream}),
  'unmatched', (SELECT unmatched_updates + unmatched_deletes FROM cdc.position
     WHERE stream = {stream}),
  'tables', (SELECT coalesce(json_agg(json_build_array(schema_name, table_name, state,
       snapshot_lsn - '0/0')), '[]') FROM cdc.tables WHERE stream = {stream}),
  'numbers', (SELECT coalesce(json_agg(json_build_array(schema_name, table_name,
       to_jsonb(t) -> 'relid')), '[]') FROM cdc.tables t WHERE stream = {stream}),
  'daemon', (SELECT json_build_object('state', state, 'error', error,
       'age', extract(epoch FROM clock_timestamp() - updated_at))
     FROM cdc.daemon WHERE stream = {stream}),
  'writer', (SELECT json_build_object('pid', l.pid,
       'quiet', CASE a.state WHEN 'active' THEN 0
         ELSE extract(epoch FROM clock_timestamp() - a.state_change) END)
     FROM pg_locks l JOIN pg_stat_activity a USING (pid)
     WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended({lock}, 0)),
  'verified', ({gauges}))::text
"""


class Slot(msgspec.Struct, frozen=True):
    """The connector's replication slot; sizes in bytes of log.

    `left` is what may be written until the slot is lost (max_slot_wal_keep_size), None for no limit.
    """

    active: bool
    wal_status: str | None
    retained: int | None
    confirmed: int | None
    left: int | None


class PrimaryReading(msgspec.Struct, frozen=True):
    """The primary: `clock` in seconds since 1970, `lsn` where its log ends.

    `oldest_transaction` is the age in seconds of the oldest that writes and is still open.
    """

    clock: float
    lsn: int
    oldest_transaction: float | None
    slot: Slot | None


class Daemon(msgspec.Struct, frozen=True):
    """What the daemon recorded last, `age` seconds ago."""

    state: str
    error: str | None
    age: float


class Writer(msgspec.Struct, frozen=True):
    """The session that holds the writer's lock, and for how many seconds it has begun nothing new."""

    pid: int
    quiet: float | None


class ReplicaReading(msgspec.Struct, frozen=True):
    """A replica's own tables; `tables` are [schema, name, state, snapshot LSN].

    `numbers` are [schema, name, number on the primary], None where an older release has copied it. `verified` is what runs of cdc-verify have left there.
    """

    clock: float
    position: Position | None
    heartbeat_at: float | None
    transactions: int | None
    rows: int | None
    unmatched: int | None
    tables: list[tuple[str, str, str, int | None]]
    daemon: Daemon | None
    writer: Writer | None
    verified: Gauges
    numbers: list[tuple[str, str, int | None]] = msgspec.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Capture:
    """The connector as Kafka Connect tells: `state` says all its states in words.

    `failed` are the numbers of the tasks that have failed, `traces` their shortened traces;
    `standstill` says why it sends nothing, where it says so; `complaint` is the last error of the
    worker's log, looked for where it does not.
    """

    state: str
    running: bool
    failed: tuple[int, ...]
    traces: tuple[str, ...]
    standstill: str | None
    complaint: str | None = None


class Server:
    """A session on a PostgreSQL server, opened when it is needed."""

    def __init__(self, dsn: str, application: str) -> None:
        self._dsn = dsn
        self._application = application
        self._conn: psycopg.Connection[Any] | None = None

    def ask(self, query: sql.Composed) -> tuple[bytes | None, float]:
        """Return the answer and the local monotonic time in the middle of question and answer."""
        conn = self._session()
        began = time.monotonic()
        try:
            answer = postgres.ask(conn, query, PATIENCE)
        except psycopg.OperationalError:
            self.close()
            raise
        return answer, (began + time.monotonic()) / 2

    def _session(self) -> psycopg.Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = postgres.connect(
                self._dsn, self._application, autocommit=True, connect_timeout=round(PATIENCE)
            )
        return self._conn

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn = None


class Primary:
    """Asks the primary for its clock, the end of its log and the slot."""

    def __init__(self, config: Config) -> None:
        self._server = Server(config.primary.dsn, config.application_name("primary", "look"))
        self._query = sql.SQL(_PRIMARY).format(slot=sql.Literal(config.slot))

    def read(self) -> tuple[PrimaryReading, float]:
        """Return the reading and the local monotonic time at which its clock was read."""
        answer, at = self._server.ask(self._query)
        return msgspec.json.decode(answer or b"", type=PrimaryReading), at

    def close(self) -> None:
        self._server.close()


#: Tables in a publication; with its partitions each partitioned one.
_PUBLISHED = """
SELECT n.nspname::text, c.relname::text
  FROM pg_publication p CROSS JOIN LATERAL pg_get_publication_tables(p.pubname) AS t
  JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = %s
"""


def inventory(config: Config, conn: psycopg.Connection[Any]) -> Inventory:
    """Return the primary's tables, by the patterns against its catalog."""
    found = tables.read(conn)
    published = conn.execute(_PUBLISHED, [config.publication])
    return Inventory(
        tuple(t.name for t in tables.select(config, found).rows),
        frozenset(TableName(schema, name) for schema, name in published),
        {t.oid: t.name for t in found},
    )


class Replica:
    """Asks a replica for position, tables and daemon."""

    def __init__(self, config: Config, name: str) -> None:
        self._server = Server(config.replica(name).dsn, config.application_name(name, "look"))
        self._query = sql.SQL(_REPLICA).format(
            stream=sql.Literal(config.name),
            lock=sql.Literal(f"cdc/apply/{config.name}"),
            gauges=gauges.query(config.name),
        )

    def read(self) -> tuple[ReplicaReading, float]:
        """Return the reading and the local monotonic time of it; NotReady before `cdc setup`."""
        try:
            answer, at = self._server.ask(self._query)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            raise NotReady(
                "not set up, or of an older release", safe=_SAFE, next="run `cdc setup`"
            ) from None
        return msgspec.json.decode(answer or b"", type=ReplicaReading), at

    def ask(self, query: sql.Composed) -> None:
        self._server.ask(query)

    def close(self) -> None:
        self._server.close()


def complaint(log: Path, connector: str) -> str | None:
    """Return the last error of a worker's log with time and deepest cause, None where there is none.

    The connector's own, where the log names it: several may share the worker.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    entries: list[list[str]] = [[]]
    for line in lines:
        if _ENTRY.match(line):
            entries.append([])
        entries[-1].append(line.strip())
    named = re.compile(rf"(?<!\w){re.escape(connector)}(?!\w)")
    own = [e for e in entries if any(map(named.search, e)) and any(map(_TROUBLE.search, e))]
    errors = own or [e for e in entries if any(map(_ERROR.search, e))]
    return "; ".join(line[:_LONG] for line in _gist(errors[-1])) if errors else None


def _gist(entry: Sequence[str]) -> list[str]:
    """Return an entry's first line, its deepest cause, and where PostgreSQL says that it was."""
    causes = [n for n, line in enumerate(entry) if line.startswith("Caused by:")]
    thrown = [n for n in (1,) if len(entry) > 1 and not entry[1].startswith("at ")]
    at = (causes or thrown)[-1:]
    where = [n + 1 for n in at if entry[n + 1 : n + 2] and entry[n + 1].startswith("Where:")]
    return [entry[n] for n in (0, *at, *where)]


def capture(connect: Connect, name: str) -> Capture:
    """Ask Kafka Connect how the connector is; Unreachable or ConnectRefused where it cannot tell."""
    status = connect.status(name)
    if status is None:
        return Capture("absent", False, (), (), f"Kafka Connect has no connector {name}")
    health = connectors.health(status)
    failed = tuple(task["id"] for task in status.get("tasks", ()) if task["state"] == "FAILED")
    return Capture(str(health), health.running, failed, health.traces, health.standstill(name))
