"""One table against the replicas that hold it: scanned, decided, mended, remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from operator import methodcaller

import psycopg

from cdc.errors import CdcError
from cdc.verify import repair, scan
from cdc.verify.confirm import Confirmation, Decided, Images, Pair, RowReader
from cdc.verify.encoding import Layout
from cdc.verify.ends import Primary, Replica
from cdc.verify.findings import Finding, TableResult, Undecided
from cdc.verify.ranges import Key
from cdc.verify.reading import Reader
from cdc.verify.scan import Chunk
from cdc.verify.sets import SetReader
from cdc.verify.shape import Shape
from cdc.verify.store import Progress, Store
from cdc.verify.throttle import Throttle

#: Candidates that are decided before the scan goes on: few enough to keep in memory and to remember.
_TOGETHER = 2_000

#: Candidates of one chunk that are decided at once: their rows of both ends are in memory.
_AT_ONCE = 10_000

#: Differing rows of a table after which more of them tell nothing.
MOST = 100_000


@dataclasses.dataclass(slots=True)
class Side:
    """The table on one replica: what is found of it, and the keys that are not decided yet.

    `open` are those that a killed run had left: they may be in a chunk that is read again. `looked` has
    the images of those that are pending in a table without key.
    """

    replica: Replica
    store: Store
    shape: Shape
    result: TableResult
    pending: list[Key] = dataclasses.field(default_factory=list)
    open: frozenset[Key] = frozenset()
    findings: list[Finding] = dataclasses.field(default_factory=list)
    stuck: bool = False
    looked: Pair[Images] | None = None

    def fail(self, error: Exception) -> None:
        """Note what went wrong on this replica; its table is left, what was found stays."""
        self.result.trouble = self.result.trouble or self.replica.told(error)

    @property
    def done(self) -> bool:
        """Whether nothing more is read of this table on this replica."""
        return self.result.trouble is not None or len(self.findings) > MOST


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """Compares the rows of one table.

    `at` names the run in the stores, `resumed` tells whether it goes on from what they hold;
    `done` is told the rows of each chunk. What goes wrong on a replica is its side's trouble and
    nobody else's.
    """

    primary: Primary
    layout: Layout
    sides: Sequence[Side]
    at: dt.datetime
    shape: str
    pool: Executor
    throttle: Throttle
    done: Callable[[int], None]

    def run(self, *, resumed: bool, mend: bool) -> None:
        """Fill in the results of all sides; raises psycopg.Error when the primary does not read."""
        started = time.monotonic()
        begin = self._begin(resumed=resumed)
        for chunk in self._chunks(begin):
            self.done(chunk.rows)
            for side in self.sides:
                with self._own(side):
                    self._take(side, chunk)
        for side in self.sides:
            with self._own(side):
                self._decide(side)
                if mend and side.findings:
                    self._mend(side)
                if side.result.whole:  # else what is remembered is where it stopped
                    self._save(side, None)
            side.result.seconds = time.monotonic() - started

    @contextlib.contextmanager
    def _own(self, side: Side) -> Iterator[None]:
        """Turn an error into the side's trouble, unless it is the primary's."""
        try:
            yield
        except (psycopg.Error, CdcError) as error:
            if self.primary.broken:
                raise
            side.fail(error)

    def _begin(self, *, resumed: bool) -> Progress:
        """Return where the least advanced side is; what was open there is open again."""
        begin: Progress | None = None
        for side in self.sides if resumed else ():
            progress = Progress()
            with self._own(side):
                progress = side.store.saved(self.at, self.layout.table, self.shape) or progress
            side.pending += progress.open
            side.open = frozenset(progress.open)
            side.result.candidates = progress.candidates
            side.result.resolved = progress.resolved
            behind = begin is None or (progress.done, progress.chunks) < (begin.done, begin.chunks)
            begin = progress if behind else begin
        begin = begin or Progress()
        for side in self.sides:
            side.result.rows, side.result.chunks = begin.rows, begin.chunks
            side.result.whole = begin.done
        return begin

    def _chunks(self, begin: Progress) -> Iterator[Chunk]:
        if begin.done:
            return
        self._hold()
        if not self.layout.key:
            sets = {s.replica.name: SetReader(s.replica.session, self.layout) for s in self.sides}
            yield scan.unkeyed(
                SetReader(self.primary.session, self.layout), sets, self.primary.duty, self.pool
            )
            return
        readers = {s.replica.name: Reader(s.replica.session, self.layout) for s in self.sides}
        go = scan.crossed if self.layout.crossed else scan.keyed
        here, duty = Reader(self.primary.session, self.layout), self.primary.duty
        for chunk in go(here, readers, duty, self.pool, begin.upto):
            yield chunk
            if not chunk.last:
                self._hold()
            for side in self.sides:
                if side.done:
                    readers.pop(side.replica.name, None)
            if not readers:
                return

    def _hold(self) -> None:
        for side in self.sides:
            with self._own(side):
                if not side.done:
                    self.throttle.hold(side.replica)

    def _take(self, side: Side, chunk: Chunk) -> None:
        """Count a chunk and remember it; decide its candidates once there are enough of them."""
        result, name = side.result, side.replica.name
        if side.done:
            return
        if name in chunk.troubles:
            side.fail(chunk.troubles[name])
            return
        found = chunk.candidates.get(name, [])
        if buckets := chunk.buckets.get(name):
            looked = self._confirmation(side).look(methodcaller("within", buckets, chunk.among))
            found, side.looked = looked.keys, looked.images
        candidates = [key for key in found if key not in side.open]
        side.pending += candidates
        result.candidates += len(candidates)
        result.rows += chunk.rows
        result.chunks += 1
        result.whole = chunk.last
        if len(side.pending) >= _TOGETHER and not side.stuck:
            self._decide(side)
        self._save(side, chunk.high)

    def _decide(self, side: Side) -> None:
        if not side.pending or side.result.trouble:
            return
        confirmation = self._confirmation(side)
        pending, side.pending = side.pending, []
        looked, side.looked = side.looked, None
        side.result.undecided = []
        for start in range(0, len(pending), _AT_ONCE):
            if len(side.findings) > MOST:
                break
            self._note(side, confirmation.decide(pending[start : start + _AT_ONCE], looked))
        # What was not decided is tried again with the next candidates, and at the end.
        side.stuck = bool(side.pending)
        if len(side.findings) > MOST:
            why = (
                f"more than {MOST:,} rows differ, so the table was left: `cdc bootstrap --table "
                f"{self.layout.table} --overwrite`"
            )
            side.result.undecided.append(Undecided((), why))

    def _note(self, side: Side, decided: Decided) -> None:
        result = side.result
        # One that was found to differ before the run was killed may be equal now.
        result.resolved = min(result.resolved + decided.same, result.candidates)
        for finding in decided.findings:
            result.count(finding)
        side.findings += decided.findings
        result.undecided += decided.undecided
        side.pending += [key for undecided in decided.undecided for key in undecided.keys]

    def _mend(self, side: Side) -> None:
        """Repair what was found, then decide the same rows again."""
        readers = self._readers(side)
        replica = side.replica
        with contextlib.closing(repair.writer(replica.config, replica.name)) as writer:
            mended = repair.Repair(self.primary, replica, readers, writer).mend(side.findings)
        again = self._confirmation(side).decide([finding.address for finding in side.findings])
        still = {finding.address for finding in again.findings}
        still |= {key for undecided in again.undecided for key in undecided.keys}
        for finding in side.findings:
            if finding.address not in still:
                side.result.mends[finding.kind] += finding.count
        side.result.undecided += again.undecided
        side.result.left = mended.left

    def _save(self, side: Side, upto: Key | None) -> None:
        result = side.result
        keys = (*side.pending, *(finding.address for finding in side.findings))
        progress = Progress(
            upto, result.whole, result.rows, result.chunks, result.candidates, result.resolved, keys
        )
        side.store.save(self.at, self.layout.table, self.shape, progress)

    def _confirmation(self, side: Side) -> Confirmation:
        return Confirmation(self.primary, side.replica, self._readers(side), self.pool)

    def _readers(self, side: Side) -> tuple[RowReader, RowReader]:
        kind = Reader if self.layout.key else SetReader
        return kind(self.primary.session, self.layout), kind(side.replica.session, self.layout)
