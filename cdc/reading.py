"""Events out of the topic, a block of records at a time; ahead of the loop while it is behind.

In a backlog this process waits for the replica a third of its time: then it reads and decodes what comes
next. Caught up it reads nothing ahead, and what arrives is taken at once.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator

from cdc.decoding import Decode
from cdc.errors import BrokenStream, MalformedRecord
from cdc.events import Change, Event, Record
from cdc.ledger import Gap
from cdc.source import Source

#: What decoding a record may raise.
Trouble = MalformedRecord | BrokenStream | Gap

#: Records taken from the consumer at once, and seconds to wait for the first.
_RECORDS = 500
_PATIENCE = 0.5

#: Bytes of records from which on rows are handed on without waiting for more of them.
_LARGE = 1 << 20

#: Bytes of records that are held ahead of the loop: what it writes in a fraction of a second.
_AHEAD = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """What decoding the record at `offset` raised."""

    trouble: Trouble
    offset: int


Found = Event | list[Change] | Failed


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What one read gave, of `size` bytes; `full` tells that more was there, `read_at` when, in seconds since 1970.

    `events` decodes as far as is asked for, and keeps nothing that was taken. Rows of one transaction that
    follow each other stand in one list, while they are small.
    """

    events: Iterator[Found]
    size: int
    full: bool
    read_at: float


class Reading:
    """Reads `source`, from where it stands on, for one loop and through one `decode`."""

    def __init__(self, source: Source, decode: Decode) -> None:
        self._source = source
        self._decode = decode
        self._blocks: deque[Block] = deque()
        self._held = 0
        self._raised: Exception | None = None
        self._behind = False  # as far as was read: more was there

    def next(self) -> Block:
        """Return what is there, waiting a moment for it; raises what the source does."""
        if not self._blocks:
            if self._raised is not None:
                raise self._raised
            return self._read(_PATIENCE)
        block = self._blocks.popleft()
        self._held -= block.size
        return block

    def ahead(self) -> bool:
        """Read and decode the next block while something else is waited for; False where it cannot.

        What the source raises comes when what was read before was taken.
        """
        if not self._behind or self._held >= _AHEAD:
            return False
        try:
            block = self._read(0)
        except Exception as error:  # noqa: BLE001 -- raised by `next`, in its turn
            self._raised, self._behind = error, False
            return False
        if block.size < _AHEAD:  # what is larger is decoded as it is asked for
            block = dataclasses.replace(block, events=_taken(deque(block.events)))
        self._blocks.append(block)
        self._held += block.size
        return True

    def _read(self, patience: float) -> Block:
        block = _read(self._source, self._decode, patience)
        self._behind = block.full
        return block


def _taken(found: deque[Found]) -> Iterator[Found]:
    while found:
        yield found.popleft()


def _read(source: Source, decode: Decode, timeout: float) -> Block:
    records = deque(source.read(_RECORDS, timeout))
    size = sum([len(record.value or b"") for record in records])
    return Block(_events(records, decode), size, len(records) == _RECORDS, time.time())


def _events(records: deque[Record], decode: Decode) -> Iterator[Found]:
    """Yield what the records say; ends with what fails."""
    rows: list[Change] = []
    size = 0
    while records:
        record = records.popleft()
        try:
            decoded = decode(record)
        except (MalformedRecord, BrokenStream, Gap) as trouble:
            if rows:
                yield rows
            yield Failed(trouble, record.offset)
            return
        for event in decoded:
            same = bool(rows) and isinstance(event, Change) and event.txid == rows[0].txid
            if rows and not same:
                yield rows
                rows, size = [], 0
            if not isinstance(event, Change):
                yield event
                continue
            rows.append(event)
            size += event.size
            if size >= _LARGE:
                yield rows
                rows, size = [], 0
    if rows:
        yield rows
