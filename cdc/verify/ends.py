"""The two kinds of end: the primary, read and marked, and a replica, read and waited for."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import psycopg

from cdc import history, marks, position, postgres, waiting
from cdc import lsn as lsns
from cdc.config import Config
from cdc.errors import CdcError, NotReady, WaitTimeout
from cdc.names import TableName
from cdc.verify import inflight, shape
from cdc.verify.duty import Duty
from cdc.verify.reading import Session
from cdc.verify.shape import Shape

Connection = psycopg.Connection[Any]

#: Tables as they are, or the error with which one cannot be read.
Shapes = dict[TableName, Shape | psycopg.Error]

#: What a reading session needs on top of the pinned settings. Every statement is planned for its
#: own range: a generic plan would read the whole table for a chunk of it.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
}

#: Seconds for which somebody who rebuilds a table is waited for.
_LOCK = 10.0

#: What the session that writes barriers needs: a standby that does not answer must not hold it.
_MARKING = {"synchronous_commit": "local", "statement_timeout": "60s"}

#: Seconds of waiting for a replica after which it is said.
_QUIET = 2.0

_SAFE = "nothing was compared"


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for one statement, for a replica to pass a barrier, for commits to be visible.

    `lag` is how far behind a replica may be before the scan waits for it.
    """

    statement: float = 60.0
    barrier: float = 30.0
    commits: float = 5.0
    lag: float = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Primary:
    """The primary: `conn` reads, `marks` writes barriers and nothing else.

    What is read there of tables counts as its `duty`.
    """

    conn: Connection
    marks: Connection
    config: Config
    patience: Patience
    duty: Duty

    @property
    def session(self) -> Session:
        return Session(self.conn, self.duty)

    def shapes(self, tables: Iterable[TableName]) -> Shapes:
        """Return what those of the tables that exist look like here, or why that cannot be read."""
        return _shapes(self.config, self.config.primary.dsn, self.patience, tables)

    @property
    def broken(self) -> bool:
        """Whether a session has ended: the server was restarted, or somebody has ended it."""
        return self.conn.closed or self.marks.closed

    def settle(self, applied: Collection[int], limit: float | None = None) -> tuple[int, ...]:
        """Wait for commits on their way, for `limit` seconds; return the pids of those that do not end."""
        return inflight.settle(self.conn, limit or self.patience.commits, applied)

    def mark(self) -> int:
        """Write a barrier; return the least LSN a replica has reached when it has passed it."""
        # The message ends at the mark's LSN and its commit beyond it: an END above it will come.
        return marks.emit(self.marks, self.config).lsn + 1


@dataclasses.dataclass(slots=True)
class Replica:
    """A replica that can be compared; `held` are the tables it was filled with.

    `note` tells a person what is waited for. `late` is the error of the barrier that it has not
    passed in time, if there is one.
    """

    name: str
    conn: Connection
    held: frozenset[TableName]
    config: Config
    patience: Patience
    note: Callable[[str], None]
    late: WaitTimeout | None = None
    _owed: int = 0

    @property
    def session(self) -> Session:
        return Session(self.conn)

    def shapes(self, tables: Iterable[TableName]) -> Shapes:
        """Return what those of the tables that exist look like here, or why that cannot be read."""
        return _shapes(self.config, self.config.replica(self.name).dsn, self.patience, tables)

    def told(self, error: Exception) -> str:
        """Return an error that came up here in one line."""
        return f"on {self.name}: {told(error)}"

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read in the body as of now, however much later."""
        with self.conn.transaction():
            self.conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self.conn.execute("SELECT")  # takes the snapshot
            yield

    def standing(self) -> waiting.Standing:
        apply = self.config.application_name(self.name, "apply")
        return waiting.standing(self.conn, self.config.name, apply)

    def applied(self) -> tuple[int, ...]:
        """Return the txids it applied last."""
        at, _ = position.load(self.conn, self.config.name)
        return tuple(txid for txid, _ in at.ring)

    def passed(self, lsn: int) -> bool:
        """Tell whether everything that ends at or before `lsn` is applied."""
        return self.standing().reached(lsn)

    def reach(self, lsn: int) -> None:
        """Wait until everything that ends at or before `lsn` is applied; raises WaitTimeout.

        A replica that has let one barrier wait in vain is not waited for again until it has passed
        it: so a daemon that is stopped costs the patience once.
        """
        if self.late and not self.passed(self._owed):
            raise self.late
        self.late = None
        started, said = time.monotonic(), False

        def look() -> waiting.Standing:
            nonlocal said
            seen = self.standing()
            if not said and time.monotonic() - started >= _QUIET and not seen.reached(lsn):
                said = True
                self._say(seen, lsn)
            return seen

        try:
            waiting.until(look, lsn, self.patience.barrier, self.name)
        except WaitTimeout as error:
            self.late, self._owed = error, lsn
            raise

    def _say(self, seen: waiting.Standing, lsn: int) -> None:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.patience.barrier - _QUIET)
        daemon = "" if seen.daemon else " (no daemon is connected)"
        self.note(
            f"waiting until {until:%H:%M:%S} UTC at most: {self.name} is at "
            f"{lsns.show(seen.applied_lsn)}{daemon}, {lsns.show(lsn)} is to be reached"
        )


def open_primary(
    stack: contextlib.ExitStack, config: Config, patience: Patience, share: float
) -> Primary:
    """Open the primary for as long as `stack`, to work for a `share` of it; raises Unreachable."""
    application = _application(config)
    marks = postgres.connect(config.primary.dsn, application, autocommit=True, settings=_MARKING)
    stack.enter_context(contextlib.closing(marks))
    conn = _reading(stack, config, config.primary.dsn, patience)
    return Primary(conn, marks, config, patience, Duty(share, time.monotonic()))


def open_replica(
    stack: contextlib.ExitStack,
    config: Config,
    name: str,
    patience: Patience,
    note: Callable[[str], None],
) -> Replica:
    """Open a replica for as long as `stack`.

    Raises Unreachable, NotReady while it is being filled or behind a failover, BrokenStream when it
    holds what the primary does not have.
    """
    primary = history.read(config.primary.dsn, _application(config))
    conn = _reading(stack, config, config.replica(name).dsn, patience)
    at, coverage = position.load(conn, config.name)
    history.require(at, position.holds(at.applied_lsn, coverage.values()), primary)
    if at.timeline != primary.timeline:
        raise NotReady(
            f"{name} is on timeline {at.timeline}, the server that primary.dsn leads to on "
            f"{primary.timeline}",
            safe=_SAFE,
            next="let primary.dsn lead to the primary of today and the daemon follow it",
            replica=name,
        )
    replica = Replica(name, conn, frozenset(coverage), config, patience, note)
    standing = replica.standing()
    if standing.unfilled or standing.applied_lsn < standing.complete_at:
        raise NotReady(
            f"{name} is still being filled: it is at {lsns.show(standing.applied_lsn)}, its tables "
            f"were copied up to {lsns.show(standing.complete_at)}",
            safe=_SAFE,
            next="let `cdc bootstrap` end and the daemon run until `cdc status` says live",
            replica=name,
        )
    return replica


def told(error: Exception) -> str:
    """Return what an error says in one line, and what to do about it where that is known.

    PostgreSQL's details are left out: they hold values.
    """
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    said = primary or postgres.first_line(error)
    match error:
        case CdcError():
            return f"{error.what}; next: {error.next}"
        case psycopg.errors.QueryCanceled():
            return f"{said} (--statement-timeout)"
        case psycopg.errors.LockNotAvailable():
            return f"{said}: somebody holds the table for himself"
    return said


def _shapes(config: Config, dsn: str, patience: Patience, tables: Iterable[TableName]) -> Shapes:
    """Read all at once; where somebody holds one of them for himself, one by one."""
    application, settings = _application(config), _settings(patience)
    tables = list(tables)
    try:
        return {**shape.read(dsn, application, tables, settings)}
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        if len(tables) == 1:
            return {tables[0]: error}
    found: Shapes = {}
    for table in tables:
        found |= _shapes(config, dsn, patience, [table])
    return found


def _settings(patience: Patience) -> dict[str, str]:
    """Return a session's settings; waiting for a lock ends before the statement's time does."""
    limit = f"{round(patience.statement * 1000)}"
    lock = f"{round(min(patience.statement / 2, _LOCK) * 1000)}"
    return {**_SETTINGS, "statement_timeout": limit, "lock_timeout": lock}


def _reading(
    stack: contextlib.ExitStack, config: Config, dsn: str, patience: Patience
) -> Connection:
    conn = postgres.connect(
        dsn, _application(config), autocommit=True, settings=_settings(patience)
    )
    return stack.enter_context(contextlib.closing(conn))


def _application(config: Config) -> str:
    return f"cdc-verify/{config.name}"
