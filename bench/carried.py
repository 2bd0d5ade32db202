"""The part of docs/performance.md about the road from a commit to a replica, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WAYS = {
    "cdc": "`cdc bootstrap`, from process start",
    "pg_dump": "`pg_dump -Fd -Z0 -j`, then `pg_restore -j`",
    "postgresql": "PostgreSQL's initial copy, tables and keys made before",
}

_CONNECTORS = {
    "cdc": "the shipped definition",
    "defaults": "Debezium's and Kafka Connect's defaults",
    "defaults without schemas": "the same, `schemas.enable=false`",
    "defaults without schemas, polled": "the same, and `poll.interval.ms=10` as shipped",
}

_PEERS = {
    "cdc": "this program",
    "postgresql": "PostgreSQL's subscription",
    "sink_500": "JDBC sink, batch 500",
    "sink_best": "JDBC sink, its best for a backlog",
}

_CAPTURE = """## Capture

{rows:,} rows of 20 columns inserted in transactions of 10,000 while the connector was stopped; seconds from its first record in
Kafka to its last, median of {runs} runs by turns on one worker, after one that is not counted.

| connector | seconds | thousand rows a second | against the defaults |
|---|---:|---:|---:|
{lines}
"""

_CAPTURE_LATENCY = """## From commit to Kafka

Transactions of one row, {rate:,.0f} a second: milliseconds from the row's own `clock_timestamp()`, the primary's flush included,
to when a consumer that asked again and again had its record. Each connector ran alone, warm, by turns on one worker; median of {runs}
runs, and the most of all.

| connector | reached | p50 | p95 | p99 | most |
|---|---:|---:|---:|---:|---:|
{lines}
"""

_LATENCY = """## From commit to replica

Transactions of one row, at 20, 50 and 80 percent of what capture takes of them on this machine ({capacity:,.0f} a second,
warm, written as fast as the primary could): milliseconds, the primary's flush included, from the row's own `clock_timestamp()` to when a reader who looked each 2 ms
saw it on the replica. At the last rate once more by a writer that does not wait for the flush (`synchronous_commit = off`; up to 0.6 s
later the server flushes by itself). The primary, who writes, Kafka, Kafka Connect, the daemon and the replica share the {processor}.

| asked a second | commits | reached | p50 | p95 | p99 | most |
|---:|---|---:|---:|---:|---:|---:|
{lines}

A daemon at rest took {idle_cpu:.1%} of a core and {idle:.0f} MiB; after these transactions {after:.0f} MiB.
"""

_LATENCY_PEERS = """## From commit to replica, beside others

The same at {rate:,.0f} transactions a second for this program, for PostgreSQL's own logical replication and for Debezium's JDBC sink
{sink}: each alone, warm, by turns, the others stopped and nothing else decoding the primary's log; median of {runs} runs, and the most of all.

| who | reached | p50 | p95 | p99 | most |
|---|---:|---:|---:|---:|---:|
{lines}

All commit on the replica without waiting for its log. The sink has a Connect worker of its own; its source is Debezium's stock connector
with schemas in the records and this program's `poll.interval.ms`: with the default, half a second, it would be later by that.
What is best for the sink with a backlog (see above) lets it wait for more records.
{refused}"""

_FILLING = """## Filling a replica

{rows:,} rows in two tables (narrow and wide, as above) with {jobs} jobs, without other writes, by turns; seconds, median of {runs} runs. After each run the
tables were compared byte by byte.

| how | seconds | thousand rows a second |
|---|---:|---:|
{lines}
"""

_MACHINE = """
- **Machine** ({date}): {processor}, {memory}; everything runs on it. PostgreSQL {postgresql}, Python {python}, {system}.
"""


def section(told: Mapping[str, Any]) -> str:
    """Return the parts of what was measured, and on which machine."""
    parts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "capture": _capture,
        "capture-latency": _capture_latency,
        "latency": lambda found: _latency(found, told["machine"]["processor"]),
        "peers": _peers,
        "filling": _filling,
    }
    shown = "\n".join(part(told[name]) for name, part in parts.items() if name in told)
    return shown + _MACHINE.format(**told["machine"])


def _capture(told: Mapping[str, Any]) -> str:
    defaults = statistics.median(told["seconds"]["defaults"])
    lines = [
        f"| {_CONNECTORS[name]} | {_seconds(took)} | {told['rows'] / statistics.median(took) / 1000:,.1f} |"
        f" {defaults / statistics.median(took):.2f} |"
        for name, took in told["seconds"].items()
    ]
    runs = len(told["seconds"]["defaults"])
    return _CAPTURE.format(rows=told["rows"], runs=runs, lines="\n".join(lines))


def _capture_latency(told: Mapping[str, Any]) -> str:
    lines = [f"| {_CONNECTORS[name]} | {_medians(took)} |" for name, took in told["runs"].items()]
    return _CAPTURE_LATENCY.format(
        rate=told["rate"], runs=len(told["runs"]["cdc"]), lines="\n".join(lines)
    )


def _latency(told: Mapping[str, Any], processor: str) -> str:
    lines = [
        f"| {one['asked']:,} | {'flushed' if one['flushed'] else 'not waited for'} | {_medians([one])} |"
        for one in told["at"]
    ]
    return _LATENCY.format(
        capacity=told["capacity"],
        lines="\n".join(lines),
        processor=processor,
        idle_cpu=told["idle_cpu"],
        **told["memory"],
    )


def _peers(told: Mapping[str, Any]) -> str:
    lines = [f"| {_PEERS[name]} | {_medians(took)} |" for name, took in told["runs"].items()]
    refused = [f"{_PEERS[name]} could not: {why}\n" for name, why in told["refused"].items()]
    return _LATENCY_PEERS.format(
        rate=told["rate"],
        sink=told["sink"],
        runs=len(told["runs"]["cdc"]),
        lines="\n".join(lines),
        refused="".join(refused),
    )


def _filling(told: Mapping[str, Any]) -> str:
    lines = [
        f"| {_WAYS[name]} | {_seconds(took)} | {told['rows'] / statistics.median(took) / 1000:,.0f} |"
        for name, took in told["seconds"].items()
    ]
    return _FILLING.format(
        rows=told["rows"],
        jobs=told["jobs"],
        runs=len(told["seconds"]["cdc"]),
        lines="\n".join(lines),
    )


def _seconds(took: Sequence[float]) -> str:
    return f"{statistics.median(took):.1f} ({min(took):.1f} to {max(took):.1f})"


def _medians(runs: Sequence[Mapping[str, float]]) -> str:
    """Return the reached rate and the latencies of some runs in milliseconds, as cells."""
    middle = [_ms(statistics.median(run[key] for run in runs)) for key in ("p50", "p95", "p99")]
    rate = statistics.median(run["rate"] for run in runs)
    return " | ".join([f"{rate:,.0f}", *middle, _ms(max(run["most"] for run in runs))])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.{1 if seconds < 0.01 else 0}f}"
