"""What a table looks like at one end, as far as comparing its rows depends on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy
from sqlalchemy.dialects import postgresql

from cdc import catalog
from cdc.names import TableName

#: What the Inspector does not tell of a column. A collation is told with its library's version: with
#: another one the same range of keys is another set of rows.
_COLUMNS = sqlalchemy.text("""
SELECT n.nspname AS schema, c.relname AS table, a.attname AS name,
       format_type(a.atttypid, a.atttypmod) AS type, a.attgenerated::text AS generated,
       CASE WHEN a.attcollation = 0 THEN NULL
            WHEN l.collprovider = 'd' THEN
              concat_ws(' ', d.datlocprovider, d.datcollate, to_jsonb(d) ->> 'daticulocale',
                        to_jsonb(d) ->> 'datlocale', pg_database_collation_actual_version(d.oid))
            ELSE concat_ws(' ', l.collprovider, l.collname, l.collcollate,
                           pg_collation_actual_version(l.oid)) END AS collation,
       CASE WHEN a.attcollation <> t.typcollation
            THEN quote_ident(ln.nspname) || '.' || quote_ident(l.collname) END AS collate,
       coalesce(l.collisdeterministic, true) AS deterministic
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_database d ON d.datname = current_database()
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
  LEFT JOIN pg_namespace ln ON ln.oid = l.collnamespace
 WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])))
   AND c.relkind = 'r'
""")

#: Of an index the Inspector leaves out operator classes, collations and whether it is valid; the
#: server's own definition has it all, and is the statement that makes the index.
_INDEXES = sqlalchemy.text("""
SELECT n.nspname AS schema, c.relname AS table, quote_ident(x.relname) AS name, am.amname AS method,
       pg_get_indexdef(i.indexrelid) AS definition, pg_get_constraintdef(k.oid) AS constraint,
       i.indisunique OR i.indisexclusion AS refuses, i.indisvalid AS valid, i.indisprimary AS primary,
       i.indisreplident AS identity, i.indimmediate AND i.indisunique AND i.indisvalid
         AND i.indpred IS NULL AND i.indexprs IS NULL AND u.whole AS addresses,
       u.columns
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_index i ON i.indrelid = c.oid
  JOIN pg_class x ON x.oid = i.indexrelid
  JOIN pg_am am ON am.oid = x.relam
  LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = c.oid
        AND k.contype IN ('p', 'u', 'x')
 CROSS JOIN LATERAL (
       SELECT array_agg(a.attname::text ORDER BY p.place) AS columns,
              coalesce(bool_and(a.attnotnull), false) AS whole
         FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS p (attnum, place)
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.attnum
        WHERE p.place <= i.indnkeyatts) AS u
 WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])))
   AND c.relkind = 'r'
 ORDER BY 1, 2, i.indisprimary DESC, i.indisreplident DESC, i.indnkeyatts, x.relname
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column; `type` as format_type prints it, `collation` with provider and library version.

    `generated` is 's', 'v' or '', `expression` what it is generated from; `identity` is 'a', 'd' or
    ''. `collate` names the collation if it is not the type's own; `deterministic` is False where
    unequal texts may be equal keys. `enum` is the enumerated type its values are of (in an array or domain, too), with its
    `labels` in order.
    """

    name: str
    type: str
    not_null: bool = False
    generated: str = ""
    expression: str | None = None
    identity: str = ""
    collation: str | None = None
    collate: str | None = None
    deterministic: bool = True
    enum: str | None = None
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """An index; `name` as SQL writes it, `definition` the statement that makes it.

    `constraint` is the definition of the constraint that it serves, if any; `refuses` rows: it is
    unique, or serves an exclusion.
    """

    name: str
    definition: str
    constraint: str | None
    refuses: bool
    valid: bool = True

    @property
    def form(self) -> tuple[str, str | None]:
        """What it is, whatever it is called."""
        return self.definition.replace(f" INDEX {self.name} ON ", " INDEX ON ", 1), self.constraint


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A table at one end; `key` is empty where no unique index over NOT NULL columns exists.

    The key is the primary key, else the index of REPLICA IDENTITY, else the narrowest; never one
    that is deferrable.
    """

    table: TableName
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()

    def column(self, name: str) -> Column | None:
        return next((c for c in self.columns if c.name == name), None)


def read(
    dsn: str, application: str, tables: Iterable[TableName], settings: dict[str, str]
) -> dict[TableName, Shape]:
    """Return those of `tables` that exist as ordinary tables (leaf partitions included).

    Raises Unreachable, psycopg.Error; LockNotAvailable where somebody holds one of them for himself.
    """
    wanted = sorted(tables)
    names = {"schemas": [t.schema for t in wanted], "names": [t.name for t in wanted]}
    with catalog.inspector(dsn, application, settings) as (look, connection):
        facts: dict[TableName, dict[str, sqlalchemy.Row[Any]]] = {}
        for fact in connection.execute(_COLUMNS, names):
            known = facts.setdefault(TableName(fact.schema, fact.table), {})
            if fact.name is not None:  # a table may have no column
                known[fact.name] = fact
        keys: dict[TableName, tuple[str, ...]] = {}
        indexes: dict[TableName, list[Index]] = {}
        for found in connection.execute(_INDEXES, names):
            table = TableName(found.schema, found.table)
            index = Index(
                found.name, found.definition, found.constraint, found.refuses, found.valid
            )
            indexes.setdefault(table, []).append(index)
            if found.addresses:
                keys.setdefault(table, tuple(found.columns))
        described = {
            TableName(schema, name): columns
            for schema in {table.schema for table in wanted}
            for (_, name), columns in look.get_multi_columns(
                schema, [t.name for t in wanted if t.schema == schema]
            ).items()
        }
    return {
        table: Shape(
            table,
            # A column that came or went between two statements: the rows will show it.
            tuple(
                _column(c, known[c["name"]]) for c in described.get(table, ()) if c["name"] in known
            ),
            keys.get(table, ()),
            tuple(indexes.get(table, ())),
        )
        for table, known in facts.items()
    }


def _column(described: Mapping[str, Any], fact: sqlalchemy.Row[Any]) -> Column:
    identity = described.get("identity")
    computed = described.get("computed")
    enum = _enum(described["type"])
    return Column(
        described["name"],
        fact.type,
        not_null=not described["nullable"],
        generated=fact.generated,
        expression=computed and computed["sqltext"],
        identity="" if identity is None else "a" if identity["always"] else "d",
        collation=fact.collation,
        collate=fact.collate,
        deterministic=fact.deterministic,
        enum=None if enum is None else str(TableName(enum.schema or "pg_catalog", enum.name or "")),
        labels=tuple(enum.enums) if enum else (),
    )


def _enum(kind: Any) -> postgresql.ENUM | None:
    """Return the enumerated type in a type as the Inspector gives it."""
    match kind:
        case postgresql.ENUM():
            return kind
        case sqlalchemy.ARRAY():
            return _enum(kind.item_type)
        case postgresql.DOMAIN():
            return _enum(kind.data_type)
    return None
