"""A row as one 64-bit hash, computed by the server; the same value on both ends.

The row's binary form (record_send over an explicit column list) goes through PostgreSQL's 64-bit
lookup3 hash, or through sha256 where two servers disagree on the former. Measured per million rows
of 13 columns: binary form and lookup3 1.7 s, text form and lookup3 2.2 s, sha256 2.5 s, md5 3.2 s
(docs/verify.md). Types whose binary form names OIDs of one server are cast to text.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal

import psycopg
from psycopg import sql

from cdc.names import TableName
from cdc.verify.shape import Column, Shape

Hash = Literal["lookup3", "sha256"]

#: Values whose hash must be the same on every server that is compared by lookup3.
_KNOWN = (
    "ROW(1::int8, 'Grüße'::text, NULL::int4, 1.50::numeric, '2024-02-29 12:00+00'::timestamptz,"
    " '{1,NULL}'::int4[], 'NaN'::float8, '{\"a\": 1}'::jsonb)"
)

#: Types of which two values are printed alike only if they are sent alike, too. Not so a float (the
#: sign of a NaN), an array (a flag for NULLs) or a char(n) (its padding).
_ONE_TO_ONE = frozenset(
    (
        "bigint", "boolean", "bytea", "character varying", "date", "integer", "json", "jsonb",
        "numeric", "smallint", "text", "time without time zone", "timestamp with time zone",
        "timestamp without time zone", "uuid",
    )
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How the rows of a table are read, the same at every end.

    `columns` are those that are compared, in the primary's order; `key` the columns that address
    a row, with their types, empty for a table without key. `crossed` tells that a column of the key
    sorts otherwise at some end, so that the same range of keys is not the same set of rows.
    """

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    hash: Hash
    crossed: bool = False

    @property
    def row_hash(self) -> sql.Composed:
        """The hash of the row `t`, a bigint."""
        values = sql.SQL(", ").join(
            sql.SQL("t.{}" if c.binary else "t.{}::text").format(sql.Identifier(c.name))
            for c in self.columns
        )
        return _hashed(self.hash, sql.SQL("ROW({})").format(values))

    @property
    def version(self) -> sql.SQL:
        """Which version of the row `t` this is: another one after any write."""
        return sql.SQL("t.xmin::text || t.ctid::text")

    @property
    def texts(self) -> sql.Composed:
        """The columns of the row `t` as PostgreSQL prints them, an array."""
        return sql.SQL("ARRAY[{}]").format(
            sql.SQL(", ").join(
                sql.SQL("t.{}::text").format(sql.Identifier(c.name)) for c in self.columns
            )
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

    A column counts as binary only if it is everywhere, as the same type. Rows without a key are
    addressed by their hash, so it must be of what PostgreSQL prints, or of what is no finer. The key
    is the primary's if all ends have it, else none. Virtual generated columns are not stored and
    not compared.
    """
    shapes = (primary, *replicas)
    has_key = bool(primary.key) and all(set(s.key) == set(primary.key) for s in shapes)

    def everywhere(column: Column) -> Column:
        found = [s.column(column.name) for s in shapes]
        same = all(c is not None and c.binary and c.type == column.type for c in found)
        return dataclasses.replace(column, binary=same and (has_key or _one_to_one(column)))

    columns = tuple(everywhere(c) for c in primary.columns if c.generated != "v")
    by_name = {c.name: c for c in columns}
    key = tuple(by_name[name] for name in primary.key) if has_key else ()
    crossed = any(
        c is None or (c.collation, c.labels) != (column.collation, column.labels)
        for column in key
        for c in (s.column(column.name) for s in replicas)
    )
    return Layout(primary.table, columns, key, hashed, crossed)


def choose(ends: Sequence[psycopg.Connection[Any]]) -> Hash:
    """Return lookup3 where all servers hash a known row alike by it: it depends on byte order."""
    probe = sql.SQL("SELECT {}").format(_hashed("lookup3", sql.SQL(_KNOWN)))
    return chosen([conn.execute(probe).fetchone() for conn in ends])


def chosen(answers: Sequence[object]) -> Hash:
    """Return the hash to use after what each server made of the known row."""
    return "lookup3" if len(set(answers)) == 1 else "sha256"


def _one_to_one(column: Column) -> bool:
    return re.sub(r"\(.*?\)", "", column.type) in _ONE_TO_ONE


def _hashed(hashed: Hash, row: sql.Composable) -> sql.Composed:
    if hashed == "lookup3":
        return sql.SQL("hash_array_extended(ARRAY[record_send({})], 0)").format(row)
    return sql.SQL(
        "('x' || left(encode(sha256(record_send({})), 'hex'), 16))::bit(64)::bigint"
    ).format(row)
