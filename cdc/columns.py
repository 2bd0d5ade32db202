"""The types of tables' columns, domains resolved, and the codecs that read what is written of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from cdc import codecs
from cdc.errors import SchemaMismatch
from cdc.modes import Codec, Lost, Modes, Type
from cdc.names import TableName, quoted

#: From this version on an interval may be infinite.
_INFINITE_INTERVALS = 17_00_00

_TYPES = """
SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, t.typbasetype, t.typtypmod,
       t.typcategory = 'A'
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
"""

_COLUMNS = """
SELECT n.nspname::text, c.relname::text, a.attname::text, a.atttypid, a.atttypmod,
       format_type(a.atttypid, a.atttypmod)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
   AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY 1, 2, a.attnum
"""


def read(
    conn: psycopg.Connection[Any], tables: Iterable[TableName]
) -> dict[TableName, dict[str, Type]]:
    """Return the columns that are written of those of `tables` that are there."""
    types = {row[0]: row[1:] for row in conn.execute(_TYPES)}
    names = sorted(set(tables))
    found: dict[TableName, dict[str, Type]] = {}
    given = [[name.schema for name in names], [name.name for name in names]]
    for schema, table, column, oid, modifier, shown in conn.execute(_COLUMNS, given):
        while types[oid][2] == "d":
            # A domain has its type's modifier, and a column of it none.
            oid, modifier = types[oid][3], types[oid][4]  # noqa: PLW2901 -- down to the type itself
        of_schema, name, kind, _, _, array = types[oid]
        infinite = name == "interval" and conn.info.server_version >= _INFINITE_INTERVALS
        resolved = Type(of_schema, name, kind, modifier, array, shown, infinite)
        found.setdefault(TableName(schema, table), {})[column] = resolved
    return found


def lost(
    tables: Mapping[TableName, Mapping[str, Type]], modes: Modes
) -> list[tuple[TableName, str, str, Lost]]:
    """Return each column that cannot be carried exactly: table, column, type and why."""
    return [
        (table, column, type_.shown, found)
        for table, columns in tables.items()
        for column, type_ in columns.items()
        if isinstance(found := codecs.codec(type_, modes), Lost)
    ]


def carried(
    tables: Mapping[TableName, Mapping[str, Type]], modes: Modes
) -> dict[TableName, dict[str, Codec]]:
    """Return the codecs of all columns; raises SchemaMismatch naming each that has none."""
    if refused := lost(tables, modes):
        lines = [
            f"  {table}.{quoted(column)} ({shown}): {found.why}"
            + (f"; carried with {found.instead}" if found.instead else "")
            for table, column, shown, found in refused
        ]
        raise SchemaMismatch(
            "\n".join(["the stock profile cannot carry these columns exactly:", *lines]),
            safe="nothing was applied; the replica is consistent as of its position",
            next='set what is named in [connect.options], use connect.profile = "exact", or leave the '
            "table out (primary.exclude)",
            table=str(refused[0][0]),
        )
    return {
        table: {
            column: found
            for column, type_ in columns.items()
            if not isinstance(found := codecs.codec(type_, modes), Lost)
        }
        for table, columns in tables.items()
    }
