"""The schema `cdc` on a replica, and what the role that works there may do on the server.

`schemas/replica.sql` installs version 1; every later version is a file of its own,
`schemas/replica-2.sql` and so on, that leads there from the one before.

A migration runs beside daemons of the release before. One that only adds leaves `oldest` as it was:
they go on, and are replaced one by one. One that takes away or changes what they write raises `oldest`
and, in the same transaction, the generation of every position: what they have open does not commit,
and `require` stops them by name.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from cdc import locking, resources, rights
from cdc.config import Config, Replica
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.roles import Login, Role, role_steps
from cdc.steps import Step
from cdc.tables import Selection

log = logging.getLogger(__name__)

#: The version of the schema that this program works with.
VERSION = 6

_RIGHTS = """
SELECT ARRAY(SELECT r FROM unnest(ARRAY['CONNECT', 'CREATE', 'TEMPORARY']) AS r
              WHERE NOT has_database_privilege(%(role)s, current_database(), r)),
       has_parameter_privilege(%(role)s, 'session_replication_role', 'SET'),
       ARRAY(SELECT n.nspname::text FROM pg_namespace n
              WHERE n.nspname NOT LIKE 'pg\\_%%'
                AND n.nspname NOT IN ('information_schema', 'cdc')
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = n.oid AND d.deptype = 'e'
                                   AND d.classid = 'pg_namespace'::regclass) -- an extension's
                AND NOT (has_schema_privilege(%(role)s, n.oid, 'CREATE')
                         AND has_schema_privilege(%(role)s, n.oid, 'USAGE')) ORDER BY 1)
"""

#: Extensions that are lacking, may be had here, and that only a superuser may create.
_EXTENSIONS = """
SELECT DISTINCT v.name::text, to_regnamespace(quote_ident(w.schema)) IS NULL, w.schema
  FROM unnest(%(names)s::text[], %(schemas)s::text[]) AS w (name, schema)
  JOIN pg_available_extension_versions v ON v.name = w.name AND v.superuser AND NOT v.trusted
 WHERE NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = w.name) ORDER BY 1
"""

_SCHEMA = """
SELECT pg_get_userbyid(n.nspowner)::text, to_regclass('cdc.version') IS NOT NULL
  FROM pg_namespace n WHERE n.nspname = 'cdc'
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the primary has that a replica shall have: tables with rows, partitioned ones, extensions.

    An extension comes with its schema there.
    """

    tables: tuple[TableName, ...]
    partitioned: tuple[TableName, ...]
    extensions: Mapping[str, str]


def wanted(primary: psycopg.Connection[Any], selection: Selection) -> Wanted:
    """Read what the primary has beside the selected tables."""
    extensions = primary.execute(
        "SELECT e.extname::text, n.nspname::text FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace"
    ).fetchall()
    return Wanted(
        tuple(t.name for t in selection.rows),
        tuple(t.name for t in selection.partitioned),
        dict(extensions),
    )


def steps(
    conn: psycopg.Connection[Any], config: Config, replica: Replica, login: Login, has: Wanted,
    *, lock: bool,
) -> list[Step]:  # fmt: skip
    """Decide everything a replica still needs; with `lock` nobody else writes its tables.

    Raises NotReady when its schema `cdc` is somebody else's or newer than this program.
    """
    role = Role.read(conn, login.name)
    found = version(conn)
    return [
        *role_steps(login, role),
        *_right_steps(conn, config, replica, login.name, role),
        *(_extension_steps(conn, login.name, has) if config.bootstrap.schema == "all" else ()),
        # Before tables are locked: it is written down there.
        *_schema_steps(login.name, found),
        *_table_steps(conn, config, login.name, role, has, lock=lock, there=found is not None),
    ]


def version(conn: psycopg.Connection[Any]) -> int | None:
    """Return the version of the schema `cdc`, None when there is no such schema.

    Raises NotReady when a schema of that name is not ours.
    """
    found = conn.execute(_SCHEMA).fetchone()
    if found is None:
        return None
    owner, ours = found
    if not ours:
        raise NotReady(
            f"the schema cdc exists (owner {owner}) and is not this program's: it has no table "
            "cdc.version",
            safe="nothing was changed",
            next="rename that schema: this program keeps its state in a schema of that name",
        )
    row = conn.execute("SELECT max(version) FROM cdc.version").fetchone()
    return int(row[0]) if row and row[0] is not None else None


def require(conn: psycopg.Connection[Any]) -> None:
    """Raise NotReady unless this program may write beside the version of the schema that is there.

    A replica without the schema is left to who reads the position.
    """
    try:
        # `oldest` is a column from version 4 on.
        row = conn.execute(
            "SELECT max(version), max((to_jsonb(v) ->> 'oldest')::int) FROM cdc.version v"
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return
    assert row is not None
    found, oldest = row[0] or 0, row[1] or 1
    if oldest > VERSION:
        raise NotReady(
            f"the schema cdc was brought to version {found} by a newer release, and no program older "
            f"than version {oldest} may write beside it; this one was made for version {VERSION}",
            safe="nothing was written; the replica is as of its position",
            next="install the newer release here and start again",
        )
    if found < VERSION:
        raise NotReady(
            f"the schema cdc has version {found}; this program works with version {VERSION}",
            safe="nothing was written; the replica is as of its position",
            next="run `cdc setup`, which brings it forward beside running daemons, then start again",
        )
    if found > VERSION:
        log.warning(
            "the schema cdc was brought to version %d by a newer release; this program, made for %d, "
            "goes on beside it: replace it soon",
            found,
            VERSION,
        )


def followed(conn: psycopg.Connection[Any], stream: str) -> dict[TableName, int | None]:
    """Read which tables the replica follows, and their numbers (oids) on the primary where recorded.

    There must be a schema `cdc`, which may be of an older version: then no number is recorded.
    """
    rows = conn.execute(
        "SELECT schema_name, table_name, (to_jsonb(t) ->> 'relid')::bigint FROM cdc.tables t"
        " WHERE stream = %s",
        [stream],
    )
    return {TableName(schema, name): number for schema, name, number in rows}


def _right_steps(
    conn: psycopg.Connection[Any], config: Config, replica: Replica, name: str, role: Role | None
) -> list[Step]:
    found = conn.execute(_RIGHTS, {"role": name if role else "public"}).fetchone()
    assert found is not None
    database, replication_role, schemas = found
    if config.bootstrap.schema == "none":
        database = [right for right in database if right != "CREATE"]
    to = sql.Identifier(name)
    steps = []
    if database:
        # CREATE is for schemas, TEMPORARY for the tables that rows pass through.
        steps.append(Step(
            f"role {name}: granted {', '.join(database)} on the database",
            sql.SQL("GRANT {} ON DATABASE {} TO {}").format(
                sql.SQL(", ").join(map(sql.SQL, database)), sql.Identifier(conn.info.dbname), to),
        ))  # fmt: skip
    if schemas and config.bootstrap.schema != "none":
        steps.append(Step(
            f"role {name}: may create tables in {', '.join(schemas)}",
            sql.SQL("GRANT CREATE, USAGE ON SCHEMA {} TO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, schemas)), to),
        ))  # fmt: skip
    if not replication_role and replica.triggers == "session":
        # As in PostgreSQL's own apply worker, triggers and foreign keys do not fire while rows
        # are applied: the primary's have fired already and their effects are in the stream.
        steps.append(Step(
            f"role {name}: may set session_replication_role",
            sql.SQL("GRANT SET ON PARAMETER session_replication_role TO {}").format(to),
        ))  # fmt: skip
    return steps or [Step(f"role {name}: rights already there")]


def _extension_steps(conn: psycopg.Connection[Any], owner: str, has: Wanted) -> Iterator[Step]:
    """Create those of the primary's extensions that bootstrap's role may not create by itself."""
    given = {"names": [*has.extensions], "schemas": [*has.extensions.values()]}
    made = set[str]()
    for name, absent, schema in conn.execute(_EXTENSIONS, given):
        if absent and schema not in made:
            made.add(schema)
            yield Step(f"schema {schema}: created", sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
                sql.Identifier(schema), sql.Identifier(owner)))  # fmt: skip
        yield Step(
            f"extension {name}: created",
            sql.SQL("CREATE EXTENSION {} WITH SCHEMA {} CASCADE").format(
                sql.Identifier(name), sql.Identifier(schema)
            ),
        )


def _table_steps(
    conn: psycopg.Connection[Any], config: Config, name: str, role: Role | None, has: Wanted,
    *, lock: bool, there: bool,
) -> Iterator[Step]:  # fmt: skip
    """Let the role write tables that it did not make, and with `lock` nobody else.

    Such are those it follows, and where bootstrap makes none, those that shall be replicated. Any other
    table of that name may be in use by somebody.
    """
    ours = set(has.tables)
    if config.bootstrap.schema != "none":
        ours &= followed(conn, config.name).keys() if there else set()
    yield from rights.grant_steps(
        name, rights.lacking(conn, name if role else "public", sorted(ours))
    )
    if lock:
        above = has.partitioned if ours else ()
        yield from locking.lock_steps(conn, config.name, name, (*sorted(ours), *above))


def _schema_steps(owner: str, found: int | None) -> list[Step]:
    if found is not None and found > VERSION:
        raise NotReady(
            f"the schema cdc has version {found}; this program knows versions up to {VERSION}",
            safe="nothing was changed",
            next="install a newer release of this program here",
        )
    if found == VERSION:
        return [Step(f"schema cdc: already there, version {found}")]
    to = sql.Identifier(owner)
    create = Step("schema cdc: created", sql.SQL("CREATE SCHEMA cdc AUTHORIZATION {}").format(to))
    # The tables belong to the role that writes them, whoever installs them.
    return [create] * (found is None) + [
        Step(
            f"schema cdc: tables of version {number} created",
            sql.SQL("SET LOCAL ROLE {};\n{}RESET ROLE").format(
                to, sql.SQL(resources.text(_file(number)))
            ),
        )
        for number in range((found or 0) + 1, VERSION + 1)
    ]


def _file(number: int) -> str:
    return "schemas/replica.sql" if number == 1 else f"schemas/replica-{number}.sql"
