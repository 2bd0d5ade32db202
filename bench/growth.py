"""How cost grows: with a backlog's length, with replicas, with tables; and filling by Debezium's own snapshot.

Run it by `make bench-growth`, on a machine that does nothing else: everything, the primary and who writes
to it included, runs on it. It writes bench/results/growth.json, in which each part takes the place of an
earlier one, and docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import document
import harness
import servers
from backlog import backlog
from followers import Load, followers
from harness import Stack
from snapshots import snapshots
from tables import tables

RESULTS = document.RESULTS / "growth.json"

#: In this order; the last has a stack of its own.
PARTS = ("backlog", "tables", "snapshot", "replicas")

Measure = Callable[[Stack, Path], Any]


def said() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these"
    )
    parser.add_argument(
        "--runs", type=int, default=3, help="of all but the longest backlog and the sink"
    )
    backlogs = parser.add_argument_group("backlog")
    backlogs.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    backlogs.add_argument(
        "--most", type=int, default=5_000_000, help="changes of one run more; 0: none"
    )
    replicas = parser.add_argument_group("replicas")
    replicas.add_argument("--replicas", type=int, nargs="+", default=[1, 2, 4])
    replicas.add_argument("--rate", type=float, default=200, help="transactions a second")
    replicas.add_argument("--size", type=int, default=10, help="rows of a transaction")
    replicas.add_argument("--seconds", type=float, default=12, help="of each load")
    many = parser.add_argument_group("tables")
    many.add_argument("--tables", type=int, nargs="+", default=[5, 500])
    many.add_argument("--each", type=int, default=100, help="rows of each table")
    parser.add_argument_group("snapshot").add_argument(
        "--filled", type=int, default=300_000, help="rows of the table"
    )
    return parser.parse_args()


def main() -> None:
    """Measure and write the results and the document."""
    asked = said()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing running
    measures: dict[str, Measure] = {
        "backlog": lambda stack, at: backlog(stack, at, asked.sizes, asked.runs, asked.most),
        "replicas": lambda stack, at: followers(
            stack, at, asked.replicas, asked.runs, Load(asked.rate, asked.size, asked.seconds)
        ),
        "tables": lambda stack, at: tables(stack, at, asked.tables, asked.each, asked.runs),
        "snapshot": lambda stack, at: snapshots(stack, at, asked.filled, asked.runs),
    }
    with tempfile.TemporaryDirectory(prefix="cdc-bench-") as name:
        folder = Path(name)
        # Replicas that are not measured would take part of the machine.
        for parts, replicas in ((PARTS[:-1], 1), (PARTS[-1:], max(asked.replicas))):
            wanted = [part for part in parts if part in asked.parts]
            if not wanted:
                continue
            with harness.own_stack(folder / "stack", "--replicas", str(replicas)) as stack:
                for part in wanted:
                    load = os.getloadavg()[0]
                    found = measures[part](stack, folder / part)
                    _keep(part, found, servers.machine(stack.primary), load)
    document.write()


def _keep(part: str, found: object, machine: dict[str, str], load: float) -> None:
    """Write a part down; those that were measured before stay."""
    told = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    told["machine"] = machine
    told.setdefault("load", {})[part] = round(load, 1)
    told[part] = found
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
