"""Compare tables of several PostgreSQL servers, by nothing but PostgreSQL's own output.

Imports nothing of the package under test: what it says is evidence.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import psycopg
from psycopg import sql

#: A value's text depends on these settings; they must not differ between the servers compared.
_SETTINGS = (
    "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=1 "
    "-c bytea_output=hex -c lc_monetary=C -c default_transaction_isolation=repeatable\\ read"
)

_COLUMNS = """
    SELECT a.attname, coalesce(a.attnum = ANY (i.indkey), false)
    FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attname
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """A table's number of rows and the sha256 of `COPY (… ORDER BY key) TO STDOUT`."""

    rows: int
    sha256: str


def contents(dsn: str, table: str) -> Contents:
    """Return what `table` (a name as SQL writes it) holds; its rows in the order of its key.

    A table without primary key is ordered by its whole rows.
    """
    with psycopg.connect(dsn, options=_SETTINGS) as server:
        columns = server.execute(_COLUMNS, [table]).fetchall()
        key = [name for name, in_key in columns if in_key] or [name for name, _ in columns]
        # By bytes: servers may have other collations.
        order = sql.SQL(", ").join(
            sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(name)) for name in key
        )
        query = sql.SQL("COPY (SELECT {} FROM {} {}) TO STDOUT").format(
            sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
            sql.SQL(table),  # written by the test; ::regclass above has accepted it
            sql.SQL("ORDER BY {}").format(order) if key else order,  # a table may have no column
        )
        digest, count = hashlib.sha256(), 0
        with server.cursor().copy(query) as copy:
            for block in copy:
                digest.update(block)
                count += bytes(block).count(b"\n")  # a line break within a value is written as \n
    return Contents(count, digest.hexdigest())


def differences(nodes: Mapping[str, str], tables: Sequence[str]) -> list[str]:
    """Return one line per table and node that differs from the first node; [] when all are equal.

    `nodes` maps names to connection strings.
    """
    (first, reference), *others = nodes.items()
    found = []
    for table in tables:
        expected = contents(reference, table)
        for name, dsn in others:
            actual = contents(dsn, table)
            if actual != expected:
                found.append(
                    f"{table}: {first} has {expected.rows} rows ({expected.sha256[:12]}), "
                    f"{name} has {actual.rows} ({actual.sha256[:12]})"
                )
    return found
