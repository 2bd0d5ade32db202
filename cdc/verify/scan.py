"""One pass over a table: what is equal is proven, rows that differ become candidates."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from operator import methodcaller
from typing import TypeVar

import psycopg

from cdc.verify.ranges import Key, Pace, Range
from cdc.verify.reading import Reader
from cdc.verify.sets import SetReader

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")


@dataclasses.dataclass(slots=True)
class Chunk:
    """A part of a table, up to and including the key `high`; with the `last` all is read.

    `rows` of it are on the primary; `candidates` differ, by replica; `troubles` are what a replica
    that could not be read said.
    """

    high: Key | None
    rows: int
    last: bool
    candidates: dict[str, list[Key]] = dataclasses.field(default_factory=dict)
    troubles: dict[str, psycopg.Error] = dataclasses.field(default_factory=dict)


def keyed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    pace: Pace,
    pool: Executor,
    low: Key | None,
) -> Iterator[Chunk]:
    """Go through a table in ranges of its key from above `low`; the primary is read once for all.

    Replicas may be taken out of `replicas` between two chunks.
    """
    # A primary that rests for half of the time or more does so while the replicas read.
    together = pace.share > 0.5
    dirty = False
    while True:
        started = time.monotonic()
        within = Range(low, primary.next_key(low, pace.rows))
        spent = time.monotonic() - started
        chunk = Chunk(within.high, 0, within.high is None)
        unequal = dict(replicas)
        if not dirty:
            ours, theirs, took = _both(
                primary, replicas, methodcaller("checksum", within), pool, chunk, together=together
            )
            spent += took
            chunk.rows = ours.rows
            unequal = {name: replicas[name] for name, found in theirs.items() if found != ours}
        if unequal:
            listed, there, took = _both(
                primary, unequal, methodcaller("hashes", within), pool, chunk, together=together
            )
            spent += took
            chunk.rows = len(listed)
            chunk.candidates = {name: _differing(listed, found) for name, found in there.items()}
        # Where rows are written all over, the next chunk will have some, too: it is listed at once.
        dirty = any(chunk.candidates.values())
        rested = time.monotonic() - started - spent
        yield chunk
        if within.high is None:
            return
        low = within.high
        pace = pace.after(chunk.rows, spent)
        time.sleep(pace.pause(spent, rested))


def crossed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    pace: Pace,
    pool: Executor,
    low: Key | None,
) -> Iterator[Chunk]:
    """Go through a table whose keys sort otherwise somewhere, by ranges of the primary's order.

    The same range would be other rows there. So replicas are asked for the keys that the primary
    has in it; and each is gone through in its own order for keys that the primary has not. Where
    this ends too early, the latter begins again.
    """
    while True:
        started = time.monotonic()
        within = Range(low, primary.next_key(low, pace.rows))
        if within.high is None:
            for name in list(replicas):
                yield from _surplus(primary, name, replicas, pace, low)
            started = time.monotonic()
        ours = primary.hashes(within)
        spent = time.monotonic() - started
        chunk = Chunk(within.high, len(ours), within.high is None)
        keys = list(ours)
        for name, there in _each(pool, replicas, methodcaller("images", keys), chunk).items():
            theirs = {key: image.hash for key, image in there.items()}
            chunk.candidates[name] = _differing(ours, theirs)
        yield chunk
        if within.high is None:
            return
        low = within.high
        pace = pace.after(len(ours), spent)
        time.sleep(pace.pause(spent))


def _surplus(
    primary: Reader, name: str, replicas: Mapping[str, Reader], pace: Pace, done: Key | None
) -> Iterator[Chunk]:
    """Go through a replica's keys for those that the primary has not; it is at `done` meanwhile."""
    low: Key | None = None
    while name in replicas:
        chunk = Chunk(done, 0, last=False)
        replica = replicas[name]
        try:
            within = Range(low, replica.next_key(low, pace.rows))
            theirs = list(replica.hashes(within))
        except psycopg.Error as error:
            chunk.troubles[name] = error
            yield chunk
            return
        started = time.monotonic()
        ours = primary.images(theirs)
        spent = time.monotonic() - started
        chunk.candidates[name] = [key for key in theirs if key not in ours]
        yield chunk
        if within.high is None:
            return
        low = within.high
        time.sleep(pace.pause(spent))


def unkeyed(primary: SetReader, replicas: Mapping[str, SetReader], pool: Executor) -> Chunk:
    """Compare a table without key whole, its rows counted by content."""
    ours = primary.buckets()
    chunk = Chunk(None, sum(count for count, _ in ours.values()), last=True)
    for name, theirs in _each(pool, replicas, SetReader.buckets, chunk).items():
        if differing := _differing(ours, theirs):
            here = primary.contents(differing)
            again = {name: replicas[name]}
            for there in _each(pool, again, lambda r: r.contents(differing), chunk).values():
                chunk.candidates[name] = _differing(here, there)
    return chunk


def _differing(ours: Mapping[T, object], theirs: Mapping[T, object]) -> list[T]:
    """Return the keys, in the primary's order, then those that only the replica has."""
    return [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]


def _both(
    primary: R,
    replicas: Mapping[str, R],
    read: Callable[[R], V],
    pool: Executor,
    chunk: Chunk,
    *,
    together: bool,
) -> tuple[V, dict[str, V], float]:
    """Read on the primary and then, or meanwhile, on the replicas; tell how long the primary took."""
    started = time.monotonic()
    reading = _begin(pool, replicas, read) if together else None
    ours = read(primary)
    spent = time.monotonic() - started
    return ours, _ended(reading or _begin(pool, replicas, read), chunk), spent


def _each(
    pool: Executor, readers: Mapping[str, R], read: Callable[[R], V], chunk: Chunk
) -> dict[str, V]:
    """Read on all replicas at the same time; what one says that cannot be read is noted."""
    return _ended(_begin(pool, readers, read), chunk)


def _begin(
    pool: Executor, readers: Mapping[str, R], read: Callable[[R], V]
) -> dict[str, Future[V]]:
    return {name: pool.submit(read, reader) for name, reader in readers.items()}


def _ended(reading: Mapping[str, Future[V]], chunk: Chunk) -> dict[str, V]:
    results: dict[str, V] = {}
    for name, future in reading.items():
        try:
            results[name] = future.result()
        except psycopg.Error as error:
            chunk.troubles[name] = error
    return results
