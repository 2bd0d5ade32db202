"""Batches: whole source transactions collected until it is worth writing them.

Without a timer: what has arrived is written, up to a limit of rows and bytes. A source transaction
larger than the limit leaves in pieces, which the replicator writes in one open transaction.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from cdc import changes
from cdc.config import Apply as Limits
from cdc.errors import SchemaMismatch
from cdc.events import Change, End
from cdc.ledger import Apply, Commit, Restart
from cdc.names import TableName
from cdc.position import Coverage, HeartbeatContent

#: Bytes of a record from which on it is looked at what its texts take.
_LARGE = 1 << 20


class Torn(Exception):  # noqa: N818 -- the replicator takes the pieces back and goes on
    """A transaction of which pieces were written begins again, at `offset`."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Held(Exception):  # noqa: N818 -- the replicator waits
    """A table is being copied; its events must wait for the copy's snapshot LSN."""

    def __init__(self, table: TableName) -> None:
        super().__init__(str(table))
        self.table = table


@dataclasses.dataclass(frozen=True, slots=True)
class Transaction:
    """A source transaction that is whole; `contained` ones only move the position."""

    end: End
    changes: list[Change]
    heartbeat: HeartbeatContent | None


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """What one write takes: `ends` is empty for a piece of a transaction still open."""

    changes: list[Change]
    ends: list[End]
    heartbeat: HeartbeatContent | None
    skipped: int


def _refuse(change: Change) -> NoReturn:
    raise unknown(change)


def unknown(change: Change, why: str | None = None) -> SchemaMismatch:
    """Return the error for a table that this replica does not follow and must not pass over.

    Renamed, attached as a partition, or published under its root's name: its rows would be missed.
    """
    what = f"the stream has changes of {change.table}, which this replica was never filled with"
    return SchemaMismatch(
        f"{what}: {why}" if why else what,
        safe="nothing of that transaction was applied; the replica is consistent as of its position",
        next=f"run `cdc setup`, then `cdc bootstrap --table {change.table}` for this replica; if the table "
        "was renamed, rename it here first and add --overwrite; if it is partitioned or is not to be "
        "replicated any more, `cdc bootstrap --overwrite`",
        table=str(change.table),
        txid=change.txid,
        offset=change.offset,
        lsn=change.lsn,
    )


@dataclasses.dataclass(slots=True)
class Buffer:
    """Collects the ledger's steps into batches within `limits`.

    `coverage` tells, per table, up to which commit its copy holds the rows already. `strange` is asked
    about a change of a table that is not in it: it returns where that is passed over.
    """

    limits: Limits
    coverage: dict[TableName, Coverage]
    strange: Callable[[Change], None] = _refuse
    whole: list[Transaction] = dataclasses.field(default_factory=list)
    open: list[Change] = dataclasses.field(default_factory=list)
    heartbeat: HeartbeatContent | None = None
    written: bool = False
    rows: int = 0
    size: int = 0

    def add(self, step: Apply | Commit | Restart) -> None:
        """Take the next step; raises Torn when written pieces would have to be taken back."""
        match step:
            case Apply(change):
                self.open.append(change)
                self.rows += 1
                self.size += _held(change)
            case Restart(_, offset):
                if self.written:
                    raise Torn(offset)
                self.drop_open()
            case Commit(end, contained):
                if contained:
                    self.drop_open()
                self.whole.append(Transaction(end, self.open, self.heartbeat))
                self.open, self.heartbeat, self.written = [], None, False

    def fits(self, rows: Sequence[Change]) -> bool:
        """Tell whether it is not full with these rows, none of which is large."""
        sizes = [row.size for row in rows]
        return (
            self.rows + len(self.whole) + len(rows) < self.limits.max_batch_rows
            and self.size + sum(sizes) < self.limits.max_batch_bytes
            and max(sizes) < _LARGE
        )

    def extend(self, rows: Sequence[Change]) -> None:
        """Take rows of the open transaction that fit."""
        self.open += rows
        self.rows += len(rows)
        self.size += sum([row.size for row in rows])

    def append(self, end: End, rows: list[Change]) -> None:
        """Take a whole transaction, whose rows fit, while none is open."""
        self.whole.append(Transaction(end, rows, None))
        self.rows += len(rows)
        self.size += sum([row.size for row in rows])

    def drop_open(self) -> None:
        self.rows -= len(self.open)
        self.size -= sum(_held(change) for change in self.open)
        self.open, self.heartbeat = [], None

    @property
    def full(self) -> bool:
        # A transaction without rows takes memory as well, and moves the position.
        rows = self.rows + len(self.whole)
        return rows >= self.limits.max_batch_rows or self.size >= self.limits.max_batch_bytes

    def take(self) -> Batch | None:
        """Return all whole transactions, or None.

        Raises Held for the first that must wait, SchemaMismatch for one with a table unknown here;
        the transactions before it are returned first, then the next call raises.
        """
        collected: list[Change] = []
        skipped = 0
        done: list[Transaction] = []
        for transaction in self.whole:
            try:
                wanted = self._kept(transaction.changes, transaction.end.lsn)
            except (Held, SchemaMismatch):
                if not done:
                    raise
                break
            collected += wanted
            skipped += len(transaction.changes) - len(wanted)
            done.append(transaction)
        if not done:
            return None
        self._release(done)
        heartbeats = [t.heartbeat for t in done if t.heartbeat]
        return Batch(
            collected, [t.end for t in done], heartbeats[-1] if heartbeats else None, skipped
        )

    def take_piece(self, end_lsn: int) -> Batch:
        """Return what is there of the open transaction, which ends at `end_lsn` or later.

        Events that may belong together with the next one stay.
        """
        settled = changes.settled(self.open)
        wanted = self._kept(self.open[:settled], end_lsn)
        kept = self.open[settled:]
        self.rows, self.size = len(kept), sum(_held(change) for change in kept)
        self.open, self.written = kept, True
        return Batch(wanted, [], None, settled - len(wanted))

    def needs_end(self, at_least: int) -> bool:
        """Tell whether the open transaction's END decides about an event of it.

        `at_least` is the least it can be: any copy made at or before it holds none of the rows.
        """
        found = (self.coverage.get(c.table) for c in self.open)
        return any(c is not None and (c.snapshot_lsn or at_least) > at_least for c in found)

    def _kept(self, changes: Iterable[Change], end_lsn: int) -> list[Change]:
        """Return those that `_wanted` tells; it is asked where the table changes."""
        kept: list[Change] = []
        at, wanted = None, False
        for change in changes:
            if change.table is not at:
                at, wanted = change.table, self._wanted(change, end_lsn)
            if wanted:
                kept.append(change)
        return kept

    def _wanted(self, change: Change, end_lsn: int) -> bool:
        covered = self.coverage.get(change.table)
        if covered is None:
            self.strange(change)
            return False
        if covered.snapshot_lsn is not None and end_lsn <= covered.snapshot_lsn:
            return False
        if covered.state != "copied":
            raise Held(change.table)
        return True

    def _release(self, done: list[Transaction]) -> None:
        del self.whole[: len(done)]
        for transaction in done:
            self.rows -= len(transaction.changes)
            self.size -= sum(_held(change) for change in transaction.changes)


def _held(change: Change) -> int:
    """Return the bytes that a change takes: one wide character makes a text four times as large."""
    if change.size < _LARGE:  # small ones are many: the record is measure enough
        return change.size
    images = [image for image in (change.before, change.after) if image is not None]
    texts = sum(sys.getsizeof(value) for image in images for value in image.values())
    return max(change.size, texts)
