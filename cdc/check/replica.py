"""A replica: what would alter, hide, refuse or lose what is written there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from cdc import catalog, state
from cdc.catalog import Obstacle
from cdc.check.finding import ADVICE, DELAYS, LOSES, Finding, Hit, Look, Site, finding
from cdc.errors import NotReady
from cdc.names import TableName, quoted
from cdc.verify import likeness, shape
from cdc.verify.likeness import Mismatch

#: What a look at shapes waits for somebody who holds a table for himself.
_PATIENT = {"lock_timeout": "5s"}


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """The schema `cdc` and the rights of the role that writes; `version` is None before setup."""

    role: str
    version: int | None
    foreign: str | None
    lacking: tuple[tuple[str, str], ...]


_LACKING = """
SELECT kind, what FROM (
  SELECT 1, 'parameter', 'session_replication_role'
   WHERE %(session)s AND NOT has_parameter_privilege('session_replication_role', 'SET')
  UNION ALL
  SELECT 2, lower(r), format('%%I.%%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r
   WHERE c.relkind = 'r' AND NOT has_table_privilege(c.oid, r)
     AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
) AS l (place, kind, what) ORDER BY place, what, kind
"""


def read_state(site: Site) -> State:
    conn = site.here()
    names = [t.name for t in site.selection().rows]
    foreign, version = None, None
    try:
        version = state.version(conn)
    except NotReady as error:
        foreign = error.what
    assert site.replica is not None
    lacking = conn.execute(
        _LACKING,
        {
            "session": site.config.replica(site.replica).triggers == "session",
            "schemas": [n.schema for n in names],
            "names": [n.name for n in names],
        },
    )
    return State(conn.info.user, version, foreign, tuple(lacking))


@finding(
    "replica-schema", DELAYS, "The daemon keeps its position in the schema cdc of this version."
)
def schema(found: State) -> Iterator[Hit]:
    if found.foreign is not None:
        yield Hit(found.foreign, "rename that schema, then run `cdc setup`")
    elif found.version is None:
        yield Hit("there is no schema cdc", "run `cdc setup`")
    elif found.version != state.VERSION:
        newer = found.version > state.VERSION
        yield Hit(
            f"the schema cdc has version {found.version}, this program works with {state.VERSION}",
            "install a newer release of this program" if newer else "run `cdc setup`",
        )


@finding("replica-rights", DELAYS, "The daemon halts at the first change it may not write.")
def rights(found: State) -> Iterator[Hit]:
    role = quoted(found.role)
    for kind, what in found.lacking:
        if kind == "parameter":
            yield Hit(
                f"{found.role} may not set {what}", f"GRANT SET ON PARAMETER {what} TO {role}"
            )
        else:
            yield Hit(f"{found.role} may not {kind} in {what}",
                      f"GRANT {kind.upper()} ON {what} TO {role}")  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Tables:
    """The tables that shall be replicated, on the replica: what stands in their way, by table.

    `differing` is how one is not like the primary's, `refusing` are constraints that only the
    replica has, with the statement that drops each. `uncovered` are tables that it does not follow,
    `absent` of those the ones that are not there; `filled` tells whether it follows any.
    """

    filled: bool
    uncovered: tuple[TableName, ...]
    obstacles: tuple[tuple[TableName, Obstacle], ...]
    differing: tuple[tuple[TableName, Mismatch], ...]
    refusing: tuple[tuple[TableName, str, str], ...]


_FOLLOWED = "SELECT schema_name, table_name FROM cdc.tables WHERE stream = %s"

_CONSTRAINTS = """
SELECT n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype::text = ANY (%(kinds)s)
   AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
 ORDER BY 1, 2, 3
"""


def read_tables(site: Site) -> Tables:
    config, replica = site.config, site.replica
    assert replica is not None
    names = [t.name for t in site.selection().rows]
    fires = config.replica(replica).triggers == "disabled"
    followed = {TableName(*row) for row in site.here().execute(_FOLLOWED, [config.name])}
    dsn, application = config.replica(replica).dsn, config.application_name(replica, "check")
    there = catalog.read(dsn, application, names, fires_triggers=fires)
    ours = shape.read(config.primary.dsn, application, there, _PATIENT)
    theirs = shape.read(dsn, application, there, _PATIENT)
    # Foreign keys are checked by triggers: only where these fire.
    given = {
        "kinds": ["c", "f"] if fires else ["c"],
        "schemas": [t.schema for t in there],
        "names": [t.name for t in there],
    }
    return Tables(
        bool(followed),
        tuple(sorted(set(names) - followed)),
        tuple((name, o) for name, table in sorted(there.items()) for o in table.obstacles),
        tuple(
            (name, mismatch)
            for name in sorted(ours.keys() & theirs.keys())
            for mismatch in likeness.compare(ours[name], theirs[name])
            if mismatch.weight != "note"
        ),
        surplus(
            site.primary().execute(_CONSTRAINTS, given).fetchall(),
            site.here().execute(_CONSTRAINTS, given).fetchall(),
        ),
    )


def surplus(
    ours: Sequence[tuple[str, str, str, str]], theirs: Sequence[tuple[str, str, str, str]]
) -> tuple[tuple[TableName, str, str], ...]:
    """Return the constraints that only the replica has: table, name, definition."""
    left = Counter((schema, table, definition) for schema, table, _, definition in ours)
    found = []
    for schema_, table, name, definition in theirs:
        if left[schema_, table, definition]:
            left[schema_, table, definition] -= 1
        else:
            found.append((TableName(schema_, table), name, definition))
    return tuple(found)


def _obstacles(kind: str, found: Tables) -> Iterator[Hit]:
    for table, obstacle in found.obstacles:
        if obstacle.kind == kind:
            yield Hit(f"{table} {obstacle.what}", obstacle.fix)


def _obstacle(kind: str, name: str, why: str) -> Finding[Tables]:
    """Return the finding for the obstacles that `catalog` tells of this kind."""

    @finding(name, LOSES, why)
    def obstacle(found: Tables) -> Iterator[Hit]:
        yield from _obstacles(kind, found)

    return obstacle


OBSTACLES: tuple[Finding[Tables], ...] = (
    _obstacle("trigger", "replica-trigger", "It would alter rows, or write others, a second time."),
    _obstacle("rule", "replica-rule", "It would write something else than what was replicated."),
    _obstacle("row security", "replica-row-security",
              "Rows would be hidden from what writes and compares them."),
)  # fmt: skip


@finding("replica-table", DELAYS, "A row that does not fit halts the replica.")
def table(found: Tables) -> Iterator[Hit]:
    yield from _obstacles("table", found)
    for name, mismatch in found.differing:
        yield Hit(f"{name}: {mismatch.what}", mismatch.mend)


@finding(
    "replica-constraint", DELAYS, "A row that the primary took is refused, and halts the replica."
)
def constraint(found: Tables) -> Iterator[Hit]:
    for name, called, definition in found.refusing:
        yield Hit(
            f"{name} has the constraint {quoted(called)} {definition}, the primary has not",
            f"ALTER TABLE {name} DROP CONSTRAINT {quoted(called)}",
        )


@finding("replica-uncovered", DELAYS,
         "The replica lacks what the table holds, and its changes are passed over.")  # fmt: skip
def uncovered(found: Tables) -> Iterator[Hit]:
    if not found.filled:
        if found.uncovered:
            yield Hit("nothing was filled yet", "run `cdc bootstrap`")
        return
    for name in found.uncovered:
        yield Hit(f"{name} is not followed", f"run `cdc bootstrap --table {name}`")


@dataclasses.dataclass(frozen=True, slots=True)
class Followed:
    """Of the tables that the replica follows: which are unlogged, and who else may write which."""

    unlogged: tuple[TableName, ...]
    writers: tuple[tuple[str, int, TableName], ...] = ()


_UNLOGGED = """
SELECT t.schema_name, t.table_name
  FROM cdc.tables t JOIN pg_namespace n ON n.nspname = t.schema_name
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
 WHERE t.stream = %s AND c.relpersistence <> 'p' ORDER BY 1, 2
"""

_WRITERS = """
SELECT coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'), count(DISTINCT c.oid),
       min(t.schema_name), min(t.table_name)
  FROM cdc.tables t JOIN pg_namespace n ON n.nspname = t.schema_name
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
 CROSS JOIN aclexplode(c.relacl) a
 WHERE t.stream = %s AND a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
   AND a.grantee NOT IN (c.relowner, (SELECT oid FROM pg_roles WHERE rolname = current_user))
 GROUP BY 1 ORDER BY 1
"""


def read_followed(site: Site) -> Followed:
    conn, stream = site.here(), site.config.name
    return Followed(
        tuple(TableName(*row) for row in conn.execute(_UNLOGGED, [stream])),
        tuple(
            (role, count, TableName(schema_, name))
            for role, count, schema_, name in conn.execute(_WRITERS, [stream])
        ),
    )


@finding("replica-unlogged", LOSES,
         "A crash of the replica empties it and leaves the position where it is.", at_start=True)  # fmt: skip
def unlogged(found: Followed) -> Iterator[Hit]:
    for name in found.unlogged:
        yield Hit(f"{name} is unlogged", f"ALTER TABLE {name} SET LOGGED, then run cdc-verify")


@finding("replica-writers", ADVICE,
         "What somebody else writes into a replicated table is lost or halts the replica; "
         "cdc-verify names it.")  # fmt: skip
def writers(found: Followed) -> Iterator[Hit]:
    for role, count, first in found.writers:
        more = "" if count == 1 else f" and {count - 1} more"
        yield Hit(
            f"{role} may write {first}{more}",
            f"REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON {first} FROM {role}"
            + (", and of the others" if count > 1 else ""),
        )


LOOKS: tuple[Look[Any], ...] = (
    Look("replica", "schema cdc and rights", read_state, (schema, rights)),
    Look("replica", "its tables", read_tables,
         (*OBSTACLES, table, constraint, uncovered)),
    Look("replica", "the tables it follows", read_followed, (unlogged, writers)),
)  # fmt: skip
