"""Fill a replica from the primary, under live writes.

Register the tables (the daemon stops before their events) → barrier through the topic (where to
start reading) → snapshot at an exact LSN → schema → empty and record the LSN → copy, and per table
indexes, ANALYZE, `copied` → what comes last. Where the replica has a position already, tables are added
and filled anew `beside` the stream instead: nothing waits for their copy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import (
    barrier,
    clients,
    copying,
    counterparts,
    filling,
    finishing,
    keeper,
    postgres,
    schema_load,
    shadow,
    snapshot,
    tables,
    topic,
)
from cdc.beside import Beside
from cdc.config import Config
from cdc.copying import Sessions
from cdc.errors import CdcError, SchemaMismatch
from cdc.filling import Start
from cdc.finishing import ForeignKeys
from cdc.names import TableName
from cdc.planning import Plan
from cdc.progress import CopyProgress, Tally
from cdc.schema_load import Archive, Entry
from cdc.snapshot import Snapshot
from cdc.tables import Table

Connection = psycopg.Connection[Any]
Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Filled:
    """What a bootstrap did; `lsn` is the snapshot's, None when no table had to be filled."""

    lsn: int | None
    tables: tuple[TableName, ...]
    kept: tuple[TableName, ...]
    done: Tally
    seconds: float
    foreign_keys: ForeignKeys
    sequences: int
    sequences_left: tuple[str, ...]


class Bootstrap:
    """One run for one replica; `primary` and `replica` are sessions in autocommit."""

    def __init__(
        self,
        *,
        config: Config,
        name: str,
        plan: Plan,
        primary: Connection,
        replica: Connection,
        note: Note,
    ) -> None:
        self._config = config
        self._name = name
        self._plan = plan
        self._primary = primary
        self._replica = replica
        self._note = note
        self._application = config.application_name(name, "bootstrap")
        self._schema_lock = threading.Lock()
        self._stopping = threading.Event()
        self._beside = Beside(config, name, primary, replica, note) if plan.beside else None

    def run(self, jobs: int) -> Filled:
        """Do what the plan says.

        Raises the errors of every part; what was copied whole stays, so running again continues.
        """
        started = time.monotonic()
        shadow.clear(self._replica, self._config.name)
        lsn, done = (None, Tally())
        if self._plan.fill:
            lsn, done = self._fill(jobs)
            if self._beside is None:
                filling.still_there(self._replica, self._config, self._name)
        elif self._plan.whole_schema_pending:
            self._note("all tables are filled; finishing the schema")
            with self._dumped(None) as archive:
                self._finish_schema(archive, self._wanted(archive))
        keys = self._foreign_keys()
        covered = {t.name for t in self._plan.rows}
        set_here, left = finishing.copy_sequences(
            self._primary, self._replica,
            None if self._plan.whole_schema else self._plan.owners,
        )  # fmt: skip
        filled = tuple(t.name for t in self._plan.fill)
        return Filled(
            lsn, filled, tuple(sorted(covered - set(filled))), done, time.monotonic() - started,
            keys, set_here, tuple(left),
        )  # fmt: skip

    def _fill(self, jobs: int) -> tuple[int, Tally]:
        stream, plan = self._config.name, self._plan
        names = [t.name for t in plan.fill]
        if self._beside is None:
            filling.register(self._replica, stream, names, alone=plan.start_over)
        begun = False
        try:
            keeper.hold(self._primary, self._config, self._name)
            self._note("waiting for a barrier to come through the topic")
            info = topic.describe(self._config)
            passed = barrier.pass_through(self._config, self._primary, self._note)
            with snapshot.exported(
                self._config.primary.dsn, self._application,
                self._config.bootstrap.slot_timeout, self._note,
                look_dsn=self._config.primary.admin_dsn,
            ) as taken:  # fmt: skip
                found = self._as_seen(taken)
                start = Start(
                    self._config.topic, info.topic_id, passed.offset + 1, passed.leader_epoch,
                    taken.lsn, taken.server.system_id, taken.server.timeline,
                )  # fmt: skip
                with self._dumped(taken.name) as archive:
                    entries = self._wanted(archive)
                    self._load(archive, entries, "pre-data")
                    self._compare(found)
                    self._begin(found, start)
                    begun = True
                    done = self._copy(taken, found, archive, entries, jobs)
                    self._finish_schema(archive, entries)
                for table in found:  # partitions have got the triggers of their root by now
                    self._quiet(self._replica, table.name)
            if self._beside is not None:
                self._beside.join(start)
        except BaseException:
            # The reason for giving up is what the user must see, also if the replica is gone by now.
            with contextlib.suppress(psycopg.Error):
                if self._beside is not None:
                    self._beside.withdraw()
                elif not begun:
                    # Without this a running daemon would wait at these tables until somebody tries again.
                    filling.withdraw(self._replica, stream, names, plan.recorded)
            raise
        return start.applied_lsn, done

    def _begin(self, found: Sequence[Table], start: Start) -> None:
        """Let the tables take rows, and the daemon know."""
        plan = self._plan
        if self._beside is not None:
            self._beside.begin(found, plan.in_use, plan.partly)
            return
        fires = self._config.replica(self._name).triggers == "disabled"
        filling.begin(
            self._replica, self._config.name, found, start.applied_lsn,
            start if plan.needs_start else None, fires_triggers=fires,
        )  # fmt: skip

    def _as_seen(self, taken: Snapshot) -> list[Table]:
        """Hold the tables to be filled on the primary; return them as the snapshot has them."""
        wanted = {t.name for t in self._plan.fill}
        found = [t for t in tables.read(taken.keeper) if t.name in wanted]
        snapshot.hold(taken.keeper, sorted(wanted))
        now = {t.name: t for t in tables.read(self._primary)}
        for table in found:
            if now[table.name].columns != table.columns:
                raise SchemaMismatch(
                    f"the columns of {table.name} were changed on the primary while bootstrap began",
                    safe="nothing was copied and no table was emptied",
                    next="run `cdc bootstrap` again",
                    table=str(table.name),
                )
        return found

    @contextlib.contextmanager
    def _dumped(self, name: str | None) -> Any:
        """Dump the primary's schema; None when bootstrap must not touch the replica's."""
        if self._config.bootstrap.schema == "none":
            yield None
            return
        settings = self._config.primary
        programs = clients.find(self._primary.info.server_version)
        without = (
            ()
            if self._plan.whole_schema or settings.admin_dsn
            else schema_load.unreadable(self._primary)
        )
        with schema_load.dumped(
            programs, settings.admin_dsn or settings.dsn, name, self._replica, without
        ) as archive:
            yield archive

    def _wanted(self, archive: Archive | None) -> tuple[Entry, ...]:
        """Return the entries to restore: of the whole schema, or of what the tables need."""
        if archive is None:
            return ()
        if self._plan.whole_schema:
            return archive.entries
        return schema_load.for_tables(archive.entries, self._plan.oids)

    def _load(self, archive: Archive | None, entries: Sequence[Entry], section: str) -> None:
        """Restore what is missing of a section of the schema."""
        if archive is None:
            return
        with self._schema_lock:
            missing = schema_load.absent(entries, self._primary, self._replica)
        settings = self._config.replica(self._name)
        rest = list(missing)
        if section == "pre-data" and settings.admin_dsn:
            # Most extensions only a superuser may create; they may name a schema to live in.
            extensions = [e for e in missing if e.kind == "EXTENSION"]
            needed = {n for e in extensions for n in e.depends}
            first = [e for e in missing if e.kind == "SCHEMA" and e.number in needed]
            schema_load.restore(archive, first, settings.dsn, section)
            schema_load.restore(archive, extensions, settings.admin_dsn, section)
            rest = [e for e in missing if e not in extensions and e not in first]
        schema_load.restore(archive, rest, settings.dsn, section)
        if self._plan.whole_schema:
            with self._schema_lock:
                filling.section_done(self._replica, self._config.name, section)

    def _finish_schema(self, archive: Archive | None, entries: Sequence[Entry]) -> None:
        self._load(archive, entries, "post-data")

    def _compare(self, found: Sequence[Table]) -> None:
        """Raise SchemaMismatch unless the replica's tables can take the rows and find them by key."""
        here = {t.name: t for t in tables.read(self._replica)}
        for table in found:
            if differences := counterparts.differences(
                table, here.get(table.name), with_key=self._config.bootstrap.schema == "none"
            ):
                raise SchemaMismatch(
                    f"{table.name} on the replica is not what the primary has: {'; '.join(differences)}",
                    safe="nothing was copied and no table was emptied",
                    next="alter or drop the table on the replica, then run `cdc bootstrap` again",
                    replica=self._name,
                    table=str(table.name),
                )

    def _copy(
        self, taken: Snapshot, found: Sequence[Table], archive: Archive | None,
        entries: Sequence[Entry], jobs: int,
    ) -> Tally:  # fmt: skip
        sizes = [(t, copying.size(taken.keeper, t)) for t in found]
        indexes = schema_load.by_table(entries, taken.keeper)

        def whole(table: Table, tally: Tally) -> None:
            """Make the table fit for the daemon, then say so."""
            if archive is not None and (mine := indexes.get(table.oid)):
                with self._schema_lock:
                    missing = schema_load.absent(mine, self._primary, self._replica)
                schema_load.restore(
                    archive,
                    missing,
                    self._config.replica(self._name).dsn,
                    "post-data",
                    self._stopping,
                )
            with self._target() as conn:
                conn.autocommit = True
                self._quiet(conn, table.name)
                conn.execute(sql.SQL("ANALYZE {}").format(table.name.sql))
                if self._beside is not None:
                    self._beside.whole(conn, table, tally)
                else:
                    filling.whole(conn, self._config.name, table, tally)

        sessions = Sessions(
            lambda: snapshot.session(self._config.primary.dsn, self._application, taken.name),
            self._target,
            jobs,
            self._beside.place if self._beside is not None else lambda table: table,
        )
        with CopyProgress(f"copying into {self._name}", sum(s for _t, s in sizes)) as progress:
            copying.copy(copying.pieces(sizes), sessions, whole, progress, self._stopping)
            return progress.done

    def _quiet(self, conn: Connection, table: TableName) -> None:
        fires = self._config.replica(self._name).triggers == "disabled"
        finishing.quiet(conn, table, fires_triggers=fires)

    def _target(self) -> Connection:
        replica = self._config.replica(self._name)
        # A COPY of a bootstrap that was killed must not keep its table locked.
        settings = {**snapshot.ENDURING, "client_connection_check_interval": "10s"}
        conn = postgres.connect(replica.dsn, self._application, settings=settings)
        if replica.triggers == "session":
            # Managed servers have been seen to refuse it among the options of a connection.
            conn.execute("SET session_replication_role = replica")
            conn.commit()
        return conn

    def _foreign_keys(self) -> ForeignKeys:
        if (
            self._config.bootstrap.schema == "none"
            or self._config.replica(self._name).triggers == "disabled"
        ):
            return ForeignKeys((), (), ())
        names = {t.name for t in (*self._plan.rows, *self._plan.partitioned)}
        wanted = finishing.foreign_keys(self._primary)
        if not self._plan.whole_schema:
            wanted = tuple(k for k in wanted if k.table in names or k.refers_to in names)
        return finishing.add_foreign_keys(self._replica, wanted, names)


def guard(error: psycopg.Error, replica: str) -> CdcError:
    """Turn a PostgreSQL error that no part expected into one that says what stands."""
    return SchemaMismatch(
        f"PostgreSQL refuses: {error.diag.message_primary or postgres.first_line(error)}",
        safe="tables that were copied whole stay; the others count as empty",
        next="mend what is refused, then run `cdc bootstrap` again: it continues",
        replica=replica,
        sqlstate=error.sqlstate,
    )
