"""What the primary needs: two roles, their settings and rights, a publication.

Facts are read, steps are decided from them by pure functions, then the steps are executed in one
transaction or printed for somebody who may. A step that has nothing to do says "already there".

The replication slot is not made here: Debezium makes it at its first start, so that no slot keeps
log on the primary before there is somebody to read it. Nothing is missed by that: a replica's
position starts behind a message that was seen to come out of the topic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import heartbeat, keeper, postgres
from cdc.config import Config
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.roles import Login, Role, replicator, role_steps
from cdc.steps import Step
from cdc.tables import Selection

#: What the values in the stream depend on, and that the heartbeat, which runs in the connector's
#: own thread, cannot hold capture up for long: it does not wait for a synchronous standby, and ends
#: after a minute (in ms). Measured: the timeout touches neither streaming nor the making of a slot.
CONNECTOR_SETTINGS = {
    **postgres.PINNED,
    "synchronous_commit": "local",
    "statement_timeout": "60000",
}

_SERVER = """
SELECT current_setting('wal_level'), current_setting('server_version_num')::int,
       current_setting('server_version'), pg_encoding_to_char(d.encoding), pg_is_in_recovery(),
       d.datname::text, (SELECT system_identifier::text FROM pg_control_system()),
       current_setting('max_replication_slots')::int,
       (SELECT count(*) FROM pg_replication_slots WHERE NOT slot_name = ANY (%s))
  FROM pg_database d WHERE d.datname = current_database()
"""

_PUBLICATION = """
SELECT puballtables, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot,
       coalesce(to_jsonb(p) ->> 'pubgencols', 'n') <> 'n', -- from 18 on
       ARRAY(SELECT n.nspname::text FROM pg_publication_namespace s
               JOIN pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid),
       (SELECT json_agg(json_build_array(n.nspname, c.relname,
                        r.prqual IS NOT NULL OR r.prattrs IS NOT NULL))
          FROM pg_publication_rel r JOIN pg_class c ON c.oid = r.prrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.prpubid = p.oid)
  FROM pg_publication p WHERE pubname = %s
"""

#: What a role (or, before it exists, everybody) may not do yet: kind, schema, name. CASE, because
#: has_sequence_privilege must not be asked about anything else and AND keeps no order.
_LACKING = """
SELECT 'DATABASE', NULL::text, current_database()::text
 WHERE NOT has_database_privilege(%(role)s, current_database(), 'CONNECT')
UNION ALL
SELECT 'SCHEMA', NULL, n.nspname::text FROM pg_namespace n
 WHERE n.nspname = ANY (%(schemas)s) AND NOT has_schema_privilege(%(role)s, n.oid, 'USAGE')
UNION ALL
SELECT 'TABLE', n.nspname::text, c.relname::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%(tables)s) AND NOT has_table_privilege(%(role)s, c.oid, 'SELECT')
UNION ALL
SELECT 'SEQUENCE', n.nspname::text, c.relname::text
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (%(schemas)s)
   AND CASE c.relkind WHEN 'S' THEN NOT has_sequence_privilege(%(role)s, c.oid, 'SELECT') END
UNION ALL
SELECT 'FUNCTION', NULL, p.oid::regprocedure::text FROM pg_proc p
 WHERE p.oid = ANY (ARRAY[
         to_regprocedure('pg_logical_emit_message(boolean,text,text)'),
         to_regprocedure('pg_logical_emit_message(boolean,text,text,boolean)'), -- from 17 on
         'pg_control_system()', 'pg_walfile_name(pg_lsn)', 'pg_current_wal_lsn()',
         'pg_current_wal_insert_lsn()'])
   AND NOT has_function_privilege(%(role)s, p.oid, 'EXECUTE')
 ORDER BY 1, 2, 3
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL server as far as it must fit; `others` counts slots that are not the stream's.

    `needed` are the slots that the stream needs, a bootstrap's and those that are there already included.
    """

    wal_level: str
    version_num: int
    version: str
    encoding: str
    standby: bool
    database: str
    system_id: str
    max_slots: int
    others: int
    needed: int


@dataclasses.dataclass(frozen=True, slots=True)
class Publication:
    """A publication; `members` tells for each table whether it is published only in part.

    `generated`: it brings generated columns, which a replica computes by itself.
    """

    all_tables: bool
    whole: bool
    generated: bool
    schemas: tuple[str, ...]
    members: dict[TableName, bool]


#: A right that is lacking: kind of object, its schema, its name.
Right = tuple[str, str | None, str]


def server(conn: psycopg.Connection[Any], config: Config) -> Server:
    """Read what kind of server `conn` is on."""
    ours = {config.slot}
    if config.connect.profile == "stock":
        ours |= {keeper.slot(config, replica) for replica in config.replicas}
    found = conn.execute(_SERVER, (sorted(ours),)).fetchone()
    assert found is not None
    return Server(*(*found, len(ours) + 1))


def unfit(found: Server, *, primary: bool) -> Iterator[tuple[str, str, str]]:
    """Yield why a server is not fit to be the primary or a replica: finding, what it is, the fix."""
    if found.version_num < 150000:
        yield "version", f"is PostgreSQL {found.version}", "use PostgreSQL 15 or newer"
    if found.encoding != "UTF8":
        what = f"has the encoding {found.encoding}: its text would not arrive unchanged"
        yield "encoding", what, "use a database with ENCODING 'UTF8' on every node"
    if found.standby:
        what = "is a standby, which cannot be written"
        yield "standby", what, "name the server that is not in recovery"
    if primary and found.wal_level != "logical":
        what = f"runs with wal_level = {found.wal_level}: its log does not hold row changes"
        yield "wal-level", what, "ALTER SYSTEM SET wal_level = logical; then restart that server"
    if primary and (left := found.max_slots - found.others) < found.needed:
        what = f"has {left} replication slots left; the connector and a bootstrap need one each"
        if kept := found.needed - 2:
            what += f", and the replicas {kept} that stay (the stock profile)"
        yield "slots-left", what, "raise max_replication_slots and restart that server"


def check_server(found: Server, *, where: str, primary: bool) -> None:
    """Raise NotReady when a server is not fit to be the primary or a replica."""
    for _, what, fix in unfit(found, primary=primary):
        raise NotReady(f"{where} {what}", safe="nothing was changed", next=fix)


def publication(conn: psycopg.Connection[Any], name: str) -> Publication | None:
    """Read a publication, None when there is none of that name."""
    found = conn.execute(_PUBLICATION, (name,)).fetchone()
    if found is None:
        return None
    everything, whole, generated, schemas, members = found
    parts = {TableName(s, t): part for s, t, part in members or ()}
    return Publication(everything, whole, generated, tuple(schemas), parts)


def lacking(
    conn: psycopg.Connection[Any],
    role: Role | None,
    schemas: Iterable[str] = (),
    tables: Iterable[int] = (),
) -> tuple[Right, ...]:
    """Read which rights a role lacks on the database, these schemas and these tables (by oid)."""
    if role is not None and role.superuser:
        return ()
    given = {"role": role.name if role else "public", "schemas": [*schemas], "tables": [*tables]}
    return tuple(conn.execute(_LACKING, given))


def grant_steps(role: str, rights: Sequence[Right]) -> list[Step]:
    """Grant what is lacking, one statement per kind of object."""
    privilege = {"DATABASE": "CONNECT", "SCHEMA": "USAGE", "FUNCTION": "EXECUTE"}
    steps = []
    for kind in dict.fromkeys(kind for kind, _, _ in rights):
        named = [(schema, name) for k, schema, name in rights if k == kind]
        # A function's name comes out of the catalog as SQL already, with its argument types.
        objects = [sql.SQL(name) if kind == "FUNCTION"
                   else sql.Identifier(*filter(None, (schema, name))) for schema, name in named]  # fmt: skip
        word = privilege.get(kind, "SELECT")
        steps.append(Step(
            f"role {role}: granted {word} on {len(named)} {kind.lower()}{'s'[: len(named) > 1]}",
            sql.SQL("GRANT {} ON {} {} TO {}").format(
                sql.SQL(word), sql.SQL(kind), sql.SQL(", ").join(objects), sql.Identifier(role)),
        ))  # fmt: skip
    return steps or [Step(f"role {role}: rights already there")]


def statistics_steps(role: str, member: bool, may_grant: bool) -> list[Step]:
    """Let a role see what others' sessions do: cdc-verify tells a commit from an idle transaction.

    Without it replication works all the same, so somebody who may not grant it is only told.
    """
    if member:
        return []
    if not may_grant:
        return [Step(f"role {role}: cdc-verify decides more rows if a superuser grants it "
                     "pg_read_all_stats")]  # fmt: skip
    return [Step(f"role {role}: may see what sessions do",
                 sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(role)))]  # fmt: skip


def _statistics(conn: psycopg.Connection[Any], role: Role | None) -> tuple[bool, bool]:
    """Tell whether the role sees statistics of all, and whether who asks may let it."""
    row = conn.execute(
        "SELECT coalesce((SELECT pg_has_role(oid, 'pg_read_all_stats', 'USAGE') FROM pg_roles"
        " WHERE rolname = %s), false), (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
        [role.name if role else None],
    ).fetchone()
    assert row is not None
    return bool(row[0]), bool(row[1])


def publication_steps(config: Config, found: Publication | None, wanted: Selection) -> list[Step]:
    """Make the publication hold exactly the selected tables, whole.

    Raises NotReady when it is FOR ALL TABLES: such a one cannot be changed into a list.
    """
    name = sql.Identifier(config.publication)
    options = sql.SQL(
        "publish = 'insert, update, delete, truncate', publish_via_partition_root = false"
    )
    tables = [*(t.name for t in wanted.published), *heartbeat.published(config)]
    if found is None:
        create = sql.SQL("CREATE PUBLICATION {} FOR TABLE {} WITH ({})")
        return [Step(f"publication {config.publication}: created with {_count(tables)}",
                     create.format(name, _only(tables), options))]  # fmt: skip
    if found.all_tables:
        raise NotReady(
            f"the publication {config.publication} is FOR ALL TABLES, which cannot be changed "
            "into a list of tables",
            safe="nothing was changed",
            next=f"set another primary.publication, or DROP PUBLICATION {config.publication} if "
            "nothing else uses it, and run `cdc setup` again",
        )
    steps = []
    if found.schemas:
        steps.append(Step(
            f"publication {config.publication}: dropped the schemas {', '.join(found.schemas)}",
            sql.SQL("ALTER PUBLICATION {} DROP TABLES IN SCHEMA {}").format(
                name, sql.SQL(", ").join(map(sql.Identifier, found.schemas))),
        ))  # fmt: skip
    in_part = {t for t, part in found.members.items() if part}
    drop = [t for t in found.members if t not in tables or t in in_part]
    add = [t for t in tables if t not in found.members or t in in_part]
    if drop:
        steps.append(Step(f"publication {config.publication}: dropped {_list(drop)}",
                          sql.SQL("ALTER PUBLICATION {} DROP TABLE {}").format(name, _only(drop))))  # fmt: skip
    if add:
        steps.append(Step(
            f"publication {config.publication}: added {_list(add)}; a replica that is filled "
            "already needs `cdc bootstrap --table` for each",
            sql.SQL("ALTER PUBLICATION {} ADD TABLE {}").format(name, _only(add)),
        ))  # fmt: skip
    if not found.whole:
        steps.append(Step(f"publication {config.publication}: publishes every operation now",
                          sql.SQL("ALTER PUBLICATION {} SET ({})").format(name, options)))  # fmt: skip
    if found.generated:
        steps.append(Step(
            f"publication {config.publication}: leaves generated columns out now",
            sql.SQL("ALTER PUBLICATION {} SET (publish_generated_columns = none)").format(name),
        ))  # fmt: skip
    return steps or [Step(f"publication {config.publication}: already there with {_count(tables)}")]


def steps(
    conn: psycopg.Connection[Any], config: Config, wanted: Selection, *,
    dumped: Iterable[int], connector: Login, daemon: Login,
) -> list[Step]:  # fmt: skip
    """Decide everything the primary still needs.

    `dumped` are further tables (by oid) that pg_dump locks, which takes the right to read them.
    """
    found = {name: Role.read(conn, name) for name in (connector.name, daemon.name)}
    reads = {t.oid for t in (*wanted.rows, *wanted.partitioned)}
    schemas = {t.name.schema for t in (*wanted.rows, *wanted.partitioned)}
    row_security = any(t.row_security for t in wanted.rows)
    member = replicator(conn)
    return [
        *role_steps(connector, found[connector.name], replication=True, by_member_of=member,
                    settings=CONNECTOR_SETTINGS, database=conn.info.dbname),
        # Rows come to the connector through the log: it needs to read no table.
        *grant_steps(connector.name, lacking(conn, found[connector.name])),
        *role_steps(daemon, found[daemon.name], replication=True, by_member_of=member,
                    bypass_row_security=row_security),
        *grant_steps(daemon.name, lacking(conn, found[daemon.name], schemas=schemas,
                                          tables=reads.union(dumped))),
        *statistics_steps(daemon.name, *_statistics(conn, found[daemon.name])),
        *heartbeat.steps(conn, config, (connector.name, daemon.name)),
        *publication_steps(config, publication(conn, config.publication), wanted),
    ]  # fmt: skip


def _only(tables: Iterable[TableName]) -> sql.Composed:
    """List tables without what inherits from them; partitions come with their root all the same."""
    return sql.SQL(", ").join(sql.SQL("ONLY {}").format(t.sql) for t in tables)


def _list(tables: Iterable[TableName]) -> str:
    return ", ".join(map(str, tables))


def _count(tables: Sequence[TableName]) -> str:
    return f"{len(tables)} table{'s'[: len(tables) != 1]}"
