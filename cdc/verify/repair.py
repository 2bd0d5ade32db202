"""Mend what differs, under a lock that holds the applier for milliseconds.

A row is written only where nothing of it is in flight: the replica has passed a barrier written
after the primary's row was read, and once the table is locked both ends still have the versions
that were read before. Then what the primary has is what the replica must have, and every later
event of the row comes after the mend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import postgres, statements
from cdc.config import Config
from cdc.errors import WaitTimeout
from cdc.verify import inflight
from cdc.verify.confirm import RowReader
from cdc.verify.encoding import Layout
from cdc.verify.ends import Primary, Replica, told
from cdc.verify.findings import Finding
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row

#: Rows mended under one lock; without key, where each statement is a pass over the table.
_KEYED, _UNKEYED = 500, 10_000

#: Tries at a lock that a large batch of the applier, or somebody else, holds.
_TRIES = 5

#: Seconds for which the lock is held, at most, for commits that are not visible yet.
_HELD = 0.2


@dataclasses.dataclass(frozen=True, slots=True)
class Mended:
    """How many findings were mended, and why the others were not (each said once)."""

    rows: int
    left: tuple[str, ...] = ()

    def __add__(self, other: Mended) -> Mended:
        return Mended(self.rows + other.rows, tuple(dict.fromkeys((*self.left, *other.left))))


class _InFlight(Exception):  # noqa: N818 -- lets go of the lock for the reason given
    """Something is applied on the replica that the primary does not show yet."""


def writer(config: Config, replica: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open the session that mends; like the applier's, triggers and foreign keys do not fire."""
    conn = postgres.connect(
        config.replica(replica).dsn,
        f"cdc-verify/{config.name}/repair",
        autocommit=True,
        settings={
            "lock_timeout": "1s",
            "statement_timeout": "60s",
            "idle_in_transaction_session_timeout": "1min",
        },
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
        """Mend what can be; a row that was written meanwhile is left to its own events.

        Rows of different batches may have exchanged a unique value: batches that the replica
        refuses are tried once more, together.
        """
        done = Mended(0)
        refused: list[Finding] = []
        together = _KEYED if self._layout.key else _UNKEYED
        for at in range(0, len(findings), together):
            batch = findings[at : at + together]
            try:
                done += self._some(batch)
            except psycopg.errors.IntegrityError:
                refused += batch
        if refused:
            try:
                done += self._some(refused)
            except psycopg.errors.IntegrityError as error:
                done += Mended(0, (f"the replica refused: {told(error)}",))
        return done

    def _some(self, findings: Sequence[Finding]) -> Mended:
        """Mend under one lock; raises psycopg.errors.IntegrityError where the replica refuses a row."""
        why = ""
        for _ in range(_TRIES):
            try:
                return self._batch(findings)
            except psycopg.errors.LockNotAvailable:
                why = f"{self._layout.table} is locked by somebody else"
            except _InFlight as error:
                why = str(error)
            except WaitTimeout as error:
                return Mended(0, (error.what,))
            except psycopg.errors.IntegrityError:
                raise
            except psycopg.Error as error:
                if self._primary.broken:
                    raise
                return Mended(0, (told(error),))
        return Mended(0, (why,))

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
            if pids := self._primary.settle(self._replica.applied(), _HELD):
                raise _InFlight(inflight.told(pids))
            after = self._here.rows(keys)
            still = [
                finding
                for finding in findings
                if before.get(finding.address) == after.get(finding.address)
                and unmoved(finding, after.get(finding.address), there.get(finding.address))
            ]
            self._write(still, after, there)
        moved = len(findings) - len(still)
        why = (f"{moved} rows were written meanwhile",) if moved else ()
        return Mended(len(still), why)

    def _write(
        self, findings: Sequence[Finding], ours: Mapping[Key, Row], theirs: Mapping[Key, Image]
    ) -> None:
        """Write the primary's rows, deletes first: unique values may pass from row to row."""
        rows: list[tuple[str | None, ...]] = []
        if self._layout.key:
            gone = [f.address for f in findings if f.kind != "missing"]
            if gone:
                self._raw(*delete_keys(self._layout, gone))
            rows = [ours[f.address].values for f in findings if f.kind != "extra"]
        else:
            surpluses: dict[Key, int] = {}
            for finding in findings:
                row, there = ours.get(finding.address), theirs.get(finding.address)
                surplus = (there.hash if there else 0) - (row.image.hash if row else 0)
                if surplus > 0:
                    surpluses[finding.address] = surplus
                elif row is not None:
                    rows += [row.values] * -surplus
            if surpluses:
                self._raw(delete_some(self._layout, surpluses), [])
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


def unmoved(finding: Finding, ours: Row | None, theirs: Image | None) -> bool:
    """Tell whether the rows of both ends are what was found, so that the finding may be mended.

    A row that was found missing may have been deleted on the primary since, and one too many inserted.
    """
    if theirs != finding.theirs:
        return False
    return not finding.keyed or (ours is None) == (finding.kind == "extra")


def delete_keys(layout: Layout, keys: Sequence[Key]) -> tuple[sql.Composed, list[list[str]]]:
    """Return the statement that deletes the rows at `keys`, and its parameters."""
    statement = sql.SQL("DELETE FROM ONLY {} AS t USING {} WHERE {}").format(
        layout.table.sql, layout.unnested, layout.same_key
    )
    return statement, [list(column) for column in zip(*keys, strict=True)]


def delete_some(layout: Layout, surpluses: Mapping[Key, int]) -> sql.Composed:
    """Return the statement that deletes so many rows of each content."""
    listed = sql.SQL(", ").join(
        sql.SQL("({}::bigint, {})").format(sql.Literal(hashed), sql.Literal(rows))
        for (hashed,), rows in surpluses.items()
    )
    return sql.SQL(
        "DELETE FROM ONLY {0} WHERE ctid = ANY (ARRAY(SELECT r.place FROM (SELECT t.ctid AS place,"
        " o.rows, row_number() OVER (PARTITION BY o.h) AS number FROM ONLY {0} AS t"
        " JOIN (VALUES {2}) AS o (h, rows) ON o.h = {1}) AS r WHERE r.number <= r.rows))"
    ).format(layout.table.sql, layout.row_hash, listed)
