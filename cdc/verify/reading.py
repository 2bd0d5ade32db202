"""The statements that read a table at one end: one per chunk, no snapshot outlives it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.verify.encoding import Layout
from cdc.verify.ranges import Key, Range


@dataclasses.dataclass(frozen=True, slots=True)
class Checksum:
    """What a range holds: the number of rows and the exclusive or of their hashes."""

    rows: int
    xor: int


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """A row as one statement saw it: its hash and which version it is (xmin and ctid)."""

    hash: int
    version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """A row with its values as PostgreSQL prints them, in the order of the layout's columns."""

    image: Image
    values: tuple[str | None, ...]


def fetch(
    conn: psycopg.Connection[Any], statement: sql.Composed, given: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Return the rows of a statement with $1 placeholders: a column's name may hold a %."""
    with psycopg.RawCursor[tuple[Any, ...]](conn) as cursor:
        return cursor.execute(statement, given).fetchall()


class Reader:
    """Reads one keyed table of one end."""

    def __init__(self, conn: psycopg.Connection[Any], layout: Layout) -> None:
        self._conn = conn
        self.layout = layout
        self._from = sql.SQL("ONLY {} AS t").format(layout.table.sql)
        self._image = sql.SQL("{}, {}").format(layout.row_hash, layout.version)

    def next_key(self, low: Key | None, rows: int) -> Key | None:
        """Return the key `rows` rows above `low`, None where fewer are left."""
        where, given = self._within(Range(low))
        found = fetch(
            self._conn,
            sql.SQL("SELECT {} FROM {}{} ORDER BY {} OFFSET {} LIMIT 1").format(
                self.layout.key_texts, self._from, where, self._key, sql.Literal(rows - 1)
            ),
            given,
        )
        return tuple(found[0]) if found else None

    def checksum(self, within: Range) -> Checksum:
        where, given = self._within(within)
        found = fetch(
            self._conn,
            sql.SQL("SELECT count(*), coalesce(bit_xor({}), 0) FROM {}{}").format(
                self.layout.row_hash, self._from, where
            ),
            given,
        )
        return Checksum(*found[0])

    def hashes(self, within: Range) -> dict[Key, int]:
        """Return the hash of every row of a range, by key."""
        where, given = self._within(within)
        found = fetch(
            self._conn,
            sql.SQL("SELECT {}, {} FROM {}{}").format(
                self.layout.row_hash, self.layout.key_texts, self._from, where
            ),
            given,
        )
        return {tuple(key): hashed for hashed, *key in found}

    def images(self, keys: Sequence[Key]) -> dict[Key, Image]:
        """Return what the rows at `keys` are now; a key that is absent has no row."""
        return {keys[at - 1]: Image(*image) for at, *image in self._at(keys, self._image)}

    def rows(self, keys: Sequence[Key]) -> dict[Key, Row]:
        """Return the rows at `keys` now, with their values."""
        wanted = sql.SQL("{}, {}").format(self._image, self.layout.texts)
        return {
            keys[at - 1]: Row(Image(hashed, version), tuple(values))
            for at, hashed, version, values in self._at(keys, wanted)
        }

    @property
    def _key(self) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL("t.{}").format(sql.Identifier(c.name)) for c in self.layout.key
        )

    def _at(self, keys: Sequence[Key], wanted: sql.Composed) -> list[tuple[Any, ...]]:
        """Select `wanted` of the rows at `keys`, with each key's place in the list from 1."""
        if not keys:
            return []
        return fetch(
            self._conn,
            sql.SQL("SELECT o.place, {} FROM {} JOIN {} ON {}").format(
                wanted, self.layout.unnested, self._from, self.layout.same_key
            ),
            [list(column) for column in zip(*keys, strict=True)],
        )

    def _within(self, within: Range) -> tuple[sql.Composed, list[str]]:
        conditions: list[sql.Composed] = []
        given: list[str] = []
        for comparison, bound in ((">", within.low), ("<=", within.high)):
            if bound is None:
                continue
            values = sql.SQL(", ").join(
                sql.SQL(f"${len(given) + i}::text::{{}}").format(sql.SQL(c.type))
                for i, c in enumerate(self.layout.key, 1)
            )
            conditions.append(sql.SQL(f"({{}}) {comparison} ({{}})").format(self._key, values))
            given += bound
        if not conditions:
            return sql.Composed([]), given
        return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions)), given
