"""Mend what differs: under a lock that holds the applier for milliseconds, or as guarded SQL.

A row is written only where nothing of it is in flight: the replica has passed a barrier written
after the primary's row was read, and once the table is locked both ends still have the versions
that were read before. Then what the primary has is what the replica must have, and every later
event of the row comes after the mend.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import postgres, statements
from cdc.config import Config
from cdc.errors import WaitTimeout
from cdc.names import TableName
from cdc.verify.confirm import RowReader
from cdc.verify.encoding import Layout
from cdc.verify.ends import Primary, Replica
from cdc.verify.findings import Finding
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row

#: Rows mended under one lock.
TOGETHER = 500

#: Tries at a lock that a large batch of the applier, or somebody else, holds.
_TRIES = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Mended:
    """How many findings were mended, and why the others were not (each said once)."""

    rows: int
    left: tuple[str, ...] = ()

    def __add__(self, other: Mended) -> Mended:
        return Mended(self.rows + other.rows, (*self.left, *other.left))


def writer(config: Config, replica: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open the session that mends; like the applier's, triggers and foreign keys do not fire."""
    conn = postgres.connect(
        config.replica(replica).dsn,
        f"cdc-verify/{config.name}/repair",
        autocommit=True,
        settings={"lock_timeout": "1s", "idle_in_transaction_session_timeout": "1min"},
    )
    if config.replica(replica).triggers == "session":
        conn.execute("SET session_replication_role = replica")
    return conn


class Repair:
    """Mends one table on one replica; `writer` is a session of the applier's role."""

    def __init__(
        self,
        primary: Primary,
        replica: Replica,
        readers: tuple[RowReader, RowReader],
        writer: psycopg.Connection[tuple[Any, ...]],
    ) -> None:
        self._primary, self._replica = primary, replica
        self._here, self._there = readers
        self._layout = self._here.layout
        self._writer = writer

    def mend(self, findings: Sequence[Finding]) -> Mended:
        """Mend what can be; a row that was written meanwhile is left to its own events."""
        done = Mended(0)
        for at in range(0, len(findings), TOGETHER):
            done += self._some(findings[at : at + TOGETHER])
        return done

    def _some(self, findings: Sequence[Finding]) -> Mended:
        for _ in range(_TRIES):
            try:
                return self._batch(findings)
            except psycopg.errors.LockNotAvailable:
                continue
            except WaitTimeout as error:
                return Mended(0, (error.what,))
        return Mended(0, (f"{self._layout.table} is locked by somebody else",))

    def _batch(self, findings: Sequence[Finding]) -> Mended:
        keys = [finding.address for finding in findings]
        before = self._here.rows(keys)
        self._replica.reach(self._primary.mark())
        with self._writer.transaction():
            self._writer.execute(
                sql.SQL("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE").format(
                    self._layout.table.sql
                )
            )
            there = self._there.images(keys)
            stuck = self._primary.settle(self._replica.applied())
            after = self._here.rows(keys)
            still = [
                finding
                for finding in findings
                if not stuck
                and before.get(finding.address) == after.get(finding.address)
                and there.get(finding.address) == finding.theirs
            ]
            self._write(still, after, there)
        moved = len(findings) - len(still)
        why = (f"{moved} rows were written meanwhile",) if moved else ()
        return Mended(len(still), why)

    def _write(
        self, findings: Sequence[Finding], ours: dict[Key, Row], theirs: dict[Key, Image]
    ) -> None:
        """Write the primary's rows, deletes first: unique values may pass from row to row."""
        rows: list[tuple[str | None, ...]] = []
        if self._layout.key:
            gone = [f.address for f in findings if f.kind != "missing"]
            if gone:
                self._raw(*delete_keys(self._layout, gone))
            rows = [ours[f.address].values for f in findings if f.kind != "extra"]
        else:
            for finding in findings:
                row, there = ours.get(finding.address), theirs.get(finding.address)
                surplus = (there.hash if there else 0) - (row.image.hash if row else 0)
                if surplus > 0:
                    self._raw(delete_some(self._layout, finding.address, surplus), [])
                elif row is not None:
                    rows += [row.values] * -surplus
        if rows:
            self._copy(rows)

    def _copy(self, rows: Sequence[tuple[str | None, ...]]) -> None:
        written = [i for i, c in enumerate(self._layout.columns) if not c.generated]
        names = [self._layout.columns[i].name for i in written]
        into = statements.copy_into(self._layout.table.sql, names)
        with self._writer.cursor().copy(into) as copy:
            for block in statements.copy_text([row[i] for i in written] for row in rows):
                copy.write(block)

    def _raw(self, statement: sql.Composed, given: Sequence[Any]) -> None:
        with psycopg.RawCursor(self._writer) as cursor:
            cursor.execute(statement, given)


def delete_keys(layout: Layout, keys: Sequence[Key]) -> tuple[sql.Composed, list[list[str]]]:
    """Return the statement that deletes the rows at `keys`, and its parameters."""
    statement = sql.SQL("DELETE FROM ONLY {} AS t USING {} WHERE {}").format(
        layout.table.sql, layout.unnested, layout.same_key
    )
    return statement, [list(column) for column in zip(*keys, strict=True)]


def delete_some(layout: Layout, content: Key, rows: int) -> sql.Composed:
    """Return the statement that deletes so many rows of one content."""
    return sql.SQL(
        "DELETE FROM ONLY {0} WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM ONLY {0} AS t"
        " WHERE {1} = {2} LIMIT {3}))"
    ).format(layout.table.sql, layout.row_hash, sql.Literal(int(content[0])), sql.Literal(rows))


def script(findings: Iterable[Finding], layouts: Mapping[TableName, Layout]) -> Iterator[str]:
    """Yield statements that mend `findings`, replica by replica, for a person to read and run.

    Each does nothing where the replica's row is not the one that was found. An event in flight is
    not looked for: stop the daemon and let `cdc wait` say that it had caught up.
    """
    by_place = sorted(findings, key=lambda f: (f.replica, f.table))
    for (replica, table), some in itertools.groupby(by_place, lambda f: (f.replica, f.table)):
        yield f"-- {replica}: {table}"
        yield "BEGIN;"
        yield "SET LOCAL session_replication_role = replica;"
        yield f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE;"
        for finding in some:
            for statement in _guarded(finding, layouts[table]):
                yield f"{statement.as_string()};"
        yield "COMMIT;"


def _guarded(finding: Finding, layout: Layout) -> Iterator[sql.Composed]:
    written = [c for c in layout.columns if not c.generated]
    names = sql.SQL(", ").join(sql.Identifier(c.name) for c in written)
    into = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE").format(layout.table.sql, names)
    values = sql.SQL(", ").join(
        sql.Literal(value)
        for c, value in zip(
            layout.columns, finding.ours.values if finding.ours else (), strict=False
        )
        if not c.generated
    )
    if not layout.key:
        if finding.kind == "extra":
            yield delete_some(layout, finding.address, finding.count)
        else:
            yield sql.SQL("{} SELECT {} FROM generate_series(1, {})").format(
                into, values, sql.Literal(finding.count)
            )
        return
    at = sql.SQL(" AND ").join(
        sql.SQL("t.{} = {}").format(sql.Identifier(c.name), sql.Literal(value))
        for c, value in zip(layout.key, finding.address, strict=True)
    )
    if finding.kind == "missing":
        yield sql.SQL("{} VALUES ({}) ON CONFLICT DO NOTHING").format(into, values)
        return
    found = sql.Literal(finding.theirs.hash if finding.theirs else None)
    delete = sql.SQL("DELETE FROM ONLY {} AS t WHERE {} AND {} = {}").format(
        layout.table.sql, at, layout.row_hash, found
    )
    if finding.kind == "extra":
        yield delete
    else:
        yield sql.SQL("WITH found AS ({} RETURNING 1) {} SELECT {} FROM found").format(
            delete, into, values
        )
