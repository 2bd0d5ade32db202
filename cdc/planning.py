"""What a bootstrap has to do: decided from both catalogs and from what the replica records."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import psycopg

from cdc import barrier, counterparts, filling, history, position, shadow, tables, topic
from cdc.config import NOTHING_CHANGED, Config
from cdc.counterparts import listed
from cdc.errors import NotEmpty, NotReady, PositionLost, SchemaMismatch, UsageError
from cdc.filling import Reached
from cdc.names import TableName
from cdc.names import parse as parse_name
from cdc.position import Coverage
from cdc.tables import Selection, Table

Connection = psycopg.Connection[Any]

#: Sections of the whole schema whose restoring is recorded.
SECTIONS = ("pre-data", "post-data")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Which tables are filled and what else is due.

    `rows` are all replicated tables that hold rows, `fill` those of them to be filled now,
    `recorded` what the replica said of its tables before. `needs_start` says that the replica has no usable
    position, `start_over` that it has one which leads nowhere. `whole_schema` restores the
    primary's whole schema, else only what the tables need; `whole_schema_pending` says that an
    earlier run did not get to its end. `oids` are the filled tables and the partitioned ones above.
    `beside` says that the stream goes on meanwhile (`cdc.beside`): `in_use` are those tables that
    have rows for readers, `partly` those that an earlier run like it has left with some of theirs.
    """

    rows: tuple[Table, ...]
    partitioned: tuple[Table, ...]
    fill: tuple[Table, ...]
    recorded: Mapping[TableName, Coverage]
    overwritten: tuple[TableName, ...]
    needs_start: bool
    start_over: bool
    whole_schema: bool
    whole_schema_pending: bool
    oids: frozenset[int]
    beside: bool
    in_use: frozenset[TableName]
    partly: frozenset[TableName]

    @property
    def owners(self) -> set[TableName]:
        """The filled tables and the partitioned ones above: whose sequences matter."""
        return {t.name for t in (*self.rows, *self.partitioned) if t.oid in self.oids}


def make(
    config: Config, name: str, primary: Connection, replica: Connection,
    asked: Sequence[str], *, overwrite: bool,
) -> Plan:  # fmt: skip
    """Look at primary, topic and replica and decide.

    Raises NotReady, SchemaMismatch, PositionLost, NotEmpty or UsageError when filling must not
    begin; nothing has been changed then.
    """
    _check_replica(config, name, primary, replica)
    selection = selected(config, primary)
    _published(config, primary, selection)
    reached, recorded = filling.load(replica, config.name)
    where = topic.describe(config)
    if where.partitions != 1:
        raise PositionLost(
            f"the topic {config.topic} has {where.partitions} partitions; only one keeps the order "
            "of commits",
            safe=NOTHING_CHANGED,
            next="run `cdc setup`, which says how to mend it",
            topic=config.topic,
        )
    barrier.connector(config)
    wanted = _wanted(selection, asked)
    copied = {n for n, r in recorded.items() if r.state == "copied"}
    lost = _astray(config, where, reached, recorded) if reached else None
    if reached is None and copied:
        lost = "its position is missing, though tables count as filled"
    everything = not asked
    if lost and copied and not (overwrite and everything):
        raise PositionLost(
            f"the stream does not continue where this replica is: {lost}",
            safe="nothing was changed; what the replica holds is as of its position",
            next="fill the whole replica anew: `cdc bootstrap --overwrite`",
            replica=name,
            topic=config.topic,
        )
    fill = [t for t in selection.rows if t.name in wanted and (overwrite or t.name not in copied)]
    done = filling.sections(replica, config.name)
    _readable(primary, fill)
    # What halted the daemon may lie in the topic behind its position: the position moves too then.
    anew = overwrite and everything
    whole = config.bootstrap.schema == "all" and everything and not set(SECTIONS) <= done
    here = {t.name: t for t in tables.read(replica)}
    if config.bootstrap.schema == "none":
        counterparts.present(fill, here, name)
    counterparts.unobstructed(config, name, fill)
    existing = {t.name for t in fill if t.name in here and here[t.name].kind == "r"}
    partly = shadow.incomplete(replica, config.name)
    ours = partly if overwrite else partly | set(recorded)
    full = filling.with_rows(replica, existing - ours)
    if full and not overwrite:
        raise NotEmpty(
            f"these tables of the replica have rows already: {listed(full)}",
            safe=NOTHING_CHANGED,
            next="if these rows may go, add --overwrite; it replaces those of exactly the tables it fills",
            replica=name,
            table=str(full[0]) if len(full) == 1 else None,
        )
    start_afresh = reached is None or lost is not None or anew
    return Plan(
        rows=selection.rows,
        partitioned=selection.partitioned,
        fill=tuple(fill),
        recorded=recorded,
        overwritten=tuple(full),
        needs_start=start_afresh,
        start_over=everything and start_afresh,
        whole_schema=whole,
        whole_schema_pending=whole and bool(copied),
        oids=_with_parents(fill, selection.partitioned),
        beside=not start_afresh
        and all(recorded[t.name].state == "copied" for t in fill if t.name in recorded),
        in_use=frozenset(full) | (copied & {t.name for t in fill}),
        partly=partly - copied,
    )


def selected(config: Config, primary: Connection) -> Selection:
    """Return the replicated tables; SchemaMismatch for what cannot be carried, NotReady if none."""
    selection = tables.select(config, tables.read(primary))
    if selection.refused:
        raise SchemaMismatch(
            "tables that cannot be replicated truly: "
            + "; ".join(str(c) for c in selection.refused),
            safe=NOTHING_CHANGED,
            next="mend or exclude them (primary.exclude), run `cdc setup`, then this command again",
        )
    if not selection.rows:
        raise NotReady(
            f"no table of the primary matches primary.tables = {list(config.primary.tables)}",
            safe=NOTHING_CHANGED,
            next="correct the patterns, or create the tables, then run `cdc setup`",
        )
    return selection


def _check_replica(config: Config, name: str, primary: Connection, replica: Connection) -> None:
    """Raise NotReady if the replica is the primary, or its triggers cannot be kept from firing."""
    # Advisory locks belong to a database: the same key free on both ends means two databases.
    key = [secrets.randbits(62)]
    primary.execute("SELECT pg_advisory_lock(%s)", key)
    try:
        two = replica.execute("SELECT pg_try_advisory_lock(%s)", key).fetchone()
        if two == (True,):
            replica.execute("SELECT pg_advisory_unlock(%s)", key)
    finally:
        primary.execute("SELECT pg_advisory_unlock(%s)", key)
    if two != (True,):
        raise NotReady(
            f"replica {name} is the primary itself: its dsn leads to the same database",
            safe=NOTHING_CHANGED,
            next=f"correct replicas.{name}.dsn",
            replica=name,
        )
    if config.replica(name).triggers == "session":
        may = replica.execute(
            "SELECT has_parameter_privilege('session_replication_role', 'SET')"
        ).fetchone()
        if may != (True,):
            raise NotReady(
                "the replica's role may not set session_replication_role: triggers and foreign "
                "keys would fire on rows that the primary has dealt with already",
                safe=NOTHING_CHANGED,
                next="run `cdc setup` with a superuser as admin_dsn, which grants it, or set "
                f'replicas.{name}.triggers = "disabled"',
                replica=name,
            )


def _published(config: Config, primary: Connection, selection: Selection) -> None:
    """Raise NotReady if changes of a table would never enter the stream."""
    published = {
        TableName(schema, table)
        for schema, table in primary.execute(
            "SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = %s",
            [config.publication],
        )
    }
    if absent := sorted(t.name for t in selection.rows if t.name not in published):
        raise NotReady(
            f"the publication {config.publication} of the primary lacks {listed(absent)}: their "
            "changes would never arrive",
            safe=NOTHING_CHANGED,
            next="run `cdc setup`, then this command again",
        )


def _readable(primary: Connection, fill: Sequence[Table]) -> None:
    """Raise NotReady if a table to be copied may not be read, before anything is emptied."""
    refused = primary.execute(
        "SELECT oid::int8 FROM pg_class WHERE oid = ANY (%s) AND NOT has_table_privilege(oid, 'SELECT')",
        [[t.oid for t in fill]],
    ).fetchall()
    if names := sorted(t.name for t in fill if (t.oid,) in refused):
        raise NotReady(
            f"the role {primary.info.user} may not read {listed(names)} on the primary",
            safe=NOTHING_CHANGED,
            next="run `cdc setup`, which grants it, then this command again",
            table=str(names[0]) if len(names) == 1 else None,
        )


def _wanted(selection: Selection, asked: Sequence[str]) -> set[TableName]:
    """Return the tables meant by --table, a partitioned one standing for its partitions."""
    rows = {t.name for t in selection.rows}
    if not asked:
        return rows
    parents = {t.name: t.parent for t in (*selection.rows, *selection.partitioned)}
    found: set[TableName] = set()
    for text in asked:
        try:
            name = parse_name(text)
        except ValueError as error:
            raise UsageError(
                str(error),
                safe=NOTHING_CHANGED,
                next="write --table schema.table, quoting as in SQL",
            ) from error
        below = {n for n in rows if name in (n, *_above(n, parents))}
        if not below:
            raise UsageError(
                f"{name} is not a replicated table",
                safe=NOTHING_CHANGED,
                next=f"use one of: {listed(sorted(rows))}; or let primary.tables match it and run "
                "`cdc setup`",
            )
        found |= below
    return found


def _above(name: TableName, parents: Mapping[TableName, TableName | None]) -> list[TableName]:
    above = []
    parent = parents.get(name)
    while parent is not None:
        above.append(parent)
        parent = parents.get(parent)
    return above


def _with_parents(fill: Collection[Table], partitioned: Sequence[Table]) -> frozenset[int]:
    parents = {t.name: t.parent for t in (*fill, *partitioned)}
    above = {a for t in fill for a in _above(t.name, parents)}
    return frozenset([t.oid for t in fill] + [t.oid for t in partitioned if t.name in above])


def _astray(
    config: Config,
    where: topic.TopicInfo,
    reached: Reached,
    recorded: Mapping[TableName, Coverage],
) -> str | None:
    """Say why the stream cannot go on from the replica's position, None when it can."""
    primary = history.read(config.primary.dsn, f"cdc-{config.name}/bootstrap")
    if primary.system_id != reached.system_id:
        return "the primary is another server (system identifier differs)"
    if primary.timeline != reached.timeline:
        end = primary.end_of(reached.timeline)
        holds = position.holds(reached.applied_lsn, recorded.values())
        if end is None or holds > end:
            return f"the primary is on timeline {primary.timeline}, the replica on {reached.timeline} (failover)"
        # What is copied now is more of the new timeline than the position knows to be safe.
        return (
            f"the primary was switched over to timeline {primary.timeline}, nothing was lost, but "
            "the replica's daemon has not followed it yet: let `cdc run` do that first"
        )
    if where.topic_id != reached.topic_id:
        return "the topic was deleted and made anew"
    low, high = barrier.bounds(config)
    if not low <= reached.next_offset <= high:
        return f"the topic holds offsets {low} to {high}, the replica needs {reached.next_offset}"
    return None
