"""The part of docs/performance.md about how cost grows, from what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_HEAD = """## Growth

How cost grows with a backlog's length, with the number of replicas and of tables; and filling beside Debezium's own snapshot.
Medians; in brackets the least and the most where there were several runs.
"""

_BACKLOG = """
### With the length of a backlog

`cdc run --until-caught-up` applied changes that were all in Kafka: to a narrow table, a quarter inserts, half
updates, a quarter deletes, in transactions of 10,000; the table had as many rows before. From its first session on the replica to its last
row there: starting is not in it. Processor time is counted in hundredths of a second. Memory at its peak; {runs}.

| changes | seconds | thousand rows a second | own µs a row | replica's server, µs a row | own memory, MiB |
|---:|---:|---:|---:|---:|---:|
{lines}
"""

_TABLES = """
### With the number of tables

Tables of 5 columns with {rows} rows each, all on one stream. Seconds, each command from process start to its end; {runs}, `setup`, `connectors apply` and `bootstrap` once.

| | {heads} |
|---|{columns}
{lines}
"""

_SNAPSHOT = """
### Filling, beside Debezium's own snapshot

A narrow table of {rows:,} rows which nobody wrote. Debezium: its stock connector with `snapshot.mode=initial` and its defaults, topics
with schemas, and its JDBC sink {sink} with `insert.mode=upsert` and its best settings (`batch.size={batch}`, as above), in a Connect
worker that had just started; from the connector's start. Tables were compared byte by byte.

| how | seconds | thousand rows a second |
|---|---:|---:|
| `cdc bootstrap`, {runs} | {ours} | {our_rate:,.1f} |
| Debezium's snapshot and JDBC sink, once | {theirs:.1f} | {their_rate:,.1f} |
| of that, until all was in Kafka | {captured:.1f} | {captured_rate:,.1f} |
"""

_REPLICAS = """
### With the number of replicas

{rate:,.0f} transactions a second of {size} rows were inserted for {seconds:.0f} s, while so many replicas followed: daemons of this program, or PostgreSQL's own
subscriptions. Who was not measured was stopped, the connector included. The primary's processor time includes that of the load itself,
and runs until the last replica had all; {runs} by turns. Seconds of processor; MiB of the primary's write-ahead log; slots in use and
sending processes on the primary.

| who follows | primary's processor | of it for following | its log, MiB | slots | senders | broker | Connect | each daemon | all replicas' servers |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{lines}
"""

_TAIL = """
- **Machine** ({date}): {processor}, {memory}; everything runs on it. PostgreSQL {postgresql}, Python {python}, {system}.
- **Load** of the machine before each part (its average over a minute): {load}.
"""

_WAYS = {"nobody": "nobody", "cdc": "this, {}", "postgresql": "PostgreSQL, {}"}

_ROWS = {
    "setup": "`cdc setup`",
    "setup_again": "`cdc setup` again, nothing to do",
    "connectors": "`cdc connectors apply`",
    "bootstrap": "`cdc bootstrap`",
    "caught_up": "`cdc run --until-caught-up`, nothing to apply",
    "status": "`cdc status`",
    "check": "`cdc check`",
    "verify": "`cdc-verify`, half of one core at most",
    "every": "a transaction that changes each table, from commit to replica",
}


def section(told: Mapping[str, Any]) -> str:
    """Return the part of the document, with what has been measured of it."""
    parts: dict[str, Callable[[Any], str]] = {
        "backlog": _backlog, "replicas": _replicas, "tables": _tables, "snapshot": _snapshot,
    }  # fmt: skip
    load = ", ".join(f"{part} {told['load'][part]}" for part in parts if part in told)
    return (
        _HEAD
        + "".join(part(told[name]) for name, part in parts.items() if name in told)
        + _TAIL.format(load=load, **told["machine"])
    )


def _backlog(told: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for cell in told:
        events, runs = cell["events"], cell["runs"]
        fields = [
            _spread([run["applying"] for run in runs], "{:.2f}" if events < 1e6 else "{:.1f}"),
            _spread([events / run["applying"] / 1000 for run in runs], "{:.0f}"),
            _spread([run["own_cpu"] / events * 1e6 for run in runs], "{:.1f}"),
            _spread([run["replica_cpu"] / events * 1e6 for run in runs], "{:.1f}"),
            _spread([run["memory"] for run in runs], "{:.0f}"),
        ]
        lines.append(f"| {events:,} | {' | '.join(fields)} |")
    return _BACKLOG.format(lines="\n".join(lines), runs=_often([len(one["runs"]) for one in told]))


def _tables(told: Mapping[str, Any]) -> str:
    at = told["at"]
    lines = [
        f"| {name} | {' | '.join(_timed(one, key) for one in at)} |" for key, name in _ROWS.items()
    ]
    for key, name in {"idle": "at rest", "after": "after a change of each table"}.items():
        held = " | ".join(f"{one['memory'][key]:.0f}" for one in at)
        lines.append(f"| a daemon's memory {name}, MiB | {held} |")
    return _TABLES.format(
        rows=told["rows"],
        heads=" | ".join(f"{one['tables']:,} tables" for one in at),
        columns="---:|" * len(at),
        lines="\n".join(lines),
        runs=_often([len(one["often"]["check"]) for one in at]),
    )


def _timed(one: Mapping[str, Any], key: str) -> str:
    if key in one["once"]:
        return f"{one['once'][key]:.1f}"
    return _spread(one["often"][key], "{:.2f}" if key == "every" else "{:.1f}")


def _snapshot(told: Mapping[str, Any]) -> str:
    rows, theirs = told["rows"], told["debezium"]
    return _SNAPSHOT.format(
        rows=rows,
        sink=told["sink"],
        batch=told["settings"]["batch.size"],
        runs=_often([len(told["cdc"])]),
        ours=_spread(told["cdc"], "{:.1f}"),
        our_rate=rows / statistics.median(told["cdc"]) / 1000,
        theirs=theirs["filled"],
        their_rate=rows / theirs["filled"] / 1000,
        captured=theirs["captured"],
        captured_rate=rows / theirs["captured"] / 1000,
    )


def _replicas(told: Mapping[str, Any]) -> str:
    (alone,) = [way for way in told["ways"] if way["way"] == "nobody"]
    least = statistics.median(run["cpu"]["primary"] for run in alone["runs"])
    return _REPLICAS.format(
        lines="\n".join(_following(way, least) for way in told["ways"]),
        runs=_often([len(alone["runs"])]),
        **{key: told[key] for key in ("rate", "size", "seconds")},
    )


def _following(way: Mapping[str, Any], least: float) -> str:
    """Return one who follows as a row of the table; `least` is what the load takes alone."""
    runs = way["runs"]
    primary = [run["cpu"]["primary"] for run in runs]
    daemons = [seconds for run in runs for seconds in run["daemons"]]
    fields = [
        _WAYS[way["way"]].format(way["replicas"]),
        _spread(primary, "{:.2f}"),
        f"{statistics.median(primary) - least:.2f}" if way["replicas"] else "",
        _spread([run["wal"] / 2**20 for run in runs], "{:.1f}"),
        *_same(runs, ("slots", "senders")),
        *(
            _spread([run["cpu"][who] for run in runs], "{:.2f}") if way["way"] == "cdc" else ""
            for who in ("kafka", "connect")
        ),
        _spread(daemons, "{:.2f}") if daemons else "",
        _spread([run["cpu"]["replicas"] for run in runs], "{:.2f}"),
    ]
    return f"| {' | '.join(fields)} |"


def _same(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Iterator[str]:
    """Give numbers that should be the same in each run, all that were seen."""
    for key in keys:
        yield ", ".join(str(number) for number in sorted({run[key] for run in runs}))


def _spread(values: Sequence[float], form: str) -> str:
    """Return the median, and the range where there were several."""
    median = form.format(statistics.median(values))
    if len(values) == 1:
        return median
    return f"{median} ({form.format(min(values))} to {form.format(max(values))})"


def _often(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    number = f"{least}" if least == most else f"{least} to {most}"
    return f"{number} run" if number == "1" else f"{number} runs"
