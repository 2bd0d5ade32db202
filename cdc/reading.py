"""Events out of the topic, a block of records at a time."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """What decoding the record at `offset` raised."""

    trouble: Trouble
    offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What one read gave; `full` tells that more was there, `read_at` when, in seconds since 1970."""

    records: deque[Record]
    decode: Decode
    full: bool
    read_at: float

    def events(self) -> Iterator[Event | list[Change] | Failed]:
        """Decode as far as is asked for, and keep nothing that was taken; ends with what fails.

        Rows of one transaction that follow each other stand in one list, while they are small.
        """
        rows: list[Change] = []
        size = 0
        while self.records:
            record = self.records.popleft()
            try:
                decoded = self.decode(record)
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


def block(source: Source, decode: Decode) -> Block:
    """Return what is there, waiting a moment for it; raises what the source does."""
    records = deque(source.read(_RECORDS, _PATIENCE))
    return Block(records, decode, len(records) == _RECORDS, time.time())
