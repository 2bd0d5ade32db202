"""Events out of the topic, a block of records at a time."""

from __future__ import annotations

import dataclasses
import time
from collections import deque

from cdc.decoding import Decode
from cdc.errors import BrokenStream, MalformedRecord
from cdc.events import Change, Event
from cdc.ledger import Gap
from cdc.source import Source

#: What decoding a record may raise.
Trouble = MalformedRecord | BrokenStream | Gap

#: Records taken from the consumer at once, and seconds to wait for the first.
_RECORDS = 500
_PATIENCE = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What one read gave: events, and what decoding its last record, at `offset`, raised.

    Rows of one transaction that follow each other stand in one list. `full` tells that more was there.
    `read_at` is in seconds since 1970.
    """

    events: deque[Event | list[Change]]
    trouble: Trouble | None
    offset: int
    full: bool
    read_at: float


def block(source: Source, decode: Decode) -> Block:
    """Return what is there, waiting a moment for it; raises what the source does."""
    records = source.read(_RECORDS, _PATIENCE)
    read_at, full = time.time(), len(records) == _RECORDS
    found: deque[Event | list[Change]] = deque()
    rows: list[Change] = []
    trouble: Trouble | None = None
    offset = 0
    for record in records:
        offset = record.offset
        try:
            decoded = decode(record)
        except (MalformedRecord, BrokenStream, Gap) as error:
            trouble = error
            break
        for event in decoded:
            if not isinstance(event, Change):
                found.append(event)
                rows = []
            elif rows and event.txid == rows[-1].txid:
                rows.append(event)
            else:
                found.append(rows := [event])
    return Block(found, trouble, offset, full, read_at)
