"""Events written one by one in source order: what a set could not do, and what names a bad row.

Unique values that swap owners work here, and what PostgreSQL refuses is named with table, key and
offset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from cdc import changes, policy, statements
from cdc.catalog import Table
from cdc.changes import Image, Key, KeyChange, Truncate
from cdc.errors import ApplyRefused
from cdc.events import UNCHANGED, Change, Row, Value
from cdc.names import TableName
from cdc.position import Written
from cdc.targets import CONSISTENT, FOREIGN, Targets


class Replay:
    """Writes single events through the session `conn`."""

    def __init__(self, conn: psycopg.Connection[Any], targets: Targets) -> None:
        self._conn = conn
        self._targets = targets
        self._texts: dict[tuple[Any, ...], tuple[Table, bytes]] = {}

    def write(self, event: Change | KeyChange | Truncate) -> Written:
        """Write one event; ApplyRefused, or psycopg's error where trying again may help."""
        change = (
            event
            if isinstance(event, Change)
            else (event.insert if isinstance(event, KeyChange) else event.change)
        )
        try:
            match event:
                case Truncate(tables, _):
                    return self._truncate(tables)
                case Change() | KeyChange() if not self._targets[change.table].key:
                    return self._exchange(event)
                case KeyChange(delete, insert):
                    return self._change_key(delete, insert)
                case Change(op="c"):
                    return self._insert(event)
                case Change(op="u"):
                    return self._update(event)
                case Change():
                    return self._delete(event)
        except changes.Unmergeable as error:
            raise self._targets.refused(change, str(error)) from error
        except psycopg.Error as error:
            if policy.transient(error):
                raise
            raise ApplyRefused(
                f"the replica refused a change: {error.diag.message_primary or error}",
                safe=CONSISTENT,
                next=FOREIGN.format(table=change.table),
                sqlstate=error.sqlstate,
                **self._targets.place(change),
            ) from error

    def _insert(self, change: Change) -> Written:
        table = self._targets[change.table]
        row = change.after or {}
        if UNCHANGED in row.values():
            raise self._targets.refused(change, "an inserted row came without all its values")
        self._raw(self._text(statements.insert_one, table), [row[c] for c in table.columns])
        return Written(rows=1)

    def _update(self, change: Change) -> Written:
        table = self._targets[change.table]
        key = changes.key_of(change, table.key)
        if change.before is not None and changes.new_key_of(change, table.key) != key:
            return self._change_key(change, change)
        row = changes.addressed(change, table.key)
        columns = changes.present(row)
        found = self._update_row(table, columns, row, key)
        if found == 1:
            return Written(rows=1)
        if found or len(columns) < len(table.columns):
            raise self._targets.refused(change, f"an update found {found} rows instead of one")
        return self._insert(change) + Written(unmatched_updates=1)

    def _delete(self, change: Change) -> Written:
        table = self._targets[change.table]
        found = self._raw(
            self._text(statements.delete_one, table), changes.key_of(change, table.key)
        )
        if found > 1:
            raise self._targets.refused(change, f"a delete found {found} rows instead of one")
        return Written(rows=1, unmatched_deletes=1 - found)

    def _change_key(self, delete: Change, insert: Change) -> Written:
        table = self._targets[delete.table]
        row = insert.after or {}
        found = self._update_row(
            table, changes.present(row), row, changes.key_of(delete, table.key)
        )
        if found != 1:
            raise self._targets.refused(
                insert, f"a change of key found {found} rows instead of one"
            )
        return Written(rows=1)

    def _exchange(self, event: Change | KeyChange) -> Written:
        """Take one row of the old image away and put one of the new image in its place.

        A row that is not there halts also where it is deleted: the replica has another in its
        place, which would stay.
        """
        change = event.delete if isinstance(event, KeyChange) else event
        table = self._targets[change.table]
        columns = tuple(sorted(table.columns))
        before, after = changes.images(event, columns)
        if before is not None:
            gone: Counter[Image] = Counter([before])
            if (found := self._targets.delete_images(table, columns, gone)) != 1:
                raise self._targets.refused(
                    change, f"{found} rows were found that are as the old row was, instead of one"
                )
        if after is not None:
            row = dict(zip(columns, after, strict=True))
            self._raw(self._text(statements.insert_one, table), [row[c] for c in table.columns])
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
            self._text(statements.differs_one, table, fixed), [*(row[c] for c in fixed), *key]
        ):
            return self._raw(self._text(statements.rewrite_one, table, columns), values)
        free = [c for c in columns if c not in fixed]
        if not free:
            return self._raw(self._text(statements.rewrite_one, table, columns), values)
        return self._raw(
            self._text(statements.update_one, table, free), [*(row[c] for c in free), *key]
        )

    def _text(
        self, make: Callable[..., sql.Composed], table: Table, *columns: Sequence[str]
    ) -> bytes:
        """Return the statement that `make` makes; making it anew would cost as much as running it."""
        asked = (make, table.name, *map(tuple, columns))
        known = self._texts.get(asked)
        if known is None or known[0] is not table:  # the table was read again since
            self._texts[asked] = known = (table, make(table, *columns).as_bytes(self._conn))
        return known[1]

    def _raw(self, statement: bytes, values: Sequence[Value]) -> int:
        # Never prepared: that fixes the parameters' types, and a column may be widened any time.
        with psycopg.RawCursor(self._conn) as cursor:
            return cursor.execute(statement, values, prepare=False).rowcount
