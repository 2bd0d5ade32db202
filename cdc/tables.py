"""Which tables of the primary are replicated: the configured patterns against its catalog."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import psycopg

from cdc.config import Config
from cdc.names import TableName
from cdc.patterns import Pattern, pattern

#: Every table a person could mean: not the system's, not ours, not an extension's (those come
#: with CREATE EXTENSION).
_CATALOG = """
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text,
       c.relreplident::text, c.relrowsecurity,
       un.nspname, u.relname,
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= i.indnkeyatts),
       (SELECT bool_and(i.indimmediate) FROM pg_index i
         WHERE i.indrelid = c.oid AND i.indisprimary),
       (SELECT array_agg(a.attname::text ORDER BY k.place)
          FROM pg_index i
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = c.oid AND i.indisreplident AND k.place <= i.indnkeyatts),
       (SELECT json_agg(json_build_array(a.attname, format_type(a.atttypid, a.atttypmod),
                                         a.attnotnull, a.attidentity, a.attgenerated)
                        ORDER BY a.attnum)
          FROM pg_attribute a
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_inherits h ON h.inhrelid = c.oid AND c.relispartition
  LEFT JOIN pg_class u ON u.oid = h.inhparent
  LEFT JOIN pg_namespace un ON un.oid = u.relnamespace
 WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
   AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'cdc')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                      AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY n.nspname, c.relname
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column; `type` as format_type prints it.

    `identity` is 'a' (ALWAYS), 'd' (BY DEFAULT) or ''; `generated` is 's', 'v' or ''.
    """

    name: str
    type: str
    not_null: bool
    identity: str
    generated: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of the primary's catalog, partitions and partitioned tables included.

    `kind` is pg_class.relkind: 'r' holds rows, 'p' is partitioned, 'f' is foreign. `parent` is the
    table this one is a partition of. `replica_identity` and `persistence` are pg_class.relreplident
    and relpersistence; `key` has the primary key's columns in index order, `index` those of the
    index that REPLICA IDENTITY USING INDEX names. `generated_refused`: its server lets nobody change rows
    of a published table whose identity has a generated column (PostgreSQL 18).
    """

    oid: int
    name: TableName
    kind: Literal["r", "p", "f"]
    persistence: str
    replica_identity: str
    row_security: bool
    parent: TableName | None
    key: tuple[str, ...]
    key_immediate: bool
    index: tuple[str, ...]
    columns: tuple[Column, ...]
    generated_refused: bool = False

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns of its replica identity, which an old row in the log consists of."""
        whole = tuple(column.name for column in self.columns)
        return {"f": whole, "d": self.key, "i": self.index}.get(self.replica_identity, ())

    @property
    def address(self) -> tuple[str, ...] | None:
        """What `address` says of this table."""
        computed = {column.name for column in self.columns if column.generated}
        key = self.key if self.key_immediate and not computed & set(self.key) else ()
        return address(self.replica_identity, key, () if computed & set(self.index) else self.index)

    @property
    def generated_identity(self) -> tuple[str, ...]:
        """The columns of its replica identity that every server computes by itself."""
        return tuple(c.name for c in self.columns if c.generated and c.name in self.identity)


def address(identity: str, key: tuple[str, ...], index: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the columns by which events address a row; () for its whole old image, None for nothing.

    `identity` is pg_class.relreplident, `key` the primary key unless it is deferrable: such a one
    two rows may hold at once within a transaction. Neither counts where a generated column is part of
    it: the log does not have those.
    """
    match identity:
        case "i":
            return index or None
        case "f":
            return key
        case "d":
            return key or None
    return None


@dataclasses.dataclass(frozen=True, slots=True)
class Complaint:
    """A table that a pattern matches and that is not carried, and what to do about it."""

    table: TableName
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.table} {self.what}: {self.fix}"


@dataclasses.dataclass(frozen=True, slots=True)
class Selection:
    """What the patterns make of a catalog.

    `published` goes into the publication: a partitioned table stands for its partitions. `rows`
    are the tables whose rows travel (ordinary tables and leaf partitions); `partitioned` are the
    partitioned tables above them. `left_out` are matched but never in the log (a warning),
    `refused` cannot be carried truly (an error).
    """

    published: tuple[Table, ...]
    rows: tuple[Table, ...]
    partitioned: tuple[Table, ...]
    left_out: tuple[Complaint, ...]
    refused: tuple[Complaint, ...]
    idle_patterns: tuple[str, ...]


def read(conn: psycopg.Connection[tuple[Any, ...]]) -> tuple[Table, ...]:
    """Read every table that could be replicated from the catalog, by name."""
    return tuple(
        Table(
            oid=oid,
            name=TableName(schema, name),
            kind=kind,
            persistence=persistence,
            replica_identity=identity,
            row_security=row_security,
            parent=TableName(parent_schema, parent) if parent else None,
            key=tuple(key or ()),
            key_immediate=bool(immediate),
            index=tuple(index or ()),
            columns=tuple(Column(*column) for column in columns or ()),
            generated_refused=conn.info.server_version >= 18_00_00,
        )
        for oid, schema, name, kind, persistence, identity, row_security,
        parent_schema, parent, key, immediate, index, columns in conn.execute(_CATALOG)
    )  # fmt: skip


def select(config: Config, catalog: Sequence[Table]) -> Selection:
    """Decide which tables of `catalog` are replicated.

    Raises ConfigError for a malformed pattern.
    """
    include = [pattern(text) for text in config.primary.tables]
    exclude = [pattern(text) for text in config.primary.exclude]
    excluded = {t.name for t in catalog if _any(exclude, t.name)}
    matched = {t.name for t in catalog if _any(include, t.name)} - excluded
    above = _ancestors(catalog)
    # A partitioned table that is published brings all its partitions, today's and later ones.
    carried = {t.name for t in catalog if t.name in matched or above[t.name] & matched}
    tables = [t for t in catalog if t.name in carried]
    left_out = [c for t in tables if (c := _not_logged(t))]
    absent = {c.table for c in left_out}
    rows = [t for t in tables if t.kind == "r" and t.name not in absent]
    refused = [c for t in rows for c in _faults(t)]
    if config.connect.profile == "stock":
        refused += [*(c for t in rows for c in _mistaken(t)), *_written_alike(rows)]
    refused += [
        Complaint(t.name, f"is excluded but is a partition of {t.parent}, which is replicated",
                  f"exclude {t.parent} too, or do not exclude its partitions")
        for t in tables if t.name in excluded
    ]  # fmt: skip
    return Selection(
        published=tuple(
            t for t in tables
            if t.name not in absent and not above[t.name] & carried
        ),
        rows=tuple(rows),
        partitioned=tuple(t for t in tables if t.kind == "p"),
        left_out=tuple(left_out),
        refused=tuple(refused),
        idle_patterns=tuple(
            p.text for p in (*include, *exclude) if not any(p.matches(t.name) for t in catalog)
        ),
    )  # fmt: skip


#: The capture plugin carries what Debezium alone does not (its DistinctNames).
_STOCK = 'exclude it, or let connect.profile be "exact"'
_STOCK_NAME = f"rename one, {_STOCK}"

#: Debezium leaves these schemas and tables out, whatever is in them (its SystemTablesPredicate).
_SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})
_SYSTEM_TABLES = frozenset({"spatial_ref_sys"})

#: Quotes that Debezium takes off or puts together, of a name that it has written down itself (tried).
_REREAD = re.compile(r"^\"|\"$|''|``")


def _written_alike(rows: Sequence[Table]) -> Iterable[Complaint]:
    """Yield tables that Debezium cannot tell apart: it joins schema and name by a dot.

    Measured: the rows of "a"."b.c" then carry the layout and the name of "a.b"."c".
    """
    first: dict[str, TableName] = {}
    for table in rows:
        name = table.name
        twin = first.setdefault(f"{name.schema}.{name.name}", name)
        if twin != name:
            yield Complaint(name, f"and {twin} are the same to Debezium, which joins schema and "
                            "table by a dot", _STOCK_NAME)  # fmt: skip


def _mistaken(table: Table) -> Iterable[Complaint]:
    """Yield why Debezium alone does not carry a table's rows, or stops at them (measured)."""
    if all(column.generated for column in table.columns):
        # It sends none of its rows, and END does not count them.
        yield Complaint(table.name, "has no column that is in the log: Debezium passes over its rows",
                        _STOCK)  # fmt: skip
    schema, name = table.name.schema, table.name.name
    if name.lower() in _SYSTEM_TABLES or schema.lower() in _SYSTEM_SCHEMAS:
        yield Complaint(
            table.name, "has a name of which Debezium leaves out every table", _STOCK_NAME
        )
    if _REREAD.search(schema) or _REREAD.search(name):
        yield Complaint(table.name, "has a name with quotes that Debezium reads otherwise than it "
                        "writes it", _STOCK_NAME)  # fmt: skip
    folded: dict[str, str] = {}
    for column in table.columns:
        twin = folded.setdefault(column.name.lower(), column.name)
        if twin != column.name:
            yield Complaint(table.name, f"has columns that differ only by case, {twin} and "
                            f"{column.name}, which Debezium refuses", _STOCK_NAME)  # fmt: skip


def _any(patterns: Iterable[Pattern], name: TableName) -> bool:
    return any(p.matches(name) for p in patterns)


def _ancestors(catalog: Iterable[Table]) -> dict[TableName, set[TableName]]:
    """Return the partitioned tables above each table, direct and indirect."""
    parents = {t.name: t.parent for t in catalog}
    above: dict[TableName, set[TableName]] = {}
    for name in parents:
        above[name] = set()
        at = name
        while (parent := parents.get(at)) is not None:
            above[name].add(parent)
            at = parent
    return above


def _not_logged(table: Table) -> Complaint | None:
    """Return why the rows of this table never reach the write-ahead log."""
    if table.kind == "f":
        return Complaint(table.name, "is a foreign table", "its rows live elsewhere; left out")
    if table.persistence == "u" and table.kind == "r":
        return Complaint(table.name, "is unlogged", "PostgreSQL does not log its rows; left out")
    return None


def _faults(table: Table) -> Iterable[Complaint]:
    """Yield why the rows of this table cannot be carried truly."""
    name = table.name
    if table.generated_refused and (found := table.generated_identity):
        yield Complaint(name, f"has the generated column {found[0]} in its replica identity: once it "
                        "is published, PostgreSQL 18 refuses every UPDATE and DELETE",
                        "give it an identity without it (a primary key), or exclude it")  # fmt: skip
    elif table.address is None:
        yield Complaint(name, _without_address(table),
                        f"ALTER TABLE {name} REPLICA IDENTITY FULL, or exclude it")  # fmt: skip


def _without_address(table: Table) -> str:
    """Say why nothing tells which row an UPDATE or DELETE of this table meant.

    PostgreSQL then refuses both on the primary once the table is published.
    """
    match table.replica_identity:
        case "n":
            return "has REPLICA IDENTITY NOTHING"
        case "i" if not table.index:
            return "has REPLICA IDENTITY USING INDEX of an index that is gone"
    if found := table.generated_identity:
        return (
            f"is identified by the generated column {found[0]}, which the log does not have, and not "
            "REPLICA IDENTITY FULL"
        )
    lacks = "a deferrable primary key and not" if table.key else "no primary key nor"
    return f"has {lacks} REPLICA IDENTITY FULL"
