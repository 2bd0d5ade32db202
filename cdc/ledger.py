"""The loss ledger: nothing missing, nothing twice, nothing torn.

Debezium frames every source transaction with BEGIN and END, numbers its events and counts them in
END; the capture plugin names at each BEGIN the place after which nothing is left out (`previous`):
the END before it, or where the connector's slot stood when it started. Each transaction is therefore
a link of a chain, and the ledger follows it event by event:

- *Duplicate?* is decided at BEGIN: its `previous` lies before the last applied END.
  A duplicate must end at a commit this replica has applied.
- *Chain*: a new transaction's `previous` is the last applied END.
- *Counts*: events are numbered 1..n without a gap and END's totals agree, per table too.

What cannot be accounted for raises BrokenStream before anything of it is committed; where a later
copy in the log may mend it, Gap.
Sources of the rules: docs/decisions.md ("The ledger").
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import operator
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from cdc import lsn as lsns
from cdc.errors import BrokenStream
from cdc.events import Begin, Change, End, Event, Heartbeat, Message
from cdc.names import TableName
from cdc.position import RING


class Verdict(enum.Enum):
    NEW = "the next link of the chain"
    FIRST = "the first since the bootstrap: whether the snapshot holds it is known at its END"
    DUPLICATE = "applied before"


@dataclasses.dataclass(slots=True)
class Open:
    """A transaction whose END has not been read."""

    txid: int
    verdict: Verdict
    previous: int | None
    commit_ms: int | None = None
    torn: str | None = None
    total: int = 0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)

    def count(self, table: TableName, rows: int) -> None:
        name = f"{table.schema}.{table.name}"
        self.counts[name] = self.counts.get(name, 0) + rows

    def continues(self, rows: Sequence[Change]) -> bool:
        """Count rows if each is the next."""
        total = self.total + len(rows)
        if [row.order for row in rows] != [*range(self.total + 1, total + 1)]:
            return False
        self.total = total
        for table, its in itertools.groupby(rows, operator.attrgetter("table")):
            self.count(table, len([*its]))
        return True


class Apply(msgspec.Struct, frozen=True, gc=False):  # as `Change` is: one is made per row
    """A row event of a transaction that is not a duplicate."""

    change: Change


@dataclasses.dataclass(frozen=True, slots=True)
class Commit:
    """A new transaction is whole; `contained` if the bootstrap's snapshot already holds it."""

    end: End
    contained: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Restart:
    """The open transaction begins again at `offset`; what was kept of it must be dropped."""

    txid: int
    offset: int


@dataclasses.dataclass(eq=False)
class Gap(Exception):  # noqa: N818 -- a finding that the replicator looks into, not yet an error
    """Something is missing at `offset`; what comes next may stand further on, else it is `error`.

    Where it is not `lasting`, a connector that starts again sends what is missing; `awaits` tells what
    else would bring it.
    """

    offset: int
    error: BrokenStream
    lasting: bool = False
    awaits: str = "the connector runs, and may send it again"


Step = Apply | Commit | Restart | Message | None


class Ledger:
    """Follows the chain from the last applied commit.

    `applied` is that commit's END LSN (after a bootstrap: the snapshot's LSN), `ring` the last
    applied (txid, END LSN) pairs, oldest first; an empty ring means nothing was applied since the
    bootstrap.
    """

    def __init__(self, applied: int, ring: Iterable[tuple[int, int]]) -> None:
        self.applied = applied
        self.ring: deque[tuple[int, int]] = deque(ring, RING)
        self._open: dict[int, Open] = {}

    def undecided(self, txid: int) -> bool:
        """Tell whether only the END of `txid` decides if the bootstrap's snapshot holds it."""
        opened = self._open.get(txid)
        return opened is not None and opened.verdict is Verdict.FIRST

    def previous_of(self, txid: int) -> int:
        """Return the END LSN that the open transaction `txid` follows, 0 where nothing is known of it."""
        opened = self._open.get(txid)
        return (opened and opened.previous) or 0

    @property
    def open_since(self) -> int | None:
        """When the transaction that is being read committed, in ms since 1970; None if none is."""
        return next((t.commit_ms for t in self._accepted()), None)

    def accept(self, event: Event) -> Step:
        """Account for the next event of the log and say what is to be done about it.

        Raises BrokenStream, or Gap where a later copy may bring what is missing.
        """
        match event:
            case Change():
                return self._change(event)
            case Begin():
                return self._begin(event)
            case End():
                return self._end(event)
            case Message():
                return self._message(event)
            case Heartbeat():
                return None

    def continues(self, rows: Sequence[Change]) -> bool:
        """Account for rows of one transaction if each is the next of an open one whose rows count.

        Otherwise nothing is accounted for, and `accept` tells of each what it is.
        """
        opened = self._open.get(rows[0].txid)
        if opened is None or opened.verdict is Verdict.DUPLICATE or opened.torn:
            return False
        return opened.continues(rows)

    def links(self, begin: Begin, rows: Sequence[Change], end: End) -> bool:
        """Account for a transaction that is whole and plainly the next link; else as `continues`."""
        if self._open or not self.ring or begin.previous != self.applied or end.lsn <= self.applied:
            return False
        opened = Open(begin.txid, Verdict.NEW, begin.previous)
        if not opened.continues(rows) or (end.total, end.counts) != (opened.total, opened.counts):
            return False
        self._link(end)
        return True

    def follows(self, event: Begin) -> bool:
        """Tell whether a transaction is what comes next, whatever stands before it in the log."""
        if event.previous is None:
            return False
        return event.previous == self.applied or (not self.ring and event.previous < self.applied)

    def _begin(self, event: Begin) -> Step:
        again = self._open.pop(event.txid, None)
        verdict = self._verdict(event)
        self._open[event.txid] = Open(event.txid, verdict, event.previous, event.commit_ms)
        if again is not None and again.verdict is not Verdict.DUPLICATE:
            return Restart(event.txid, event.offset)
        return None

    def _change(self, event: Change) -> Step:
        opened = self._count(event.txid, event.order, event.offset, event.lsn)
        if opened is None or opened.verdict is Verdict.DUPLICATE or opened.torn:
            return None
        opened.count(event.table, 1)
        return Apply(event)

    def _message(self, event: Message) -> Step:
        if event.txid is None:
            return event
        opened = self._count(event.txid, event.order, event.offset, event.lsn)
        return None if opened is None or opened.verdict is Verdict.DUPLICATE else event

    def _count(self, txid: int, order: int | None, offset: int, lsn: int) -> Open | None:
        opened = self._open.get(txid)
        if opened is None:
            if lsn < self.applied:
                return None  # the rest of one that was applied, as its END will show, or the next BEGIN
            raise _gap(
                f"an event of transaction {txid} comes without the transaction's beginning",
                txid=txid,
                offset=offset,
                lsn=lsn,
            )
        if opened.verdict is Verdict.DUPLICATE:
            return opened
        opened.total += 1
        if order != opened.total and opened.torn is None:
            # Its END decides: a connector that died of a record may send it again whole.
            opened.torn = f"event {order} came where {opened.total} was due"
        return opened

    def _verdict(self, event: Begin) -> Verdict:
        previous = event.previous
        if previous is None:
            raise _gap(
                f"transaction {event.txid} does not say which commit it follows: the connector "
                "that wrote it is not the shipped one, so what was committed before may be missing",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
                lasting=True,
            )
        others = self._accepted()
        if not self.ring and previous <= self.applied and not others:
            return Verdict.FIRST
        # What commits before a transaction that is open was applied, or is in the snapshot.
        if previous < min([self.applied, *(t.previous or 0 for t in others)]):
            return Verdict.DUPLICATE
        if previous == self.applied and not others:
            return Verdict.NEW
        raise _gap(
            f"transactions are missing: transaction {event.txid} follows the commit that ends at "
            f"{lsns.show(previous)}, but the last one before it in the topic ends at {lsns.show(self.applied)}",
            txid=event.txid,
            offset=event.offset,
            lsn=event.lsn,
        )

    def _end(self, event: End) -> Step:
        opened = self._open.pop(event.txid, None)
        if opened is None:
            if event.lsn <= self.applied:
                return None
            raise _gap(
                f"transaction {event.txid} ends without having begun",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
            )
        if opened.verdict is Verdict.DUPLICATE:
            self._known_duplicate(event)
            return None
        # A table of which nothing is to be applied may be counted as 0.
        counts = {table: count for table, count in event.counts.items() if count}
        if opened.torn or event.total != opened.total or counts != opened.counts:
            detail = opened.torn or f"its END counts {event.total} events, {opened.total} came"
            raise _gap(
                f"transaction {event.txid} is not whole in the topic: {detail}",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
            )
        if opened.verdict is Verdict.FIRST and event.lsn <= self.applied:
            return Commit(event, contained=True)
        if event.lsn <= self.applied:
            raise _broken(
                f"transaction {event.txid} follows the last applied commit and yet ends before it",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
            )
        self._link(event)
        return Commit(event, contained=False)

    def _link(self, end: End) -> None:
        self.applied = end.lsn
        self.ring.append((end.txid, end.lsn))

    def _accepted(self) -> list[Open]:
        """Return the open transactions whose rows count; in sound order there is at most one."""
        return [t for t in self._open.values() if t.verdict is not Verdict.DUPLICATE]

    def _known_duplicate(self, event: End) -> None:
        if event.lsn > self.applied:
            raise _broken(
                f"transaction {event.txid} was sent before and now ends later, at "
                f"{lsns.show(event.lsn)}, than anything applied",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
            )
        oldest = self.ring[0][1] if self.ring else event.lsn + 1
        if event.lsn >= oldest and (event.txid, event.lsn) not in self.ring:
            raise _broken(
                f"transaction {event.txid} comes late: later ones were applied without it",
                txid=event.txid,
                offset=event.offset,
                lsn=event.lsn,
            )


def _gap(what: str, *, txid: int, offset: int, lsn: int, lasting: bool = False) -> Gap:
    later = f"{what}; what comes next is not further on in the topic either"
    return Gap(offset, _broken(later, txid=txid, offset=offset, lsn=lsn), lasting)


def _broken(what: str, **place: int | None) -> BrokenStream:
    return BrokenStream(
        what,
        safe="nothing of it was applied, and nothing after it; the replica is consistent as of "
        "its position",
        next="look at `cdc connectors status`; if the transaction does not come again by itself, "
        "fill the replica anew: `cdc bootstrap --overwrite`",
        **place,
    )
