"""The daemon's loop: read, account, collect, write, commit; and what to do when something breaks.

Everything that goes wrong and may pass leads to one place: give up the session, wait, take the lock
again, read the position again, go there in the topic. What cannot pass raises Halt to the caller.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import psycopg

from cdc import daemon, events, failpoint, ledger, policy, position, postgres
from cdc import lsn as lsns
from cdc.apply import Applier
from cdc.batch import Batch, Buffer, Held, Torn
from cdc.config import Config
from cdc.errors import BrokenStream, NotReady, Unreachable
from cdc.events import Begin, End, Event, Message, Record
from cdc.guard import Guard
from cdc.ledger import Incomplete, Ledger
from cdc.position import Fenced, Position, Written
from cdc.source import Source

log = logging.getLogger(__name__)

#: Records taken from the consumer at once, and seconds to wait for the first.
_RECORDS = 500
_WAIT = 0.5

#: Seconds between looks at a lock or a copy that somebody else holds.
_LOOK_AGAIN = 1.0

#: Seconds between two summary lines in the log.
_SUMMARY_EVERY = 10.0

#: What an apply session needs on top of the pinned settings. Joins by nested loop: a staged batch
#: has no statistics, and a hash join over the whole table is what a wrong guess costs.
_SETTINGS = {
    "synchronous_commit": "off",  # the position is in the same transaction: lost together, applied again
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "10min",
    "client_connection_check_interval": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


class Resume(Exception):  # noqa: N818 -- the replicator goes on elsewhere in the log
    """The transaction that comes next stands whole at a later offset."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


@dataclasses.dataclass(slots=True)
class Session:
    """The writer's turn: holds the lock, knows the position, collects from there."""

    conn: psycopg.Connection[Any]
    applier: Applier
    position: Position
    ledger: Ledger
    buffer: Buffer
    next_offset: int
    in_transaction: bool = False
    end_ahead: End | None = None


class Replicator:
    """Applies the stream to one replica until `stop` is set."""

    def __init__(self, config: Config, replica: str, stop: threading.Event) -> None:
        self._config = config
        self._name = replica
        self._replica = config.replica(replica)
        self._stop = stop
        self._source = Source(config, config.group(replica), self._kafka_trouble)
        self._guard = Guard(config)
        self._suspicious = False
        self._skip_to: int | None = None
        self._failures = 0  # since something was applied
        self._summary = daemon.Summary(time.monotonic())

    def run(self, until: int | None = None) -> None:
        """Follow the stream; return when stopped, or when a commit after LSN `until` is applied.

        Raises Halt when a person is needed.
        """
        try:
            while not self._stop.is_set():
                try:
                    with self._session() as session:
                        if self._follow(session, until):
                            return
                except Fenced as reason:
                    if not self._stop.is_set():
                        log.info("starting again from the position: %s", reason)
                except (Resume, Torn) as later:
                    # From the position again it would only be met again.
                    self._skip_to = later.offset
                    log.info("the open transaction comes again whole from offset %d", later.offset)
                except Held as held:
                    log.info("waiting for the copy of %s", held.table)
                    self._stop.wait(_LOOK_AGAIN)
                except (Unreachable, psycopg.Error) as error:
                    if isinstance(error, psycopg.Error) and not policy.transient(error):
                        _refuse(error)
                    self._failures += 1
                    seconds = policy.pause(self._failures)
                    log.warning("%s; trying again in %.1f s", _trouble(error), seconds)
                    self._stop.wait(seconds)
        finally:
            self._source.close()

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        """Lock, then position, then seek: in this order nobody else can be writing."""
        application = self._config.application_name(self._name, "apply")
        opened = postgres.connect(
            self._replica.dsn, application, autocommit=True, settings=_SETTINGS
        )
        # Closed, never committed on the way out: a piece of a transaction may have been written.
        with contextlib.closing(opened) as conn:
            self._summary.forget_pieces()
            if not self._lock(conn):
                raise Fenced("stopped")
            failpoint.reach("session.locked")
            if self._replica.triggers == "session":
                # As in PostgreSQL's own apply worker: foreign keys and user triggers do not fire.
                conn.execute("SET session_replication_role = replica")
            at, coverage = position.load(conn, self._config.name)
            self._guard.first()
            self._source.seek(at)
            if self._skip_to is not None:
                self._source.rewind(self._skip_to)
                self._skip_to = None
            daemon.record(conn, self._config.name, "applying")
            log.info(
                "applying from offset %d, after LSN %s", at.next_offset, lsns.show(at.applied_lsn)
            )
            yield Session(
                conn,
                Applier(conn, self._replica.dsn, application),
                at,
                Ledger(at.applied_lsn, at.ring),
                Buffer(self._config.apply, coverage),
                at.next_offset,
            )

    def _lock(self, conn: psycopg.Connection[Any]) -> bool:
        """Wait as a hot standby until the writer's lock is ours; False when stopped meanwhile.

        Polled outside a transaction: waiting inside one would hold back vacuum.
        """
        waiting = False
        while not position.try_lock(conn, self._config.name):
            if not waiting:
                holder = position.lock_holder(conn, self._config.name)
                log.info(
                    "standing by: another daemon (server process %s) applies to this replica",
                    holder,
                )
                waiting = True
            if self._stop.wait(_LOOK_AGAIN):
                return False
        return True

    def _follow(self, session: Session, until: int | None) -> bool:
        """Apply until stopped (returns True) or a commit after `until` is applied (True)."""
        while not self._stop.is_set():
            if until is not None and session.position.applied_lsn > until:
                log.info("caught up with LSN %s", lsns.show(until))
                return True
            self._guard.again()
            self._source.watch(session.position)
            records = self._source.read(_RECORDS, _WAIT)
            if self._suspicious and records:
                self._suspicious = False
                raise Fenced("after trouble with Kafka the topic may be another one")
            for record in records:
                self._take(session, record)
            if len(records) < _RECORDS:  # else more is there, and larger batches cost less a row
                self._flush(session)
        return True

    def _take(self, session: Session, record: Record) -> None:
        session.next_offset = record.offset + 1
        event = events.decode(record)
        # Looked at before the ledger: after a failover LSNs go back, and new commits look repeated.
        heartbeat = (
            position.heartbeat(event, session.position) if isinstance(event, Message) else None
        )
        try:
            step = session.ledger.accept(event)
        except Incomplete as found:
            self._flush(session)
            raise Resume(self._later_copy(found)) from None
        except BrokenStream as error:
            self._flush(session)
            error.at(topic=record.topic, partition=record.partition, replica=self._name)
            raise
        if isinstance(step, Message):
            session.buffer.heartbeat = heartbeat or session.buffer.heartbeat
        elif step is not None:
            session.buffer.add(step)
            if session.buffer.full:
                self._flush(session)

    def _flush(self, session: Session) -> None:
        """Write every whole transaction collected, and a piece of one that is too large to wait."""
        while (batch := session.buffer.take()) is not None:
            self._write(session, batch)
        if session.buffer.full:
            self._write(session, session.buffer.take_piece(self._end_of_open(session)))

    def _write(self, session: Session, batch: Batch) -> None:
        started = time.monotonic()
        conn = session.conn
        if not session.in_transaction:
            conn.execute("BEGIN")
            session.in_transaction = True
            failpoint.reach("batch.begun")
        written = session.applier.write(batch.changes) if batch.changes else Written()
        failpoint.reach("rows.written")
        if not batch.ends:
            self._summary.piece(written)
            return
        session.position = position.advance(
            conn, session.position, batch.ends, batch.heartbeat, self._summary.total(written)
        )
        failpoint.reach("position.moved")
        conn.execute("COMMIT")
        failpoint.reach("batch.committed")
        session.in_transaction = False
        self._failures = 0
        self._source.acknowledge(session.position.next_offset)
        failpoint.reach("batch.acknowledged")
        self._summary.batch(batch, session.position, time.monotonic() - started)
        self._summary.say(time.monotonic(), _SUMMARY_EVERY)

    def _end_of_open(self, session: Session) -> int:
        """Return the END LSN of the open transaction, or the least it can be where that is enough.

        Only after a bootstrap does it matter which commits the copied rows hold already; then the
        END is looked up further on in the log.
        """
        least = session.ledger.applied + 1
        txid = session.buffer.open[0].txid
        if not (session.ledger.undecided(txid) or session.buffer.needs_end(least)):
            return least
        if session.end_ahead is not None and session.end_ahead.txid == txid:
            return session.end_ahead.lsn
        while True:
            for event in self._boundaries(session.next_offset):
                if isinstance(event, End) and event.txid == txid:
                    session.end_ahead = event
                    return event.lsn
            log.info("waiting for the end of transaction %d", txid)
            self._stop.wait(_LOOK_AGAIN)

    def _later_copy(self, found: Incomplete) -> int:
        """Return the offset where the transaction begins again; BrokenStream if it does not."""
        for event in self._boundaries(found.end.offset + 1):
            if isinstance(event, Begin) and event.txid == found.end.txid:
                return event.offset
        raise ledger.incomplete(found).at(topic=self._config.topic, replica=self._name)

    def _boundaries(self, offset: int) -> Iterator[Event]:
        """Yield the BEGINs and ENDs from `offset` to the log's present end; Fenced when stopped."""
        for record in self._source.ahead(offset):
            if self._stop.is_set():
                raise Fenced("stopped")
            # Without decoding rows: Debezium writes `status` first.
            if record.value is not None and record.value.startswith(b'{"status"'):
                yield events.decode(record)
        if self._stop.is_set():
            raise Fenced("stopped")

    def _kafka_trouble(self, what: str) -> None:
        self._suspicious = True
        self._summary.trouble(what, time.monotonic())


def _refuse(error: psycopg.Error) -> NoReturn:
    """Raise for what the replica refuses outside of rows: rights, a read-only server."""
    if error.sqlstate is None:  # not the server's word: a defect of ours
        raise error
    raise NotReady(
        f"the replica refuses what replication needs: {postgres.first_line(error)}",
        safe="the open batch was rolled back; the replica is consistent as of its position",
        next="run `cdc setup`: it gives the daemon's role its rights and says what it cannot give",
        sqlstate=error.sqlstate,
    ) from error


def _trouble(error: Exception) -> str:
    if isinstance(error, Unreachable):
        return error.what
    state = getattr(error, "sqlstate", None)
    return f"the replica: {postgres.first_line(error)}" + (f" ({state})" if state else "")
