"""What the daemon tells people: its state on the replica, its lines in the log."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import time
from typing import Any

import psycopg

from cdc import lsn as lsns
from cdc.batch import Batch
from cdc.gauge import Gauge
from cdc.logs import BATCHES
from cdc.position import Position, Written

log = logging.getLogger(__name__)
batches = logging.getLogger(BATCHES)

#: Seconds between two log lines about the same trouble.
_REPEAT_AFTER = 30.0

#: Seconds that a daemon is believed to wait after it said so: longer than any pause between tries.
#: It holds no lock while it waits for Kafka, so that another daemon may take over.
WAITING_FOR = 90.0


def record(
    conn: psycopg.Connection[Any], stream: str, state: str, error: str | None = None
) -> None:
    """Write the daemon's state in a transaction of its own; `conn` is in autocommit."""
    conn.execute(
        "INSERT INTO cdc.daemon (stream, pid, host, state, error, started_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())"
        " ON CONFLICT (stream) DO UPDATE SET pid = excluded.pid, host = excluded.host,"
        " state = excluded.state, error = excluded.error, updated_at = excluded.updated_at,"
        " started_at = CASE WHEN cdc.daemon.pid = excluded.pid THEN cdc.daemon.started_at"
        " ELSE excluded.started_at END",
        [stream, os.getpid(), socket.gethostname(), state, error],
    )


@dataclasses.dataclass(slots=True)
class Teller:
    """Keeps the daemon's state true: on the replica while it holds the lock, in memory at any time."""

    stream: str
    gauge: Gauge
    _told: str | None = None
    _told_at: float = 0.0

    def applying(self, conn: psycopg.Connection[Any]) -> None:
        """Record it where something else was told before; `conn` is in no transaction."""
        self.gauge.doing, self.gauge.trouble = "applying", None
        if self._told != "":
            record(conn, self.stream, "applying")
            self._told = ""

    def waiting(self, conn: psycopg.Connection[Any] | None, what: str) -> None:
        """Record what is waited for, where the replica lets us; `conn` is in no transaction.

        Again after a while: `cdc status` believes it for `WAITING_FOR` seconds. In memory alone where
        there is no session.
        """
        self.gauge.step()
        self.gauge.doing, self.gauge.trouble = "waiting", what
        if conn is None:
            return
        now = time.monotonic()
        if self._told == what and now - self._told_at < _REPEAT_AFTER / 3:
            return
        self._told, self._told_at = what, now
        with contextlib.suppress(psycopg.Error):
            record(conn, self.stream, "waiting", f"waits: {what}")


@dataclasses.dataclass(slots=True)
class Summary:
    """Counts what was applied and says it now and then."""

    said_at: float
    gauge: Gauge
    transactions: int = 0
    rows: int = 0
    seconds: float = 0.0
    position: Position | None = None
    commit_ms: int = 0
    _commit: Written = dataclasses.field(default_factory=Written)
    _pieces: Written = dataclasses.field(default_factory=Written)
    _troubles: dict[str, float] = dataclasses.field(default_factory=dict)

    def piece(self, written: Written) -> None:
        """Remember what a piece of a transaction wrote, until it commits."""
        self._pieces += written

    def forget_pieces(self) -> None:
        """Forget pieces that were rolled back."""
        self._pieces = Written()

    def total(self, written: Written) -> Written:
        """Return what the whole commit wrote, its earlier pieces included."""
        self._commit, self._pieces = self._pieces + written, Written()
        return self._commit

    def batch(self, batch: Batch, position: Position, seconds: float) -> None:
        self.transactions += len(batch.ends)
        self.rows += self._commit.rows
        self.seconds += seconds
        self.position, self.commit_ms = position, batch.ends[-1].commit_ms
        self.gauge.applied(batch, position, self._commit, seconds)
        if batches.isEnabledFor(logging.INFO):
            self._say_batch(batch, position, seconds)

    def _say_batch(self, batch: Batch, position: Position, seconds: float) -> None:
        at = lsns.show(position.applied_lsn)
        batches.info(
            "batch of %d transactions, %d rows, %d skipped, %.1f ms, to LSN %s",
            len(batch.ends),
            len(batch.changes),
            batch.skipped,
            seconds * 1000,
            at,
            extra={
                "event.action": "batch-applied",
                "event.duration": round(seconds * 1e9),
                "cdc.replica": self.gauge.replica,
                "cdc.transactions": len(batch.ends),
                "cdc.rows": self._commit.rows,
                "cdc.skipped": batch.skipped,
                "cdc.lsn": at,
                "cdc.next_offset": position.next_offset,
                "cdc.commit_age_seconds": round(time.time() - batch.ends[0].commit_ms / 1000, 3),
            },
        )

    def say(self, now: float, every: float) -> None:
        """Log a line about everything since the last one, at most once per `every` seconds."""
        if now - self.said_at < every or self.position is None:
            return
        log.info(
            "applied %d transactions, %d rows; at LSN %s, %.1f s behind",
            self.transactions,
            self.rows,
            lsns.show(self.position.applied_lsn),
            max(0.0, time.time() - self.commit_ms / 1000),
        )
        self.said_at, self.transactions, self.rows, self.seconds = now, 0, 0, 0.0

    def trouble(self, what: str, now: float) -> None:
        """Log trouble once, and again only after a while."""
        if now - self._troubles.get(what, -_REPEAT_AFTER) >= _REPEAT_AFTER:
            self._troubles[what] = now
            log.warning("%s", what)
