"""What a table looks like at one end, as far as comparing its rows depends on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import psycopg

from cdc.names import TableName, quoted

#: A column is sent in binary where every server has the same type under the same OID (PostgreSQL
#: manual, record_send: it writes the OID): built-in base types, ranges and their arrays. OID
#: aliases (regclass …) send an OID of their own server. A collation is told with its library's
#: version: with another one the same range of keys is another set of rows.
_COLUMNS = """
SELECT n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull, a.attgenerated::text, a.attidentity::text,
       t.oid < 10000 AND t.typsend <> 0 AND t.typtype IN ('b', 'r', 'm')
         AND t.typname !~ '^_?reg',
       CASE WHEN a.attcollation = 0 THEN NULL
            WHEN l.collprovider = 'd' THEN
              concat_ws(' ', d.datlocprovider, d.datcollate, pg_database_collation_actual_version(d.oid))
            ELSE concat_ws(' ', l.collprovider, l.collname, l.collcollate,
                           pg_collation_actual_version(l.oid)) END,
       coalesce(NOT l.collisdeterministic, false)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_database d ON d.datname = current_database()
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
 WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
   AND c.relkind = 'r'
 ORDER BY 1, 2, a.attnum
"""

#: Unique, not deferred, over columns that are never NULL: the primary key first, then the index of
#: REPLICA IDENTITY, then the narrowest.
_KEYS = """
SELECT DISTINCT ON (c.oid) n.nspname, c.relname, k.columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
                 AND i.indpred IS NULL AND i.indexprs IS NULL
 CROSS JOIN LATERAL (
       SELECT array_agg(a.attname::text ORDER BY p.place) AS columns, bool_and(a.attnotnull) AS whole
         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS p (attnum, place)
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.attnum
        WHERE p.place <= i.indnkeyatts) AS k
 WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND k.whole
 ORDER BY c.oid, i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, i.indexrelid
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column; `type` as format_type prints it, `collation` with provider and library version.

    `binary` tells whether its binary form is the same on every server; `generated` is 's', 'v'
    or '', `identity` 'a', 'd' or ''. `deterministic` is False where unequal texts may be equal keys.
    """

    name: str
    type: str
    not_null: bool
    generated: str
    identity: str
    binary: bool
    collation: str | None
    deterministic: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A table at one end; `key` is empty where no unique index over NOT NULL columns exists."""

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


def read(conn: psycopg.Connection[Any], tables: Iterable[TableName]) -> dict[TableName, Shape]:
    """Return those of `tables` that exist as ordinary tables (leaf partitions included)."""
    wanted = sorted(tables)
    names = [[t.schema for t in wanted], [t.name for t in wanted]]
    keys = {TableName(s, t): tuple(key) for s, t, key in conn.execute(_KEYS, names)}
    columns: dict[TableName, list[Column]] = {}
    for (
        schema,
        table,
        name,
        kind,
        not_null,
        generated,
        identity,
        binary,
        collation,
        loose,
    ) in conn.execute(_COLUMNS, names):
        columns.setdefault(TableName(schema, table), []).append(
            Column(name, kind, not_null, generated, identity, binary, collation, not loose)
        )
    return {t: Shape(t, tuple(found), keys.get(t, ())) for t, found in columns.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Mismatch:
    """A way in which a replica's table is not like the primary's, and the statement that mends it.

    `fatal` ones make its rows incomparable.
    """

    what: str
    mend: str
    fatal: bool = False


def compare(primary: Shape, replica: Shape) -> tuple[Mismatch, ...]:
    """Return how the replica's table differs, columns first."""
    found: list[Mismatch] = []
    name = primary.table
    for ours in primary.columns:
        theirs = replica.column(ours.name)
        alter = f"ALTER TABLE {name} "
        column = quoted(ours.name)
        if theirs is None:
            null = " NOT NULL" if ours.not_null else ""
            found.append(
                Mismatch(
                    f"column {column} is missing on the replica",
                    f"{alter}ADD COLUMN {column} {ours.type}{null}; then "
                    f"cdc bootstrap --table {name} --overwrite",
                    fatal=True,
                )
            )
            continue
        if ours.type != theirs.type:
            found.append(
                Mismatch(
                    f"column {column} is {theirs.type}, on the primary {ours.type}",
                    f"{alter}ALTER COLUMN {column} TYPE {ours.type}",
                )
            )
        if ours.not_null != theirs.not_null:
            verb = "SET" if ours.not_null else "DROP"
            found.append(
                Mismatch(
                    f"column {column} is {'' if theirs.not_null else 'not '}NOT NULL, on the "
                    f"primary it is{'' if ours.not_null else ' not'}",
                    f"{alter}ALTER COLUMN {column} {verb} NOT NULL",
                )
            )
        if ours.generated != theirs.generated:
            found.append(
                Mismatch(
                    f"column {column} is generated at one end only",
                    "make it as on the primary; its values are compared as they are",
                )
            )
        if ours.identity != theirs.identity:
            found.append(_identity(alter, column, ours, theirs))
        if ours.collation != theirs.collation:
            found.append(
                Mismatch(
                    f"column {column} sorts by {theirs.collation}, on the primary by {ours.collation}",
                    "none is needed for the rows to be equal; indexes on it are ordered otherwise",
                )
            )
    found += [
        Mismatch(
            f"column {quoted(c.name)} is not on the primary",
            f"ALTER TABLE {name} DROP COLUMN {quoted(c.name)}",
            fatal=True,
        )
        for c in replica.columns
        if primary.column(c.name) is None
    ]
    if primary.key != replica.key:
        found.append(
            Mismatch(
                f"its key is ({', '.join(replica.key) or 'none'}), on the primary "
                f"({', '.join(primary.key) or 'none'})",
                f"ALTER TABLE {name} ADD PRIMARY KEY ({', '.join(map(quoted, primary.key))})"
                if primary.key
                else "drop it on the replica, or add it to the primary",
            )
        )
    return tuple(found)


def _identity(alter: str, column: str, ours: Column, theirs: Column) -> Mismatch:
    words = {"a": "GENERATED ALWAYS AS IDENTITY", "d": "GENERATED BY DEFAULT AS IDENTITY", "": "no identity"}  # fmt: skip
    if not ours.identity:
        mend = f"{alter}ALTER COLUMN {column} DROP IDENTITY"
    elif not theirs.identity:
        mend = f"{alter}ALTER COLUMN {column} ADD {words[ours.identity]}"
    else:
        mend = (
            f"{alter}ALTER COLUMN {column} SET {words[ours.identity].removesuffix(' AS IDENTITY')}"
        )
    return Mismatch(
        f"column {column} is {words[theirs.identity]}, on the primary {words[ours.identity]}", mend
    )
