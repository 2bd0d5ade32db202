"""How the rows of a table are read: which columns, by which key, as what hash."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from psycopg import sql

from cdc.names import TableName
from cdc.verify import hashing
from cdc.verify.hashing import Hash
from cdc.verify.shape import Column, Shape


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a table are read, the same at every end.

    `columns` are those that are compared, in the primary's order, and the `mixed` of another type
    somewhere; `key` the columns that address a row, empty for a table without key. `crossed` tells that
    a column of the key sorts otherwise at some end, so that the same range of keys is not the same set
    of rows.
    """

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    hash: Hash
    mixed: frozenset[str] = frozenset()
    crossed: bool = False

    @property
    def row_hash(self) -> sql.Composed:
        """The hash of the row `t`, a bigint."""
        kinds = [(c.name, "" if c.name in self.mixed else c.type) for c in self.columns]
        return hashing.of_row(kinds, self.hash)

    @property
    def version(self) -> sql.SQL:
        """Which version of the row `t` this is: another one after any write."""
        return sql.SQL("t.xmin::text || t.ctid::text")

    @property
    def texts(self) -> sql.Composed:
        """The columns of the row `t` as PostgreSQL prints them, an array."""
        return sql.SQL("ARRAY[{}]::text[]").format(
            sql.SQL(", ").join(hashing.printed(c.name) for c in self.columns)
        )

    @property
    def key_texts(self) -> sql.Composed:
        """The key of the row `t`, each column as text."""
        return sql.SQL(", ").join(
            sql.SQL("t.{}::text").format(sql.Identifier(c.name)) for c in self.key
        )

    @property
    def key_text(self) -> sql.Composed:
        """The whole key of the row `t` as one text."""
        return (
            self.key_texts
            if len(self.key) == 1
            else sql.SQL("ROW({})::text").format(self.key_texts)
        )

    @property
    def unnested(self) -> sql.Composed:
        """Keys given as one text array per column ($1…), as the relation `o` with their `place`."""
        arrays = sql.SQL(", ").join(sql.SQL(f"${i}::text[]") for i in range(1, len(self.key) + 1))
        names = sql.SQL(", ").join(sql.Identifier(f"k{i}") for i in range(len(self.key)))
        return sql.SQL("unnest({}) WITH ORDINALITY AS o ({}, place)").format(arrays, names)

    @property
    def same_key(self) -> sql.Composed:
        """The row `t` has the key `o`, by the table's own equality: 1.0 is 1.00."""
        return sql.SQL(" AND ").join(
            sql.SQL("t.{} = o.{}::{}").format(
                sql.Identifier(c.name), sql.Identifier(f"k{i}"), sql.SQL(c.type)
            )
            for i, c in enumerate(self.key)
        )


def layout(primary: Shape, replicas: Sequence[Shape], hashed: Hash) -> Layout:
    """Return how to read a table that exists at all ends.

    The key is the primary's if all ends have it, else none. Virtual generated columns are not stored
    and not compared.
    """
    columns = tuple(c for c in primary.columns if c.generated != "v")
    there = {c.name: [s.column(c.name) for s in replicas] for c in columns}
    shared = all(set(s.key) == set(primary.key) for s in replicas)
    key = tuple(c for name in primary.key for c in columns if c.name == name) if shared else ()
    return Layout(
        primary.table,
        columns,
        key,
        hashed,
        mixed=frozenset(
            c.name for c in columns if any(o is None or o.type != c.type for o in there[c.name])
        ),
        crossed=any(
            o is None or (o.collation, o.labels) != (c.collation, c.labels)
            for c in key
            for o in there[c.name]
        ),
    )
