"""Events out of the topic, a block of records at a time; ahead of the loop while it is behind.

In a backlog this process waits for the replica a third of its time: then it reads and decodes what comes
next. Caught up it reads nothing ahead, and what arrives is taken at once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterable, Iterator

from cdc.decoding import Decode
from cdc.errors import BrokenStream, MalformedRecord
from cdc.events import Begin, Change, End, Event, Record
from cdc.ledger import Gap
from cdc.source import Source

#: What decoding a record may raise.
Trouble = MalformedRecord | BrokenStream | Gap

#: Records taken from the consumer at once, and seconds to wait for the first.
_RECORDS = 500
_PATIENCE = 0.5

#: Bytes of records from which on rows are handed on without waiting for more of them.
_LARGE = 1 << 20

#: Bytes of records that are held ahead of the loop, from which on nothing more is read; a block of as many is
#: decoded only as it is asked for.
_AHEAD = 8 << 20

#: Bytes that a record is taken to have besides its value.
_BESIDE = 100


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """What decoding the record at `offset` raised."""

    trouble: Trouble
    offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """A transaction of rows alone, all of which follow each other in one block: most are."""

    begin: Begin
    rows: list[Change]
    end: End

    def __iter__(self) -> Iterator[Event]:
        return itertools.chain((self.begin,), self.rows, (self.end,))


Found = Event | list[Change] | Whole | Failed


class Events:
    """What records say, decoded as far as is asked for, in their order; what was taken is not kept."""

    def __init__(self, decoded: Iterator[Found]) -> None:
        self._ready: deque[Found] = deque()
        self._rest = decoded

    def __iter__(self) -> Iterator[Found]:
        return self

    def __next__(self) -> Found:
        return self._ready.popleft() if self._ready else next(self._rest)

    def complete(self) -> None:
        """Decode the rest; what that raises comes where it stands."""
        try:
            for found in self._rest:
                self._ready.append(found)
        except Exception as error:  # noqa: BLE001 -- raised by `__next__`, in its turn
            self._rest = _raising(error)


def _raising(error: Exception) -> Iterator[Found]:
    raise error
    yield  # a generator


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What one read gave, of `size` bytes; `full` tells that it gave what was asked for, so more may be there.

    Rows of one transaction that follow each other stand in one list, or in a Whole, while they are small.
    """

    events: Events
    size: int
    full: bool

    @property
    def large(self) -> bool:
        return self.size >= _AHEAD


class Reading:
    """Reads `source`, from where it stands on, for one loop and through one `decode`.

    Every record is decoded once and in the log's order: `decode` may remember what came before.
    """

    def __init__(self, source: Source, decode: Decode) -> None:
        self._source = source
        self._decode = decode
        self._last = Block(Events(iter(())), 0, full=False)  # the one that was given last
        self._blocks: deque[Block] = deque()
        self._raised: Exception | None = None

    def next(self) -> Block:
        """Return what is there, waiting a moment for it; raises what the source does.

        What was given before is taken by then.
        """
        if self._blocks:
            self._last = self._blocks.popleft()
        elif self._raised is not None:
            raise self._raised
        else:
            self._last = self._read(_PATIENCE)
        return self._last

    def ahead(self) -> bool:
        """Read and decode the next block while something else is waited for; False where it may not.

        What the source raises comes when what was read before was taken.
        """
        newest = self._blocks[-1] if self._blocks else self._last
        held = sum([block.size for block in self._blocks])
        if self._raised is not None or not newest.full or newest.large or held >= _AHEAD:
            return False
        newest.events.complete()
        try:
            block = self._read(0)
        except Exception as error:  # noqa: BLE001 -- raised by `next`, in its turn
            self._raised = error
            return False
        if not block.large:
            block.events.complete()
        self._blocks.append(block)
        return True

    def _read(self, patience: float) -> Block:
        records = deque(self._source.read(_RECORDS, patience))
        size = sum([len(record.value or b"") + _BESIDE for record in records])
        full = len(records) == _RECORDS
        return Block(Events(_events(records, self._decode)), size, full)


def _events(records: deque[Record], decode: Decode) -> Iterator[Found]:
    """Yield what the records say; ends with what fails."""
    begin: Begin | None = None  # with which `rows` begin, where it is not yielded yet
    rows: list[Change] = []
    size = 0
    decoded: Iterable[Event] = ()
    event: Event | None = None
    while records:
        # Rows may be large: none is kept here while the next one is decoded.
        decoded, event = (), None
        record = records.popleft()
        try:
            decoded = decode(record)
        except (MalformedRecord, BrokenStream, Gap) as trouble:
            yield from _waiting(begin, rows)
            yield Failed(trouble, record.offset)
            return
        except Exception:
            yield from _waiting(begin, rows)
            raise
        del record
        for event in decoded:
            if isinstance(event, Change):
                txid = rows[0].txid if rows else event.txid if begin is None else begin.txid
                if event.txid != txid:
                    yield from _waiting(begin, rows)
                    begin, rows, size = None, [], 0
                rows.append(event)
                size += event.size
                if size >= _LARGE:
                    yield from _waiting(begin, rows)
                    begin, rows, size = None, [], 0
                continue
            if begin and rows and isinstance(event, End) and event.txid == begin.txid:
                yield Whole(begin, rows, event)
                begin, rows, size = None, [], 0
                continue
            yield from _waiting(begin, rows)
            begin, rows, size = None, [], 0
            if isinstance(event, Begin):
                begin = event
            else:
                yield event
    yield from _waiting(begin, rows)


def _waiting(begin: Begin | None, rows: list[Change]) -> Iterator[Found]:
    if begin is not None:
        yield begin
    if rows:
        yield rows
