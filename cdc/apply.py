"""Apply a batch to the replica, inside the transaction that also moves the position.

Sets first: rows go through COPY, one statement per table and kind of change, and each statement's
row count must be what the net change says. Whatever PostgreSQL refuses on that path is tried again
event by event in source order, from a savepoint before the first statement: unique values that
swap owners work there, and what does not is named exactly, with table, key and offset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from cdc import catalog, changes, failpoint, policy, statements
from cdc.catalog import Table
from cdc.changes import Key, KeyChange, TableChanges, Truncate
from cdc.errors import ApplyRefused, Halt, SchemaMismatch
from cdc.events import UNCHANGED, Change, Row, Value
from cdc.names import TableName
from cdc.position import Written

_CONSISTENT = "nothing of this batch was applied; the replica is consistent as of its position"
_FOREIGN = (
    "the replica was changed by somebody else, or its table differs from the primary's: compare "
    "the two, mend it, and start again; or `cdc bootstrap --table {table} --overwrite`"
)


class Mismatch(Exception):  # noqa: N818 -- asks for the row-by-row path, which names the row
    """A statement wrote another number of rows than the net change says."""


class Applier:
    """Writes batches through the session `conn`, in autocommit: the caller opens transactions.

    Keeps what it learned of the tables, and one staging table each, for as long as the session.
    `dsn` is where to read the catalog.
    """

    def __init__(self, conn: psycopg.Connection[Any], dsn: str, application: str) -> None:
        self._conn = conn
        self._dsn, self._application = dsn, application
        self._tables: dict[TableName, Table] = {}
        self._stages: dict[TableName, sql.Identifier] = {}
        self._stage_number = 0

    def write(self, batch: Sequence[Change]) -> Written:
        """Write the effect of `batch` in the open transaction.

        Raises SchemaMismatch, ApplyRefused, or psycopg's error where trying again may help.
        """
        self._learn(batch)
        if stale := {change.table for change in batch if self._misfit(change)}:
            # The table may have been altered since it was read, as the primary's has been now.
            self._forget(stale)
            self._learn(batch)
            for change in batch:
                if misfit := self._misfit(change):
                    raise self._mismatch(change, misfit)
        self._conn.execute("SAVEPOINT cdc_batch")
        try:
            written = self._write_sets(batch)
        except (changes.Unmergeable, Mismatch):
            written = self._again(batch)
        except psycopg.Error as error:
            if policy.transient(error):
                raise
            written = self._again(batch)
        self._conn.execute("RELEASE SAVEPOINT cdc_batch")
        return written

    def _again(self, batch: Sequence[Change]) -> Written:
        self._conn.execute("ROLLBACK TO SAVEPOINT cdc_batch")
        written = Written()
        for event in changes.events(batch):
            written += self._write_one(event)
        return written

    def _write_sets(self, batch: Sequence[Change]) -> Written:
        written = Written()
        for step in changes.plan(batch, {name: t.key for name, t in self._tables.items()}):
            if isinstance(step, TableChanges):
                written += self._write_net(step)
            else:
                written += self._write_one(step)
        return written

    def _write_net(self, net: TableChanges) -> Written:
        table, stage = self._tables[net.table], self._stages[net.table]
        written = Written(rows=len(net.inserts) + len(net.updates) + len(net.deletes))
        if net.deletes:
            self._stage(table, table.key, sorted(net.deletes))
            found = self._conn.execute(statements.delete_staged(table, stage)).rowcount
            if found > len(net.deletes):
                raise Mismatch
            written += Written(unmatched_deletes=len(net.deletes) - found)
        for columns, rows in _by_columns(net.updates).items():
            written += self._update_set(table, columns, rows)
        if net.inserts:
            inserts = [row for _, row in sorted(net.inserts.items())]
            self._copy(table.name.sql, table.columns, _values(inserts, table.columns))
        return written

    def _update_set(self, table: Table, columns: tuple[str, ...], rows: list[Row]) -> Written:
        if not statements.updatable(table, columns):
            return Written()
        stage = self._stages[table.name]
        self._stage(table, columns, _values(rows, columns))
        probe = statements.changed_identity(table, stage, columns)
        if probe is not None and self._one(probe):
            raise Mismatch
        found = self._conn.execute(statements.update_staged(table, stage, columns)).rowcount
        if found == len(rows):
            return Written()
        if found > len(rows) or len(columns) < len(table.columns):
            raise Mismatch
        self._conn.execute(statements.insert_missing(table, stage))
        return Written(unmatched_updates=len(rows) - found)

    def _stage(self, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Value]]) -> None:
        stage = self._stages[table.name]
        if self._one(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(stage)):
            self._conn.execute(sql.SQL("TRUNCATE {}").format(stage))
        self._copy(stage, columns, rows)
        failpoint.reach("stage.filled")

    def _copy(
        self, target: sql.Identifier, columns: Sequence[str], rows: Iterable[Sequence[Value]]
    ) -> None:
        with self._conn.cursor().copy(statements.copy_into(target, columns)) as copy:
            copy.write(statements.copy_text(rows))
            failpoint.reach("copy.open")

    def _write_one(self, event: Change | KeyChange | Truncate) -> Written:
        """Write one event by itself; what PostgreSQL refuses is named exactly."""
        change = (
            event
            if isinstance(event, Change)
            else (event.insert if isinstance(event, KeyChange) else event.change)
        )
        try:
            match event:
                case Truncate(tables, _):
                    return self._truncate(tables)
                case KeyChange(delete, insert):
                    return self._change_key(delete, insert)
                case Change(op="c"):
                    return self._insert(event)
                case Change(op="u"):
                    return self._update(event)
                case Change():
                    return self._delete(event)
        except psycopg.Error as error:
            if policy.transient(error):
                raise
            raise ApplyRefused(
                f"the replica refused a change: {error.diag.message_primary or error}",
                safe=_CONSISTENT,
                next=_FOREIGN.format(table=change.table),
                sqlstate=error.sqlstate,
                **self._place(change),
            ) from error

    def _insert(self, change: Change) -> Written:
        table = self._tables[change.table]
        row = change.after or {}
        if UNCHANGED in row.values():
            raise self._refused(change, "an inserted row came without all its values")
        self._raw(statements.insert_one(table), [row[c] for c in table.columns])
        return Written(rows=1)

    def _update(self, change: Change) -> Written:
        table = self._tables[change.table]
        key = changes.key_of(change, table.key)
        if change.before is not None and changes.new_key_of(change, table.key) != key:
            return self._change_key(change, change)
        row = changes.addressed(change, table.key)
        columns = _present(row)
        found = self._update_row(table, columns, row, key)
        if found == 1:
            return Written(rows=1)
        if found or len(columns) < len(table.columns):
            raise self._refused(change, f"an update found {found} rows instead of one")
        return self._insert(change) + Written(unmatched_updates=1)

    def _delete(self, change: Change) -> Written:
        table = self._tables[change.table]
        found = self._raw(statements.delete_one(table), changes.key_of(change, table.key))
        if found > 1:
            raise self._refused(change, f"a delete found {found} rows instead of one")
        return Written(rows=1, unmatched_deletes=1 - found)

    def _change_key(self, delete: Change, insert: Change) -> Written:
        table = self._tables[delete.table]
        row = insert.after or {}
        found = self._update_row(table, _present(row), row, changes.key_of(delete, table.key))
        if found != 1:
            raise self._refused(insert, f"a change of key found {found} rows instead of one")
        return Written(rows=1)

    def _truncate(self, tables: tuple[TableName, ...]) -> Written:
        self._conn.execute("SAVEPOINT cdc_truncate")
        try:
            self._conn.execute(statements.truncate(tables))
        except pg.FeatureNotSupported:
            # A table outside the statement refers to one of these by foreign key (0A000).
            self._conn.execute("ROLLBACK TO SAVEPOINT cdc_truncate")
            for table in tables:
                self._conn.execute(statements.delete_all(table))
        self._conn.execute("RELEASE SAVEPOINT cdc_truncate")
        return Written(rows=len(tables))

    def _update_row(self, table: Table, columns: Sequence[str], row: Row, key: Key) -> int:
        """Write `columns` of the row at `key`; return how many rows that was."""
        fixed = [c for c in columns if c in table.identity_always]
        values = [*(row[c] for c in columns), *key]
        if fixed and self._raw(
            statements.differs_one(table, fixed), [*(row[c] for c in fixed), *key]
        ):
            return self._raw(statements.rewrite_one(table, columns), values)
        free = [c for c in columns if c not in fixed]
        if not free:
            return self._raw(statements.rewrite_one(table, columns), values)
        return self._raw(statements.update_one(table, free), [*(row[c] for c in free), *key])

    def _raw(self, statement: sql.Composed, values: Sequence[Value]) -> int:
        with psycopg.RawCursor(self._conn) as cursor:
            return cursor.execute(statement, values).rowcount

    def _one(self, statement: sql.Composed) -> Any:
        row = self._conn.execute(statement).fetchone()
        return row[0] if row else None

    def _learn(self, batch: Sequence[Change]) -> None:
        """Read tables seen for the first time and make their staging tables."""
        unknown = {change.table for change in batch} - self._tables.keys()
        if not unknown:
            return
        found = catalog.read(self._dsn, self._application, unknown)
        for name in sorted(unknown):
            if name not in found:
                first = next(change for change in batch if change.table == name)
                raise SchemaMismatch(
                    f"the replica has no table {name}",
                    safe=_CONSISTENT,
                    next=f"create it as it is on the primary and fill it: `cdc bootstrap --table {name} "
                    "--overwrite`",
                    table=str(name),
                    txid=first.txid,
                    offset=first.offset,
                    lsn=first.lsn,
                )
            self._stage_number += 1
            stage = sql.Identifier("pg_temp", f"cdc_stage_{self._stage_number}")
            self._conn.execute(statements.create_stage(found[name], stage))
            self._tables[name], self._stages[name] = found[name], stage

    def _forget(self, names: set[TableName]) -> None:
        for name in names:
            del self._tables[name]
            self._conn.execute(sql.SQL("DROP TABLE {}").format(self._stages.pop(name)))

    def _misfit(self, change: Change) -> str | None:
        """Say how an event's columns differ from those that are written here, None if they fit."""
        table = self._tables[change.table]
        if change.after is not None and change.after.keys() != table.column_set:
            missing = ", ".join(sorted(change.after.keys() - table.column_set))
            extra = ", ".join(sorted(table.column_set - change.after.keys()))
            lacks = [f"the replica lacks {missing}"] if missing else []
            return "; ".join(lacks + ([f"the event lacks {extra}"] if extra else []))
        image = change.before if change.after is None else change.after
        if image is not None and not all(isinstance(image.get(c), str) for c in table.key):
            return f"an event lacks a value of the replica's primary key ({', '.join(table.key)})"
        return None

    def _mismatch(self, change: Change, misfit: str) -> SchemaMismatch:
        return SchemaMismatch(
            f"table {change.table} differs between primary and replica: {misfit}",
            safe=_CONSISTENT,
            next="make the replica's table like the primary's, then start again",
            **self._place(change),
        )

    def _refused(self, change: Change, what: str) -> Halt:
        return ApplyRefused(
            what, safe=_CONSISTENT, next=_FOREIGN.format(table=change.table), **self._place(change)
        )

    def _place(self, change: Change) -> dict[str, Any]:
        table = self._tables[change.table]
        image = (change.after if change.before is None else change.before) or {}
        key = ", ".join(f"{c}={image.get(c)!r}" for c in table.key) if image else None
        return {
            "table": str(change.table),
            "key": key,
            "txid": change.txid,
            "offset": change.offset,
            "lsn": change.lsn,
        }


def _present(row: Row) -> tuple[str, ...]:
    return tuple(column for column, value in row.items() if value is not UNCHANGED)


def _values(rows: Iterable[Row], columns: Sequence[str]) -> Iterable[list[Value]]:
    return ([row[column] for column in columns] for row in rows)


def _by_columns(rows: dict[Key, Row]) -> dict[tuple[str, ...], list[Row]]:
    """Group rows by the columns they bring, each group in key order."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for _, row in sorted(rows.items()):
        groups.setdefault(_present(row), []).append(row)
    return groups
