"""The heartbeat's row on the primary, in the stock profile: what tells the run in an idle stream.

Debezium names the run of its task on rows alone (`cdc.runs`), so each heartbeat changes one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from cdc.config import Config
from cdc.names import TableName
from cdc.steps import Step
from cdc.stock import BEAT

_CREATE = sql.SQL(
    "CREATE SCHEMA IF NOT EXISTS {schema};\n"
    "CREATE TABLE {table} (one int PRIMARY KEY DEFAULT 1 CHECK (one = 1),"
    " beat bigint NOT NULL DEFAULT 0);\n"
    "INSERT INTO {table} DEFAULT VALUES;\n"
    "COMMENT ON TABLE {table} IS 'Changed by each heartbeat of cdc; made by cdc setup.'"
).format(schema=sql.Identifier(BEAT.schema), table=BEAT.sql)

_GRANT = sql.SQL(
    "GRANT USAGE ON SCHEMA {schema} TO {role};\nGRANT SELECT, UPDATE ON TABLE {table} TO {role}"
)

_FOUND = "SELECT to_regclass(%s) IS NOT NULL"

_MAY = """
SELECT coalesce((SELECT has_schema_privilege(r.oid, c.relnamespace, 'USAGE')
                    AND has_table_privilege(r.oid, c.oid, 'SELECT')
                    AND has_table_privilege(r.oid, c.oid, 'UPDATE')
                   FROM pg_roles r, pg_class c WHERE r.rolname = %s AND c.oid = to_regclass(%s)), false)
"""

_OTHERS = """
SELECT p.pubname::text FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
 WHERE r.prrelid = to_regclass(%s) AND p.pubname <> %s ORDER BY 1
"""

_ALONE = """
SELECT NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace(%s)
                      AND oid <> to_regclass(%s) AND relkind IN ('r', 'v', 'm', 'f', 'p', 'S'))
"""


def published(config: Config) -> tuple[TableName, ...]:
    """Return what the publication holds besides the selected tables."""
    return (BEAT,) if config.connect.profile == "stock" else ()


def steps(conn: psycopg.Connection[Any], config: Config, roles: Iterable[str]) -> list[Step]:
    """Make the row, and let `roles` change it, where the profile needs it."""
    if not published(config):
        return []
    made = _true(conn, _FOUND, [str(BEAT)])
    found = [
        Step(f"table {BEAT}: already there") if made else Step(f"table {BEAT}: created", _CREATE)
    ]
    for role in dict.fromkeys(roles):
        if not (made and _true(conn, _MAY, [role, str(BEAT)])):
            grant = _GRANT.format(
                schema=sql.Identifier(BEAT.schema), table=BEAT.sql, role=sql.Identifier(role)
            )
            found.append(Step(f"role {role}: may change {BEAT}", grant))
    return found


def removal(conn: psycopg.Connection[Any], config: Config) -> list[Step]:
    """Take the row away, unless another stream's publication has it."""
    if not _true(conn, _FOUND, [str(BEAT)]):
        return []
    others = [name for (name,) in conn.execute(_OTHERS, [str(BEAT), config.publication])]
    if others:
        return [Step(f"table {BEAT}: stays for {', '.join(others)}")]
    drop = sql.SQL("DROP TABLE {}").format(BEAT.sql)
    if _true(conn, _ALONE, [BEAT.schema, str(BEAT)]):
        drop += sql.SQL(";\nDROP SCHEMA {}").format(sql.Identifier(BEAT.schema))
    return [Step(f"table {BEAT}: dropped", drop)]


def _true(conn: psycopg.Connection[Any], query: Any, given: list[str]) -> bool:
    row = conn.execute(query, given).fetchone()
    return row is not None and bool(row[0])
