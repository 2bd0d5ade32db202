"""The right to write on a replica: a session that holds the lock, and a turn from a known place.

One daemon writes, the one whose session holds the lock; another stands by. Within the session the
writer takes turns: each begins with the position as it is read then, and ends when what was
collected must be given up.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from typing import Any

import psycopg

from cdc import position, postgres, shadow, state
from cdc.apply import Applier
from cdc.batch import Buffer
from cdc.config import Config
from cdc.decoding import Decode
from cdc.errors import Halt
from cdc.events import Change
from cdc.ledger import Ledger
from cdc.lookahead import Lookahead
from cdc.names import TableName
from cdc.position import Fenced, Position
from cdc.reading import Whole
from cdc.session import Session

log = logging.getLogger(__name__)

#: Seconds between looks at what comes by somebody else's doing.
LOOK_AGAIN = 1.0

#: What an apply session needs on top of the pinned settings.
SETTINGS = {
    "synchronous_commit": "off",  # the position is in the same transaction: lost together, applied again
    "lock_timeout": "10s",
    "statement_timeout": "0",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "10min",
    "idle_session_timeout": "0",  # it waits for Kafka with the lock in its hand
    # With these the server itself ends the session of a daemon that has vanished, and with it the
    # lock, so that one standing by elsewhere goes on (`VANISHED`).
    "client_connection_check_interval": "10s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25s",
    # Joins by nested loop: a staged batch has no statistics, and a hash join over the whole table
    # is what a wrong guess costs.
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


@dataclasses.dataclass(slots=True)
class Turn:
    """What the writer knows and has collected since it last read the position."""

    conn: Session
    applier: Applier
    position: Position
    ledger: Ledger
    buffer: Buffer
    next_offset: int
    ahead: Lookahead
    decode: Decode
    in_transaction: bool = False

    def take(self, found: Whole | list[Change]) -> bool:
        """Take what is plainly next and fits in; False where each event needs a look.

        That is a transaction of the server that is followed, or rows that go on with an open one.
        """
        if isinstance(found, Whole):
            return self._take_whole(found)
        rows = found
        if not (self.buffer.fits(rows) and self.ledger.continues(rows)):
            return False
        self.buffer.extend(rows)
        self.next_offset = rows[-1].offset + 1
        return True

    def _take_whole(self, found: Whole) -> bool:
        begin, rows, end = found.begin, found.rows, found.end
        if not (
            begin.origin in (None, self.position.origin)
            and self.buffer.fits(rows)
            and self.ledger.links(begin, rows, end)
        ):
            return False
        self.buffer.append(end, rows)
        self.next_offset = end.offset + 1
        return True

    def give_up(self) -> None:
        """Take back what was written of a transaction, and drop what was read of it."""
        self.conn.rollback()
        self.in_transaction = False
        self.buffer.drop_open()

    def require_generation(self) -> None:
        """Raise Fenced where a bootstrap has changed what the turn began with."""
        if position.generation(self.conn, self.position.stream) != self.position.generation:
            raise Fenced("a bootstrap changed the tables")

    def refilled(self, halt: Halt) -> TableName | None:
        """Return the table of which a running bootstrap has new rows in the making, if it is at fault."""
        found = shadow.under_way(self.conn, self.position.stream)
        return next((name for name in found if str(name) == halt.place.table), None)

    def held_by(self, table: TableName) -> bool:
        """Tell whether a bootstrap must still do something about a table before the turn can go on."""
        at, coverage = position.load(self.conn, self.position.stream)
        if (at.generation, coverage) != (self.position.generation, self.buffer.coverage):
            return False
        covered = coverage.get(table)
        return (covered is not None and covered.state != "copied") or table in shadow.under_way(
            self.conn, self.position.stream
        )

    def end_of_open(self) -> int | None:
        """Return the END LSN of the open transaction, or the least it can be where that is enough.

        None where it is needed and not in the log yet. Only after a bootstrap does it matter which
        commits the copied rows hold already; then the END is looked up further on in the log.
        """
        least = self.ledger.applied + 1
        txid = self.buffer.open[0].txid
        if not (self.ledger.undecided(txid) or self.buffer.needs_end(least)):
            return least
        return self.ahead.end_of(txid, self.ledger.previous_of(txid), self.next_offset)

    @property
    def pending(self) -> int | None:
        """When the first transaction that was read and not taken committed, in ms since 1970."""
        whole = self.buffer.whole
        return whole[0].end.commit_ms if whole else self.ledger.open_since

    @property
    def holds(self) -> int:
        """The LSN up to which commits of the primary may be on the replica, copies included."""
        return position.holds(self.position.applied_lsn, self.buffer.coverage.values())


def connect(config: Config, replica: str, purpose: str = "apply") -> Session:
    """Open a session that applies, the one that will hold the lock; Unreachable when it is not let in."""
    at = config.replica(replica)
    application = config.application_name(replica, purpose)
    conn = postgres.connect(at.dsn, application, autocommit=True, settings=SETTINGS)
    if at.triggers == "session":
        try:
            # As in PostgreSQL's own apply worker: foreign keys and user triggers do not fire.
            conn.execute("SET session_replication_role = replica")
        except BaseException:
            conn.close()
            raise
    return conn


def lock(conn: psycopg.Connection[Any], stream: str, stop: threading.Event) -> bool:
    """Wait as a hot standby until the writer's lock is ours; False when stopped meanwhile.

    Polled outside a transaction: waiting inside one would hold back vacuum. Raises NotReady where
    the schema cdc is not one that we may write beside: before the wait, or it would be told only
    when the other daemon is gone, and after it, for it may have been brought forward meanwhile.
    """
    waiting = False
    state.require(conn)
    while not position.try_lock(conn, stream):
        if not waiting:
            holder = position.lock_holder(conn, stream)
            log.info(
                "standing by: another daemon (server process %s) applies to this replica", holder
            )
            waiting = True
        if stop.wait(LOOK_AGAIN):
            return False
    if waiting:
        state.require(conn)
    return True
