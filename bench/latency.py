"""How long a commit takes to a replica, how fast capture and filling are, and what a daemon takes at rest.

Run it by `make bench-road`, on a machine that does nothing else: everything, the primary and who writes
to it included, runs on it. It writes bench/results/road.json and docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, LiteralString

import capturing
import compare
import document
import harness
import peers
import servers
import subscription
from cells import Cell
from harness import Stack, Stream
from progress import say
from psycopg import conninfo, sql
from ticks import Ticks

from cdc import clients

RESULTS = document.RESULTS / "road.json"

PARTS = ("capture", "capture-latency", "filling", "latency", "peers")

#: Shares of what capture takes in one-row transactions a second.
SHARES = (0.2, 0.5, 0.8)

#: Programs that fill at once, of each contestant.
JOBS = 2


def latency(stack: Stack, folder: Path, seconds: float) -> dict[str, Any]:
    """Measure capture's capacity, the latencies at shares of it, and the daemon at rest."""
    with harness.stream(stack, folder) as stream:
        ticks = Ticks(stream)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        daemon = stream.start("run", "-r", "r1")
        for _ in range(2):  # Java's code is compiled as it runs
            capacity = ticks.capacity(30_000)
            say(f"{capacity:,.0f} one-row transactions a second are captured")
        stream.cdc("wait", "-r", "r1", "--now", "--timeout", "300s", timeout=330)
        found = []
        # As is usual; then at the last rate once more, which flushes may not let through.
        for share, flushed in [*((share, True) for share in SHARES), (SHARES[-1], False)]:
            took = ticks.measured(stream.dsn("r1"), capacity * share, seconds, flushed=flushed)
            found.append({**took, "flushed": flushed})
            say(found[-1])
        after = servers.held(daemon.pid)
        daemon.terminate()
        daemon.wait(60)
        fresh = stream.start("run", "-r", "r1")
        stream.cdc("wait", "-r", "r1", "--now")
        used, began = servers.cpu(fresh.pid), time.monotonic()
        time.sleep(seconds)
        idle = (servers.cpu(fresh.pid) - used) / (time.monotonic() - began)
        memory = {"idle": servers.held(fresh.pid), "after": after}
    return {"capacity": capacity, "at": found, "idle_cpu": idle, "memory": memory}


def filling(stack: Stack, folder: Path, rows: int, runs: int) -> dict[str, Any]:
    """Fill a replica with two tables by turns, with each of the ways to do it; seconds of each run."""
    tables = [Cell("narrow", "insert", "large", rows), Cell("wide", "insert", "large", rows // 2)]
    with harness.stream(stack, folder) as stream:
        for table in tables:
            stream.sql("primary", table.create)
            stream.sql("primary", table.fill)
        stream.sql("primary", "VACUUM (FREEZE, ANALYZE)")
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        ways: dict[str, Callable[[], float]] = {
            "cdc": lambda: _ours(stream),
            "pg_dump": lambda: _pg_dump(stream, folder),
            "postgresql": lambda: _subscription(stream, tables),
        }
        names = [table.table for table in tables]
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                for end in ("primary", "r1"):
                    stream.sql(end, "CHECKPOINT")
                took[name].append(way())
                where = stream.dsn("r1") if name == "cdc" else _beside(stream)
                assert compare.differences({"primary": stream.primary, name: where}, names) == []
                say(name, f"{took[name][-1]:.1f} s")
                harness.rows(where, sql.SQL("DROP TABLE {}").format(
                    sql.SQL(", ").join(map(sql.Identifier, names))))  # fmt: skip
                if name == "cdc":
                    stream.sql("r1", "DROP SCHEMA cdc CASCADE")
                    stream.cdc("setup", "-r", "r1")
    return {"rows": rows + rows // 2, "jobs": JOBS, "seconds": took}


def _beside(stream: Stream) -> str:
    """Return the DSN of a database on the replica's server for the others, made where there is none."""
    name = f"{stream.name}_beside"
    if not stream.sql("r1", "SELECT FROM pg_database WHERE datname = %s", [name]):
        stream.sql("r1", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return conninfo.make_conninfo(stream.dsn("r1"), dbname=name)


def _ours(stream: Stream) -> float:
    began = time.monotonic()
    stream.cdc("bootstrap", "-r", "r1", "--jobs", str(JOBS), timeout=1800)
    return time.monotonic() - began


def _pg_dump(stream: Stream, folder: Path) -> float:
    """Dump into a folder, then restore, as both programs do it with several jobs."""
    ((version,),) = stream.sql("primary", "SELECT current_setting('server_version_num')::int")
    programs, target = clients.find(version), _beside(stream)
    with tempfile.TemporaryDirectory(dir=folder) as dump:
        began = time.monotonic()
        jobs = ["-Fd", f"-j{JOBS}"]
        subprocess.run(
            [programs.pg_dump, *jobs, "-n", "public", "-Z0", "-f", f"{dump}/all", stream.primary],
            check=True,
        )
        subprocess.run(
            [programs.pg_restore, *jobs, "--no-owner", "--no-privileges", "--no-publications",
             "-d", target, f"{dump}/all"],
            check=False, stderr=subprocess.DEVNULL,  # the schema public is there already
        )  # fmt: skip
        return time.monotonic() - began


def _subscription(stream: Stream, tables: Sequence[Cell]) -> float:
    """Let PostgreSQL make its initial copy, into tables that are there with their keys."""
    target = _beside(stream)
    for table in tables:
        harness.rows(target, table.create)
    began = time.monotonic()
    subscription.create(stream, target)
    ready: LiteralString = "SELECT count(*) = %s FROM pg_subscription_rel WHERE srsubstate = 'r'"
    try:
        harness.wait_until(
            lambda: harness.rows(target, ready, [len(tables)]) == [(True,)], "all is copied", 1800
        )
        return time.monotonic() - began
    finally:
        harness.rows(target, "DROP SUBSCRIPTION bench")


def main() -> None:
    """Measure and write the results and the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30, help="of each latency")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the narrow table to fill")
    parser.add_argument("--captured", type=int, default=200_000, help="rows to capture in a run")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--turn", type=float, default=12, help="seconds of a turn beside others")
    parser.add_argument("--rate", type=float, default=1000, help="transactions a second of peers")
    parser.add_argument(
        "--capture-rate", type=float, default=500, help="transactions a second of capture-latency"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="measure only these"
    )
    said = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing running
    told = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with tempfile.TemporaryDirectory(prefix="cdc-bench-") as name:
        folder = Path(name)
        with harness.own_stack(folder / "stack", "--replicas", "1") as stack:
            told["machine"] = servers.machine(stack.primary)
            ways: dict[str, Callable[[Path], dict[str, Any]]] = {
                "capture": lambda at: capturing.capture(stack, at, said.captured, said.runs),
                "capture-latency": lambda at: capturing.latency(
                    stack, at, said.capture_rate, said.turn, said.runs
                ),
                "filling": lambda at: filling(stack, at, said.rows, said.runs),
                "latency": lambda at: latency(stack, at, said.seconds),
                "peers": lambda at: peers.latency(stack, at, said.rate, said.turn, said.runs),
            }
            for part in (part for part in PARTS if part in said.parts):
                told[part] = ways[part](folder / part)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    document.write()


if __name__ == "__main__":
    main()
