"""Events out of the topic, and read ahead while a backlog is written.

Behind, this process waits most of the time for the replica: a thread then reads and decodes what
comes next. Caught up there is no thread, and what arrives is taken at once.
"""

from __future__ import annotations

import dataclasses
import threading
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

#: Bytes of records that are held decoded ahead of the loop: what it writes in a fraction of a second.
_AHEAD = 8 << 20

#: Seconds that the thread waits for records, and so how long it may take to end.
_WAIT = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """What one read gave: events, and what decoding its last record, at `offset`, raised.

    Rows of one transaction that follow each other stand in one list. `full` tells that more was there.
    `size` is in bytes, `read_at` in seconds since 1970.
    """

    events: deque[Event | list[Change]]
    trouble: Trouble | None
    offset: int
    full: bool
    size: int
    read_at: float


class Reading:
    """Reads `source` for one loop, which calls `stop` before it moves the source elsewhere."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ahead: _Ahead | None = None

    def next(self, decode: Decode) -> Block:
        """Return what is there, waiting a moment for it; raises what the source does.

        `decode` is the same until `stop` is called.
        """
        if self._ahead is None:
            block = _read(self._source, decode, _PATIENCE)
            if block.full:
                self._ahead = _Ahead(self._source, decode)
            return block
        block = self._ahead.take()
        if not block.full:
            self.stop()
        return block

    def stop(self) -> None:
        """Read no more, and forget what was read and not asked for."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None


class _Ahead:
    """The thread: it ends with the first block that is not full, or with what a read raises."""

    def __init__(self, source: Source, decode: Decode) -> None:
        self._source = source
        self._decode = decode
        self._blocks: deque[Block | BaseException] = deque()
        self._held = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="reading", daemon=True)
        self._thread.start()

    def take(self) -> Block:
        with self._changed:
            self._changed.wait_for(lambda: self._blocks)
            found = self._blocks.popleft()
            if isinstance(found, BaseException):
                raise found
            self._held -= found.size
            self._changed.notify()
        return found

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._room():
                block = _read(self._source, self._decode, _WAIT)
                self._put(block, block.size)
                if not block.full:
                    return
        except BaseException as error:  # noqa: BLE001 -- raised where the blocks are taken
            self._put(error, 0)

    def _room(self) -> bool:
        """Wait until there is room for another block; False when stopped."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._held < _AHEAD)
            return not self._stopped

    def _put(self, found: Block | BaseException, size: int) -> None:
        with self._changed:
            self._blocks.append(found)
            self._held += size
            self._changed.notify()


def _read(source: Source, decode: Decode, timeout: float) -> Block:
    records = source.read(_RECORDS, timeout)
    read_at, full = time.time(), len(records) == _RECORDS
    found: deque[Event | list[Change]] = deque()
    rows: list[Change] = []
    trouble: Trouble | None = None
    size, offset = 0, 0
    for record in records:
        size += len(record.value or b"")
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
    return Block(found, trouble, offset, full, size, read_at)
