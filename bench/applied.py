"""The part of docs/performance.md about applying, and its picture, from what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plot

_NAMES = {
    "cdc": "this",
    "postgresql": "PostgreSQL",
    "sink_500": "sink, batch 500",
    "sink_best": "sink, its best",
}

_HEAD = """## Applying a backlog

A set of changes was written to the primary once, and is in Kafka, and in a replication slot. Then each contestant
applied it to the same replica server, by turns: `cdc run --until-caught-up`; PostgreSQL's own apply
worker; Debezium's JDBC sink {sink}, with `batch.size` 500 and with the best settings found. Thousand rows a second, median
of {runs} runs where there were several; in brackets the slowest and the fastest. "Against" is how many times as fast this program is.

| changes | rows | {names} | against PostgreSQL | against the sink |
|---|---:|{columns}---:|---:|
"""

_COST = """
What it cost, median: µs of processor time a row, of the program and of the replica's server (PostgreSQL's worker is part of it);
bytes of write-ahead log a row on the replica; the program's largest memory, in MiB (PostgreSQL: the worker; sink: the
Connect worker).

| changes | {names} |
|---|{columns}
"""

_NOTES = """
- **Geometric mean** of the {cells} cells of large transactions: {mean:.2f} times PostgreSQL{sinks}. {slower}
- **Machine** ({date}): {processor}, {memory}; everything runs on it. PostgreSQL {postgresql}, Python {python},
  {system}. Load before a run: median {load:.1f}, at most {worst:.1f}.
- **Replica's server**: {settings}; `synchronous_commit = off` for all, which is the default of PostgreSQL's worker and of this
  program. Before each run the table was filled anew and vacuumed, and both servers made a checkpoint.
- **Time** is from the contestant's first session on the replica to its last row there, and so is its processor time.
  Starting is not in it: `cdc run` takes {startup:.1f} s, {startup_cpu:.1f} s of processor time, and {idle:.0f} MiB when there is nothing to apply.
- **Tables**: narrow has 5 columns (bigint key, int, numeric, text with NULLs, timestamptz), wide has 20 (also
  smallint, date, timestamp, varchar, char, jsonb, boolean, uuid, float8, real, bytea). Updates and deletes meet each row once at most, in
  no order; mixed is a quarter inserts, half updates, a quarter deletes. Large transactions have 10,000 rows.
- **Equal**: after each run the table was compared with the primary's, byte by byte; one that did not end there
  is called unequal and has no figure. {failed}
- **Sink**: a Connect worker of its own with Java's default compiler and 2 GiB of heap, warm; topics with schemas from Debezium's stock connector. Its
  best: {best}.
"""


def section(told: Mapping[str, Any]) -> str:
    """Return the part of the document."""
    cells = told["cells"]
    names = ["cdc", "postgresql", *told["sinks"]]
    repeated = [len(cell["runs"]["cdc"]) for cell in cells if cell["size"] == "large"]
    head = _HEAD.format(
        sink=told["machine"]["sink"],
        runs=min(repeated)
        if min(repeated) == max(repeated)
        else f"{min(repeated)} to {max(repeated)}",
        names=" | ".join(_NAMES[name] for name in names),
        columns="---:|" * len(names),
    )
    cost = _COST.format(
        names=" | ".join(_NAMES[name] for name in names), columns="---:|" * len(names)
    )
    return (
        head
        + "".join(_speed(cell, names) for cell in cells)
        + "\n![Rows a second](apply.svg)\n"
        + cost
        + "".join(_paid(cell, names) for cell in cells)
        + _notes(told, cells, names)
    )


def picture(told: Mapping[str, Any]) -> str:
    """Return the cells of large transactions as an SVG."""
    cells = [cell for cell in told["cells"] if cell["size"] == "large"]
    names = ["cdc", "postgresql", *told["sinks"]]
    return plot.bars(
        "thousand rows a second",
        [f"{cell['shape']} {cell['kind']}" for cell in cells],
        {_NAMES[name]: [_rate(cell, name) / 1000 for cell in cells] for name in names},
    )


def _speed(cell: Mapping[str, Any], names: Sequence[str]) -> str:
    fields = [_called(cell), f"{cell['events']:,}"]
    for name in names:
        if name not in cell["runs"]:
            why = cell["refused"].get(name)
            fields.append("" if why is None else "unequal" if "has not what" in why else "failed")
            continue
        rates = sorted(cell["events"] / run["applying"] / 1000 for run in cell["runs"][name])
        spread = f" ({rates[0]:.0f} to {rates[-1]:.0f})" if len(rates) > 1 else ""
        median = statistics.median(rates)
        fields.append(f"{median:.0f}{spread}" if median >= 10 else f"{median:.1f}{spread}")
    fields.append(f"{_ratio(cell, ['postgresql']):.2f}")
    sinks = [name for name in names if name.startswith("sink")]
    fields.append(f"{against:.1f}" if (against := _ratio(cell, sinks)) else "")
    return f"| {' | '.join(fields)} |\n"


def _paid(cell: Mapping[str, Any], names: Sequence[str]) -> str:
    def of(name: str, value: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median([value(run) for run in cell["runs"][name]])

    fields = [_called(cell)]
    for name in names:
        if name not in cell["runs"]:
            fields.append("")
            continue
        own = of(name, lambda run: run["own_cpu"] / cell["events"] * 1e6)
        server = of(name, lambda run: run["replica_cpu"] / cell["events"] * 1e6)
        wal = of(name, lambda run: run["wal"] / cell["events"])
        memory = of(name, lambda run: run["memory"])
        fields.append(f"{own:.0f} + {server:.0f} µs, {wal:,.0f} B, {memory:.0f} MiB")
    return f"| {' | '.join(fields)} |\n"


def _notes(told: Mapping[str, Any], cells: Sequence[Any], names: Sequence[str]) -> str:
    large = [cell for cell in cells if cell["size"] == "large"]
    runs = [run for cell in cells for its in cell["runs"].values() for run in its]
    sinks = [name for name in names if name.startswith("sink")]
    against = [ratio for cell in large if (ratio := _ratio(cell, sinks))]
    behind = [_called(cell) for cell in cells if _ratio(cell, ["postgresql"]) < 1]
    return _NOTES.format(
        cells=len(large),
        mean=statistics.geometric_mean([_ratio(cell, ["postgresql"]) for cell in large]),
        sinks=f", {statistics.geometric_mean(against):.1f} times the faster sink"
        if against
        else "",
        slower=f"Slower than PostgreSQL: {'; '.join(behind)}." if behind else "Slower in none.",
        load=statistics.median(run["load"] for run in runs),
        worst=max(run["load"] for run in runs),
        failed=" ".join(
            f"{_NAMES[name]} failed where a table has bytea: it cannot make arrays of them."
            for name in names
            if any("byte[] nested" in cell["refused"].get(name, "") for cell in cells)
        ),
        settings=", ".join(f"`{name} = {value}`" for name, value in told["settings"].items()),
        startup=statistics.median(
            run["seconds"] - run["applying"] for c in large for run in c["runs"]["cdc"]
        ),
        startup_cpu=statistics.median(one["cpu"] for one in told["idle"]),
        idle=statistics.median(one["memory"] for one in told["idle"]),
        best=", ".join(f"`{k}={v}`" for k, v in told["sinks"].get("sink_best", {}).items())
        or "not run",
        **told["machine"],
    )


def _rate(cell: Mapping[str, Any], name: str) -> float:
    """Return the median rate of a contestant, 0 where it has none."""
    rates: list[float] = [cell["events"] / r["applying"] for r in cell["runs"].get(name, ())]
    return statistics.median(rates or [0.0])


def _ratio(cell: Mapping[str, Any], peers: Sequence[str]) -> float:
    """Return how many times as fast this program is as the fastest of `peers`."""
    return _rate(cell, "cdc") / (max((_rate(cell, peer) for peer in peers), default=0) or math.inf)


def _called(cell: Mapping[str, Any]) -> str:
    size = "" if cell["size"] == "large" else ", one-row transactions"
    return f"{cell['shape']} {cell['kind']}{size}"
