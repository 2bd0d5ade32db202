"""Reading on in the log, without moving, for what a transaction's end or a later copy says."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

from cdc import events, runs, stock
from cdc.events import Begin, Change, End, Event, Message
from cdc.ledger import Gap, Ledger
from cdc.modes import Modes
from cdc.position import Fenced
from cdc.source import Source


class Resume(Exception):  # noqa: N818 -- the replicator goes on elsewhere in the log
    """The transaction that comes next stands whole at a later offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


@dataclasses.dataclass(slots=True)
class Lookahead:
    """Looks at the boundaries of transactions further on; every method raises Fenced when stopped.

    `modes` are those of a stock connector, None where the capture plugin writes. `read_to` is the offset
    behind what was read last, for the END of the transaction `sought`.
    """

    source: Source
    stop: threading.Event
    modes: Modes | None = None
    found: tuple[int, int] | None = None
    looked_to: int = 0
    sought: int | None = None
    read_to: int = 0

    def end_of(self, txid: int, follows: int, offset: int) -> int | None:
        """Return the LSN of the next END of `txid` from `offset` on, None if it is not there yet.

        Where it is missing, the next BEGIN names it all the same: the ledger halts there, it need not
        be waited for. `follows` is the END that `txid` itself follows. Asked again, it goes on behind
        what it has read.
        """
        if self.found is not None and self.found[0] == txid:
            return self.found[1]
        if self.sought != txid:
            self.sought, self.read_to = txid, offset
        for event in self._boundaries(max(offset, self.read_to)):
            match event:
                case End(found, lsn) if found == txid:
                    self.found = txid, lsn
                case Begin(found, _, int(previous)) if found != txid and previous > follows:
                    self.found = txid, previous
                case _:
                    continue
            return self.found[1]
        return None

    def later_copy(self, gap: Gap, ledger: Ledger) -> int | None:
        """Return the offset behind the gap where what comes next begins, None if it is not there yet.

        Asked again, it goes on behind the last boundary it saw.
        """
        self.sought = None  # what is read here is further on than what `end_of` has seen
        if self.modes is not None:
            return self._marked(gap, ledger, self.modes)
        for event in self._boundaries(max(gap.offset + 1, self.looked_to)):
            if isinstance(event, Begin) and ledger.follows(event):
                return event.offset
            self.looked_to = event.offset + 1
        return None

    def _marked(self, gap: Gap, ledger: Ledger, modes: Modes) -> int | None:
        """Return where a run begins that `cdc connectors rewind` has let begin early enough."""
        begin: Begin | None = None
        for record in self.source.ahead(max(gap.offset + 1, self.looked_to)):
            if self.stop.is_set():
                raise Fenced("stopped")
            found = stock.decode(record, modes)
            if isinstance(found.event, Begin):
                begin, self.looked_to = found.event, record.offset
            after = runs.marked(found.link)
            if (
                after is not None
                and after <= ledger.applied
                and isinstance(found.event, Change | Message)
                and begin is not None
                and begin.txid == found.event.txid
            ):
                return begin.offset
        return None

    def _boundaries(self, offset: int) -> Iterator[Event]:
        """Yield the BEGINs and ENDs from `offset` to the log's present end."""
        for record in self.source.ahead(offset):
            if self.stop.is_set():
                raise Fenced("stopped")
            self.read_to = record.offset + 1
            # Without decoding rows: Debezium writes `status` first.
            if self.modes is not None:
                if stock.is_boundary(record.value):
                    yield stock.decode(record, self.modes).event
            elif events.is_boundary(record.value):
                yield events.decode(record)
        if self.stop.is_set():
            raise Fenced("stopped")
