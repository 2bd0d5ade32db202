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
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import contestants
import document
import harness
import servers
import sink
from cells import Cell, cells
from contestants import Contestant, Ours, Postgres, Sink
from harness import Stream
from psycopg import sql
from runs import Run, Runner, Unequal

RESULTS = document.RESULTS / "apply.json"


class Bench:
    """The stream, the contestants' databases, and how one of them is measured."""

    def __init__(self, stream: Stream, wanted: Sequence[Cell], sinks: Sequence[Sink]) -> None:
        self.stream, self.cells, self.sinks = stream, wanted, sinks
        self.ours = Ours(stream)
        self.postgres = Postgres(stream)
        self.runner = Runner(stream)

    def build(self) -> None:
        """Fill the primary and the replica; start both connectors."""
        for cell in self.cells:
            self.stream.sql("primary", cell.create)
            self.stream.sql("primary", cell.fill)
        self.stream.cdc("setup")
        self.stream.cdc("connectors", "apply")
        self.stream.cdc("bootstrap", "-r", "r1", timeout=1800)
        self.runner.slots.append(contestants.start_source(self.stream))
        for suffix in ("pg", "sink"):
            name = f"{self.stream.name}_{suffix}"
            self.stream.sql("r1", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            for cell in self.cells:
                harness.rows(self.runner.within(name), cell.create)


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
            f"{cell.table}: {cell.events:,} changes written and captured in {bench.runner.write(cell):.0f} s"
        )
        often = runs if cell.size == "large" else min(runs, 3)
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
        told["cells"] = sorted([*told["cells"], result], key=_place)
        RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def told_of(bench: Bench, contestant: Contestant, cell: Cell) -> Run | str:
    """Measure a run and say so; where the sink does not end as it must, return why."""
    try:
        run = bench.runner.run(contestant, cell)
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


def _place(result: dict[str, Any]) -> int:
    """Return where a cell stands in the document."""
    table = f"{result['shape']}_{result['kind']}_{result['size']}"
    return [cell.table for cell in cells(1, 1)].index(table)


def _others(wanted: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return what was measured before of cells that are not measured now."""
    told = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"cells": []}
    now = {_place(dataclasses.asdict(cell)) for cell in wanted}
    return [one for one in told["cells"] if _place(one) not in now]


def main() -> None:
    """Measure and write the results and the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", type=int, default=500_000, help="changes in a main cell")
    parser.add_argument("--single", type=int, default=50_000, help="one-row transactions in a cell")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--cells",
        nargs="+",
        metavar="TABLE",
        help="only these; what was measured of others is kept",
    )
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
            "cells": _others(wanted),
        }
        say("built;", told["settings"])
        compete(bench, said.runs, told)
    document.write()


if __name__ == "__main__":
    main()
