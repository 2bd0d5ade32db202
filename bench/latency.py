"""How long a commit takes to a replica, how fast capture and filling are, and what a daemon takes at rest.

Run it by `make bench-road`, on a machine that does nothing else: everything, the primary and who writes
to it included, runs on it. It writes bench/results/road.json and docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, LiteralString

import capturing
import compare
import contestants
import document
import harness
import psycopg
import servers
from cells import Cell
from confluent_kafka import Consumer, TopicPartition
from harness import Stack, Stream
from psycopg import conninfo, sql

from cdc import clients

RESULTS = document.RESULTS / "road.json"

PARTS = ("capture", "filling", "latency")

#: Shares of what capture takes in one-row transactions a second.
SHARES = (0.2, 0.5, 0.8)

#: Seconds between two looks at the replica: a latency is too long by half of it on average.
LOOK = 0.002

#: Programs that fill at once, of each contestant.
JOBS = 2

TICKS: LiteralString = """
    CREATE TABLE ticks (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text NOT NULL);
"""

#: Transactions of one row, `rate` a second as long as the server keeps up with it (0: as fast as it can).
WRITE: LiteralString = """
    CREATE OR REPLACE PROCEDURE write(base bigint, number bigint, rate float8) LANGUAGE plpgsql AS $$
    DECLARE began CONSTANT timestamptz := clock_timestamp(); early float8;
    BEGIN
        FOR i IN 1 .. number LOOP
            INSERT INTO ticks VALUES (base + i, clock_timestamp(), 'note ' || i);
            COMMIT;
            IF rate > 0 THEN
                early := i / rate - extract(epoch FROM clock_timestamp() - began);
                IF early > 0 THEN PERFORM pg_sleep(early); END IF;
            END IF;
        END LOOP;
    END $$
"""


def say(*words: object) -> None:
    """Tell the progress."""
    print(time.strftime("%H:%M:%S"), *words, flush=True)


class Latency:
    """A stream with one table and its daemon; every write goes on with the numbers of the one before."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self._base = stream, 0
        stream.sql("primary", TICKS)
        stream.sql("primary", WRITE)

    def write(self, number: int, rate: float) -> float:
        """Write `number` transactions; return the seconds that took."""
        began = time.monotonic()
        with psycopg.connect(self.stream.primary, autocommit=True) as conn:
            if (
                not rate
            ):  # else its commits wait for the log, as is usual: what is not flushed is not sent
                conn.execute("SET synchronous_commit = off")
            conn.execute("CALL write(%s, %s, %s)", [self._base, number, rate])
        self._base += number
        return time.monotonic() - began

    def capacity(self, number: int) -> float:
        """Return how many one-row transactions a second come into the topic, written as fast as they can be."""
        consumer = Consumer({"bootstrap.servers": self.stream.kafka, "group.id": "bench"})
        place = TopicPartition(self.stream.topic, 0)

        def end() -> int:
            return int(consumer.get_watermark_offsets(place, timeout=30)[1])

        try:
            before, began = end(), time.monotonic()
            self.write(number, 0)
            harness.wait_until(lambda: end() >= before + 3 * number, "all is captured", timeout=600)
            return number / (time.monotonic() - began)
        finally:
            consumer.close()

    def measured(self, rate: float, seconds: float) -> dict[str, float]:
        """Return what transactions at `rate` took from their row's time to where it was seen, in seconds."""
        number, first = int(rate * seconds), self._base
        writer = threading.Thread(target=self.write, args=[number, rate])
        took: list[float] = []
        statement = "SELECT id, extract(epoch FROM at)::float8 FROM ticks WHERE id > %s ORDER BY id"
        with psycopg.connect(self.stream.dsn("r1"), autocommit=True) as conn:
            writer.start()
            began, seen = time.monotonic(), first
            while seen < first + number and time.monotonic() < began + 20 * seconds:
                rows, now = conn.execute(statement, [seen]).fetchall(), time.time()
                took += [now - at for _, at in rows]
                seen = rows[-1][0] if rows else seen
                time.sleep(LOOK)
            lasted = time.monotonic() - began
            writer.join()
        cut = statistics.quantiles(took, n=100)
        return {
            "asked": round(rate), "rate": round(number / lasted), "number": number,
            "p50": cut[49], "p95": cut[94], "p99": cut[98], "most": max(took),
        }  # fmt: skip


def latency(stack: Stack, folder: Path, seconds: float) -> dict[str, Any]:
    """Measure capture's capacity, the latencies at shares of it, and the daemon at rest."""
    with harness.stream(stack, folder) as stream:
        run = Latency(stream)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        daemon = stream.start("run", "-r", "r1")
        for _ in range(2):  # Java's code is compiled as it runs
            capacity = run.capacity(30_000)
            say(f"{capacity:,.0f} one-row transactions a second are captured")
        stream.cdc("wait", "-r", "r1", "--now", "--timeout", "300s", timeout=330)
        found = [run.measured(capacity * share, seconds) for share in SHARES]
        for one in found:
            say(one)
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
    publication = sql.Identifier(f"cdc_{stream.name}")
    for table in tables:
        harness.rows(target, table.create)
    began = time.monotonic()
    harness.rows(
        target,
        sql.SQL("CREATE SUBSCRIPTION bench CONNECTION {} PUBLICATION {}").format(
            sql.Literal(contestants.reachable(stream)), publication
        ),
    )
    ready: LiteralString = "SELECT count(*) = %s FROM pg_subscription_rel WHERE srsubstate = 'r'"
    harness.wait_until(
        lambda: harness.rows(target, ready, [len(tables)]) == [(True,)], "all is copied", 1800
    )
    took = time.monotonic() - began
    harness.rows(target, "DROP SUBSCRIPTION bench")
    return took


def main() -> None:
    """Measure and write the results and the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30, help="of each latency")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the narrow table to fill")
    parser.add_argument("--captured", type=int, default=200_000, help="rows to capture in a run")
    parser.add_argument("--runs", type=int, default=3)
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
            if "capture" in said.parts:
                told["capture"] = capturing.capture(
                    stack, folder / "capture", said.captured, said.runs
                )
            if "filling" in said.parts:
                told["filling"] = filling(stack, folder / "filling", said.rows, said.runs)
            if "latency" in said.parts:
                told["latency"] = latency(stack, folder / "latency", said.seconds)
    RESULTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    document.write()


if __name__ == "__main__":
    main()
