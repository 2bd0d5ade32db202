"""A world in memory around the real daemon: a topic, and a database that keeps what is committed.

Everything between is the program's own: decoding, ledger, batches, net changes, position, loop. Put
in its place are Kafka's client, the connection to PostgreSQL, and the applier's statements on rows.
The database does what PostgreSQL documents of these: one writer holds the advisory lock, rows and
position commit together or not at all, an UPDATE judges its WHERE by what is committed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest import mock

import msgspec
import psycopg
from confluent_kafka import KafkaError, Message, TopicPartition
from psycopg import sql

from cdc import apply, changes, lsn, state
from cdc.apply import Applier, Mismatch
from cdc.catalog import Table
from cdc.changes import Key, TableChanges
from cdc.config import Apply, Config, Connect, Kafka, Primary, Replica
from cdc.errors import CdcError, Halt
from cdc.events import UNCHANGED, Change, Row, Value
from cdc.gauge import Gauge
from cdc.history import History
from cdc.names import TableName
from cdc.position import Coverage, Position, Written
from cdc.replay import Replay
from cdc.replicator import Replicator
from cdc.topic import TopicInfo
from cdc.units import Duration

Rows = dict[Key, Row]
Tables = dict[TableName, Rows]

#: What tells one event from another: txid, number, operation, table, before, after.
Applied = tuple[int, int, str, TableName, Row | None, Row | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Committed:
    """One COMMIT of the daemon: the events it wrote since BEGIN, and the position it left."""

    events: tuple[Applied, ...]
    position: Position


@dataclasses.dataclass(slots=True)
class Log:
    """A topic of one partition; its first record has the offset `first`."""

    first: int
    messages: list[Message] = dataclasses.field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.messages)

    def append(self, value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()) -> None:
        self.messages.append(
            Message("t", 0, self.end, None, value, list(headers) or None, leader_epoch=0)
        )


class Lost(psycopg.OperationalError):
    """The connection is gone; it has no SQLSTATE."""


class Database:
    """A replica. `catalog` are its tables as the daemon sees them."""

    def __init__(
        self, catalog: dict[TableName, Table], tables: Tables, at: Position,
        coverage: dict[TableName, Coverage],
    ) -> None:  # fmt: skip
        self.catalog, self.tables = catalog, tables
        self.position, self.coverage = at, coverage
        self.writer: Connection | None = None
        self.commits: list[Committed] = []
        self.unmatched = 0


@dataclasses.dataclass(slots=True)
class Transaction:
    """What a session has written and not committed; of each table it wrote, all rows."""

    tables: Tables = dataclasses.field(default_factory=dict)
    events: list[Applied] = dataclasses.field(default_factory=list)
    position: Position | None = None
    unmatched: int = 0
    savepoints: dict[str, tuple[Tables, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    rows: Sequence[tuple[Any, ...]] = ()
    rowcount: int = 0

    def fetchone(self) -> tuple[Any, ...] | None:
        return self.rows[0] if self.rows else None

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)


class Connection:
    """A session of the daemon, in autocommit."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.transaction: Transaction | None = None
        self.alive = True

    @property
    def closed(self) -> bool:
        return not self.alive

    @contextlib.contextmanager
    def working(self, meanwhile: Callable[[], bool]) -> Iterator[None]:
        """Read nothing ahead: a log here is shorter than one read."""
        assert not meanwhile()
        yield

    def close(self) -> None:
        """Go away, as the client does."""
        self.end()

    def end(self) -> None:
        """End the session, as the server does when its client has gone: nothing open remains."""
        self.transaction, self.alive = None, False
        if self.database.writer is self:
            self.database.writer = None

    def rollback(self) -> None:
        if not self.alive:
            raise Lost("the connection is closed")
        self.transaction = None

    def execute(  # noqa: C901, PLR0911 -- an arm per statement that the daemon sends
        self, statement: str | sql.Composed, params: Sequence[Any] | dict[str, Any] = ()
    ) -> Result:
        if not self.alive:
            raise Lost("the connection is closed")
        text = statement if isinstance(statement, str) else statement.as_string(None)
        words = text.split()
        if words[0] in ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE"):
            self._control(words)
            return Result()
        match words:
            case ["SELECT", call, *_] if call.startswith("pg_try_advisory_lock("):
                return self._lock()
            case ["SELECT", "l.pid", *_]:
                return Result([(1,)])
            case ["SHOW", "session_replication_role"]:
                return Result([("replica",)])
            case ["SELECT", *_] if "cdc.version" in text:
                return Result([(state.VERSION, 1)])
            case ["SELECT", "generation", *_] if "cdc.position" in text:
                return Result([(self.database.position.generation,)])
            case ["SELECT", "stream,", *_] if "cdc.position" in text:
                return self._load()
            case ["SELECT", "schema_name,", *_] if "cdc.filling" in text:
                return Result()  # no bootstrap runs
            case ["UPDATE", "cdc.position", *_]:
                return self._advance(text, dict(params))
            case ["INSERT", "INTO", "cdc.daemon", *_]:
                return Result()
            case [("SET" | "CREATE" | "DROP" | "DISCARD"), *_]:
                return Result()  # session settings, and staging tables, which nothing reads here
        raise AssertionError(f"this database does not know the statement: {text}")

    def _control(self, words: list[str]) -> None:
        match words:
            case ["BEGIN"]:
                self.transaction = Transaction()
            case ["COMMIT"]:
                self.commit()
            case ["ROLLBACK"]:
                self.transaction = None
            case ["SAVEPOINT", name]:
                open_ = self._open()
                kept = {table: dict(rows) for table, rows in open_.tables.items()}
                open_.savepoints[name] = kept, len(open_.events)
            case ["ROLLBACK", "TO", "SAVEPOINT", name]:
                kept, events = self._open().savepoints[name]
                self._open().tables = {table: dict(rows) for table, rows in kept.items()}
                del self._open().events[events:]
            case ["RELEASE", "SAVEPOINT", name]:
                del self._open().savepoints[name]
            case _:
                raise AssertionError(f"this database does not know: {words}")

    def _open(self) -> Transaction:
        assert self.transaction is not None, "no transaction is open"
        return self.transaction

    def _lock(self) -> Result:
        if self.database.writer in (None, self):
            self.database.writer = self
        return Result([(self.database.writer is self,)])

    def _load(self) -> Result:
        at = self.database.position
        tables = [
            [name.schema, name.name, c.state, None if c.snapshot_lsn is None else str(c.snapshot_lsn),
             c.relid]
            for name, c in self.database.coverage.items()
        ]  # fmt: skip
        return Result([
            (at.stream, at.topic, at.topic_id, at.next_offset, at.leader_epoch, at.applied_lsn,
             at.system_id, at.timeline, [list(link) for link in at.ring], at.generation,
             at.applied_ms, tables)
        ])  # fmt: skip

    def _advance(self, text: str, given: dict[str, Any]) -> Result:
        """Update the position where the statement's conditions hold for the row as committed."""
        at = self._open().position or self.database.position
        conditions = text.partition(" WHERE ")[2]
        for condition, value in (
            ("next_offset = %(was)s", given["was"] == at.next_offset),
            ("generation = %(generation)s", given["generation"] == at.generation),
        ):
            if condition in conditions and not value:
                return Result()
        self._open().position = dataclasses.replace(
            at,
            next_offset=given["next"],
            leader_epoch=given["epoch"],
            applied_lsn=lsn.parse(given["lsn"]),
            timeline=given["timeline"],
            ring=tuple((txid, end) for txid, end in json.loads(given["ring"])),
        )
        return Result(rowcount=1)

    def commit(self) -> None:
        done, self.transaction = self._open(), None
        assert self.database.writer is self, "a session without the lock has written"
        self.database.tables.update(done.tables)
        self.database.unmatched += done.unmatched
        if done.position is not None:
            self.database.position = done.position
        self.database.commits.append(Committed(tuple(done.events), self.database.position))

    def rows(self, table: TableName) -> Rows:
        """Return the rows of `table` as this transaction sees them, to be changed in place."""
        open_ = self._open()
        if table not in open_.tables:
            open_.tables[table] = dict(self.database.tables[table])
        return open_.tables[table]


_write = Applier.write


class Sets(Applier):
    """The applier, whose statements on rows act on this world's tables.

    Its methods take the place of the applier's own while a world is installed, as those of `Singles`.
    """

    _conn: Connection  # type: ignore[assignment]  # the world's

    def write(self, batch: Sequence[Change]) -> Written:
        # By sets and one by one, whatever there is: a world's batches are all small.
        with mock.patch.object(apply, "_FEW", batch[0].offset % 2 and len(batch)):
            written = _write(self, batch)
        open_ = self._conn.transaction
        assert open_ is not None
        open_.events += map(identity, batch)
        open_.unmatched += written.unmatched_updates + written.unmatched_deletes
        return written

    def _write_net(self, net: TableChanges) -> Written:
        rows = self._conn.rows(net.table)
        lost = len(net.deletes - rows.keys())
        for key in net.deletes:
            rows.pop(key, None)
        missing = net.updates.keys() - rows.keys()
        if any(UNCHANGED in net.updates[key].values() for key in missing):
            raise Mismatch
        for key, row in net.updates.items():
            rows[key] = _over(rows.get(key, {}), row)
        if net.inserts.keys() & rows.keys():
            raise psycopg.errors.UniqueViolation("duplicate key")
        rows.update(net.inserts)
        return Written(len(net.inserts) + len(net.updates) + len(net.deletes), len(missing), lost)


class Singles(Replay):
    """The same, one event at a time."""

    _conn: Connection  # type: ignore[assignment]  # the world's

    def _raw(self, _statement: bytes, _values: Sequence[Value]) -> int:
        raise AssertionError("a statement on rows that this world does not carry out")

    def _insert(self, change: Change) -> Written:
        rows, row = self._conn.rows(change.table), change.after or {}
        if UNCHANGED in row.values():
            raise self._targets.refused(change, "an inserted row came without all its values")
        key = changes.new_key_of(change, self._targets[change.table].key)
        if key in rows:
            raise psycopg.errors.UniqueViolation("duplicate key")
        rows[key] = row
        return Written(rows=1)

    def _delete(self, change: Change) -> Written:
        key = changes.key_of(change, self._targets[change.table].key)
        found = self._conn.rows(change.table).pop(key, None)
        return Written(rows=1, unmatched_deletes=int(found is None))

    def _update_row(self, table: Table, columns: Sequence[str], row: Row, key: Key) -> int:
        rows = self._conn.rows(table.name)
        if key not in rows:
            return 0
        changed = _over(rows[key], {column: row[column] for column in columns})
        moved = tuple(str(changed[column]) for column in table.key)
        if moved != key and moved in rows:
            raise psycopg.errors.UniqueViolation("duplicate key")
        del rows[key]
        rows[moved] = changed
        return 1

    def _truncate(self, tables: tuple[TableName, ...]) -> Written:
        for table in tables:
            self._conn.rows(table).clear()
        return Written(rows=len(tables))


def _over(older: Row, newer: Row) -> Row:
    return {**older, **{c: v for c, v in newer.items() if v is not UNCHANGED}}


def identity(change: Change) -> Applied:
    """Return what tells the event from every other."""
    return (
        change.txid, change.order, change.op, change.table, change.before, change.after,
    )  # fmt: skip


class Stop(threading.Event):
    """The daemon's stop signal. Waiting for anything ends the turn: nothing happens meanwhile."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 -- the signature it stands in for
        self.set()
        return True


class Consumer:
    """Kafka's client on the log of the world; at its end the daemon is told to stop."""

    def __init__(self, world: World, settings: dict[str, Any]) -> None:
        self._world, self._log = world, world.log
        self._eof = bool(settings.get("enable.partition.eof"))
        self._at = 0

    def assign(self, partitions: list[TopicPartition]) -> None:
        self._at = partitions[0].offset

    def get_watermark_offsets(self, _at: TopicPartition, **_kwargs: Any) -> tuple[int, int]:
        return self._log.first, self._log.end

    def poll(self, _timeout: float) -> Message | None:
        if not self._eof:
            self._world.reading()
        found = self.consume(1, 0)
        if not found:
            self._world.idle()
        return found[0] if found else None

    def consume(self, most: int, _timeout: float) -> list[Message]:
        start = self._at - self._log.first
        assert start >= 0, "read before the log's beginning"
        found = self._log.messages[start : start + min(most, self._world.most)]
        self._at += len(found)
        if self._at == self._log.end and self._eof:
            end = KafkaError(KafkaError._PARTITION_EOF)
            found = [*found, Message("t", 0, self._at, error=end)]
        return found

    def commit(self, **_kwargs: Any) -> None:
        pass

    def close(self) -> None:
        pass


class World:
    """A log, a replica, and how the daemon runs between them; a read gives up to `most` records."""

    most = 500

    def __init__(self, log: Log, database: Database, limits: Apply | None = None) -> None:
        self.log, self.database = log, database
        self.stop: threading.Event = Stop()
        self.config = Config(
            name="app",
            primary=Primary(dsn=""),
            kafka=Kafka(bootstrap_servers="127.0.0.1:1"),
            connect=Connect(url="http://127.0.0.1:1"),
            replicas={"r1": Replica(dsn="")},
            apply=msgspec.structs.replace(limits or Apply(), missing_timeout=Duration(0)),
        )

    def reading(self) -> None:
        """Be told that the daemon asks for records."""

    def idle(self) -> None:
        """Be told that the daemon has read the log to its end."""
        self.stop.set()

    def holdup(self) -> str | None:
        """Say why the connector sends nothing: it runs, and what is missing does not come."""
        return None

    def connection(self, *_given: Any, **_settings: Any) -> Connection:
        """Open a session."""
        return Connection(self.database)

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put this world in the place of Kafka and PostgreSQL."""
        info = TopicInfo(self.config.topic, self.database.position.topic_id, 1)
        with contextlib.ExitStack() as patches:
            for own, worlds in ((Applier, Sets), (Replay, Singles)):
                for method, instead in vars(worlds).items():
                    if callable(instead):
                        patches.enter_context(mock.patch.object(own, method, instead))
            for name, put in (
                ("cdc.source.Consumer", lambda settings: Consumer(self, settings)),
                ("cdc.topic.describe", lambda _config: info),
                ("cdc.source.Source.watch", lambda _source, _position: None),
                (
                    "cdc.blockers.Blockers.watching",
                    lambda _blockers, _conn: contextlib.nullcontext(),
                ),
                ("cdc.guard.Guard.first", lambda _guard: None),
                ("cdc.guard.Guard.again", lambda _guard: None),
                ("cdc.guard.Guard.holdup", lambda _guard: self.holdup()),
                ("cdc.history.Succession.again", lambda _succession, _at, _holds: None),
                ("cdc.history.read", lambda _dsn, _application: self._history()),
                # The primary has none of the tables: whatever is strange may be one of them renamed.
                ("cdc.strangers.Strangers._look", lambda _strangers, _table, _covered: (0, {})),
                ("cdc.postgres.connect", self.connection),
                ("cdc.catalog.read", self._catalog),
            ):
                patches.enter_context(mock.patch(name, put))
            yield

    def _history(self) -> History:
        """Return the primary's: the one server that wrote the log, never failed over."""
        at = self.database.position
        return History(at.system_id, at.timeline)

    def _catalog(
        self, _dsn: str, _application: str, tables: Iterable[TableName], **_how: bool
    ) -> dict[TableName, Table]:
        return {t: self.database.catalog[t] for t in tables if t in self.database.catalog}

    def run(self) -> Halt | None:
        """Let the daemon apply the log to its end; return why it halted, if it did.

        Any exception but a CdcError is a defect and comes through.
        """
        self.stop.clear()
        with self.installed():
            try:
                Replicator(self.config, "r1", self.stop, Gauge("r1")).run()
            except Halt as halted:
                return halted
            except CdcError as error:
                raise AssertionError(
                    f"the daemon ended with what it must try again: {error}"
                ) from error
        return None
