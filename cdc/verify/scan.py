"""One pass over a table: what is equal is proven, rows that differ become candidates."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, wait
from operator import methodcaller
from typing import TypeVar

import psycopg

from cdc.verify.duty import Duty
from cdc.verify.ranges import Key, Pace, Range
from cdc.verify.reading import Reader
from cdc.verify.sets import SetReader

T = TypeVar("T")
R = TypeVar("R")
V = TypeVar("V")

_HALF = 0.5

#: Rows of each end that are listed at once.
_LISTED = 50_000


@dataclasses.dataclass(slots=True)
class Chunk:
    """A part of a table, up to and including the key `high`; with the `last` all is read.

    `rows` of it are on the primary; `candidates` differ, by replica; in a table without key these are
    `buckets` of rows, `among` so many; `troubles` are what a replica that could not be read said.
    """

    high: Key | None
    rows: int
    last: bool
    candidates: dict[str, list[Key]] = dataclasses.field(default_factory=dict)
    buckets: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    among: int = 0
    troubles: dict[str, psycopg.Error] = dataclasses.field(default_factory=dict)


def keyed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    duty: Duty,
    pool: Executor,
    low: Key | None,
) -> Iterator[Chunk]:
    """Go through a table in ranges of its key from above `low`; the primary is read once for all.

    Where a range is not equal it is compared in parts, and the parts that are not row by row.
    Replicas may be taken out of `replicas` between two chunks.
    """
    pace, dirty = Pace(primary.order()), False
    # A replica whose session breaks here breaks again at once.
    _both(primary, replicas, methodcaller("prepare", pace.order), pool, Chunk(None, 0, last=False))
    while True:
        duty.rest()
        before = duty.worked
        within = Range(low, primary.next_key(low, pace.rows))
        chunk = Chunk(within.high, 0, within.high is None)
        unequal = dict(replicas)
        if not dirty:
            ours, theirs = _both(primary, replicas, methodcaller("checksum", within), pool, chunk)
            chunk.rows = ours.rows
            unequal = {name: replicas[name] for name, found in theirs.items() if found != ours}
        pace = pace.after(chunk.rows, duty.worked - before)
        if unequal:
            parts, there = _both(primary, unequal, methodcaller("parts", within), pool, chunk)
            chunk.rows = sum(part.rows for part in parts.values())
            differing = {name: _differing(parts, found) for name, found in there.items()}
            rows: Counter[int] = Counter()
            for found in (parts, *there.values()):
                rows |= Counter({part: held.rows for part, held in found.items()})
            chunk.candidates = _listed(
                primary, unequal, within, differing, rows, pool=pool, chunk=chunk
            )
        if dirty:
            pace = pace.after(chunk.rows, duty.worked - before)
        # Where rows are written all over, the next chunk will have some, too.
        dirty = any(chunk.candidates.values())
        yield chunk
        if within.high is None:
            return
        low = within.high


def _listed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    within: Range,
    differing: Mapping[str, list[int]],
    rows: Mapping[int, int],
    *,
    pool: Executor,
    chunk: Chunk,
) -> dict[str, list[Key]]:
    """Return the keys of a range that differ, by replica, looking at the `differing` parts only.

    `rows` tells how many a part has, at the end that has most.
    """
    wanted = {name: replicas[name] for name, parts in differing.items() if parts}
    if not wanted:
        return {}
    candidates: dict[str, list[Key]] = {name: [] for name in wanted}
    for lot in _lots(sorted(set().union(*differing.values())), rows):
        ours, theirs = _both(primary, wanted, methodcaller("hashes", within, lot), pool, chunk)
        for name, found in theirs.items():
            candidates[name] += _differing(ours, found)
    return candidates


def _lots(parts: list[int], rows: Mapping[int, int]) -> Iterator[list[int]]:
    """Divide parts of a range into lots that are kept in memory together."""
    lot, held = list[int](), 0
    for part in parts:
        if lot and held + rows[part] > _LISTED:
            yield lot
            lot, held = [], 0
        lot.append(part)
        held += rows[part]
    yield lot


def crossed(
    primary: Reader,
    replicas: Mapping[str, Reader],
    duty: Duty,
    pool: Executor,
    low: Key | None,
) -> Iterator[Chunk]:
    """Go through a table whose keys sort otherwise somewhere, by ranges of the primary's order.

    The same range would be other rows there. So replicas are asked for the keys that the primary
    has in it; and each is gone through in its own order for keys that the primary has not. Where
    this ends too early, the latter begins again.
    """
    pace = Pace(primary.order())
    while True:
        duty.rest()
        within = Range(low, primary.next_key(low, pace.rows))
        if within.high is None:
            for name in list(replicas):
                yield from _surplus(primary, name, replicas, pace, duty, done=low)
        before = duty.worked
        ours = primary.hashes(within)
        pace = pace.after(len(ours), duty.worked - before)
        chunk = Chunk(within.high, len(ours), within.high is None)
        keys = list(ours)
        for name, there in _each(pool, replicas, methodcaller("images", keys), chunk).items():
            theirs = {key: image.hash for key, image in there.items()}
            chunk.candidates[name] = _differing(ours, theirs)
        yield chunk
        if within.high is None:
            return
        low = within.high


def _surplus(
    primary: Reader,
    name: str,
    replicas: Mapping[str, Reader],
    pace: Pace,
    duty: Duty,
    *,
    done: Key | None,
) -> Iterator[Chunk]:
    """Go through a replica's keys for those that the primary has not; it is at `done` meanwhile."""
    low: Key | None = None
    while name in replicas:
        duty.rest()
        chunk = Chunk(done, 0, last=False)
        replica = replicas[name]
        try:
            within = Range(low, replica.next_key(low, pace.rows))
            theirs = list(replica.hashes(within))
        except psycopg.Error as error:
            chunk.troubles[name] = error
            yield chunk
            return
        ours = primary.images(theirs)
        chunk.candidates[name] = [key for key in theirs if key not in ours]
        yield chunk
        if within.high is None:
            return
        low = within.high


def unkeyed(
    primary: SetReader, replicas: Mapping[str, SetReader], duty: Duty, pool: Executor
) -> Chunk:
    """Compare a table without key whole, its rows counted by content.

    A primary that works for half of the time at most reads alone: it rests while the replicas do.
    """
    duty.rest()
    chunk = Chunk(None, 0, last=True, among=primary.division())
    together = duty.share > _HALF
    ours, found = _both(
        primary, replicas, methodcaller("buckets", chunk.among), pool, chunk, together=together
    )
    chunk.rows = sum(count for count, _ in ours.values())
    chunk.buckets = {name: _differing(ours, theirs) for name, theirs in found.items()}
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
    together: bool = True,
) -> tuple[V, dict[str, V]]:
    """Read on the primary and meanwhile, or then, on the replicas."""
    reading = _begin(pool, replicas, read) if together else None
    try:
        ours = read(primary)
    finally:
        wait(() if reading is None else reading.values())  # their sessions are used again
    return ours, _ended(_begin(pool, replicas, read) if reading is None else reading, chunk)


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
