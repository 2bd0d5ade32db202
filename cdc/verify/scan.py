"""One pass over a table: chunks that are equal are proven, rows that differ become candidates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import TypeVar

import psycopg

from cdc.verify.ranges import Key, Pace, Range
from cdc.verify.reading import Reader
from cdc.verify.sets import SetReader

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")

#: Candidates of a table after which a replica is so different that more of them tell nothing.
MOST = 100_000


@dataclasses.dataclass(slots=True)
class Found:
    """What a pass over a table found on one replica; `whole` unless it ended early.

    `trouble` is what its server said when it could not be read.
    """

    candidates: list[Key] = dataclasses.field(default_factory=list)
    whole: bool = True
    trouble: psycopg.Error | None = None


@dataclasses.dataclass(slots=True)
class Pass:
    """A pass over a table: what the primary has of it, and what was found on each replica."""

    rows: int = 0
    chunks: int = 0
    found: dict[str, Found] = dataclasses.field(default_factory=dict)


def keyed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    pace: Pace,
    pool: Executor,
) -> Pass:
    """Go through a keyed table in ranges of its key; the primary is read once for all replicas."""
    passed = Pass(found={name: Found() for name in replicas})
    low: Key | None = None
    while any(found.whole for found in passed.found.values()):
        started = time.monotonic()
        within = Range(low, primary.next_key(low, pace.rows))
        ours = primary.checksum(within)
        spent = time.monotonic() - started
        wanted = {name: reader for name, reader in replicas.items() if passed.found[name].whole}
        theirs = _each(pool, wanted, lambda reader: reader.checksum(within), passed)  # noqa: B023 -- called before the next turn
        unequal = {name: wanted[name] for name, checksum in theirs.items() if checksum != ours}
        if unequal:
            again = time.monotonic()
            hashes = primary.hashes(within)
            spent += time.monotonic() - again
            listed = _each(pool, unequal, lambda r: r.hashes(within), passed)  # noqa: B023 -- called before the next turn
            for name, there in listed.items():
                _add(passed.found[name], _differing(hashes, there))
        passed.rows += ours.rows
        passed.chunks += 1
        if within.high is None:
            break
        low = within.high
        pace = pace.after(ours.rows, spent)
        time.sleep(pace.pause(spent))
    return passed


def unkeyed(
    primary: SetReader,
    replicas: Mapping[str, SetReader],
    pool: Executor,
) -> Pass:
    """Go through a table without key, its rows counted by content."""
    ours = primary.buckets()
    rows = sum(count for count, _ in ours.values())
    passed = Pass(rows, 1, {name: Found() for name in replicas})
    for name, theirs in _each(pool, replicas, lambda reader: reader.buckets(), passed).items():
        if differing := _differing(ours, theirs):
            here = primary.contents(differing)
            again = {name: replicas[name]}
            for there in _each(pool, again, lambda r: r.contents(differing), passed).values():
                _add(passed.found[name], _differing(here, there))
    return passed


def _differing(ours: Mapping[T, object], theirs: Mapping[T, object]) -> list[T]:
    keys = {*ours, *theirs}
    return [key for key in keys if ours.get(key) != theirs.get(key)]


def _add(found: Found, keys: Iterable[Key]) -> None:
    found.candidates += keys
    if len(found.candidates) > MOST:
        found.whole = False


def _each(
    pool: Executor, readers: Mapping[str, R], read: Callable[[R], V], passed: Pass
) -> dict[str, V]:
    """Read on all replicas at the same time; one that cannot be read is out of the pass."""
    running = {name: pool.submit(read, reader) for name, reader in readers.items()}
    results: dict[str, V] = {}
    for name, future in running.items():
        try:
            results[name] = future.result()
        except psycopg.Error as error:
            passed.found[name].trouble, passed.found[name].whole = error, False
    return results
