"""The part of docs/performance.md about what was aimed at: each aim beside what was measured of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_HEAD = """## What was aimed at

Each aim beside what was measured; the tables below say how. What is missed, and what was tried, is under "Why not faster".

| aim | measured | |
|---|---|---|
"""

Results = Mapping[str, Any]

#: What is aimed at, what was measured, and whether that meets it.
Aim = tuple[str, str, bool]


_WHY = """
### Why not faster

- **Applying**: PostgreSQL's worker takes a narrow row in 2 to 5 µs in all, in C, from a stream without keys of JSON. Here a narrow row
  takes 7 µs of Python and librdkafka (a wide one 11) and 2 to 4 of the replica's server. Of the 7: Kafka's client 1.5, JSON 1.5, the event 0.7,
  net change 1.1, COPY's text 0.5, checks and collecting 0.4, the rest the loop and waiting. Of a transaction of one row, 30 before its
  three records were taken together, half is decoding and accounting for them. Tried and measured, with the reasons in
  [decisions](decisions.md): a thread that reads ahead (nothing), the same in one thread while the replica works (17 percent, kept),
  decoding many records as one text (nothing in all), a decoder per table (15 percent of decoding), settings of the garbage collector and of
  Python's lock (nothing). Left: processes that decode, where there are cores for them.
- **Beside the sink** the same holds this program up. Its faster setting on narrow tables is the one with `unnest` inserts, which fails where a table
  has bytea.
- **A longer backlog** costs the replica's server more because the table is as long: from some million rows on it lies outside `shared_buffers`
  (128 MB here), and changes meet it everywhere.
- **Filling** has about 1.5 s that do not grow: starting Python, the barrier through Kafka, catalogs on both ends, dump and restore
  of the schema. What grows is the same COPY.
- **cdc-verify** has half a second that does not grow with a table: starting Python, catalogs, a mark. A row costs the primary's
  processor 1.1 to 1.4 µs, in one session; reladiff 3.0 to 4.5, in two at once. What is left of the former is to print values: jsonb and arrays most of all.
"""


def section(told: Mapping[str, Results]) -> str:
    """Return the table, with a line for all that has been measured."""
    parts: dict[str, Callable[[Results], Iterator[Aim]]] = {
        "apply": _apply, "road": _road, "growth": _growth, "verify": _verify,
    }  # fmt: skip
    lines = [
        f"| {aim} | {measured} | {'met' if met else '**missed**'} |"
        for name, part in parts.items() if name in told
        for aim, measured, met in part(told[name])
    ]  # fmt: skip
    return _HEAD + "\n".join(lines) + "\n" + _WHY


def _apply(told: Results) -> Iterator[Aim]:
    rates = [
        {name: one["events"] / _median(runs, "applying") for name, runs in one["runs"].items()}
        for one in told["cells"] if one["size"] == "large"
    ]  # fmt: skip
    ratios = [rate["cdc"] / rate["postgresql"] for rate in rates]
    yield (
        "a backlog of large transactions is applied as fast as by PostgreSQL's worker in each cell, 1.5 times as fast in the mean",
        f"{min(ratios):.2f} to {max(ratios):.2f} times, mean {statistics.geometric_mean(ratios):.2f}",
        min(ratios) >= 1 and statistics.geometric_mean(ratios) >= 1.5,
    )
    sinks = [
        rate["cdc"] / max(others) for rate in rates
        if (others := [rate[name] for name in rate if name.startswith("sink")])
    ]  # fmt: skip
    if not sinks:  # measured without them
        return
    yield (
        "the same 10 times as fast as by the JDBC sink's faster setting, in each cell",
        f"{min(sinks):.1f} to {max(sinks):.1f} times, mean {statistics.geometric_mean(sinks):.1f}",
        min(sinks) >= 10,
    )


def _road(told: Results) -> Iterator[Aim]:
    if found := told.get("capture"):
        took = {name: statistics.median(runs) for name, runs in found["seconds"].items()}
        ratio = took["defaults"] / took["cdc"]
        yield "capture 1.5 times as fast as Debezium's defaults", f"{ratio:.1f} times", ratio >= 1.5
    if found := told.get("capture-latency"):
        ours, theirs = (_median(found["runs"][name], "p50") * 1000 for name in ("cdc", "defaults"))
        yield (
            "commit to Kafka not later than with these, p50",
            f"{ours:.0f} ms against {theirs:.0f}",
            ours <= theirs,
        )
    if found := told.get("latency"):
        last = found["at"][-1]
        yield (
            "commit to replica p99 under 1 s, at 80 percent of what capture takes",
            f"{last['p99'] * 1000:.0f} ms at {last['rate']:,} a second",
            last["p99"] < 1,
        )
        memory = found["memory"]["idle"]
        yield (
            "a daemon at rest takes less than 1 percent of a core and 80 MiB",
            f"{found['idle_cpu']:.1%}, {memory:.0f} MiB",
            found["idle_cpu"] < 0.01 and memory < 80,
        )
    if found := told.get("filling"):
        took = {name: statistics.median(runs) for name, runs in found["seconds"].items()}
        ratio = took["pg_dump"] / took["cdc"]
        yield (
            "a replica is filled 0.9 times as fast as by `pg_dump` and `pg_restore` with as many jobs",
            f"{ratio:.2f} times, {found['rows']:,} rows",
            ratio >= 0.9,
        )


def _growth(told: Results) -> Iterator[Aim]:
    if found := told.get("snapshot"):
        ratio = found["debezium"]["filled"] / statistics.median(found["cdc"])
        yield (
            "the same 20 times as fast as by Debezium's snapshot and sink",
            f"{ratio:.0f} times, {found['rows']:,} rows",
            ratio >= 20,
        )
    if found := told.get("backlog"):
        sizes = f"{found[0]['events']:,} to {found[-1]['events']:,}"
        for key, whom in {"own_cpu": "this program", "replica_cpu": "the replica's server"}.items():
            costs = [
                statistics.median(run[key] / one["events"] * 1e6 for run in one["runs"])
                for one in found
            ]
            yield (
                f"a change costs {whom} no more in a longer backlog, {sizes}",
                f"{', '.join(f'{cost:.1f}' for cost in costs)} µs of processor",
                costs[-1] <= 1.25 * min(costs),
            )
        peak = max(run["memory"] for one in found for run in one["runs"])
        yield "memory under 300 MiB in these", f"{peak:.0f} MiB at most", peak < 300
    if found := told.get("replicas"):
        used = {
            way["replicas"]: statistics.median(run["cpu"]["primary"] for run in way["runs"])
            for way in found["ways"] if way["way"] == "cdc"
        }  # fmt: skip
        least, most = min(used), max(used)
        yield (
            f"{most} replicas cost the primary no more than {least}",
            f"{used[most]:.2f} s of its processor against {used[least]:.2f}",
            used[most] <= 1.1 * used[least],
        )


def _verify(told: Results) -> Iterator[Aim]:
    ratios = [
        _median(one["reladiff"], "seconds") / _median(one["default"], "seconds")
        for one in told["results"]
    ]
    shares = [run["primary_cpu"] / run["seconds"] for one in told["results"] for run in one["default"]]  # fmt: skip
    yield (
        "`cdc-verify` with its defaults twice as fast as reladiff",
        f"{min(ratios):.2f} to {max(ratios):.2f} times",
        min(ratios) >= 2,
    )
    yield (
        "the primary's processor under the cap of one core",
        f"{max(shares):.0%} at most",
        max(shares) <= 1.0,
    )


def _median(runs: Sequence[Mapping[str, float]], key: str) -> float:
    return statistics.median(run[key] for run in runs)
