"""Who applies a backlog fastest, at what cost: this program, PostgreSQL's apply worker, the JDBC sink.

Run it by `make bench` or `make bench-quick`, on a machine that does nothing else. It starts a stack of its
own, writes each set of changes to the primary once, lets the contestants apply it by turns to the
same server, and writes bench/results/apply.json and docs/performance.md, in which the method is told.
A run whose end is not what the primary holds stops it: such a figure would say nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, LiteralString

import compare
import contestants
import document
import harness
import psycopg
import servers
import sink
from cells import Cell, cells
from contestants import Contestant, Ours, Postgres, Sink
from harness import Stream
from psycopg import conninfo, sql

RESULTS = document.RESULTS / "apply.json"

#: Seconds between looks whether all was applied.
_LOOK = 0.02

#: Seconds that a run may take. The sink's slowest settings need not hold up all else.
_MOST = 600.0
_MOST_OF_SINK = 120.0


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


class Bench:
    """The stream, the contestants' databases, and how one of them is measured."""

    def __init__(self, stream: Stream, wanted: Sequence[Cell], sinks: Sequence[Sink]) -> None:
        self.stream, self.cells, self.sinks = stream, wanted, sinks
        self.ours = Ours(stream)
        self.postgres = Postgres(stream)
        self._primary = servers.Server(stream.stack.primary)
        self._replica = servers.Server(stream.stack.replicas["r1"])
        self._broker = contestants.broker_pid(stream)
        self._slots = [f"cdc_{stream.name}"]
        self._truth: dict[str, compare.Contents] = {}

    def build(self) -> None:
        """Fill the primary and the replica; start both connectors."""
        for cell in self.cells:
            self.stream.sql("primary", cell.create)
            self.stream.sql("primary", cell.fill)
        self.stream.cdc("setup")
        self.stream.cdc("connectors", "apply")
        self.stream.cdc("bootstrap", "-r", "r1", timeout=1800)
        self._slots.append(contestants.start_source(self.stream))
        for suffix in ("pg", "sink"):
            name = f"{self.stream.name}_{suffix}"
            self.stream.sql("r1", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            for cell in self.cells:
                harness.rows(self._in(name), cell.create)

    def write(self, cell: Cell) -> float:
        """Make a cell's changes and wait until both connectors have sent them; the seconds that took."""
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
            lambda: self.stream.sql("primary", sent, [lsn, self._slots]) == [(True,)],
            f"both connectors have sent {cell.table}", timeout=_MOST,
        )  # fmt: skip
        return time.monotonic() - began

    def run(self, contestant: Contestant, cell: Cell) -> Run:
        """Let a contestant apply a cell's changes, and see that it ends where the primary is."""
        contestant.reset(cell)
        for end in ("primary", "r1"):
            self.stream.sql(end, "CHECKPOINT")
        upstream = self._primary.cpu if isinstance(contestant, Postgres) else self._broker_cpu
        load = os.getloadavg()[0]
        with psycopg.connect(self._in(contestant.database), autocommit=True) as conn:
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
        most = _MOST_OF_SINK if isinstance(contestant, Sink) else _MOST
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
        dsn = self._in(contestant.database)
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

    def _in(self, database: str) -> str:
        return conninfo.make_conninfo(self.stream.dsn("r1"), dbname=database)


def say(*words: object) -> None:
    """Tell the progress: how long it runs, and what happened."""
    print(f"{time.monotonic() - _BEGAN:6.0f} s ", *words, flush=True)


_BEGAN = time.monotonic()


def compete(bench: Bench, runs: int, told: dict[str, Any]) -> None:
    """Add to `told` a result per cell, and write it down after each."""
    for number, cell in enumerate(bench.cells):
        bench.ours.remember()
        bench.postgres.remember()
        say(
            f"{cell.table}: {cell.events:,} changes written and captured in {bench.write(cell):.0f} s"
        )
        often = runs if cell.size == "large" else 1
        result: dict[str, Any] = {**dataclasses.asdict(cell), "runs": {}, "refused": {}}
        if not number:  # the sink's code is compiled as it runs
            for one in bench.sinks:
                told_of(bench, one, cell)
        turns: list[Contestant] = [bench.ours, bench.postgres] * often
        for contestant in [*turns, *bench.sinks]:
            if contestant.name in result["refused"]:
                continue
            run = told_of(bench, contestant, cell)
            if isinstance(run, Run):
                result["runs"].setdefault(contestant.name, []).append(dataclasses.asdict(run))
            else:
                result["refused"][contestant.name] = run
        told["cells"].append(result)
        RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def told_of(bench: Bench, contestant: Contestant, cell: Cell) -> Run | str:
    """Measure a run and say so; where the sink does not end as it must, return why."""
    try:
        run = bench.run(contestant, cell)
    except Unequal as unequal:
        if not isinstance(contestant, Sink):
            raise
        say(f"  {contestant.name:<10} refused: {unequal}")
        return str(unequal)
    rate = cell.events / run.applying
    cost = f"{run.own_cpu:.1f} + {run.replica_cpu:.1f} s of processor"
    say(
        f"  {contestant.name:<10} {run.applying:6.2f} s, {rate:8,.0f} rows/s, {cost}, load {run.load}"
    )
    return run


def main() -> None:
    """Measure and write the results and the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", type=int, default=500_000, help="changes in a main cell")
    parser.add_argument("--single", type=int, default=50_000, help="one-row transactions in a cell")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cells", nargs="+", help="only these tables")
    parser.add_argument("--sinks", nargs="*", choices=sink.SINKS, default=list(sink.SINKS))
    said = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing running
    wanted = [c for c in cells(said.large, said.single) if not said.cells or c.table in said.cells]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cdc-bench-")))
        running = stack.enter_context(harness.own_stack(folder / "stack", "--replicas", "1"))
        stream = stack.enter_context(harness.stream(running, folder / "stream"))
        secret = servers.password(stream, "r1")
        sinks: list[Sink] = []
        if said.sinks:
            worker = stack.enter_context(sink.worker(folder, stream.kafka))
            sinks = [Sink(name, stream, worker, secret, *sink.SINKS[name]) for name in said.sinks]
        stack.callback(contestants.stop_source, stream)
        bench = Bench(stream, wanted, sinks)
        bench.build()
        told = {
            "machine": servers.machine(stream.primary) | {"sink": sink.VERSION},
            "settings": contestants.shown_settings(stream.dsn("r1")),
            "idle": [bench.ours.idle() for _ in range(3)],
            "sinks": {name: sink.SINKS[name][0] for name in said.sinks},
            "cells": [],
        }
        say("built;", told["settings"])
        compete(bench, said.runs, told)
    document.write()


if __name__ == "__main__":
    main()
