"""New rows for a table that is in use: a table of their own, and how they take the old ones' place.

The exchange changes rows, not tables: a reader sees all of the old rows or all of the new, at every
isolation level, and waits for nothing; indexes, constraints, grants, views and foreign keys have nothing to
notice, and rows that are alike stay as they are.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

from cdc import catalog, copying, filling, statements
from cdc.names import TableName
from cdc.tables import Table

Connection = psycopg.Connection[Any]


def name(stream: str, table: Table) -> TableName:
    """Return what the table for new rows is called; the stream, since several may share a replica."""
    return TableName("cdc", f"refill_{stream}_{table.oid}")


def create(conn: Connection, table: Table, shadow: TableName) -> None:
    """Make the empty table, of the columns that are copied and with the types of the one in use.

    Unlogged: a crash of the replica ends the bootstrap as well, and the next one begins anew.
    """
    conn.execute(
        sql.SQL("CREATE UNLOGGED TABLE {} AS SELECT {} FROM ONLY {} WITH NO DATA").format(
            shadow.sql, statements.column_list(copying.columns(table)), table.name.sql
        )
    )


def finish(conn: Connection, table: catalog.Table, shadow: TableName) -> None:
    """Let the rows that were copied be found as those of the table in use are."""
    if table.key:
        how = sql.SQL("ADD PRIMARY KEY ({})").format(statements.column_list(table.key))
    else:
        how = sql.SQL("REPLICA IDENTITY FULL").format()
    conn.execute(sql.SQL("ALTER TABLE {} {}").format(shadow.sql, how))
    conn.execute(sql.SQL("ANALYZE {}").format(shadow.sql))


def exchange(conn: Connection, table: catalog.Table, shadow: TableName) -> int:
    """Make the table hold what the shadow holds, in the open transaction; return how many rows differed.

    First away with what differs, then in with what is lacking: so unique values may change owners.
    """
    # The session's plans are made for small staged batches; these are two whole tables.
    conn.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on")
    gone = conn.execute(delete_differing(table, shadow)).rowcount
    come = conn.execute(insert_lacking(table, shadow)).rowcount
    return max(gone, come)


def delete_differing(table: catalog.Table, shadow: TableName) -> sql.Composed:
    """Delete the rows that the shadow has not exactly so; where rows have no address, all."""
    if not table.key:
        return statements.delete_all(table.name)
    # `*=` compares what is stored, which every type has; the cast keeps it one comparison of two records.
    return sql.SQL(
        "DELETE FROM ONLY {} AS t WHERE NOT EXISTS (SELECT FROM {} AS s WHERE {}"
        " AND ROW({})::record *= ROW({})::record)"
    ).format(
        table.name.sql,
        shadow.sql,
        statements.same_key(table),
        statements.column_list_of(sql.Identifier("t"), table.columns),
        statements.column_list_of(sql.Identifier("s"), table.columns),
    )


def insert_lacking(table: catalog.Table, shadow: TableName) -> sql.Composed:
    """Insert the rows of the shadow that the table does not have."""
    where = sql.SQL("").format()
    if table.key:
        where = sql.SQL(" WHERE NOT EXISTS (SELECT FROM ONLY {} AS t WHERE {})").format(
            table.name.sql, statements.same_key(table)
        )
    return sql.SQL("INSERT INTO {0}{1} OVERRIDING SYSTEM VALUE SELECT {2} FROM {3} AS s{4}").format(
        table.name.sql,
        statements.listed(table.columns),
        statements.column_list(table.columns),
        shadow.sql,
        where,
    )


def mark(conn: Connection, stream: str, table: TableName, shadow: TableName | None) -> None:
    """Record that a table is being filled beside the stream: before the first row of it is written."""
    conn.execute(
        "INSERT INTO cdc.filling (stream, schema_name, table_name, shadow) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (stream, schema_name, table_name) DO UPDATE SET shadow = excluded.shadow,"
        " begun_at = clock_timestamp()",
        [stream, table.schema, table.name, None if shadow is None else shadow.name],
    )


def unmark(conn: Connection, stream: str, table: TableName) -> None:
    """Forget the mark, and the shadow with its rows."""
    found = conn.execute(
        "DELETE FROM cdc.filling WHERE stream = %s AND schema_name = %s AND table_name = %s"
        " RETURNING shadow",
        [stream, table.schema, table.name],
    ).fetchone()
    if found is not None and found[0] is not None:
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(TableName("cdc", found[0]).sql))


def clear(conn: Connection, stream: str) -> None:
    """Take away the shadows that bootstraps have left which were killed; only under `filling.lock`."""
    for schema, table in conn.execute(
        "SELECT schema_name, table_name FROM cdc.filling WHERE stream = %s AND shadow IS NOT NULL",
        [stream],
    ).fetchall():
        with conn.transaction():
            unmark(conn, stream, TableName(schema, table))


def incomplete(conn: Connection, stream: str) -> frozenset[TableName]:
    """Return the tables that have only some of their rows, from a bootstrap that was killed."""
    rows = conn.execute(
        "SELECT schema_name, table_name FROM cdc.filling WHERE stream = %s AND shadow IS NULL",
        [stream],
    )
    return frozenset(TableName(schema, table) for schema, table in rows)


def under_way(conn: Connection, stream: str) -> frozenset[TableName]:
    """Return the tables in use for which a bootstrap that runs has new rows in the making."""
    try:
        rows = conn.execute(
            "SELECT schema_name, table_name FROM cdc.filling WHERE stream = %s AND shadow IS NOT NULL"
            " AND EXISTS (SELECT FROM pg_locks l, (SELECT hashtextextended(%s, 0) AS k) AS k"
            " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
            " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            " AND (l.classid::bigint << 32 | l.objid::bigint) = k.k)",
            [stream, filling.lock_name(stream)],
        )
    except psycopg.errors.UndefinedTable:  # `cdc setup` has not been run since the last release
        return frozenset()
    return frozenset(TableName(schema, table) for schema, table in rows)
