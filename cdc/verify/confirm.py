"""Candidates decided: read at both ends around a barrier, again and again until nothing is open."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, wait
from typing import Protocol, TypeVar

from cdc.errors import WaitTimeout
from cdc.verify import inflight
from cdc.verify.encoding import Layout
from cdc.verify.ends import Primary, Replica
from cdc.verify.findings import Finding, Kind, Undecided
from cdc.verify.ranges import Key
from cdc.verify.reading import Image, Row
from cdc.verify.verdict import Readings, Verdict, judge, judge_set

T = TypeVar("T")

#: Of the replica, and of the primary.
Pair = tuple[T, T]
Images = dict[Key, Image]

#: Rounds before a key counts as hot, written so often that both ends are polled for it; and rounds
#: after which a key is left undecided.
_HOT, _ROUNDS = 1, 12

_KINDS: dict[Verdict, Kind] = {
    Verdict.MISSING: "missing",
    Verdict.EXTRA: "extra",
    Verdict.DIFFERENT: "different",
}


@dataclasses.dataclass(slots=True)
class Decided:
    """What became of candidates.

    `told` are the rows that were found to differ: keys may be equal and not be
    printed alike (1.0 and 1.00), and then lead to the same rows.
    """

    same: int = 0
    findings: list[Finding] = dataclasses.field(default_factory=list)
    undecided: list[Undecided] = dataclasses.field(default_factory=list)
    told: set[tuple[Image | None, Image | None]] = dataclasses.field(default_factory=set)

    def add(self, finding: Finding) -> None:
        """Add a finding; one about the same rows as an earlier one counts for nothing."""
        rows = (_image(finding.ours), finding.theirs)
        if rows not in self.told:
            self.told.add(rows)
            self.findings.append(finding)


@dataclasses.dataclass(frozen=True, slots=True)
class Looked:
    """The `keys` of rows that differ, and their images; these are None where commits were on their way."""

    keys: list[Key]
    images: Pair[Images] | None


class RowReader(Protocol):
    """Reads rows of a table at one end by key, or by content where it has none."""

    layout: Layout

    def images(self, keys: Sequence[Key]) -> dict[Key, Image]: ...

    def rows(self, keys: Sequence[Key]) -> dict[Key, Row]: ...


class _Stuck(Exception):  # noqa: N818 -- ends a round for the reason given
    """The round cannot be finished now."""


class Confirmation:
    """Decides the candidates of one table on one replica, which is read in a thread of `pool`."""

    def __init__(
        self,
        primary: Primary,
        replica: Replica,
        readers: tuple[RowReader, RowReader],
        pool: Executor,
    ) -> None:
        self._primary, self._replica, self._pool = primary, replica, pool
        self._here, self._there = readers
        self._layout = self._here.layout
        self._judge = judge if self._layout.key else judge_set

    def look(self, read: Callable[[RowReader], Images]) -> Looked:
        """Read many rows at both ends, of which those that differ are candidates."""
        settled = True
        try:
            theirs, ours = self._both(read)
        except _Stuck:  # so will the first round be, and say why
            settled = False
            theirs, ours = read(self._there), read(self._here)
        keys = [key for key in {**ours, **theirs} if _hash(ours.get(key)) != _hash(theirs.get(key))]
        images = _of(keys, theirs), _of(keys, ours)
        return Looked(keys, images if settled else None)

    def decide(self, keys: Sequence[Key], first: Pair[Images] | None = None) -> Decided:
        """Return what is true of each key; what stays open has its reason.

        The `first` reading of the first round may be there already.
        """
        decided = Decided()
        left = list(keys)
        for number in range(_ROUNDS):
            if not left:
                break
            try:
                left = self._round(left, decided, first, hot=number >= _HOT)
                first = None
            except (_Stuck, WaitTimeout) as reason:
                said = reason.what if isinstance(reason, WaitTimeout) else str(reason)
                return self._leave(left, said, decided)
        return self._leave(left, f"written in each of {_ROUNDS} rounds", decided)

    def _leave(self, keys: list[Key], reason: str, decided: Decided) -> Decided:
        if keys:
            addressed = bool(self._layout.key)
            decided.undecided.append(Undecided(tuple(keys), reason, addressed=addressed))
        return decided

    def _round(
        self, keys: list[Key], decided: Decided, first: Pair[Images] | None, *, hot: bool
    ) -> list[Key]:
        r1, s = first or self._both(lambda reader: reader.images(keys))
        self._replica.reach(self._primary.mark())
        (r2, theirs), (s2, ours) = self._both(lambda reader: self._last(reader, keys))
        left: list[Key] = []
        differing: dict[Key, Verdict] = {}
        for key in keys:
            verdict = self._judge(Readings(r1.get(key), s.get(key), r2.get(key), s2.get(key)))
            if verdict is Verdict.SAME:
                decided.same += 1
            elif verdict is Verdict.OPEN:
                left.append(key)
            else:
                differing[key] = verdict
        if self._layout.key:
            ours, theirs = self._here.rows(list(differing)), self._there.rows(list(differing))
        for key, verdict in differing.items():
            here, there = ours.get(key), theirs.get(key)
            if _image(here) != s2.get(key) or _image(there) != r2.get(key):
                left.append(key)  # written since
            else:
                decided.add(self._finding(key, _KINDS[verdict], here, there))
        # Rows without key have a number and no value: that a number was seen proves nothing.
        return self._poll(left, decided) if hot and self._layout.key else left

    def _last(self, reader: RowReader, keys: list[Key]) -> tuple[dict[Key, Image], dict[Key, Row]]:
        """Read for the last time in a round; without key, where that takes a whole pass, values too."""
        if self._layout.key:
            return reader.images(keys), {}
        rows = reader.rows(keys)
        return {key: row.image for key, row in rows.items()}, rows

    def _both(self, read: Callable[[RowReader], T]) -> Pair[T]:
        """Read the replica, then, with all visible that it may have by then, the primary.

        The order is that of the snapshots; reading goes on at the same time.
        """
        with self._replica.snapshot():
            applied = self._replica.applied()
            reading = self._pool.submit(read, self._there)
            try:
                self._settle(applied)
                ours = read(self._here)
            finally:
                wait([reading])  # its session is used again
            return reading.result(), ours

    def _settle(self, applied: Collection[int]) -> None:
        """Wait until what the replica has `applied` is visible on the primary, with all before it."""
        if pids := self._primary.settle(applied):
            raise _Stuck(inflight.told(pids))

    def _finding(self, key: Key, kind: Kind, here: Row | None, there: Row | None) -> Finding:
        """Return the finding, with the columns in which a row differs."""
        layout = self._layout
        if not layout.key:
            return self._content(key, kind, here, there)
        blank = (None,) * len(layout.columns)
        ours, theirs = here.values if here else blank, there.values if there else blank
        columns = {
            c.name: (p, r) for c, p, r in zip(layout.columns, ours, theirs, strict=True) if p != r
        }
        names = (c.name for c in layout.key)
        return Finding(
            self._replica.name,
            layout.table,
            kind,
            dict(zip(names, key, strict=True)),
            columns,
            key,
            here,
            _image(there),
        )

    def _content(self, key: Key, kind: Kind, here: Row | None, there: Row | None) -> Finding:
        """Return the finding for rows of one content; an image's hash is their number."""
        values = (here or there or Row(Image(0, ""), ())).values
        counts = [row.image.hash if row else 0 for row in (here, there)]
        names = (c.name for c in self._layout.columns)
        return Finding(
            self._replica.name,
            self._layout.table,
            kind,
            dict(zip(names, values, strict=True)),
            {},
            key,
            here,
            _image(there),
            abs(counts[0] - counts[1]),
            keyed=False,
        )

    def _poll(self, keys: list[Key], decided: Decided) -> list[Key]:
        """Look for an image of the replica among those the primary has had since a moment.

        For rows written faster than a round takes: what the replica holds once the barrier has
        passed it was on the primary after the first look here, or is different for good.
        """
        if not keys:
            return []
        seen: dict[Key, set[int | None]] = {key: set() for key in keys}

        def look() -> None:
            found = self._here.images(keys)
            for key in keys:
                seen[key].add(_hash(found.get(key)))

        look()
        self._settle(self._replica.applied())
        mark = self._primary.mark()
        until = time.monotonic() + self._replica.patience.barrier
        while not self._replica.standing().reached(mark) and (now := time.monotonic()) < until:
            look()
            # A table without key is read whole: the primary rests as long as it works.
            time.sleep(time.monotonic() - now)
        left: list[Key] = list(keys)
        for _ in range(20):
            found = self._there.images(left)
            # What the replica holds the primary has had, and shows once its commit is visible.
            self._settle(self._replica.applied())
            look()
            still = [key for key in left if _hash(found.get(key)) not in seen[key]]
            decided.same += len(left) - len(still)
            left = still
            if not left:
                break
        return left


def _image(row: Row | None) -> Image | None:
    return None if row is None else row.image


def _hash(image: Image | None) -> int | None:
    return None if image is None else image.hash


def _of(keys: Sequence[Key], images: Images) -> Images:
    return {key: images[key] for key in keys if key in images}
