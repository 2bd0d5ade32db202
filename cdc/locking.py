"""The right to write a replica's tables, taken from others by `cdc setup` and given back by `cdc remove`.

What is taken is written down in `cdc.revoked` in the same transaction. As rows, never as statements: who gives
it back is mostly a superuser, and the table is the daemon's: nothing comes back either that the daemon's role could
not do itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import rights
from cdc.names import TableName
from cdc.rights import WRITING, Grant
from cdc.steps import Step

_WORDS = sql.SQL(", ".join(WRITING))

#: What was taken, whether its object and who had it are still there, and whether who asks may give it.
_TAKEN = """
SELECT v.grantee, v.privilege, v.grantable, v.schema_name, v.table_name, v.column_name,
       CASE WHEN v.table_name IS NOT NULL THEN c.oid IS NOT NULL AND (v.column_name IS NULL OR EXISTS (
                 SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = v.column_name
                    AND NOT a.attisdropped))
            ELSE o.oid IS NOT NULL AND (v.schema_name IS NULL OR n.oid IS NOT NULL) END
         AND (v.grantee IS NULL OR r.oid IS NOT NULL),
       coalesce(pg_has_role(coalesce(c.relowner, o.oid), 'USAGE')
                AND (v.table_name IS NULL OR has_table_privilege(o.oid, c.oid, v.privilege)), false)
  FROM cdc.revoked v
  LEFT JOIN pg_namespace n ON n.nspname = v.schema_name
  LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.table_name AND c.relkind IN ('r', 'p')
  LEFT JOIN pg_roles r ON r.rolname = v.grantee
  LEFT JOIN pg_roles o ON o.rolname = %(role)s
 WHERE v.stream = %(stream)s
 ORDER BY coalesce(v.grantee, 'PUBLIC'), v.table_name IS NULL, v.schema_name, v.table_name, v.grantable,
          v.column_name NULLS FIRST, v.privilege
"""


def lock_steps(
    conn: psycopg.Connection[Any], stream: str, role: str, tables: Iterable[TableName]
) -> Iterator[Step]:
    """Take the right to write from whom it was granted, on the tables and on what `role` will make.

    Reading stays. Who owns a table, or may act as a role that may write, keeps what he has. The schema cdc
    must be there when the steps are executed.
    """
    found = rights.grants(conn, role, tables)
    of_tables = [g for g in found if g.name is not None]
    for grantee, group in itertools.groupby(of_tables, lambda g: g.grantee):
        taken = [*group]
        theirs = [*dict.fromkeys(g.name for g in taken if g.name)]
        revoke = sql.SQL("REVOKE {} ON {} FROM {} CASCADE").format(
            _WORDS, sql.SQL(", ").join(t.sql for t in theirs), _grantee(grantee)
        )
        yield Step(
            f"tables locked: {grantee or 'PUBLIC'} may no longer write {rights.told(theirs)}",
            _written_down(stream, role, taken, revoke),
        )
    coming = [g for g in found if g.name is None]
    for (schema, grantee), group in itertools.groupby(coming, lambda g: (g.schema, g.grantee)):
        revoke = _defaults(role, schema, sql.SQL("REVOKE {} ON TABLES FROM {}").format(
            _WORDS, _grantee(grantee)))  # fmt: skip
        yield Step(
            f"tables locked: {grantee or 'PUBLIC'} will not write what {role} makes{_within(schema)}",
            _written_down(stream, role, [*group], revoke),
        )


def unlock_steps(conn: psycopg.Connection[Any], stream: str, role: str) -> Iterator[Step]:
    """Give back what was taken, as far as it is there and who asks may; else tell what a DBA may grant."""
    there = conn.execute("SELECT to_regclass('cdc.revoked') IS NOT NULL").fetchone()
    if there != (True,):
        return
    taken = [
        (Grant(*row[:6]), *row[6:])
        for row in conn.execute(_TAKEN, {"stream": stream, "role": role})
    ]
    for (grantee, may), group in itertools.groupby(
        [(g, may) for g, known, may in taken if known], lambda each: (each[0].grantee, each[1])
    ):
        given = [g for g, _ in group]
        statement = sql.SQL(";\n").join(_grants(role, given))
        names = [*dict.fromkeys(g.name for g in given if g.name)]
        what = ", ".join(
            [*map(str, names), *[f"what {role} makes"] * any(g.name is None for g in given)]
        )
        who = grantee or "PUBLIC"
        yield (
            Step(f"tables unlocked: {who} may write {what} again", statement)
            if may
            else Step(f"tables unlocked: {who} may not write {what} yet; their owner or a superuser "
                      f"may {statement.as_string(conn)}")
        )  # fmt: skip
    for gone, known, _ in taken:
        if not known:
            where = gone.name or f"what {role} makes{_within(gone.schema)}"
            yield Step(
                f"tables unlocked: {gone.grantee or 'PUBLIC'} had {gone.right} on {where}, and one "
                "of them is not there any more"
            )


def _written_down(
    stream: str, role: str, taken: Sequence[Grant], revoke: sql.Composed
) -> sql.Composed:
    """Return what notes the rights that are taken, and takes them."""
    rows = [
        sql.SQL("({})").format(
            sql.SQL(", ").join(
                map(
                    sql.Literal,
                    (stream, g.schema, g.table, g.column, g.grantee, g.right, g.grantable),
                )
            )
        )
        for g in taken
    ]
    return sql.SQL(
        "SET LOCAL ROLE {};\nINSERT INTO cdc.revoked (stream, schema_name, table_name, column_name, grantee,"
        " privilege, grantable)\nVALUES {}\nON CONFLICT DO NOTHING;\nRESET ROLE;\n{}"
    ).format(sql.Identifier(role), sql.SQL(",\n       ").join(rows), revoke)


def _grants(role: str, taken: Sequence[Grant]) -> Iterator[sql.Composed]:
    """Grant to one what was taken, a statement for each table."""
    for (name, schema, grantable), group in itertools.groupby(
        taken, lambda g: (g.name, g.schema, g.grantable)
    ):
        given = [*group]
        option = sql.SQL(" WITH GRANT OPTION" if grantable else "")
        to = _grantee(given[0].grantee)
        words = sql.SQL(", ").join(
            sql.SQL("{} ({})").format(sql.SQL(g.right), sql.Identifier(g.column))
            if g.column is not None
            else sql.SQL(g.right)
            for g in given
        )  # fmt: skip
        if name is not None:
            yield sql.SQL("GRANT {} ON {} TO {}{}").format(words, name.sql, to, option)
        else:
            grant = sql.SQL("GRANT {} ON TABLES TO {}{}").format(words, to, option)
            yield _defaults(role, schema, grant)


def _defaults(role: str, schema: str | None, what: sql.Composed) -> sql.Composed:
    within = sql.SQL(" IN SCHEMA {}").format(sql.Identifier(schema)) if schema else sql.SQL("")
    return sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {}{} {}").format(
        sql.Identifier(role), within, what
    )


def _within(schema: str | None) -> str:
    return f" in {schema}" if schema else ""


def _grantee(name: str | None) -> sql.Composable:
    return sql.SQL("PUBLIC") if name is None else sql.Identifier(name)
