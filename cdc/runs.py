"""Runs: each start of a stock connector's task, and what of it can be believed.

Debezium's own connector stores its place anywhere, and where it resumes it may pass over rows, while
every count agrees (docs/stock.md). What it does there touches one transaction alone: the first that
it sends. So that one is held against what is known. Rows, and only they, name the run they are of;
thus the END of a transaction is believed once a later row of the same run has come, which each
heartbeat brings.

A run that begins is believed where
- it begins with what was applied before: its first transaction is a duplicate; or
- `cdc connectors rewind` has let it begin: its link is a mark, no place where a record can stand, so
  that Debezium, which looks for one there, finds none and passes over nothing; or
- nothing but heartbeats of ours stands on either side of the border.
Anything else raises Gap: what comes next must be sent again.
"""

from __future__ import annotations

import dataclasses
from collections import deque

import msgspec

from cdc import lsn as lsns
from cdc.errors import BrokenStream
from cdc.events import (
    BARRIER_PREFIX,
    HEARTBEAT_PREFIX,
    Begin,
    Change,
    End,
    Event,
    Heartbeat,
    Message,
)
from cdc.ledger import Gap
from cdc.position import RING
from cdc.stock import BEAT, Found

#: Records of the log begin at multiples of eight: a mark is the byte before a commit's end.
_ALIGNED = 8

_OURS = frozenset({HEARTBEAT_PREFIX, BARRIER_PREFIX})

_BEAT = f"{BEAT.schema}.{BEAT.name}"

#: What a heartbeat's row is handed on as: a message that says nothing.
_COUNTED = "cdc.beat"


def mark(end: int) -> int:
    """Return the place at which `cdc connectors rewind` lets a run begin, after the commit `end`."""
    return end - 1


def marked(link: int | None) -> int | None:
    """Return the commit after which a run was let begin; None where `link` is no such mark."""
    return link + 1 if link is not None and link % _ALIGNED == _ALIGNED - 1 else None


@dataclasses.dataclass(slots=True)
class _Quiet:
    """A transaction of which no row has come, and the link that a message of it told."""

    events: list[Event]
    link: int | None = None

    @property
    def harmless(self) -> bool:
        """Nothing of anybody else can be missing in it: it is one of our messages."""
        messages = [event for event in self.events if isinstance(event, Message)]
        return bool(messages) and all(message.prefix in _OURS for message in messages)


@dataclasses.dataclass(slots=True)
class Runs:
    """Hands on the events whose place in the stream is proved, each BEGIN with the END it follows.

    `applied` is the last commit that was believed, None where only a snapshot was; `run` the run that
    brought it, None where it is not known; `done` the transactions that were believed last.
    """

    applied: int | None
    run: bytes | None
    done: deque[int] = dataclasses.field(default_factory=lambda: deque(maxlen=RING))
    _chain: int | None = None  # the last END handed on
    _tail: End | None = None  # of the transaction whose rows were handed on last
    _quiet: list[_Quiet] = dataclasses.field(default_factory=list)  # whole ones since
    _open: _Quiet | None = None
    _streaming: int | None = None  # the transaction whose rows are handed on
    _beats: bool = True  # it has brought nothing but heartbeats
    _proving: bool = False  # it is the first of a run that is believed only for that
    _outside: set[int] = dataclasses.field(default_factory=set)  # messages outside transactions

    def __post_init__(self) -> None:
        self._chain = self.applied

    def accept(self, found: Found) -> list[Event]:
        """Take the next record of the log; return what may be handed on now. Raises Gap."""
        event = found.event
        match event:
            case Message(txid=None):
                self._outside.add(event.lsn)
                return [event]
            case Message() if event.txid == self._streaming:
                return [event]
            case Message():
                self._message(event, found.link)
            case Begin():
                self._streaming, self._open = None, _Quiet([event])
            case End():
                return self._end(event)
            case Change():
                return self._row(event, found)
            case Heartbeat():
                pass
        return []

    def _message(self, event: Message, link: int | None) -> None:
        if self._open is None:
            raise _torn(event, "goes on without having begun")
        self._open.events.append(event)
        self._open.link = link if self._open.link is None else self._open.link

    def _end(self, event: End) -> list[Event]:
        end = msgspec.structs.replace(
            event, counts={name: n for name, n in event.counts.items() if name != _BEAT}
        )
        ended, self._open = self._open or _Quiet([]), None
        streaming, self._streaming, self._proving = self._streaming, None, False
        if event.txid == streaming:
            self._tail = end
            return []
        ended.events.append(end)
        if (after := marked(ended.link)) is not None:
            # The first of a run that was let begin: messages alone, and nothing was passed over.
            events = self._again(ended, self._known(end.txid, after))
            self._ended(end)
            return events
        self._quiet.append(ended)
        return []

    def _row(self, row: Change, found: Found) -> list[Event]:
        if row.txid == self._streaming:
            if found.run != self.run:
                raise _torn(row, "goes on after a restart of the connector inside it")
            if self._proving and row.table != BEAT:
                raise _doubtful(row)
            self._beats = self._beats and row.table == BEAT
            return [_message_of(row)]
        opened = self._open
        if opened is None or not _is_of(opened.events[0], row.txid):
            raise _torn(row, "goes on without having begun")
        if found.run == self.run:
            events = [*self._believed(), *self._begun(opened, found.link)]
        else:
            events = self._begins(row, opened, found.link)
            self.run = found.run
        self._streaming, self._open = row.txid, None
        self._beats = row.table == BEAT
        return [*events, _message_of(row)]

    def _begins(self, row: Change, opened: _Quiet, link: int | None) -> list[Event]:
        """Return what is handed on where a run begins with the transaction of `row`; Gap."""
        if (after := marked(link)) is not None:
            return self._again(opened, self._known(row.txid, after))
        if link is None:
            raise _doubtful(row)
        if self.applied is not None and link < self.applied:
            return self._again(opened, link)
        if self._tail is not None and link == self._chain and row.txid == self._tail.txid:
            # It begins with the transaction whose END was waited for: that END was not its own.
            tail, self._tail = self._tail, None
            self.applied = tail.lsn
            return [tail, *self._again(opened, link)]
        harmless = (self._tail is None or self._beats) and all(q.harmless for q in self._quiet)
        if row.table == BEAT and harmless and self._last in (None, link):
            self._proving = True
            return [*self._believed(), *self._begun(opened, link)]
        raise _doubtful(row)

    @property
    def _last(self) -> int | None:
        """The last END that came, believed or not."""
        for quiet in reversed(self._quiet):
            if isinstance(quiet.events[-1], End):
                return quiet.events[-1].lsn
        return self._chain if self._tail is None else self._tail.lsn

    def _again(self, opened: _Quiet, after: int) -> list[Event]:
        """Begin after the commit `after`: what was not believed comes again behind it."""
        self._tail, self._quiet, self._chain = None, [], after
        return self._begun(opened, after)

    def _known(self, txid: int, after: int) -> int:
        """Return what a marked run's first transaction follows: less than all for a known one.

        A run that is killed in its first transaction leaves its mark to the next, which begins where
        that transaction's first record stands, and so may repeat what committed since.
        """
        return 0 if txid in self.done else after

    def _believed(self) -> list[Event]:
        """Hand on what was held: the END that was waited for, and what came without rows since."""
        events = list[Event]()
        if self._tail is not None:
            events.append(self._tail)
            self._ended(self._tail)
        for quiet in self._quiet:
            events += self._begun(quiet, quiet.link if quiet.link is not None else self._chain)
            if isinstance(end := quiet.events[-1], End):
                self._ended(end)
        self._tail, self._quiet = None, []
        return events

    def _ended(self, end: End) -> None:
        self._chain = end.lsn
        self.applied = max(self.applied or 0, end.lsn)
        self.done.append(end.txid)
        self._outside = {lsn for lsn in self._outside if lsn > end.lsn}

    def _begun(self, opened: _Quiet, link: int | None) -> list[Event]:
        """Return a transaction's first events, its BEGIN with the END that it follows."""
        # A message outside transactions takes the END's place in what Debezium remembers.
        previous = self._chain if link in self._outside else link
        first, *others = opened.events
        if isinstance(first, Begin):
            first = msgspec.structs.replace(first, previous=previous)
        return [first, *others]


def _is_of(event: Event, txid: int) -> bool:
    return isinstance(event, Begin) and event.txid == txid


def _message_of(row: Change) -> Event:
    """Return the row, or what is told of a heartbeat's: that it counts, and is no table's."""
    if row.table != BEAT:
        return row
    return Message(_COUNTED, b"", row.txid, row.lsn, row.order, row.offset)


def _torn(event: Change | Message, how: str) -> Gap:
    return _gap(
        event, f"transaction {event.txid} {how}: rows of it may be missing, though no count tells"
    )


def _doubtful(row: Change) -> Gap:
    return _gap(
        row,
        f"the connector's task started again at or before transaction {row.txid}, and rows of it or of "
        "the one before may be missing, though no count tells",
    )


def _gap(event: Change | Message, what: str) -> Gap:
    """Return the gap: nothing but a run that is let begin before it brings what is missing."""
    error = BrokenStream(
        f"{what} (the record at LSN {lsns.show(event.lsn)})",
        safe="nothing of it was applied, and nothing after it; the replica is consistent as of its "
        "position",
        next="run `cdc connectors rewind`: it lets the connector send everything after the last applied "
        "commit again; then start this daemon again",
        txid=event.txid,
        offset=event.offset,
        lsn=event.lsn,
    )
    return Gap(event.offset, error, awaits="only `cdc connectors rewind` brings it")
