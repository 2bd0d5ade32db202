"""The whole stream seen from outside: primary, connector, slot, topic and replicas, in one look.

Nothing here asks a daemon: one that is dead, or a Connect or replica that is, is seen all the same.
Every end is asked at once, so that one that hangs costs a look two seconds and no more.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import psycopg
from psycopg import sql

from cdc import explanation, history, lag, position, postgres, readings, strays, unapplied
from cdc.config import Config
from cdc.connect import Connect
from cdc.errors import BrokenStream, CdcError, Unreachable
from cdc.history import History
from cdc.lag import Lag, Reading, Sample
from cdc.names import TableName
from cdc.position import Coverage
from cdc.readings import Capture, PrimaryReading, ReplicaReading
from cdc.strays import Inventory, Stray

T = TypeVar("T")

#: Seconds between two looks at what changes seldom: the primary's tables and history.
_SELDOM = 60.0

#: Intervals for which an answer is carried on when there is none.
STALE = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """The connector's slot: bytes of log it retains, and seconds until it is lost at this rate.

    `wal_status` is pg_replication_slots.wal_status; `lost_in` is None where there is no limit
    (max_slot_wal_keep_size) or the rate is not known yet.
    """

    active: bool
    wal_status: str | None
    retained: int | None
    lost_in: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Observation:
    """One look. `at` is the primary's clock as far as it is known, else this machine's.

    `unread` has the error of everything that could not be read: "primary", "connect", "kafka" or a
    replica's name. `strays` are tables that primary and replicas do not share as they should. `skew` is each end's clock less this machine's, in seconds, by the same names.
    `oldest_transaction` is the age in seconds of the oldest open one that writes on the primary;
    `tables_known` tells whether its tables have been read, without which there are no strays.
    """

    at: float
    lags: tuple[Lag, ...]
    capture: Capture | None
    slot: Slot | None
    strays: tuple[Stray, ...]
    skew: dict[str, float]
    unread: dict[str, CdcError]
    readings: dict[str, ReplicaReading]
    oldest_transaction: float | None
    tables_known: bool = True

    def lag(self, replica: str) -> Lag:
        return next(found for found in self.lags if found.replica == replica)


class _Seldom:
    """A look in the background at the primary's tables and history; it may take its time."""

    def __init__(self, config: Config) -> None:
        self.inventory: Inventory | None = None
        self.history: History | None = None
        self._config = config
        self._thread: threading.Thread | None = None
        self._began = 0.0

    def again(self, now: float) -> None:
        """Begin another look when one is due; the first is waited for as long as for any end."""
        if self._thread is not None and (self._thread.is_alive() or now - self._began < _SELDOM):
            return
        first, self._began = self._thread is None, now
        self._thread = threading.Thread(target=self._look, name="look", daemon=True)
        self._thread.start()
        if first:
            self._thread.join(readings.PATIENCE)

    def _look(self) -> None:
        application = self._config.application_name("primary", "look")
        # That the primary cannot be read the other looks tell.
        with contextlib.suppress(CdcError, psycopg.Error):
            self.history = history.read(self._config.primary.dsn, application)
            with contextlib.closing(
                postgres.connect(
                    self._config.primary.dsn, application, autocommit=True,
                    connect_timeout=round(readings.PATIENCE),
                )
            ) as conn:  # fmt: skip
                self.inventory = readings.inventory(self._config, conn)


class Observer:
    """Looks at the replicas `names` again and again; `interval` is the seconds between two looks.

    What a replica said is carried on for three intervals when it cannot be read, and the primary's
    clock likewise; then the lag is unknown.
    """

    def __init__(self, config: Config, names: Sequence[str], interval: float = 5.0) -> None:
        self._config = config
        self._carried = STALE * max(interval, readings.PATIENCE)
        self._primary = readings.Primary(config)
        self._replicas = {name: readings.Replica(config, name) for name in names}
        self._connect = Connect(config.connect, patience=0, timeout=readings.PATIENCE)
        self._log = unapplied.Log(config)
        self._pool = ThreadPoolExecutor(len(self._replicas) + 3, "look")
        self._seldom = _Seldom(config)
        self._clock: tuple[float, float] | None = None  # primary's less monotonic, known at
        self._known: dict[str, tuple[ReplicaReading, float]] = {}
        self._trails: dict[str, deque[Sample]] = {name: deque(maxlen=600) for name in names}
        self._written: deque[tuple[float, int]] = deque(maxlen=600)

    def look(self, now: float) -> Observation:
        """Look once; `now` is this machine's clock in seconds since 1970. Errors stand in the result."""
        wall = now - time.monotonic()
        unread: dict[str, CdcError] = {}
        skew: dict[str, float] = {}
        ask = self._pool.submit
        asked = {name: ask(replica.read) for name, replica in self._replicas.items()}
        of_primary, of_log = ask(self._primary.read), ask(self._log.end)
        of_connect = ask(readings.capture, self._connect, self._config.connector)
        self._seldom.again(time.monotonic())
        if (found := _answer(of_primary, "primary", unread)) is not None:
            skew["primary"] = found[0].clock - found[1] - wall
            self._clock = (found[0].clock - found[1], found[1])
            self._written.append((found[0].clock, found[0].lsn))
        for name, future in asked.items():
            if (said := _answer(future, name, unread)) is not None:
                skew[name] = said[0].clock - said[1] - wall
                self._known[name] = said
        capture = _answer(of_connect, "connect", unread)
        end = _answer(of_log, "kafka", unread)
        lags = [self._lag(name, end, unread) for name in self._replicas]
        said_by = {n: known[0] for n, known in self._known.items() if n not in unread}
        capture = self._complained(capture, lags)
        return Observation(
            time.monotonic() + (wall if self._clock is None else self._clock[0]),
            tuple(explanation.added(at, said_by.get(at.replica), capture, unread) for at in lags),
            capture,
            None if found is None else self._slot(found[0]),
            self._strays(said_by),
            skew,
            unread,
            said_by,
            None if found is None else found[0].oldest_transaction,
            self._seldom.inventory is not None,
        )

    def ask(self, replica: str, query: sql.Composed) -> None:
        """Execute one more SELECT over the session of a replica's looks; raises as `postgres.ask`."""
        self._replicas[replica].ask(query)

    def close(self) -> None:
        self._pool.shutdown()
        self._primary.close()
        self._log.close()
        for replica in self._replicas.values():
            replica.close()

    def _complained(self, capture: Capture | None, lags: Sequence[Lag]) -> Capture | None:
        """Add what the worker's log says where a connector that runs sends nothing."""
        log = self._config.connect.log
        silent = any(found.state == "not fed" for found in lags)
        if capture is None or not capture.running or not silent or log is None:
            return capture
        return dataclasses.replace(
            capture, complaint=readings.complaint(log, self._config.connector)
        )

    def _lag(self, name: str, end: int | None, unread: dict[str, CdcError]) -> Lag:
        oldest = time.monotonic() - self._carried
        known, clock = self._known.get(name), self._clock
        if clock is None or clock[1] < oldest:
            return Lag(name, time.time(), None, "unknown")
        said, asked_at = (None, 0.0) if known is None else known
        # As of the moment at which the replica was read; else as of now.
        at = clock[0] + (time.monotonic() if name in unread else asked_at)
        reading, first, cut = None, None, None
        period = self._config.connect.heartbeat
        if said is not None and said.position is not None and asked_at >= oldest:
            reading = self._reading(said, at)
            if end is not None and "kafka" not in unread:
                try:
                    first = self._log.first(name, reading.next_offset, reading.applied_lsn, end)
                    if first is not None and at - first.committed >= lag.silence(period) - period:
                        cut = self._log.cut(first, end)
                except CdcError as error:
                    unread["kafka"] = error
        trail = self._trails[name]
        found, sample = lag.measure(
            name,
            at,
            reading,
            first=first,
            end=end,
            before=list(trail),
            period=period,
            cut=cut,
        )
        trail.append(sample)
        return found

    def _reading(self, said: ReplicaReading, at: float) -> Reading:
        assert said.position is not None
        place = said.position
        copied = [snapshot or 0 for _, _, state, snapshot in said.tables if state == "copied"]
        filling = None
        if len(copied) < len(said.tables):
            filling = f"{len(said.tables) - len(copied)} of its tables are not filled yet"
        elif place.applied_lsn < max(copied, default=0):
            filling = "it catches up with the moment at which its tables were copied"
        return Reading(
            at,
            place.applied_lsn,
            place.next_offset,
            None if place.applied_ms is None else place.applied_ms / 1000,
            said.heartbeat_at,
            filling,
            self._diverged(said),
            said.writer is not None,
        )

    def _diverged(self, said: ReplicaReading) -> str | None:
        """Say what the replica holds that the primary, failed over, does not have."""
        if self._seldom.history is None or said.position is None:
            return None
        coverage = [Coverage("copied", snapshot) for *_, snapshot in said.tables]
        holds = position.holds(said.position.applied_lsn, coverage)
        try:
            history.require(said.position, holds, self._seldom.history)
        except BrokenStream as error:
            return str(error)
        return None

    def _slot(self, primary: PrimaryReading) -> Slot | None:
        if (slot := primary.slot) is None:
            return None
        recent = [(at, lsn) for at, lsn in self._written if primary.clock - at <= lag.WINDOW]
        (began, low), (ended, high) = recent[0], recent[-1]
        rate = (high - low) / (ended - began) if ended > began else 0.0
        lost_in = slot.left / rate if slot.left is not None and rate > 0 else None
        return Slot(slot.active, slot.wal_status, slot.retained, lost_in)

    def _strays(self, said_by: dict[str, ReplicaReading]) -> tuple[Stray, ...]:
        if self._seldom.inventory is None:
            return ()
        followed = {
            name: {TableName(schema, table): number for schema, table, number in said.numbers}
            for name, said in said_by.items()
            if said.position is not None
        }
        return strays.of(self._seldom.inventory, followed)


def _answer(future: Future[T], end: str, unread: dict[str, CdcError]) -> T | None:
    """Return what an end answered; else put down why it did not."""
    try:
        return future.result()
    except CdcError as error:
        unread[end] = error
    except psycopg.Error as error:
        unread[end] = Unreachable(
            f"{end}: {postgres.first_line(error)}",
            safe="nothing was changed",
            next="see that the server runs, and `cdc setup` for the role's rights",
        )
    return None
