"""What applying a backlog costs as it grows: seconds, processor and memory of `cdc run --until-caught-up`.

Run it by `make bench-growth`. Each size has a stream of its own, so that its topic holds nothing else.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import harness
from cells import Cell
from contestants import Ours
from harness import Stack, Stream
from progress import say
from runs import Runner

#: Bytes of disk that a change may take: rows and log of two servers, records in Kafka.
_ROOM = 3_000


def backlog(
    stack: Stack, folder: Path, sizes: Sequence[int], runs: int, most: int
) -> list[dict[str, Any]]:
    """Apply as many changes as each of `sizes` says, `runs` times; `most` once, unless it is 0."""
    wanted = [*((size, runs) for size in sizes), *([(most, 1)] if most else ())]
    need = max(size for size, _ in wanted) * _ROOM
    if shutil.disk_usage(folder.parent).free < need:
        raise SystemExit(f"{folder.parent} has less than {need / 2**30:.0f} GiB left: ask for less")
    found = []
    for size, often in wanted:
        with harness.stream(stack, folder / str(size)) as stream:
            found.append(_applied(stream, Cell("narrow", "mixed", "large", size), often))
    return found


def _applied(stream: Stream, cell: Cell, runs: int) -> dict[str, Any]:
    """Write a cell's changes once and apply them `runs` times from the same position."""
    stream.sql("primary", cell.create)
    stream.sql("primary", cell.fill)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    stream.cdc("bootstrap", "-r", "r1", timeout=1800)
    runner, ours = Runner(stream), Ours(stream)
    ours.remember()
    captured = runner.write(cell)
    say(f"backlog: {cell.events:,} changes written and captured in {captured:.0f} s")
    found = []
    for _ in range(runs):
        run = runner.run(ours, cell)
        say(
            f"  {run.applying:.2f} s, {cell.events / run.applying:,.0f} rows/s,"
            f" {run.own_cpu / cell.events * 1e6:.1f} + {run.replica_cpu / cell.events * 1e6:.1f} µs a row,"
            f" {run.memory:.0f} MiB, load {run.load}"
        )
        found.append(dataclasses.asdict(run))
    return {**dataclasses.asdict(cell), "captured": round(captured, 1), "runs": found}
