"""One run of a contestant: what it took to apply a cell's changes, and that it ended where the primary is."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, LiteralString

import compare
import contestants
import harness
import psycopg
import servers
from cells import Cell
from contestants import Contestant, Postgres, Sink
from harness import Stream
from psycopg import conninfo, sql

#: Seconds between looks whether all was applied.
_LOOK = 0.02

#: Seconds that a run, or capturing, may take, and changes a second that it must reach where there are very many.
#: The sink's slowest settings need not hold up all else.
_MOST = 600.0
_MOST_OF_SINK = 120.0
_LEAST_RATE = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds from its start and from its first session to the last row; what it used.

    Processor seconds are those of the program itself (none of PostgreSQL's worker, which is part of
    the server), of the replica's server, and of what feeds it: the broker, or the primary's server.
    `wal` is in bytes, `memory` the program's peak in MiB.
    """

    seconds: float
    applying: float
    own_cpu: float
    replica_cpu: float
    upstream_cpu: float
    wal: int
    memory: float
    load: float


class Unequal(Exception):  # noqa: N818 -- a finding: what was measured says nothing
    """A run has not ended where the primary is."""


class Runner:
    """Writes the changes of cells to a stream's primary, and measures who applies them to `r1`."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        #: Of the connectors that must have sent what was written.
        self.slots = [f"cdc_{stream.name}"]
        self._primary = servers.Server(stream.stack.primary)
        self._replica = servers.Server(stream.stack.replicas["r1"])
        self._broker = contestants.pid(stream, "kafka")
        self._truth: dict[str, compare.Contents] = {}

    def write(self, cell: Cell) -> float:
        """Make a cell's changes and wait until all connectors have sent them; the seconds that took."""
        began = time.monotonic()
        with psycopg.connect(self.stream.primary, autocommit=True) as conn:
            cell.write(conn)
            ((lsn,),) = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchall()
        self._truth[cell.table] = compare.contents(self.stream.primary, cell.table)
        sent: LiteralString = (
            "SELECT bool_and(confirmed_flush_lsn >= %s::pg_lsn) FROM pg_replication_slots"
            " WHERE slot_name = ANY (%s)"
        )
        harness.wait_until(
            lambda: self.stream.sql("primary", sent, [lsn, self.slots]) == [(True,)],
            f"all connectors have sent {cell.table}", timeout=_most(cell),
        )  # fmt: skip
        return time.monotonic() - began

    def run(self, contestant: Contestant, cell: Cell) -> Run:
        """Let a contestant apply a cell's changes, and see that it ends where the primary is."""
        contestant.reset(cell)
        for end in ("primary", "r1"):
            self.stream.sql(end, "CHECKPOINT")
        upstream = self._primary.cpu if isinstance(contestant, Postgres) else self._broker_cpu
        load = os.getloadavg()[0]
        with psycopg.connect(self.within(contestant.database), autocommit=True) as conn:
            ((wal,),) = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchall()
            fed, used = upstream(), self._replica.cpu()
            began = time.time()
            try:
                pid = contestant.begin(cell)
                first, last, own, memory = self._followed(conn, contestant, cell, pid)
                used, fed = self._replica.cpu() - used, upstream() - fed
                ((after,),) = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchall()
                self._compare(contestant, cell)
            finally:
                contestant.end()
        return Run(
            round(last - began, 3), round(last - first, 3), round(own, 2), round(used, 2),
            round(fed, 2), int(after - wal), round(memory, 1), round(load, 1),
        )  # fmt: skip

    def _followed(
        self,
        conn: psycopg.Connection[tuple[Any, ...]],
        contestant: Contestant,
        cell: Cell,
        pid: int | None,
    ) -> tuple[float, float, float, float]:
        """Return when its first session began, when the last row was seen, and what it used in between.

        That is the processor time of the process `pid`, and its largest memory; without one, that of the session.
        It is looked at again and again, since the process may end right after the last row.
        """
        session = sql.SQL(
            "SELECT extract(epoch FROM backend_start)::float8, pid FROM pg_stat_activity"
            " WHERE datname = %s AND {} ORDER BY 1 LIMIT 1"
        ).format(sql.SQL(contestant.sessions))
        done = sql.SQL("SELECT FROM {} WHERE id = 0").format(sql.Identifier(cell.table))
        most = _MOST_OF_SINK if isinstance(contestant, Sink) else _most(cell)
        deadline, found = time.monotonic() + most, None
        before = own = memory = 0.0
        while True:
            if found is None:
                found = conn.execute(session, [contestant.database]).fetchone()
                before = 0.0 if pid is None else servers.cpu(pid)
            elif pid is not None:
                own = max(own, servers.cpu(pid) - before)
            if found is not None:
                memory = max(memory, servers.peak(pid or found[1]))
                if conn.execute(done).rowcount:
                    return found[0], time.time(), own, memory
            if time.monotonic() > deadline:
                fault = contestant.fault() if isinstance(contestant, Sink) else ""
                raise Unequal(f"{contestant.name} has not applied all in time {fault or ''}")
            time.sleep(_LOOK)

    def _compare(self, contestant: Contestant, cell: Cell) -> None:
        """Raise Unequal where a run does not end with what the primary holds.

        The sink writes its last row before the last others; the time until then is not counted.
        """
        dsn = self.within(contestant.database)
        deadline = time.monotonic() + (10 if isinstance(contestant, Sink) else 0)
        while compare.contents(dsn, cell.table) != self._truth[cell.table]:
            if time.monotonic() > deadline:
                unlike = [
                    column for column in self._columns(cell) if self._differs(dsn, cell, column)
                ]
                raise Unequal(
                    f"{contestant.name} has not what the primary has in {', '.join(unlike)}"
                )
            time.sleep(1)

    def _columns(self, cell: Cell) -> list[str]:
        names: LiteralString = (
            "SELECT column_name::text FROM information_schema.columns WHERE table_name = %s"
        )
        return [name for (name,) in self.stream.sql("primary", names, [cell.table])]

    def _differs(self, dsn: str, cell: Cell, column: str) -> bool:
        digest = sql.SQL("SELECT md5(string_agg({}::text, ',' ORDER BY id)) FROM {}").format(
            sql.Identifier(column), sql.Identifier(cell.table)
        )
        return harness.rows(dsn, digest) != harness.rows(self.stream.primary, digest)

    def _broker_cpu(self) -> float:
        return servers.cpu(self._broker)

    def within(self, database: str) -> str:
        """Return the DSN of a database on the server of `r1`."""
        return conninfo.make_conninfo(self.stream.dsn("r1"), dbname=database)


def _most(cell: Cell) -> float:
    return max(_MOST, cell.events / _LEAST_RATE)
