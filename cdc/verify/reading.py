"""The statements that read a table at one end: one per chunk, no snapshot outlives it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc.verify.duty import Duty
from cdc.verify.encoding import Layout
from cdc.verify.ranges import LINED, SCATTERED, Key, Order, Range

#: Keys read by one statement.
_TOGETHER = 1000

#: Parts of a range that is not equal, a power of two: rows are listed where a part differs.
_PARTS = 4096


#: Whether rows that follow each other in the order of a column lie far apart; pg_stats tells it of tables
#: that were analyzed, and of those only that the role may read.
_SCATTERED = sql.SQL(
    "SELECT abs(correlation) < 0.5 FROM pg_catalog.pg_stats"
    " WHERE schemaname = $1 AND tablename = $2 AND attname = $3 AND NOT inherited"
)


#: PostgreSQL manual, effective_io_concurrency: 0 asks for no page beforehand.
_AHEAD = "RESET effective_io_concurrency"
_NOT_AHEAD = "SET effective_io_concurrency = 0"

#: From this version on pages that are asked for are read meanwhile, not only announced to the system.
_ASYNCHRONOUS = 18_00_00


@dataclasses.dataclass(frozen=True, slots=True)
class Checksum:
    """What a range, or a part of it, holds: the number of rows and the exclusive or of their hashes."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A session that reads at one end; what it does there counts as work of its `duty`."""

    conn: psycopg.Connection[Any]
    duty: Duty | None = None

    def fetch(
        self, statement: sql.SQL | sql.Composed, given: Sequence[Any]
    ) -> list[tuple[Any, ...]]:
        """Return the rows of a statement with $1 placeholders: a column's name may hold a %."""
        counted = self.duty.at_work() if self.duty else contextlib.nullcontext()
        with counted, psycopg.RawCursor[tuple[Any, ...]](self.conn) as cursor:
            return cursor.execute(statement, given).fetchall()


@dataclasses.dataclass(frozen=True, slots=True)
class Statements:
    """The statements that read a keyed table; $1 and so on stand for keys as text."""

    layout: Layout

    def next_key(self, low: Key | None, rows: int) -> sql.Composed:
        # As text from outside: inside, each key that is passed over would be printed as well.
        return sql.SQL(
            "SELECT {} FROM (SELECT {} FROM {}{} ORDER BY {} OFFSET {} LIMIT 1) AS t"
        ).format(
            self.layout.key_texts,
            self._key,
            self._from,
            self._where(Range(low)),
            self._key,
            sql.Literal(rows - 1),
        )

    def checksum(self, within: Range) -> sql.Composed:
        return sql.SQL("SELECT count(*), coalesce(bit_xor({}), 0) FROM {}{}").format(
            self.layout.row_hash, self._from, self._where(within)
        )

    def parts(self, within: Range) -> sql.Composed:
        return sql.SQL("SELECT {}, count(*), bit_xor({}) FROM {}{} GROUP BY 1").format(
            self._part, self.layout.row_hash, self._from, self._where(within)
        )

    def hashes(self, within: Range, *, some: bool = False) -> sql.Composed:
        """List a range; only `some` of its parts, which are then the last parameter."""
        chosen = [sql.SQL(f"{{}} = ANY (${len(within.bounds) + 1}::int[])").format(self._part)]
        return sql.SQL("SELECT {}, {} FROM {}{}").format(
            self.layout.row_hash,
            self.layout.key_texts,
            self._from,
            self._where(within, chosen if some else ()),
        )

    def images(self) -> sql.Composed:
        return self._at(sql.SQL("{}, {}").format(self.layout.row_hash, self.layout.version))

    def rows(self) -> sql.Composed:
        return self._at(
            sql.SQL("{}, {}, {}").format(
                self.layout.row_hash, self.layout.version, self.layout.texts
            )
        )

    @property
    def _from(self) -> sql.Composed:
        return sql.SQL("ONLY {} AS t").format(self.layout.table.sql)

    @property
    def _key(self) -> sql.Composed:
        return sql.SQL(", ").join(
            sql.SQL("t.{}").format(sql.Identifier(c.name)) for c in self.layout.key
        )

    @property
    def _part(self) -> sql.Composed:
        """The part of its range that the row `t` is in, by its key: cheap beside its hash."""
        return sql.SQL('(hashtext(({}) COLLATE "C") & {})').format(
            self.layout.key_text, sql.Literal(_PARTS - 1)
        )

    def _at(self, wanted: sql.Composed) -> sql.Composed:
        """Select `wanted` of the rows at given keys, with each key's place among them from 1."""
        return sql.SQL("SELECT o.place, {} FROM {} JOIN {} ON {}").format(
            wanted, self.layout.unnested, self._from, self.layout.same_key
        )

    def _where(self, within: Range, more: Sequence[sql.Composed] = ()) -> sql.Composed:
        conditions: list[sql.Composed] = []
        given = 0
        for comparison, bound in ((">", within.low), ("<=", within.high)):
            if bound is None:
                continue
            values = sql.SQL(", ").join(
                sql.SQL(f"${given + i}::text::{{}}").format(sql.SQL(c.type))
                for i, c in enumerate(self.layout.key, 1)
            )
            conditions.append(sql.SQL(f"({{}}) {comparison} ({{}})").format(self._key, values))
            given += len(bound)
        conditions += more
        if not conditions:
            return sql.Composed([])
        return sql.SQL(" WHERE {}").format(sql.SQL(" AND ").join(conditions))


class Reader:
    """Reads one keyed table of one end."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self._statements = Statements(layout)
        self.layout = layout

    def order(self) -> Order:
        """Return how the table lies for one who goes through it by its key."""
        table = self.layout.table
        given = (table.schema, table.name, self.layout.key[0].name)
        found = self._session.fetch(_SCATTERED, given)
        return SCATTERED if found and found[0][0] else LINED

    def prepare(self, order: Order) -> None:
        """Let the session read pages as the table lies."""
        if self._session.conn.info.server_version < _ASYNCHRONOUS:
            self._session.conn.execute(_AHEAD if order.ahead else _NOT_AHEAD)

    def next_key(self, low: Key | None, rows: int) -> Key | None:
        """Return the key `rows` rows above `low`, None where fewer are left."""
        found = self._session.fetch(self._statements.next_key(low, rows), low or ())
        return tuple(found[0]) if found else None

    def checksum(self, within: Range) -> Checksum:
        (found,) = self._session.fetch(self._statements.checksum(within), within.bounds)
        return Checksum(*found)

    def parts(self, within: Range) -> dict[int, Checksum]:
        """Return what each part of a range holds that has rows."""
        found = self._session.fetch(self._statements.parts(within), within.bounds)
        return {part: Checksum(rows, xor) for part, rows, xor in found}

    def hashes(self, within: Range, parts: Sequence[int] | None = None) -> dict[Key, int]:
        """Return the hash of every row of a range, or of some parts of it, by key."""
        given = within.bounds if parts is None else (*within.bounds, list(parts))
        statement = self._statements.hashes(within, some=parts is not None)
        found = self._session.fetch(statement, given)
        return {tuple(key): hashed for hashed, *key in found}

    def images(self, keys: Sequence[Key]) -> dict[Key, Image]:
        """Return what the rows at `keys` are now; a key that is absent has no row."""
        found = self._at(keys, self._statements.images())
        return {key: Image(*image) for key, image in found}

    def rows(self, keys: Sequence[Key]) -> dict[Key, Row]:
        """Return the rows at `keys` now, with their values."""
        found = self._at(keys, self._statements.rows())
        return {key: Row(Image(*image), tuple(values)) for key, (*image, values) in found}

    def _at(self, keys: Sequence[Key], statement: sql.Composed) -> Iterator[tuple[Key, list[Any]]]:
        for start in range(0, len(keys), _TOGETHER):
            some = keys[start : start + _TOGETHER]
            given = [list(column) for column in zip(*some, strict=True)]
            for place, *found in self._session.fetch(statement, given):
                yield some[place - 1], found
