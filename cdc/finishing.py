"""What comes after the rows: sequences, foreign keys, triggers that must stay quiet."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import psycopg
from psycopg import sql

from cdc import postgres
from cdc.errors import SchemaMismatch
from cdc.names import TableName

Connection = psycopg.Connection[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key as the primary has it; `definition` as pg_get_constraintdef prints it."""

    table: TableName
    name: str
    refers_to: TableName
    partitioned: bool
    definition: str

    def __str__(self) -> str:
        return f"{self.name} of {self.table} → {self.refers_to}"

    @property
    def statement(self) -> sql.Composed:
        # PostgreSQL wants the foreign key of a partitioned table on its partitions too.
        only = sql.SQL("" if self.partitioned else "ONLY ")
        return sql.SQL("ALTER TABLE {}{} ADD CONSTRAINT {} {}").format(
            only, self.table.sql, sql.Identifier(self.name),
            sql.SQL(self.definition),
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignKeys:
    """What became of the foreign keys that were missing: made, not valid yet, or not to be made."""

    made: tuple[ForeignKey, ...]
    pending: tuple[ForeignKey, ...]
    one_sided: tuple[ForeignKey, ...]


def foreign_keys(primary: Connection) -> tuple[ForeignKey, ...]:
    """Read the foreign keys, those that partitions inherit left out."""
    rows = primary.execute(
        "SELECT n.nspname, t.relname, f.conname, rn.nspname, r.relname, t.relkind = 'p',"
        " pg_get_constraintdef(f.oid)"
        " FROM pg_constraint f JOIN pg_class t ON t.oid = f.conrelid"
        " JOIN pg_namespace n ON n.oid = t.relnamespace"
        " JOIN pg_class r ON r.oid = f.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace"
        " WHERE f.contype = 'f' AND f.conparentid = 0 AND n.nspname <> 'cdc' ORDER BY 1, 2, 3"
    )
    return tuple(
        ForeignKey(
            TableName(schema, table),
            name,
            TableName(their_schema, their_table),
            partitioned,
            definition,
        )
        for schema, table, name, their_schema, their_table, partitioned, definition in rows
    )


def add_foreign_keys(
    replica: Connection, wanted: Sequence[ForeignKey], filled: Collection[TableName]
) -> ForeignKeys:
    """Create those of the foreign keys that the replica lacks, between tables that it has.

    One from a filled table to one that is not replicated could never hold and is not made. One
    that does not hold yet, because tables were copied at different LSNs, is left pending. Raises
    SchemaMismatch on any other refusal.
    """
    there = {
        (TableName(schema, table), name)
        for schema, table, name in replica.execute(
            "SELECT n.nspname, t.relname, f.conname FROM pg_constraint f"
            " JOIN pg_class t ON t.oid = f.conrelid JOIN pg_namespace n ON n.oid = t.relnamespace"
            " WHERE f.contype = 'f'"
        )
    }
    tables = {
        TableName(schema, name)
        for schema, name in replica.execute(
            "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p')"
        )
    }
    made, pending, one_sided = [], [], []
    for key in wanted:
        if (key.table, key.name) in there or not {key.table, key.refers_to} <= tables:
            continue
        if key.table in filled and key.refers_to not in filled:
            one_sided.append(key)
            continue
        try:
            with replica.transaction():
                replica.execute(key.statement)
        except psycopg.errors.ForeignKeyViolation:
            pending.append(key)
        except psycopg.Error as error:
            raise SchemaMismatch(
                f"the replica refuses the foreign key {key}: {postgres.first_line(error)}",
                safe="all rows are copied and stay; only foreign keys are missing",
                next="mend what is refused on the replica, then run `cdc bootstrap` again",
                table=str(key.table),
                sqlstate=error.sqlstate,
            ) from error
        else:
            made.append(key)
    return ForeignKeys(tuple(made), tuple(pending), tuple(one_sided))


def copy_sequences(
    primary: Connection, replica: Connection, tables: Collection[TableName] | None
) -> tuple[int, list[str]]:
    """Set the replica's sequences to where the primary's stand now: all, or those of `tables`.

    Sequences are not in the stream: later values come with `cdc sequences sync` or promotion.
    Returns how many were set, and the names of those that could not be read or are not there.
    """
    rows = primary.execute(
        "SELECT n.nspname, s.relname, tn.nspname, t.relname,"
        " has_sequence_privilege(s.oid, 'SELECT')"
        " FROM pg_class s JOIN pg_namespace n ON n.oid = s.relnamespace"
        " LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid"
        "  AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')"
        " LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace"
        " WHERE s.relkind = 'S' AND s.relpersistence <> 't'"
        " AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname NOT IN ('information_schema', 'cdc')",
        (),
    ).fetchall()
    done, left = 0, []
    for schema, name, owner_schema, owner, readable in rows:
        if tables is not None and (owner is None or TableName(owner_schema, owner) not in tables):
            continue
        sequence = TableName(schema, name)
        if not readable or not _is_there(replica, sequence):
            left.append(str(sequence))
            continue
        state = primary.execute(
            sql.SQL("SELECT last_value, is_called FROM {}").format(sequence.sql)
        ).fetchone()
        assert state is not None
        replica.execute(
            "SELECT setval(%s::regclass, %s, %s)", [_as_regclass(replica, sequence), *state]
        )
        done += 1
    return done, left


def _is_there(replica: Connection, sequence: TableName) -> bool:
    return (
        replica.execute(
            "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'S' AND n.nspname = %s AND c.relname = %s",
            [sequence.schema, sequence.name],
        ).fetchone()
        is not None
    )


def _as_regclass(replica: Connection, name: TableName) -> str:
    return name.sql.as_string(replica)


#: Triggers and rules of a table that fire for what is written here: name, how, and kind.
_FIRING = """
SELECT tgname::text, tgenabled::text, 'TRIGGER' FROM pg_trigger
 WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal AND tgenabled::text = ANY (%(firing)s)
UNION ALL
SELECT rulename::text, ev_enabled::text, 'RULE' FROM pg_rewrite
 WHERE ev_class = %(table)s::regclass AND ev_type <> '1' AND ev_enabled::text = ANY (%(firing)s)
"""


def quiet(replica: Connection, table: TableName, *, fires_triggers: bool) -> None:
    """Keep a table's triggers and rules from acting on replicated rows, whose effects come with them.

    Those that are ENABLE ALWAYS on the primary become ordinary ones, which fire for anybody else.
    With `fires_triggers` the daemon is anybody else, so every one is disabled.
    """
    firing = ["O", "A"] if fires_triggers else ["A", "R"]
    found = replica.execute(
        _FIRING, {"table": table.sql.as_string(replica), "firing": firing}
    ).fetchall()
    for name, how, kind in found:
        ordinary = how == "A" and not fires_triggers
        replica.execute(
            sql.SQL("ALTER TABLE {} {} {} {}").format(
                table.sql,
                sql.SQL("ENABLE" if ordinary else "DISABLE"),
                sql.SQL(kind),
                sql.Identifier(name),
            )
        )
