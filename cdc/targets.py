"""The tables a session writes to: what is known of each, and a staging table for it.

Known from the first event of a table on, for as long as the session; read again when an event does
not fit, for then the table may have been altered as the primary's has been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from cdc import catalog, failpoint, statements
from cdc.catalog import Table
from cdc.changes import Image
from cdc.errors import ApplyRefused, Halt, SchemaMismatch
from cdc.events import UNCHANGED, Change, Row, Value
from cdc.names import TableName

CONSISTENT = "nothing of this batch was applied; the replica is consistent as of its position"
FOREIGN = (
    "the replica was changed by somebody else, or its table differs from the primary's: compare "
    "the two, mend it, and start again; or `cdc bootstrap --table {table} --overwrite`"
)


class Targets:
    """The replica's tables as the session `conn` sees them; `dsn` is where to read the catalog.

    `ordinary` tells that it is no replica's session: constraints and triggers act on what it writes.
    """

    def __init__(self, conn: psycopg.Connection[Any], dsn: str, application: str) -> None:
        self._conn = conn
        self._dsn, self._application = dsn, application
        self._tables: dict[TableName, Table] = {}
        self._stages: dict[TableName, sql.Identifier] = {}
        self._stage_number = 0
        self.ordinary = False  # known with the first table

    def __getitem__(self, name: TableName) -> Table:
        return self._tables[name]

    @property
    def keys(self) -> Mapping[TableName, tuple[str, ...]]:
        return {name: table.key for name, table in self._tables.items()}

    def learn(self, batch: Sequence[Change]) -> None:
        """Know every table of `batch`; SchemaMismatch when an event does not fit its table."""
        self._read(batch)
        if stale := self._altered(batch):
            for name in stale:
                del self._tables[name]
                self._conn.execute(sql.SQL("DROP TABLE {}").format(self._stages.pop(name)))
            self._read(batch)
            for change in batch:
                if misfit := _misfit(self._tables[change.table], change):
                    raise SchemaMismatch(
                        f"table {change.table} differs between primary and replica: {misfit}",
                        safe=CONSISTENT,
                        next="make the replica's table like the primary's, then start again",
                        **self.place(change),
                    )

    def stage(
        self, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Value]]
    ) -> sql.Identifier:
        """Put rows into the table's staging table, alone; return its name."""
        stage = self._stages[table.name]
        if self._conn.execute(
            sql.SQL("SELECT FROM {} LIMIT 1").format(stage)
        ).fetchone() is not None:  # fmt: skip
            self._conn.execute(sql.SQL("TRUNCATE {}").format(stage))
        self.copy(stage, columns, rows)
        failpoint.reach("stage.filled")
        return stage

    def copy(
        self, target: sql.Identifier, columns: Sequence[str], rows: Iterable[Sequence[Value]]
    ) -> None:
        with self._conn.cursor().copy(statements.copy_into(target, columns)) as copy:
            for block in statements.copy_text(rows):
                copy.write(block)
            failpoint.reach("copy.open")

    def delete_images(self, table: Table, columns: Sequence[str], gone: Counter[Image]) -> int:
        """Delete as many rows of each image as `gone` says; return how many were found."""
        stage = self.stage(table, columns, gone.elements())
        # Without an index that leads to the rows the table is read once, not once per image.
        self._hash_joins("off" if table.lookup else "on")
        found = self._conn.execute(statements.delete_images(table, stage, columns)).rowcount
        self._hash_joins("off")
        return found

    def _hash_joins(self, switch: LiteralString) -> None:
        self._conn.execute(sql.SQL("SET LOCAL enable_hashjoin = {}").format(sql.SQL(switch)))

    def refused(self, change: Change, what: str) -> Halt:
        return ApplyRefused(
            what, safe=CONSISTENT, next=FOREIGN.format(table=change.table), **self.place(change)
        )

    def place(self, change: Change) -> dict[str, Any]:
        """Return where an event stands, for messages."""
        table = self._tables[change.table]
        image = (change.after if change.before is None else change.before) or {}
        key = ", ".join(f"{c}={image.get(c)!r}" for c in table.key) if image else None
        return {
            "table": str(change.table),
            "key": key or None,
            "txid": change.txid,
            "offset": change.offset,
            "lsn": change.lsn,
        }

    def _read(self, batch: Sequence[Change]) -> None:
        """Read tables seen for the first time and make their staging tables."""
        unknown = {change.table for change in batch} - self._tables.keys()
        if not unknown:
            return
        role = self._conn.execute("SHOW session_replication_role").fetchone()
        self.ordinary = role != ("replica",)
        found = catalog.read(self._dsn, self._application, unknown, fires_triggers=self.ordinary)
        for name in sorted(unknown):
            first = next(change for change in batch if change.table == name)
            if name not in found:
                raise SchemaMismatch(
                    f"the replica has no table {name}",
                    safe=CONSISTENT,
                    next=f"create it as it is on the primary and fill it: `cdc bootstrap --table {name} "
                    "--overwrite`",
                    table=str(name),
                    txid=first.txid,
                    offset=first.offset,
                    lsn=first.lsn,
                )
            table = found[name]
            if table.obstacles or not table.addressed:
                raise _unfit(table, first)
            self._stage_number += 1
            stage = sql.Identifier("pg_temp", f"cdc_stage_{self._stage_number}")
            self._conn.execute(statements.create_stage(table, stage))
            self._tables[name], self._stages[name] = table, stage

    def _altered(self, batch: Sequence[Change]) -> set[TableName]:
        """Return the tables with an event that does not fit."""
        found = set[TableName]()
        at: TableName | None = None
        for change in batch:
            if change.table is not at:  # most are of the table of the one before
                at = change.table
                table = self._tables[at]
            if _misfit(table, change):
                found.add(at)
        return found


def _misfit(table: Table, change: Change) -> str | None:
    """Say how an event's columns differ from those that are written here, None if they fit."""
    if change.after is not None and change.after.keys() != table.column_set:
        missing = ", ".join(sorted(change.after.keys() - table.column_set))
        extra = ", ".join(sorted(table.column_set - change.after.keys()))
        lacks = [f"the replica lacks {missing}"] if missing else []
        return "; ".join(lacks + ([f"the event lacks {extra}"] if extra else []))
    if not table.key:
        return None if change.op in "ct" else _unlike_old_row(table, change.before)
    image = change.before if change.after is None else change.after
    if image is not None:
        for column in table.key:
            if not isinstance(image.get(column), str):
                return f"an event lacks a value of the replica's key ({', '.join(table.key)})"
    return None


def _unlike_old_row(table: Table, before: Row | None) -> str | None:
    if before is None or before.keys() != table.column_set or UNCHANGED in before.values():
        return (
            "the replica's rows have no key, and the event does not bring the whole old row "
            f"(on the primary: ALTER TABLE {table.name} REPLICA IDENTITY FULL)"
        )
    return None


def _unfit(table: Table, first: Change) -> SchemaMismatch:
    what = [obstacle.what for obstacle in table.obstacles]
    fix = [obstacle.fix for obstacle in table.obstacles]
    if not table.addressed:
        what.append("has no primary key, so its rows have no address")
        fix.append(f"ALTER TABLE {table.name} ADD the key that it has on the primary")
    return SchemaMismatch(
        f"the replica's table {table.name} " + "; it ".join(what),
        safe=CONSISTENT,
        next=f"on the replica: {'; '.join(fix)}; then start again",
        table=str(table.name),
        txid=first.txid,
        offset=first.offset,
        lsn=first.lsn,
    )
