"""Apply a batch to the replica, inside the transaction that also moves the position.

Sets first, unless there are only a few rows a table: they go through COPY, one statement per table and kind of change,
and each statement's row count must be what the net change says. A table whose changes PostgreSQL refuses on that path is
written event by event in source order (`replay`): all begins again from a savepoint before the first
statement.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import changes, policy, statements
from cdc.catalog import Table
from cdc.changes import Key, KeyChange, RowCounts, TableChanges, Truncate
from cdc.errors import ApplyRefused
from cdc.events import Change, Row, Value
from cdc.names import TableName
from cdc.position import Written
from cdc.replay import Replay
from cdc.targets import Targets

#: Changes a table that are written one by one at first: for so few, COPY into a staging table costs more than
#: it saves (docs/decisions.md, "Few rows").
_FEW = 3

#: Bytes of records from which on there is no few: COPY sends a large row in parts, a statement holds it whole, twice.
_LARGE = 1 << 20


class Mismatch(Exception):  # noqa: N818 -- asks for the row-by-row path, which names the row
    """A statement wrote another number of rows than the net change says."""


class Refused(Exception):  # noqa: N818 -- asks for the row-by-row path for one table
    """PostgreSQL does not take a table's changes as a set."""

    def __init__(self, table: TableName) -> None:
        super().__init__(table)
        self.table = table


class Applier:
    """Writes batches through the session `conn`, in autocommit: the caller opens transactions.

    `dsn` is where to read the catalog.
    """

    def __init__(self, conn: psycopg.Connection[Any], dsn: str, application: str) -> None:
        self._conn = conn
        self._targets = Targets(conn, dsn, application)
        self._replay = Replay(conn, self._targets)

    def write(self, batch: Sequence[Change]) -> Written:
        """Write the effect of `batch` in the open transaction.

        Raises SchemaMismatch, ApplyRefused, or psycopg's error where trying again may help.
        """
        self._targets.learn(batch)
        if self._targets.ordinary:
            # The primary may have deferred them, and a statement of it may be several here.
            self._conn.execute("SET CONSTRAINTS ALL DEFERRED")
        few = changes.events(batch) if _are_few(batch) else []
        if len(few) == 1:
            return self._replay.write(few[0])
        self._conn.execute("SAVEPOINT cdc_batch")
        written = self._write_few(few) if few else None
        alone: set[TableName] = set()
        while written is None and (written := self._attempt(batch, alone)) is None:
            self._conn.execute("ROLLBACK TO SAVEPOINT cdc_batch")
        self._conn.execute("RELEASE SAVEPOINT cdc_batch")
        return written

    def _write_few(self, events: Sequence[Change | KeyChange | Truncate]) -> Written | None:
        """Write events one by one; None if one is refused: together they may be taken."""
        written = Written()
        try:
            for event in events:
                written += self._replay.write(event)
        except ApplyRefused:
            self._conn.execute("ROLLBACK TO SAVEPOINT cdc_batch")
            return None
        return written

    def _attempt(self, batch: Sequence[Change], alone: set[TableName]) -> Written | None:
        """Write tables by sets, those in `alone` by event; None, and one more of these, if refused.

        Tables do not wait for each other, save where one statement truncates several.
        """
        sets = [change for change in batch if change.table not in alone]
        try:
            written = self._write_sets(sets)
        except Refused as refused:
            alone |= changes.truncated_with(batch, refused.table)
            return None
        except changes.Unmergeable:
            alone |= {change.table for change in batch}
            return None
        for event in changes.events(change for change in batch if change.table in alone):
            written += self._replay.write(event)
        return written

    def _write_sets(self, batch: Sequence[Change]) -> Written:
        written = Written()
        for step in changes.plan(batch, self._targets.keys):
            if not isinstance(step, TableChanges | RowCounts):
                written += self._replay.write(step)
                continue
            try:
                written += (
                    self._write_net(step)
                    if isinstance(step, TableChanges)
                    else self._write_counts(step)
                )
            except Mismatch as error:
                raise Refused(step.table) from error
            except psycopg.Error as error:
                if policy.transient(error):
                    raise
                raise Refused(step.table) from error
        return written

    def _write_net(self, net: TableChanges) -> Written:
        table = self._targets[net.table]
        written = Written(rows=len(net.inserts) + len(net.updates) + len(net.deletes))
        if net.deletes:
            stage = self._targets.stage(table, table.key, sorted(net.deletes))
            found = self._conn.execute(statements.delete_staged(table, stage)).rowcount
            if found > len(net.deletes):
                raise Mismatch
            written += Written(unmatched_deletes=len(net.deletes) - found)
        for columns, rows in _by_columns(net).items():
            written += self._update_set(table, columns, rows)
        if net.inserts:
            inserts = _in_order(net.inserts)
            self._targets.copy(table.name.sql, table.columns, _values(inserts, table.columns))
        return written

    def _write_counts(self, net: RowCounts) -> Written:
        table = self._targets[net.table]
        gone, come = net.deletes.total(), net.inserts.total()
        if gone and self._targets.delete_images(table, net.columns, net.deletes) != gone:
            raise Mismatch
        if come:
            self._targets.copy(table.name.sql, net.columns, net.inserts.elements())
        return Written(rows=gone + come)

    def _update_set(self, table: Table, columns: tuple[str, ...], rows: list[Row]) -> Written:
        if not statements.updatable(table, columns):
            return Written()
        stage = self._targets.stage(table, columns, _values(rows, columns))
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

    def _one(self, statement: sql.Composed) -> Any:
        row = self._conn.execute(statement).fetchone()
        return row[0] if row else None


def _are_few(batch: Sequence[Change]) -> bool:
    """Tell whether statements for single rows cost less than sets of them."""
    tables = len({change.table for change in batch})
    return len(batch) <= _FEW * tables and sum(change.size for change in batch) < _LARGE


def _values(rows: Iterable[Row], columns: Sequence[str]) -> Iterable[Sequence[Value]]:
    if len(columns) == 1:
        return ((row[columns[0]],) for row in rows)
    return map(operator.itemgetter(*columns), rows)


def _in_order(rows: dict[Key, Row]) -> list[Row]:
    """Return rows in the order of their keys."""
    return [rows[key] for key in sorted(rows)]


def _by_columns(net: TableChanges) -> dict[tuple[str, ...], list[Row]]:
    """Group the rows to update by the columns they bring, each group in key order."""
    rows = _in_order(net.updates)
    if rows and not net.marked:
        return {tuple(rows[0]): rows}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(changes.present(row), []).append(row)
    return groups
