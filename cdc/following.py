"""What the topic has for a few tables, applied by a bootstrap beside the daemon, as far as it is told.

The same ledger, buffer and applier as the daemon's: what is counted, skipped and halted at is the same. How
far it is stands in memory only: when it ends early, the tables are filled anew.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Mapping

import msgspec

from cdc import connectors, decoding
from cdc.apply import Applier
from cdc.batch import Batch, Buffer, Torn
from cdc.config import Config
from cdc.errors import ApplyRefused, Unreachable
from cdc.events import Event, Message, Record
from cdc.ledger import Apply, Gap, Ledger
from cdc.lookahead import Lookahead
from cdc.names import TableName
from cdc.position import Coverage, Fenced, Position
from cdc.session import Session
from cdc.source import Source
from cdc.writing import Turn

#: Records taken at once, seconds to wait for the first, and seconds without any after which it gives up:
#: shorter than what a session waits for a lock that is held meanwhile is of no use to anybody.
_RECORDS, _WAIT, _PATIENCE = 500, 0.2, 8.0

#: Group by which Kafka knows the consumer; it commits nothing.
_GROUP = "cdc-bootstrap"


class Again(Exception):  # noqa: N818 -- says what is to be done
    """What was written in the open transaction must be taken back; what comes next stands at `offset`."""

    def __init__(self, offset: int | None) -> None:
        super().__init__(offset)
        self.offset = offset


class Follower:
    """Writes events of tables into others, `into`, from the moment of a copy on.

    `start` has the copy's LSN as the applied one, and the offset of a record that was read before it.
    `conn` is in autocommit.
    """

    def __init__(
        self,
        config: Config,
        replica: str,
        conn: Session,
        start: Position,
        into: Mapping[TableName, TableName],
    ) -> None:
        self._config = config
        self._dsn = config.replica(replica).dsn
        self._application = config.application_name(replica, "bootstrap")
        self._conn = conn
        self._start = start
        self._into = dict(into)
        self._copied = start.applied_lsn
        self._source = Source(config, _GROUP, lambda _trouble: None)
        #: Up to where everything is committed: next offset, applied LSN and the last commits.
        self._settled = (start.next_offset, start.applied_lsn, start.ring)
        self._writing = False
        self._turn = self._begin(start.next_offset, skip_to=None)

    @property
    def next_offset(self) -> int:
        return self._turn.next_offset

    def close(self) -> None:
        self._source.close()

    def drop(self, table: TableName) -> None:
        """Follow a table no longer."""
        del self._into[table]

    def upto(self, offset: int) -> None:
        """Apply all that stands before `offset`, an END's or the one behind it, in transactions of our own."""
        while True:
            try:
                return self._read(offset, inside=False)
            except Again as again:
                self.go_back(again.offset)

    def upto_inside(self, offset: int) -> None:
        """Do so in the caller's transaction, who then calls `settle`; Again where it must be given up."""
        self._read(offset, inside=True)

    def settle(self) -> None:
        """Take what was written up to the offset that was asked for as committed."""
        self._settle(self._turn.next_offset)

    def go_back(self, offset: int | None = None) -> None:
        """Give up what is not committed and go on from there, with what comes next at `offset`."""
        self._conn.rollback()
        self._conn.execute("DISCARD TEMP")  # staging tables
        self._turn = self._begin(self._settled[0] if offset is None else offset, skip_to=offset)
        self._writing = False

    def _settle(self, offset: int) -> None:
        # An END's or the one behind it: in the middle of a transaction nothing can begin.
        ledger = self._turn.ledger
        self._settled = (offset, ledger.applied, tuple(ledger.ring))
        self._writing = False

    def _begin(self, offset: int, *, skip_to: int | None) -> Turn:
        _, applied, ring = self._settled
        self._source.seek(self._start)  # sees that the topic is still the same
        self._source.rewind(offset)
        self._records, self._events = deque[Record](), deque[Event]()
        at = dataclasses.replace(self._start, next_offset=offset, applied_lsn=applied, ring=ring)
        covered = {table: Coverage("copied", self._copied) for table in self._into.values()}
        return Turn(
            self._conn,
            Applier(self._conn, self._dsn, self._application),
            self._start,
            Ledger(applied, ring),
            Buffer(self._config.apply, covered),
            offset,
            Lookahead(self._source, threading.Event(), connectors.modes_of(self._config)),
            decoding.decoder(
                self._config, self._conn, at, self._into, self._source, skip_to=skip_to
            ),
        )

    def _read(self, offset: int, *, inside: bool) -> None:
        heard = time.monotonic()
        while self._turn.next_offset < offset:
            if not self._events and not self._records:
                self._records.extend(self._taken())
            if self._events or self._records:
                heard = time.monotonic()
                self._go_on(inside)
            elif time.monotonic() - heard > _PATIENCE:
                raise self._silent()
        self._flush(inside)

    def _go_on(self, inside: bool) -> None:
        """Take the next event, or the next record where no event is left."""
        turn = self._turn
        try:
            if self._events:
                self._take(self._events.popleft(), inside)
            else:
                self._events.extend(turn.decode(self._records.popleft()))
        except Gap as gap:
            if (later := turn.ahead.later_copy(gap, turn.ledger)) is None:
                raise gap.error from None
            if inside:
                raise Again(None) from None
            self._flush(inside)
            raise Again(later) from None

    def _taken(self) -> list[Record]:
        try:
            return self._source.read(_RECORDS, _WAIT)
        except Fenced as trouble:
            raise Again(None) from trouble

    def _take(self, event: Event, inside: bool) -> None:
        turn = self._turn
        turn.next_offset = event.offset + 1
        step = turn.ledger.accept(event)
        if isinstance(step, Apply):
            table = self._into.get(step.change.table)
            if table is None:
                return
            step = Apply(msgspec.structs.replace(step.change, table=table))
        if step is None or isinstance(step, Message):
            return
        try:
            turn.buffer.add(step)
        except Torn as torn:
            raise Again(None if inside else torn.offset) from None
        if turn.buffer.full:
            self._flush(inside)

    def _flush(self, inside: bool) -> None:
        buffer = self._turn.buffer
        while (batch := buffer.take()) is not None:
            self._write(batch, inside)
            if not inside:
                if self._writing:
                    self._conn.execute("COMMIT")
                self._settle(batch.ends[-1].offset + 1)
        if buffer.full:
            self._write(buffer.take_piece(self._end_of_open()), inside)

    def _end_of_open(self) -> int:
        """Return how far the open transaction goes; Unreachable where the topic stays silent before its END."""
        ahead, heard = self._turn.ahead, time.monotonic()
        reached = ahead.read_to
        while (end := self._turn.end_of_open()) is None:
            if ahead.read_to > reached:
                reached, heard = ahead.read_to, time.monotonic()
            elif time.monotonic() - heard > _PATIENCE:
                raise self._silent()
            time.sleep(_WAIT)
        return end

    def _write(self, batch: Batch, inside: bool) -> None:
        if not batch.changes:
            return
        if not inside and not self._writing:
            self._conn.execute("BEGIN")
            self._writing = True
        written = self._turn.applier.write(batch.changes)
        if lost := written.unmatched_updates + written.unmatched_deletes:
            raise ApplyRefused(
                f"{lost} changes of the stream found no row among those just copied",
                safe="the table is as it was before; its new rows are thrown away",
                next="run `cdc bootstrap` again; if it comes to this again, report it",
            )

    def _silent(self) -> Unreachable:
        return Unreachable(
            f"the topic gives nothing more at offset {self._turn.next_offset}, where the daemon has read on",
            safe="the tables are as they were before",
            next="see that Kafka runs, then run `cdc bootstrap` again",
            topic=self._config.topic,
        )
