"""Rights on a replica's tables: those that the daemon's role needs, and who else may write.

Tables that bootstrap made are the daemon's own, with nobody else's rights. What is read here are tables
that were there before, and what was granted on any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import psycopg
from psycopg import sql

from cdc.names import TableName
from cdc.steps import Step

#: Rights by which somebody writes into a table.
WRITING = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")

#: The tables that are asked about: what the two queries below begin with.
_TABLES = """
WITH w AS (SELECT c.oid, c.relowner, c.relacl, n.nspname::text AS schema, c.relname::text AS name
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind::text = ANY (%(kinds)s) AND (n.nspname, c.relname)
                  IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[])))
"""

_LACKING = """
SELECT 'TABLE', r, w.schema, w.name FROM w, unnest(%(rights)s::text[]) AS r
 WHERE NOT has_table_privilege(%(role)s, w.oid, r)
UNION ALL
SELECT DISTINCT 'SCHEMA', 'USAGE', NULL, w.schema FROM w
 WHERE NOT has_schema_privilege(%(role)s, w.schema, 'USAGE')
UNION ALL
SELECT 'SEQUENCE', r, n.nspname::text, s.relname::text
  FROM w JOIN pg_depend d ON d.refobjid = w.oid AND d.refclassid = 'pg_class'::regclass
       AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
  JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
  JOIN pg_namespace n ON n.oid = s.relnamespace, unnest(ARRAY['SELECT', 'UPDATE']) AS r
 WHERE CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(%(role)s, s.oid, r) END
 ORDER BY 1, 3, 4, 2
"""

#: Grants on whole tables and on columns, and owners that are not the daemon's role. Superusers
#: nothing keeps out, so nothing is said of them.
_WRITERS = """
, granted AS (
  SELECT w.schema, w.name, w.relowner, a.grantee, a.privilege_type FROM w, aclexplode(w.relacl) AS a
  UNION ALL
  SELECT w.schema, w.name, w.relowner, a.grantee, a.privilege_type
    FROM w JOIN pg_attribute t ON t.attrelid = w.oid, aclexplode(t.attacl) AS a)
SELECT coalesce(r.rolname, 'PUBLIC')::text, g.grantee = 0, 'grant', g.schema, g.name
  FROM granted g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE g.privilege_type = ANY (%(writing)s) AND g.grantee <> g.relowner
   AND r.rolname IS DISTINCT FROM %(role)s AND NOT coalesce(r.rolsuper, false)
UNION
SELECT r.rolname::text, false, 'owner', w.schema, w.name FROM w JOIN pg_roles r ON r.oid = w.relowner
 WHERE r.rolname <> %(role)s AND NOT r.rolsuper
 ORDER BY 1, 3, 4, 5
"""

#: Who may act as the daemon's role or as the one that may write everything. Before PostgreSQL 16 any
#: member may; since then a membership says whether.
_MEMBERS = """
SELECT r.rolname::text
  FROM pg_roles r, pg_roles o
 WHERE o.rolname IN (%(role)s, 'pg_write_all_data') AND NOT r.rolsuper
   AND r.rolname <> %(role)s AND r.rolname NOT LIKE 'pg\\_%%'
   AND CASE WHEN current_setting('server_version_num')::int >= 160000
            THEN pg_has_role(r.oid, o.oid, 'USAGE') OR pg_has_role(r.oid, o.oid, 'SET')
            ELSE pg_has_role(r.oid, o.oid, 'MEMBER') END
 GROUP BY 1 ORDER BY 1
"""

_GRANTS = """
, granted AS (
  SELECT w.schema, w.name, NULL::text AS attribute, w.relowner, a.grantee, a.privilege_type, a.is_grantable
    FROM w, aclexplode(w.relacl) AS a
  UNION ALL
  SELECT w.schema, w.name, t.attname::text, w.relowner, a.grantee, a.privilege_type, a.is_grantable
    FROM w JOIN pg_attribute t ON t.attrelid = w.oid, aclexplode(t.attacl) AS a)
SELECT r.rolname::text, g.privilege_type, bool_or(g.is_grantable), g.schema, g.name, g.attribute
  FROM granted g LEFT JOIN pg_roles r ON r.oid = g.grantee
 WHERE g.privilege_type = ANY (%(writing)s) AND g.grantee <> g.relowner
   AND r.rolname IS DISTINCT FROM %(role)s AND NOT coalesce(r.rolsuper, false)
 GROUP BY 1, 2, 4, 5, 6 ORDER BY 1, 4, 5, 6 NULLS FIRST, 2
"""

_DEFAULTS = """
SELECT CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type,
       bool_or(a.is_grantable), n.nspname::text, NULL, NULL
  FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace,
       aclexplode(d.defaclacl) AS a
 WHERE d.defaclobjtype = 'r' AND pg_get_userbyid(d.defaclrole) = %(role)s
   AND a.privilege_type = ANY (%(writing)s) AND a.grantee <> d.defaclrole
 GROUP BY 1, 2, 4 ORDER BY 4 NULLS FIRST, 1, 2
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Writer:
    """Somebody other than the daemon's role who may write into tables, and how he comes by it."""

    name: str
    everybody: bool
    how: Literal["grant", "owner", "member"]
    tables: tuple[TableName, ...]

    @property
    def told(self) -> str:
        return told(self.tables)


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """A right to write that somebody was granted: on a table, or on a column of it.

    Nobody is everybody (PUBLIC). Without a table it is one on what the daemon's role will make, in the
    schema or anywhere.
    """

    grantee: str | None
    right: str
    grantable: bool
    schema: str | None
    table: str | None
    column: str | None

    @property
    def name(self) -> TableName | None:
        return (
            None
            if self.schema is None or self.table is None
            else TableName(self.schema, self.table)
        )


#: A right that is lacking: kind of object, the right, its schema, its name.
Lack = tuple[str, str, str | None, str]


def lacking(
    conn: psycopg.Connection[Any], role: str, tables: Iterable[TableName]
) -> tuple[Lack, ...]:
    """Read which rights `role` (public before it exists) lacks on those of the tables that exist."""
    given = {**_named(tables, "r"), "role": role, "rights": ["SELECT", *WRITING]}
    return tuple(conn.execute(_TABLES + _LACKING, given))


def grant_steps(role: str, lacks: Sequence[Lack]) -> Iterator[Step]:
    """Grant what is lacking, one statement per kind of object and right."""
    for kind, right in dict.fromkeys((kind, right) for kind, right, _, _ in lacks):
        named = [(schema, name) for k, r, schema, name in lacks if (k, r) == (kind, right)]
        objects = [sql.Identifier(*filter(None, pair)) for pair in named]
        yield Step(
            f"role {role}: granted {right} on {len(named)} {kind.lower()}{'s'[: len(named) > 1]}",
            sql.SQL("GRANT {} ON {} {} TO {}").format(
                sql.SQL(right), sql.SQL(kind), sql.SQL(", ").join(objects), sql.Identifier(role)
            ),
        )


def writers(
    conn: psycopg.Connection[Any], role: str, tables: Iterable[TableName]
) -> tuple[Writer, ...]:
    """Read who other than `role` may write into which of the tables, superusers left out.

    A right to write into a partitioned table is one to write into its partitions.
    """
    given = {**_named(tables, "r", "p"), "role": role, "writing": list(WRITING)}
    found: dict[tuple[str, bool, Literal["grant", "owner"]], list[TableName]] = {}
    for name, everybody, how, schema, table in conn.execute(_TABLES + _WRITERS, given):
        found.setdefault((name, everybody, how), []).append(TableName(schema, table))
    named = tuple(Writer(*who, tuple(theirs)) for who, theirs in found.items())
    everything = tuple(
        TableName(*pair) for pair in zip(given["schemas"], given["names"], strict=True)
    )
    members = [name for (name,) in conn.execute(_MEMBERS, {"role": role})] if everything else []
    return (*named, *(Writer(name, False, "member", everything) for name in members))


def grants(
    conn: psycopg.Connection[Any], role: str, tables: Iterable[TableName]
) -> tuple[Grant, ...]:
    """Read what others than `role` were granted to write, on the tables and on what `role` will make."""
    given = {**_named(tables, "r", "p"), "role": role, "writing": list(WRITING)}
    found = [*conn.execute(_TABLES + _GRANTS, given), *conn.execute(_DEFAULTS, given)]
    return tuple(Grant(*row) for row in found)


def told(tables: Sequence[TableName]) -> str:
    """Tell people of tables: the first and how many more."""
    first, more = str(tables[0]), len(tables) - 1
    return f"{first} and {more} more" if more else first


def _named(tables: Iterable[TableName], *kinds: str) -> dict[str, list[str]]:
    names = list(tables)
    return {
        "schemas": [n.schema for n in names], "names": [n.name for n in names], "kinds": [*kinds],
    }  # fmt: skip
