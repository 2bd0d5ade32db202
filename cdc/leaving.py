"""What `cdc setup` made on a server, and the steps that take it away again.

A role is dropped only where setup made it (its comment says so), it owns nothing and nobody else is
logged in as it: whatever was there before stays, with its rights.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import psycopg
from psycopg import sql

from cdc import heartbeat, keeper, locking, roles, state
from cdc.config import Config, Replica
from cdc.steps import Step

_ROLE = """
SELECT coalesce(shobj_description(r.oid, 'pg_authid') = %(made)s, false),
       (SELECT count(*) FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass
           AND d.refobjid = r.oid AND d.deptype = 'o'),
       (SELECT count(*) FROM pg_shdepend d WHERE d.refclassid = 'pg_authid'::regclass
           AND d.refobjid = r.oid AND d.deptype <> 'o' AND d.dbid <> 0
           AND d.dbid <> (SELECT oid FROM pg_database WHERE datname = current_database())),
       (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid
           AND NOT starts_with(a.application_name, %(ours)s)),
       r.rolname = current_user
  FROM pg_roles r WHERE r.rolname = %(name)s
"""

_SLOT = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"

_STREAMS = """
SELECT DISTINCT stream FROM cdc.position WHERE stream <> %(stream)s
UNION SELECT DISTINCT stream FROM cdc.tables WHERE stream <> %(stream)s ORDER BY 1
"""

_STREAM_TABLES = """
SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relnamespace = to_regnamespace('cdc') AND c.relkind = 'r' AND a.attname = 'stream'
   AND NOT a.attisdropped ORDER BY 1
"""

#: Views and the like of others that read the schema cdc, and go with it.
_DEPENDENT = """
SELECT DISTINCT pg_describe_object('pg_class'::regclass, w.ev_class, 0)
  FROM pg_depend d JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
  JOIN pg_class v ON v.oid = w.ev_class JOIN pg_class c ON c.oid = d.refobjid
 WHERE d.refclassid = 'pg_class'::regclass AND c.relnamespace = to_regnamespace('cdc')
   AND v.relnamespace <> to_regnamespace('cdc') ORDER BY 1
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """A role that may go: whether setup `made` it, and what keeps it here.

    `sessions` are those of others; ours end by themselves.
    """

    name: str
    made: bool
    owns: int
    elsewhere: int
    sessions: int
    ours: bool


def owner(conn: psycopg.Connection[Any], name: str, ours: str) -> Owner | None:
    """Read what there is about a role, None when there is none of that name.

    `ours` is how application names of sessions begin that are no reason to keep it.
    """
    given = {"name": name, "made": roles.MADE, "ours": ours}
    row = conn.execute(_ROLE, given).fetchone()
    return None if row is None else Owner(name, *row)


def role_steps(found: Owner | None, name: str, *, by_another: bool = False) -> list[Step]:
    """Drop a role that setup made, with its rights and settings; else say why it stays.

    `by_another`: somebody else than who asks will do it.
    """
    if found is None:
        return [Step(f"role {name}: not there")]
    why = (
        "it was there before `cdc setup`; it keeps its rights" if not found.made
        else "it is who asks for this" if found.ours and not by_another
        else f"it owns {found.owns} objects (REASSIGN OWNED BY it to another, then DROP ROLE)" if found.owns
        else f"it has {found.elsewhere} rights in other databases" if found.elsewhere
        else f"{found.sessions} sessions are logged in as it" if found.sessions
        else None
    )  # fmt: skip
    if why is not None:
        return [Step(f"role {name}: stays, {why}")]
    return [Step(f"role {name}: dropped with its rights",
                 sql.SQL("DROP OWNED BY {0};\nDROP ROLE {0}").format(sql.Identifier(name)))]  # fmt: skip


def primary_steps(
    conn: psycopg.Connection[Any], config: Config, daemon: str, *, by_another: bool = False
) -> list[Step]:
    """Decide what of this stream is to be taken off the primary, once nobody streams from it."""
    name = config.publication
    row = conn.execute("SELECT 1 FROM pg_publication WHERE pubname = %s", [name]).fetchone()
    drop = sql.SQL("DROP PUBLICATION {}").format(sql.Identifier(name))
    publication = Step(f"publication {name}: dropped", drop)
    found = [publication if row else Step(f"publication {name}: not there")]
    found += [*heartbeat.removal(conn, config), *keeper.removal(conn, config, config.replicas)]
    # Whatever is logged in as the connector's role is the connector, which is about to go.
    found += role_steps(owner(conn, config.connector_role, ""), config.connector_role)
    if daemon != config.connector_role:
        found += role_steps(
            owner(conn, daemon, f"cdc-{config.name}/"), daemon, by_another=by_another
        )
    return found


def slot(conn: psycopg.Connection[Any], name: str) -> bool | None:
    """Tell whether somebody reads from the slot, None when there is none of that name."""
    row = conn.execute(_SLOT, [name]).fetchone()
    return None if row is None else bool(row[0])


def replica_steps(
    conn: psycopg.Connection[Any], config: Config, replica: Replica, role: str
) -> list[Step]:
    """Decide what is to be taken off a replica, and given back to others; tables and rows stay.

    Raises NotReady when the schema cdc there is somebody else's.
    """
    found = owner(conn, role, f"cdc-{config.name}/")
    schema = _schema_steps(conn, config)
    steps = [*locking.unlock_steps(conn, config.name, role), *schema, *role_steps(found, role)]
    if replica.triggers == "session" and found is not None and found.made and found.owns:
        # It stays because it owns the tables; what setup let it do goes.
        revoke = sql.SQL("REVOKE SET ON PARAMETER session_replication_role FROM {}").format(
            sql.Identifier(role)
        )
        steps.append(
            Step(f"role {role}: still may set session_replication_role; a superuser may "
                 f"{revoke.as_string(conn)}")
            if found.ours
            else Step(f"role {role}: may no longer set session_replication_role", revoke)
        )  # fmt: skip
    return steps


def _schema_steps(conn: psycopg.Connection[Any], config: Config) -> list[Step]:
    if state.version(conn) is None:
        return [Step("schema cdc: not there")]
    others = [stream for (stream,) in conn.execute(_STREAMS, {"stream": config.name})]
    if others:
        tables = [table for (table,) in conn.execute(_STREAM_TABLES)]
        delete = sql.SQL("DELETE FROM {} WHERE stream = {}")
        return [Step(
            f"schema cdc: emptied of {config.name}; it stays for {', '.join(others)}",
            sql.SQL(";\n").join(
                delete.format(sql.Identifier("cdc", table), sql.Literal(config.name))
                for table in tables),
        )]  # fmt: skip
    dependent = [what for (what,) in conn.execute(_DEPENDENT)]
    also = f", and what reads it: {', '.join(dependent)}" if dependent else ""
    return [
        Step(f"schema cdc: dropped with the position{also}", sql.SQL("DROP SCHEMA cdc CASCADE"))
    ]
