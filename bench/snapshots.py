"""Filling a replica by Debezium's own snapshot and its JDBC sink, and by `cdc bootstrap`.

Run it by `make bench-growth`. The same table, which nobody writes meanwhile; the sink's settings are its best.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, LiteralString

import compare
import contestants
import harness
import servers
import sink
from cells import Cell
from confluent_kafka.admin import AdminClient
from contestants import Sink
from harness import Stack, Stream
from progress import say
from psycopg import sql

#: Seconds that filling may take.
_MOST = 1800.0


def snapshots(stack: Stack, folder: Path, rows: int, runs: int) -> dict[str, Any]:
    """Fill `runs` times by `cdc bootstrap` and once by snapshot and sink; seconds of each."""
    table = Cell("narrow", "insert", "large", rows)
    with harness.stream(stack, folder) as stream:
        stream.sql("primary", table.create)
        stream.sql("primary", table.fill)
        stream.sql("primary", "VACUUM (FREEZE, ANALYZE)")
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        took = []
        for _ in range(runs):
            took.append(_bootstrapped(stream, table))
            say(f"snapshot: cdc bootstrap {took[-1]:.1f} s")
        with sink.worker(folder, stream.kafka) as worker:
            theirs = Sink(
                "sink_best",
                stream,
                worker,
                servers.password(stream, "r1"),
                *sink.SINKS["sink_best"],
            )
            try:
                captured, filled = _sunk(stream, table, theirs)
            finally:
                contestants.stop_source(stream)
        say(f"snapshot: Debezium {captured:.1f} s until all is in Kafka, {filled:.1f} s in all")
    return {
        "rows": rows, "cdc": took, "debezium": {"captured": captured, "filled": filled},
        "sink": sink.VERSION, "settings": sink.SINKS["sink_best"][0],
    }  # fmt: skip


def _bootstrapped(stream: Stream, table: Cell) -> float:
    """Return the seconds of `cdc bootstrap`; the replica is empty again afterwards."""
    for end in ("primary", "r1"):
        stream.sql(end, "CHECKPOINT")
    began = time.monotonic()
    stream.cdc("bootstrap", "-r", "r1", timeout=_MOST)
    took = time.monotonic() - began
    assert (
        compare.differences({"primary": stream.primary, "r1": stream.dsn("r1")}, [table.table])
        == []
    )
    stream.sql("r1", sql.SQL("DROP TABLE {}").format(sql.Identifier(table.table)))
    stream.sql("r1", "DROP SCHEMA cdc CASCADE")
    stream.cdc("setup", "-r", "r1")
    return round(took, 2)


def _sunk(stream: Stream, table: Cell, theirs: Sink) -> tuple[float, float]:
    """Return the seconds from the source connector's start to all in Kafka, and to all on the replica."""
    stream.sql("r1", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(theirs.database)))
    harness.rows(theirs.dsn, table.create)
    for end in ("primary", "r1"):
        stream.sql(end, "CHECKPOINT")
    # What `cdc setup` gives the connector's role does not let it read tables, which a snapshot must.
    stream.sql(
        "primary",
        sql.SQL("GRANT SELECT ON {} TO {}").format(
            sql.Identifier(table.table), sql.Identifier(f"cdc_{stream.name}_connector")
        ),
    )
    name = contestants.source_prefix(stream)
    topics = AdminClient({"bootstrap.servers": stream.kafka})
    began = time.monotonic()
    contestants.put_stock(
        stream, name,
        {"snapshot.mode": "initial", "table.include.list": f"public.{table.table}"},
    )  # fmt: skip
    # A sink that is there before its topic finds it minutes later only.
    harness.wait_until(
        lambda: f"{name}.public.{table.table}" in topics.list_topics(timeout=30).topics,
        "the snapshot has begun", timeout=120,
    )  # fmt: skip
    theirs.begin(table)
    try:
        # It streams once the snapshot is sent.
        streams: LiteralString = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        harness.wait_until(
            lambda: stream.sql("primary", streams, [name]) == [(True,)], "it streams", timeout=_MOST
        )
        captured = time.monotonic() - began
        harness.wait_until(
            lambda: _count(theirs, table) >= table.events, "the sink has written all", timeout=_MOST
        )
        filled = time.monotonic() - began
        assert (
            compare.differences({"primary": stream.primary, "sink": theirs.dsn}, [table.table])
            == []
        )
    finally:
        theirs.end()
    return round(captured, 2), round(filled, 2)


def _count(theirs: Sink, table: Cell) -> int:
    """Return how many rows there are; fails where the sink has failed."""
    assert (fault := theirs.fault()) is None, fault
    statement = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.table))
    return int(harness.rows(theirs.dsn, statement)[0][0])
