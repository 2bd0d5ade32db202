"""Table changes: the net effect of a batch, per table and key, as a pure function.

Within one batch the last state of each key is what counts, so many events become one row to write.
A primary-key change and a truncate are barriers for their table: what came before is written first,
the event runs alone, then the table starts anew. Tables do not wait for each other: foreign keys do
not fire in the apply session, and all of a batch becomes visible at once.

Of a table whose rows have no key only the number of equal rows matters: a change is a row less and
a row more.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from cdc.events import UNCHANGED, Change, Row
from cdc.names import TableName

Key = tuple[str, ...]

#: A whole row, its values in the order of its columns' names.
Image = tuple[str | None, ...]


class Unmergeable(Exception):  # noqa: N818 -- asks for the row-by-row path, it is no error
    """The events of a key do not follow each other as PostgreSQL's would; nothing is assumed."""


@dataclasses.dataclass(slots=True)
class TableChanges:
    """The net change of one table between two barriers; every key stands in one of the four.

    `inserts` keys did not exist before, `updates` keys did (columns that are UNCHANGED keep their
    value), `deletes` keys did and shall not, `gone` keys were inserted and deleted again. Not
    `marked` is a promise that no value is UNCHANGED.
    """

    table: TableName
    inserts: dict[Key, Row] = dataclasses.field(default_factory=dict)
    updates: dict[Key, Row] = dataclasses.field(default_factory=dict)
    deletes: set[Key] = dataclasses.field(default_factory=set)
    gone: set[Key] = dataclasses.field(default_factory=set)
    marked: bool = dataclasses.field(default=False, compare=False)

    def insert(self, key: Key, row: Row) -> None:
        if self.marked and UNCHANGED in row.values():
            raise Unmergeable(f"{self.table}: key {key} inserted without all its values")
        if key in self.inserts or key in self.updates:
            raise Unmergeable(f"{self.table}: key {key} inserted while it exists")
        if key in self.deletes:
            self.deletes.discard(key)
            self.updates[key] = row
        else:
            self.gone.discard(key)
            self.inserts[key] = row

    def update(self, key: Key, row: Row) -> None:
        if key in self.inserts:
            self.inserts[key] = self._merged(self.inserts[key], row)
        elif key in self.updates:
            self.updates[key] = self._merged(self.updates[key], row)
        elif key in self.deletes or key in self.gone:
            raise Unmergeable(f"{self.table}: key {key} updated after it was deleted")
        else:
            self.updates[key] = row

    def delete(self, key: Key) -> None:
        if self.inserts.pop(key, None) is not None:
            self.gone.add(key)
        elif key in self.deletes or key in self.gone:
            raise Unmergeable(f"{self.table}: key {key} deleted twice")
        else:
            self.updates.pop(key, None)
            self.deletes.add(key)

    def _merged(self, older: Row, newer: Row) -> Row:
        if not self.marked:
            return newer
        return {
            column: older.get(column, UNCHANGED) if value is UNCHANGED else value
            for column, value in newer.items()
        }


@dataclasses.dataclass(slots=True)
class RowCounts:
    """The net change of a table without a key between two barriers.

    `deletes` says how many of the rows there before go, by image; `inserts` how many come.
    """

    table: TableName
    columns: tuple[str, ...]
    inserts: collections.Counter[Image] = dataclasses.field(default_factory=collections.Counter)
    deletes: collections.Counter[Image] = dataclasses.field(default_factory=collections.Counter)

    def merge(self, event: Change | KeyChange) -> None:
        before, after = images(event, self.columns)
        if before is not None:
            # Any of the equal rows will do, so one of our own first: it need not be written at all.
            if self.inserts[before] > 0:
                self.inserts[before] -= 1
            else:
                self.deletes[before] += 1
        if after is not None:
            self.inserts[after] += 1


@dataclasses.dataclass(frozen=True, slots=True)
class KeyChange:
    """One row gets another key: `UPDATE … SET key = new`, so that its TOAST values stay."""

    delete: Change
    insert: Change

    @property
    def table(self) -> TableName:
        return self.delete.table

    @property
    def tables(self) -> tuple[TableName, ...]:
        return (self.table,)


@dataclasses.dataclass(frozen=True, slots=True)
class Truncate:
    """Tables emptied by one TRUNCATE statement."""

    tables: tuple[TableName, ...]
    change: Change

    @property
    def table(self) -> TableName:
        return self.tables[0]


Step = TableChanges | RowCounts | KeyChange | Truncate


def events(changes: Iterable[Change]) -> list[Change | KeyChange | Truncate]:
    """Join what Debezium takes apart: a key change is sent as `d` and `c`, a TRUNCATE per table.

    The halves of a key change share their LSN, because they are one WAL record; no other delete
    and insert do (docs/capture.md).
    """
    joined: list[Change | KeyChange | Truncate] = []
    for change in changes:
        op = change.op
        last = joined[-1] if joined and op in "ct" else None
        if op == "c" and isinstance(last, Change) and last.op == "d" and _same_record(last, change):
            joined[-1] = KeyChange(last, change)
        elif op != "t":
            joined.append(change)
        elif isinstance(last, Truncate) and last.change.lsn == change.lsn:
            joined[-1] = Truncate((*last.tables, change.table), last.change)
        else:
            joined.append(Truncate((change.table,), change))
    return joined


def truncated_with(changes: Iterable[Change], table: TableName) -> set[TableName]:
    """Return `table` and all that one statement truncates with it, or with one of these."""
    together = {table}
    statements = [set(e.tables) for e in events(changes) if isinstance(e, Truncate)]
    while more := set[TableName]().union(*(s for s in statements if s & together)) - together:
        together |= more
    return together


def settled(changes: Sequence[Change]) -> int:
    """Return how many of `changes` can be written without those that come next.

    A last delete may be half of a key change, and a last truncate one table of several.
    """
    at = len(changes)
    while at and changes[at - 1].op in ("d", "t") and _same_statement(changes[at - 1], changes[-1]):
        at -= 1
    return at


def plan(changes: Iterable[Change], keys: Mapping[TableName, tuple[str, ...]]) -> list[Step]:
    """Return the steps that together have the effect of `changes`, in an order that gives it.

    `keys` are the replica's key columns per table, none where only a whole row is its address.
    Raises Unmergeable where the events of a key contradict each other, KeyError where a row lacks
    a key column.
    """
    steps: list[Step] = []
    pending: dict[TableName, TableChanges] = {}
    counted: dict[TableName, RowCounts] = {}

    at: TableName | None = None
    for event in events(changes):
        table = event.table
        if table is not at:  # most events are of the table of the one before
            at, columns, net = table, keys[table], pending.get(table)
        if barrier := _barrier(event, columns):
            for touched in barrier.tables:
                steps += [held.pop(touched) for held in (pending, counted) if touched in held]
            steps.append(barrier)
            at = None
        elif isinstance(event, Change) and columns:
            if net is None:
                net = pending[table] = TableChanges(table)
            _merge(net, event, columns)
        elif not isinstance(event, Truncate):
            counted.setdefault(table, RowCounts(table, _columns(event))).merge(event)
    steps.extend(pending.values())
    steps.extend(counted.values())
    return steps


def images(
    event: Change | KeyChange, columns: tuple[str, ...]
) -> tuple[Image | None, Image | None]:
    """Return the whole row before and after an event, None where there was or is none.

    REPLICA IDENTITY FULL logs the whole old row, so what `after` leaves out stands there.
    """
    delete, insert = (
        (event.delete, event.insert) if isinstance(event, KeyChange) else (event, event)
    )
    before, after = delete.before, insert.after
    old = None if before is None else _image(before, columns)
    if after is None:
        return old, None
    return old, _image(
        {c: (before or {}).get(c, v) if v is UNCHANGED else v for c, v in after.items()}, columns
    )


def _image(row: Row, columns: tuple[str, ...]) -> Image:
    values = tuple(row[column] for column in columns)
    if UNCHANGED in values:
        raise Unmergeable("a row of a table without key came without all its values")
    return values  # type: ignore[return-value]  # what is not str or None was refused


def _columns(event: Change | KeyChange) -> tuple[str, ...]:
    """Return the columns of the event's table, which every image of it has."""
    change = event.insert if isinstance(event, KeyChange) else event
    return tuple(sorted((change.before if change.after is None else change.after) or {}))


def key_of(change: Change, columns: tuple[str, ...]) -> Key:
    """Return the address of the row: `before` (else `after`) on the replica's own key columns."""
    image = (change.after if change.before is None else change.before) or {}
    if len(columns) == 1:
        return (_key_value(image, columns[0]),)
    return tuple([_key_value(image, column) for column in columns])


def addressed(change: Change, columns: tuple[str, ...]) -> Row:
    """Return the row after an update whose key stays, with the key columns always given.

    A key value stored out of line is UNCHANGED in `after`; PostgreSQL then logs it in `before`.
    """
    after = change.after or {}
    if change.before is None:
        return after
    return {**after, **dict(zip(columns, new_key_of(change, columns), strict=True))}


def new_key_of(change: Change, columns: tuple[str, ...]) -> Key:
    """Return the key the row has after `change`; an unchanged column keeps the value of `before`."""
    after, before = change.after or {}, change.before or {}
    return tuple(
        _key_value(before if after.get(column) is UNCHANGED else after, column)
        for column in columns
    )


def _key_value(image: Row, column: str) -> str:
    value = image[column]
    if not isinstance(value, str):
        raise KeyError(column)
    return value


def _barrier(
    event: Change | KeyChange | Truncate, columns: tuple[str, ...]
) -> KeyChange | Truncate | None:
    """Return the event as one that runs alone, None if it merges with others; `columns` is its key."""
    if isinstance(event, Truncate):
        return event
    if not columns:
        return None
    if isinstance(event, KeyChange):
        return event
    return KeyChange(event, event) if event.op == "u" and _moves(event, columns) else None


def _moves(change: Change, columns: tuple[str, ...]) -> bool:
    """Tell whether an update gives the row another key, as REPLICA IDENTITY FULL may show it."""
    return change.before is not None and key_of(change, columns) != new_key_of(change, columns)


def _merge(net: TableChanges, change: Change, columns: tuple[str, ...]) -> None:
    key = key_of(change, columns)
    net.marked = net.marked or change.marked
    if change.op == "d":
        net.delete(key)
    elif change.op == "c":
        net.insert(key, change.after or {})
    else:
        net.update(key, addressed(change, columns))


def _same_record(first: Change, second: Change) -> bool:
    return first.lsn == second.lsn and first.table == second.table and first.txid == second.txid


def _same_statement(first: Change, second: Change) -> bool:
    return first.lsn == second.lsn and first.op == second.op


def present(row: Row) -> tuple[str, ...]:
    """Return the columns whose values a row brings."""
    return tuple(column for column, value in row.items() if value is not UNCHANGED)
