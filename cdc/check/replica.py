"""A replica: what would alter, hide, refuse or lose what is written there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cdc import catalog, state
from cdc.catalog import Obstacle
from cdc.check.finding import ADVICE, DELAYS, LOSES, Finding, Hit, Look, Site, finding
from cdc.names import TableName, quoted
from cdc.verify import likeness, shape
from cdc.verify.likeness import Mismatch
from cdc.verify.shape import Shape

#: What a look at shapes waits for somebody who holds a table for himself.
_PATIENT = {"lock_timeout": "5s"}


@dataclasses.dataclass(frozen=True, slots=True)
class Tables:
    """The tables that shall be replicated, on the replica: what stands in their way, by table.

    `differing` is how one is not like the primary's, `refusing` are constraints that only the
    replica has, with the statement that drops each. `uncovered` are tables that it does not follow,
    `absent` of those the ones that are not there; `filled` tells whether it follows any. `domains` are
    refusing constraints of domains; `sorting` is how texts sort here and on the primary, with a column
    and how many.
    """

    filled: bool
    uncovered: tuple[TableName, ...]
    obstacles: tuple[tuple[TableName, Obstacle], ...]
    differing: tuple[tuple[TableName, Mismatch], ...]
    refusing: tuple[tuple[TableName, str, str], ...]
    domains: tuple[tuple[TableName, str, str], ...] = ()
    sorting: tuple[tuple[str, str, str, int], ...] = ()


_CONSTRAINTS = """
SELECT n.nspname, c.relname, k.conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype::text = ANY (%(kinds)s)
   AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
 ORDER BY 1, 2, 3
"""


#: Constraints of the domains that values of the tables are of, however deep within a type.
_DOMAINS = """
WITH RECURSIVE used (oid) AS (
  SELECT a.atttypid
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE a.attnum > 0 AND NOT a.attisdropped
     AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
  UNION
  SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (
    SELECT t.typelem UNION ALL SELECT t.typbasetype
    UNION ALL SELECT f.atttypid FROM pg_attribute f
               WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
  ) AS x (oid) WHERE x.oid <> 0)
SELECT n.nspname::text, t.typname::text, k.conname::text, pg_get_constraintdef(k.oid)
  FROM used JOIN pg_type t ON t.oid = used.oid JOIN pg_namespace n ON n.oid = t.typnamespace
  JOIN pg_constraint k ON k.contypid = t.oid AND k.contype = 'c'
UNION ALL
SELECT n.nspname::text, t.typname::text, '', 'NOT NULL'
  FROM used JOIN pg_type t ON t.oid = used.oid JOIN pg_namespace n ON n.oid = t.typnamespace
 WHERE t.typtype = 'd' AND t.typnotnull
 ORDER BY 1, 2, 3
"""


def read_tables(site: Site) -> Tables:
    config, replica = site.config, site.replica
    assert replica is not None
    names = [t.name for t in site.selection().rows]
    fires = config.replica(replica).triggers == "disabled"
    followed = state.followed(site.here(), config.name)
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
        tuple(sorted(set(names) - followed.keys())),
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
        surplus(
            site.primary().execute(_DOMAINS, given).fetchall(),
            site.here().execute(_DOMAINS, given).fetchall(),
        ),
        sorting(ours, theirs),
    )


def sorting(
    ours: Mapping[TableName, Shape], theirs: Mapping[TableName, Shape]
) -> tuple[tuple[str, str, str, int], ...]:
    """Return how columns of one collation sort otherwise: here, on the primary, the first, how many."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in sorted(ours.keys() & theirs.keys()):
        for column in ours[name].columns:
            there = theirs[name].column(column.name)
            if (
                there is None or there.collate != column.collate
            ):  # told as a difference of the tables
                continue
            if there.collation and column.collation and there.collation != column.collation:
                where = found.setdefault((there.collation, column.collation), [])
                where.append(f"{name}.{quoted(column.name)}")
    return tuple((*pair, where[0], len(where)) for pair, where in found.items())


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


@finding("replica-domain", DELAYS, "It may refuse values that the primary has.")
def domain(found: Tables) -> Iterator[Hit]:
    for name, called, definition in found.domains:
        drop = f"DROP CONSTRAINT {quoted(called)}" if called else "DROP NOT NULL"
        yield Hit(
            f"the domain {name} has {definition}, on the primary it has not",
            f"ALTER DOMAIN {name} {drop}",
        )


@finding("replica-collation", ADVICE,
         "Texts sort otherwise than on the primary, and where partitions are ranges of text or unequal texts "
         "count as equal, a row may be refused.")  # fmt: skip
def collation(found: Tables) -> Iterator[Hit]:
    for here, there, column, count in found.sorting:
        more = f" and {count - 1} more" if count > 1 else ""
        yield Hit(
            f"{column}{more} sorts by {here}, on the primary by {there}",
            "make the database anew with the primary's locale provider and library version",
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """What PostgreSQL the primary is and what the replica."""

    primary: int
    primary_told: str
    replica: int
    replica_told: str


_VERSION = (
    "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_version')"
)


def read_versions(site: Site) -> Versions:
    ours, theirs = (c.execute(_VERSION).fetchone() for c in (site.primary(), site.here()))
    assert ours is not None
    assert theirs is not None
    return Versions(*ours, *theirs)


@finding("replica-older", DELAYS,
         "It may lack types, options and syntax that the primary has: bootstrap, or the first value of such a "
         "type, is refused.")  # fmt: skip
def older(found: Versions) -> Iterator[Hit]:
    if found.replica < found.primary:
        yield Hit(
            f"it is PostgreSQL {found.replica_told}, the primary {found.primary_told}",
            "upgrade the replica first, then the primary",
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
    """Of the tables that the replica follows: which are unlogged."""

    unlogged: tuple[TableName, ...]


_UNLOGGED = """
SELECT t.schema_name, t.table_name
  FROM cdc.tables t JOIN pg_namespace n ON n.nspname = t.schema_name
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
 WHERE t.stream = %s AND c.relpersistence <> 'p' ORDER BY 1, 2
"""


def read_followed(site: Site) -> Followed:
    rows = site.here().execute(_UNLOGGED, [site.config.name])
    return Followed(tuple(TableName(*row) for row in rows))


@finding("replica-unlogged", LOSES,
         "A crash of the replica empties it and leaves the position where it is.", at_start=True)  # fmt: skip
def unlogged(found: Followed) -> Iterator[Hit]:
    for name in found.unlogged:
        yield Hit(f"{name} is unlogged", f"ALTER TABLE {name} SET LOGGED, then run cdc-verify")


LOOKS: tuple[Look[Any], ...] = (
    Look("replica", "its tables", read_tables,
         (*OBSTACLES, table, constraint, domain, collation, uncovered)),
    Look("replica", "its version", read_versions, (older,)),
    Look("replica", "the tables it follows", read_followed, (unlogged,)),
)  # fmt: skip
