"""Tables of the stream that a replica does not follow: new ones are passed over, anything else halts.

What is passed over is never lost: filling the table begins with a snapshot of the primary that is younger than
whatever was passed over before (`cdc.beside`). But a table may be strange because one that is followed was renamed, or
has got a partition, or is published under its root's name: passed over then, readers would see a table that is
wrong. Which of these it is the primary's catalog tells, by the numbers of its tables.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from cdc import batch, postgres
from cdc.config import Config
from cdc.errors import Unreachable
from cdc.events import Change
from cdc.names import TableName
from cdc.position import Coverage, Fenced

log = logging.getLogger(__name__)

#: Seconds between two looks at the primary.
_LOOK_EVERY = 1.0

_LSN = "SELECT pg_current_wal_lsn() - '0/0'"

_SEEN = """
SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind::text, pg_partition_root(c.oid)::oid::bigint
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY (%(oids)s::oid[])
    OR (n.nspname, c.relname) IN (SELECT * FROM unnest(%(schemas)s::text[], %(names)s::text[]))
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A table as the primary has it now; `root` is the topmost partitioned table above it, else None."""

    oid: int
    name: TableName
    kind: str
    root: int | None


def verdict(
    table: TableName, seen: Mapping[TableName, Seen], covered: Mapping[TableName, Coverage]
) -> str | None:
    """Say what a strange table is that must not be passed over, None when it is new.

    `seen` are, of the strange table and those that are followed, the ones that the primary has, by their
    names of now.
    """
    found, by_number = seen.get(table), {s.oid: s for s in seen.values()}
    for name, coverage in covered.items():
        if coverage.relid is None:
            # It may be the strange one, or have been: nothing but the name tells.
            if name not in seen:
                return f"{name}, which is followed, is not there any more under that name"
        elif (now := by_number.get(coverage.relid)) is not None and now.name != name:
            return f"{name}, which is followed, was renamed to {now.name}"
    if found is None:
        return None
    if found.kind != "r":
        return "it is partitioned"
    if found.root is not None and any(
        s.root == found.root for n, s in seen.items() if n in covered
    ):
        return "it is a partition of a table that is followed"
    return None


class Strangers:
    """Judges for one replica; waits between looks at the primary until `stop` is set."""

    def __init__(self, config: Config, replica: str, stop: threading.Event) -> None:
        self._config = config
        self._replica = replica
        self._stop = stop
        self._new: dict[TableName, int] = {}  # as of that LSN
        self._told: set[TableName] = set()
        self._looked_at = -_LOOK_EVERY

    def pass_over(self, covered: Mapping[TableName, Coverage], change: Change) -> None:
        """Return when the table of `change` is new to the replica.

        Raises SchemaMismatch when it is not, Unreachable when the primary does not tell.
        """
        table = change.table
        # A name is a table's until somebody locks it: what was written before the look has this one.
        if change.lsn < self._new.get(table, 0):
            return
        left = self._looked_at + _LOOK_EVERY - time.monotonic()
        if left > 0 and self._stop.wait(left):
            raise Fenced("stopped")
        self._looked_at = time.monotonic()
        lsn, seen = self._look(table, covered)
        if (what := verdict(table, seen, covered)) is not None:
            raise batch.unknown(change, what)
        self._new[table] = lsn
        if table not in self._told:
            self._told.add(table)
            log.warning(
                "passing over changes of %s, which this replica was not filled with: "
                "`cdc bootstrap -r %s --table %s`", table, self._replica, table,
            )  # fmt: skip

    def _look(
        self, table: TableName, covered: Mapping[TableName, Coverage]
    ) -> tuple[int, dict[TableName, Seen]]:
        application = self._config.application_name(self._replica, "look")
        names = [table, *(name for name, c in covered.items() if c.relid is None)]
        try:
            with contextlib.closing(
                postgres.connect(self._config.primary.dsn, application, autocommit=True)
            ) as conn:
                # Before the catalog is read, so that it is at least as young.
                lsn = self._one(conn)
                rows = conn.execute(
                    _SEEN,
                    {
                        "oids": [c.relid for c in covered.values() if c.relid is not None],
                        "schemas": [name.schema for name in names],
                        "names": [name.name for name in names],
                    },
                ).fetchall()
        except psycopg.Error as error:
            raise Unreachable(
                f"whether {table} is new on the primary it does not tell: {postgres.first_line(error)}",
                safe="nothing was passed over",
                next="see that the primary runs and lets the daemon's role in",
                table=str(table),
            ) from error
        found = [
            Seen(oid, TableName(schema, name), kind, root) for oid, schema, name, kind, root in rows
        ]
        return lsn, {s.name: s for s in found}

    def _one(self, conn: psycopg.Connection[Any]) -> int:
        row = conn.execute(_LSN).fetchone()
        assert row is not None
        return int(row[0])
