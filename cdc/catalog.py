"""The replica's tables as the daemon writes them, read through SQLAlchemy's Inspector."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import sqlalchemy
from sqlalchemy.pool import NullPool

from cdc import postgres, tables
from cdc.names import TableName, quoted

#: What the Inspector does not tell: how rows are addressed, and what would alter our writing.
_FACTS = sqlalchemy.text("""
SELECT n.nspname, c.relname, c.relkind::text AS kind, c.relreplident::text AS identity,
       row_security_active(c.oid) AS row_security, pg_has_role(c.relowner, 'USAGE') AS owned,
       current_user::text AS role,
       ARRAY(SELECT t.tgname::text FROM pg_trigger t
              WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled::text = ANY (:firing)
              ORDER BY 1) AS triggers,
       ARRAY(SELECT r.rulename::text FROM pg_rewrite r
              WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled::text = ANY (:firing)
              ORDER BY 1) AS rules,
       (SELECT json_agg(json_build_array(i.indisprimary AND i.indimmediate, i.indisreplident, k.columns)
                        ORDER BY i.indisunique DESC, i.indexrelid)
          FROM pg_index i
         CROSS JOIN LATERAL (
               SELECT json_agg(json_build_array(a.attname, on_.nspname, o.oprname) ORDER BY p.place) AS columns,
                      bool_and(a.attnotnull AND o.oid IS NOT NULL) AS usable
                 FROM unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY AS p (attnum, class, place)
                 LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = p.attnum
                 LEFT JOIN pg_opclass oc ON oc.oid = p.class
                 LEFT JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
                       AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
                 LEFT JOIN pg_operator o ON o.oid = ao.amopopr
                 LEFT JOIN pg_namespace on_ ON on_.oid = o.oprnamespace
                WHERE p.place <= i.indnkeyatts) AS k
         WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND k.usable
           AND (SELECT x.relam FROM pg_class x WHERE x.oid = i.indexrelid)
               = (SELECT am.oid FROM pg_am am WHERE am.amname = 'btree')) AS indexes
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY (:schemas) AND c.relname = ANY (:names) AND c.relkind IN ('r', 'p', 'f')
""")


@dataclasses.dataclass(frozen=True, slots=True)
class Obstacle:
    """Something on the replica that would alter or hide what is written, and the way to mend it."""

    kind: Literal["table", "row security", "trigger", "rule"]
    what: str
    fix: str


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A table of the replica.

    `columns` are all that are written, in order; generated ones are left out. `key` addresses a
    row; it is empty where only all values together do, and `lookup` then names columns of an index
    that leads to them, if there is one. `identity_always` are the columns that only OVERRIDING
    SYSTEM VALUE may fill. A table not `addressed` has neither key nor a replica identity that would do
    without. `equality` names the operators of those columns of key and lookup whose
    index has not pg_catalog's `=` (citext, for one).
    """

    name: TableName
    columns: tuple[str, ...]
    key: tuple[str, ...]
    identity_always: frozenset[str]
    lookup: tuple[str, ...] = ()
    equality: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    obstacles: tuple[Obstacle, ...] = ()
    addressed: bool = True
    column_set: frozenset[str] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "column_set", frozenset(self.columns))  # looked at for each event


@contextlib.contextmanager
def inspector(
    dsn: str, application: str, settings: dict[str, str] | None = None
) -> Iterator[tuple[sqlalchemy.Inspector, sqlalchemy.Connection]]:
    """Give SQLAlchemy's Inspector and its session, one of its own with the pinned settings and more.

    Of its own, because SQLAlchemy rolls back when it is done with a session.
    """
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        creator=lambda: postgres.connect(dsn, application, settings=settings),
        poolclass=NullPool,
    )
    try:
        with warnings.catch_warnings(), engine.connect() as connection:
            # The Inspector warns of types it has no class for; types do not matter here.
            warnings.simplefilter("ignore", sqlalchemy.exc.SAWarning)
            yield sqlalchemy.inspect(connection), connection
    except sqlalchemy.exc.DBAPIError as error:
        # As from any other session of ours: by its SQLSTATE it is decided what to do.
        raise (error.orig or error) from error


def read(
    dsn: str, application: str, wanted: Iterable[TableName], *, fires_triggers: bool
) -> dict[TableName, Table]:
    """Return those of the tables that exist on the server of `dsn`, which may raise Unreachable.

    `fires_triggers` says that rows are written as an ordinary session does, not as a replica.
    """
    names = set(wanted)
    found: dict[TableName, Table] = {}
    with inspector(dsn, application) as (look, connection):
        described = {
            TableName(schema, name): columns
            for schema in {name.schema for name in names}
            for (_, name), columns in look.get_multi_columns(
                schema, [n.name for n in names if n.schema == schema]
            ).items()
        }
        facts = connection.execute(
            _FACTS,
            {
                "schemas": sorted({n.schema for n in names}),
                "names": sorted({n.name for n in names}),
                "firing": ["O", "A"] if fires_triggers else ["R", "A"],
            },
        )
        for fact in facts:
            table = TableName(fact.nspname, fact.relname)
            if table in names and table in described:
                found[table] = _table(table, described[table], fact)
    return found


def _table(name: TableName, described: Sequence[Any], fact: sqlalchemy.Row[Any]) -> Table:
    written = [column for column in described if not column.get("computed")]
    computed = {column["name"] for column in described if column.get("computed")}
    # The log does not have what is computed, so it leads to no row.
    usable = [
        index
        for index in fact.indexes or ()
        if not computed & {column for column, _, _ in index[2]}
    ]
    by_columns = [tuple(column for column, _, _ in columns) for _, _, columns in usable]
    key = next((c for c, (primary, _, _) in zip(by_columns, usable, strict=True) if primary), ())
    index = next((c for c, (_, named, _) in zip(by_columns, usable, strict=True) if named), ())
    address = tables.address(fact.identity, key, index)
    return Table(
        name,
        tuple(column["name"] for column in written),
        address or (),
        frozenset(c["name"] for c in written if (c.get("identity") or {}).get("always")),
        by_columns[0] if by_columns and not address else (),
        {
            column: (schema, operator)
            for _, _, columns in usable
            for column, schema, operator in columns
            if schema != "pg_catalog"
        },
        tuple(_obstacles(name, fact)),
        addressed=address is not None,
    )


def _obstacles(name: TableName, fact: sqlalchemy.Row[Any]) -> list[Obstacle]:
    found = list[Obstacle]()
    if fact.kind != "r":
        found.append(
            Obstacle("table", "is not an ordinary table", "make it one, as on the primary")
        )
    if fact.row_security:
        # The owner is subject to it only where it is forced.
        mended = f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY"
        found.append(
            Obstacle(
                "row security",
                f"has row security that applies to {fact.role}: rows would be hidden",
                mended if fact.owned else f"ALTER ROLE {quoted(fact.role)} BYPASSRLS",
            )
        )
    found += [
        Obstacle(
            "trigger",
            f"has the trigger {quoted(trigger)}, which fires on replicated rows too",
            f"ALTER TABLE {name} DISABLE TRIGGER {quoted(trigger)}",
        )
        for trigger in fact.triggers
    ]
    found += [
        Obstacle(
            "rule",
            f"has the rule {quoted(rule)}, which rewrites what is written for replicated rows too",
            f"ALTER TABLE {name} DISABLE RULE {quoted(rule)}",
        )
        for rule in fact.rules
    ]
    return found
