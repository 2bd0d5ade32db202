"""The daemon's loop: read, account, collect, write, commit; and what to do when something breaks.

Everything that goes wrong and may pass leads to one place: give up the turn, wait, read the
position again, go there in the topic. The session is kept, and with it the lock, unless it is what
broke. What cannot pass raises Halt to the caller.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import NoReturn

import psycopg

from cdc import connectors, daemon, decoding, failpoint, policy, position, reading, writing
from cdc import lsn as lsns
from cdc.apply import Applier
from cdc.awaiting import Awaiting
from cdc.batch import Batch, Buffer, Held, Torn
from cdc.blockers import Blockers
from cdc.config import Config
from cdc.errors import BrokenStream, Halt, MalformedRecord, Unreachable
from cdc.events import Begin, Change, Event, Message
from cdc.gauge import Gauge
from cdc.guard import Guard
from cdc.history import Succession
from cdc.keeper import Keeper
from cdc.ledger import Gap, Ledger
from cdc.lookahead import Lookahead, Resume
from cdc.names import TableName
from cdc.position import Fenced, HeartbeatContent, Written
from cdc.reading import Reading, Trouble, Whole
from cdc.session import Session
from cdc.source import PARTITION, Source
from cdc.strangers import Strangers
from cdc.writing import Turn

log = logging.getLogger(__name__)

#: Seconds between two summary lines in the log.
_SUMMARY_EVERY = 10.0


class Replicator:
    """Applies the stream to one replica until `stop` is set."""

    def __init__(self, config: Config, replica: str, stop: threading.Event, gauge: Gauge) -> None:
        self._config = config
        self._name = replica
        self._replica = config.replica(replica)
        self._stop = stop
        self._source = Source(config, config.group(replica), self._trouble)
        self._gauge = gauge
        self._teller = daemon.Teller(config.name, gauge)
        self._guard = Guard(config)
        self._succession = Succession(config, replica)
        self._keeper = Keeper(config, replica)
        self._strangers = Strangers(config, replica, stop)
        self._blockers = Blockers(self._replica.dsn, config.application_name(replica, "look"))
        self._skip_to: int | None = None
        self._failures = 0  # since something was applied
        self._refused = False  # the replica has refused something since then
        self._summary = daemon.Summary(time.monotonic(), gauge)
        self._awaiting = Awaiting(
            config.apply.missing_timeout,
            stop,
            self._guard,
            self._teller,
            self._trouble,
            self._watch,
        )

    def run(self, until: int | None = None) -> None:
        """Follow the stream; return when stopped, or when a commit after LSN `until` is applied.

        Raises Halt when a person is needed.
        """
        try:
            while not self._stop.is_set():
                try:
                    with self._session() as conn:
                        if self._turns(conn, until):
                            return
                except Fenced as reason:
                    if not self._stop.is_set():
                        log.info("starting again from the position: %s", reason)
                except (Unreachable, psycopg.Error) as error:
                    self._pause(error, None)
        finally:
            self._blockers.close()
            self._source.close()

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """Give a session that holds the lock."""
        # Closed, never committed on the way out: a piece of a transaction may have been written.
        with contextlib.closing(writing.connect(self._config, self._name)) as conn:
            self._gauge.doing = "standing by"
            if not writing.lock(conn, self._config.name, self._stop):
                raise Fenced("stopped")
            self._gauge.doing = "starting"
            failpoint.reach("session.locked")
            yield conn

    def _turns(self, conn: Session, until: int | None) -> bool:
        """Take turns in one session until stopped or caught up (True); raises what breaks it."""
        while not self._stop.is_set():
            try:
                turn = self._turn(conn)
                try:
                    read = Reading(self._source, turn.decode)
                    with conn.working(read.ahead):
                        return self._follow(turn, read, until)
                except Held as held:
                    self._wait_for_copy(turn, held.table)
            except (Resume, Torn) as later:
                # From the position again it would only be met again.
                self._skip_to = later.offset
                log.info("what comes next comes again whole from offset %d", later.offset)
            except Unreachable as error:
                # Kafka, or a further session on the replica: another daemon may fare better.
                conn.rollback()
                self._teller.waiting(conn, error.what)
                raise
            except psycopg.Error as error:
                if conn.closed:
                    self._gauge.lost_at = time.monotonic()
                    raise
                conn.rollback()
                self._pause(error, conn)
        return True

    def _turn(self, conn: Session) -> Turn:
        """Lock, then position, then seek: in this order nobody else can be writing."""
        conn.rollback()
        conn.execute("DISCARD TEMP")  # staging tables of the turn before
        self._summary.forget_pieces()
        at, coverage = position.load(conn, self._config.name)
        self._gauge.loaded(at, coverage)
        self._guard.first()
        self._source.seek(at)
        skip_to, self._skip_to = self._skip_to, None
        if skip_to is not None:
            self._source.rewind(skip_to)
        log.info("applying from offset %d, after LSN %s", at.next_offset, lsns.show(at.applied_lsn))
        application = self._config.application_name(self._name, "apply")
        return Turn(
            conn,
            Applier(conn, self._replica.dsn, application),
            at,
            Ledger(at.applied_lsn, at.ring),
            Buffer(self._config.apply, coverage, partial(self._strangers.pass_over, coverage)),
            at.next_offset,
            Lookahead(self._source, self._stop, connectors.modes_of(self._config)),
            decoding.decoder(self._config, conn, at, coverage, self._source, skip_to=skip_to),
        )

    def _pause(self, error: Unreachable | psycopg.Error, conn: Session | None) -> None:
        """Say what is waited for and wait, longer each time; raises NotReady where waiting is vain."""
        if isinstance(error, psycopg.Error) and not policy.transient(error):
            policy.refuse(error)
        self._failures += 1
        self._refused = isinstance(error, psycopg.Error)
        seconds = policy.pause(self._failures)
        what = policy.told(error)
        log.warning("%s; trying again in %.1f s", what, seconds)
        self._teller.waiting(conn, what)
        self._stop.wait(seconds)

    def _wait_for_copy(self, turn: Turn, table: TableName) -> None:
        """Wait until a bootstrap has changed what the replica records of its tables."""
        log.info("waiting for the copy of %s", table)
        turn.conn.rollback()
        self._teller.waiting(turn.conn, f"for the copy of {table} to end (`cdc bootstrap`)")
        while not self._stop.wait(writing.LOOK_AGAIN) and turn.held_by(table):
            pass

    def _tell(self, turn: Turn) -> None:
        """Keep `cdc status` right; within a transaction it must wait."""
        if turn.in_transaction:
            return
        if self._source.silent is not None:
            self._teller.waiting(turn.conn, self._source.silent)
        elif not self._refused:
            self._teller.applying(turn.conn)

    def _follow(self, turn: Turn, read: Reading, until: int | None) -> bool:
        """Apply until stopped (returns True) or a commit after `until` is applied (True)."""
        while not self._stop.is_set():
            if until is not None and turn.position.applied_lsn > until:
                log.info("caught up with LSN %s", lsns.show(until))
                return True
            self._tell(turn)
            self._watch(turn)
            block = read.next()
            self._gauge.read_at = time.time()
            for found in block.events:
                if isinstance(found, reading.Failed):
                    self._broken(turn, found.trouble, found.offset)
                elif not isinstance(found, list | Whole):
                    self._take(turn, found)
                elif not turn.take(found):
                    self._take_each(turn, found)
                del found  # a large row is not kept while the next one is decoded
            self._gauge.pending(turn.pending)
            if not block.full:  # else more is there, and larger batches cost less a row
                self._flush(turn)
        return True

    def _watch(self, turn: Turn) -> None:
        """Say that the loop goes on; raises what connector, primary and topic have become."""
        self._guard.again()
        self._succession.again(turn.position, turn.holds)
        self._keeper.again(turn.position.applied_lsn)
        self._source.watch(turn.position)
        self._gauge.step()

    def _take_each(self, turn: Turn, events: Iterable[Event]) -> None:
        for event in events:
            self._take(turn, event)

    def _take(self, turn: Turn, event: Event) -> None:
        turn.next_offset = event.offset + 1
        heartbeat = None
        try:
            if not isinstance(event, Change):
                # Before the ledger: after a failover LSNs go back, and new commits look repeated.
                heartbeat = self._from(turn, event)
            step = turn.ledger.accept(event)
        except (Gap, BrokenStream, MalformedRecord) as trouble:
            self._broken(turn, trouble, event.offset)
        if isinstance(step, Message):
            turn.buffer.heartbeat = heartbeat or turn.buffer.heartbeat
        elif step is not None:
            turn.buffer.add(step)
            if turn.buffer.full:
                self._flush(turn)

    def _broken(self, turn: Turn, trouble: Trouble, offset: int) -> NoReturn:
        """Write what came whole before `offset`; raise Resume, or what is wrong, with its place."""
        self._flush(turn)
        try:
            if isinstance(trouble, Gap):
                raise Resume(self._awaiting.copy(turn, trouble)) from None
            raise trouble
        except (BrokenStream, MalformedRecord) as error:
            self._succession.explain(turn.position, turn.holds)
            error.at(
                topic=self._config.topic, partition=PARTITION, offset=offset, replica=self._name
            )
            raise

    def _from(self, turn: Turn, event: Event) -> HeartbeatContent | None:
        """Follow the primary to a new timeline where nothing was lost; raises BrokenStream.

        Returns what a heartbeat says.
        """
        heartbeat = None
        if isinstance(event, Begin):
            origin = event.origin
        elif isinstance(event, Message) and (heartbeat := position.heartbeat(event, turn.position)):
            origin = heartbeat.origin
        else:
            return None
        if origin not in (None, turn.position.origin):
            self._flush(turn)
            turn.position = self._succession.follow(turn.position, turn.holds, origin, event.lsn)
        return heartbeat

    def _flush(self, turn: Turn) -> None:
        """Write every whole transaction collected, and a piece of one that is too large to wait."""
        while (batch := turn.buffer.take()) is not None:
            self._write(turn, batch)
        if turn.buffer.full:
            self._write(turn, turn.buffer.take_piece(self._awaiting.end(turn)))

    def _write(self, turn: Turn, batch: Batch) -> None:
        started, conn = time.monotonic(), turn.conn
        self._gauge.writing(batch.ends[0].commit_ms if batch.ends else turn.pending)
        if not turn.in_transaction:
            conn.execute("BEGIN")
            turn.in_transaction = True
            failpoint.reach("batch.begun")
        written = self._written(turn, batch) if batch.changes else Written()
        failpoint.reach("rows.written")
        if not batch.ends:
            self._summary.piece(written)
            return
        turn.position = position.advance(
            conn, turn.position, batch.ends, batch.heartbeat, self._summary.total(written)
        )
        failpoint.reach("position.moved")
        conn.execute("COMMIT")
        failpoint.reach("batch.committed")
        turn.in_transaction = False
        self._failures, self._refused = 0, False
        self._source.acknowledge(turn.position.next_offset)
        failpoint.reach("batch.acknowledged")
        self._summary.batch(batch, turn.position, time.monotonic() - started)
        self._summary.say(time.monotonic(), _SUMMARY_EVERY)

    def _written(self, turn: Turn, batch: Batch) -> Written:
        try:
            with self._blockers.watching(turn.conn):
                return turn.applier.write(batch.changes)
        except Halt as halt:
            turn.conn.rollback()
            # What did not fit may be a table that was, or is being, filled again.
            turn.require_generation()
            if (table := turn.refilled(halt)) is not None:
                raise Held(table) from halt
            raise

    def _trouble(self, what: str) -> None:
        self._summary.trouble(what, time.monotonic())
