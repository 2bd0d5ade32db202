"""The two kinds of end: the primary, read and marked, and a replica, read and waited for."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection
from typing import Any

import psycopg

from cdc import barrier, history, position, postgres, waiting
from cdc import lsn as lsns
from cdc.config import Config
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.verify import inflight

Connection = psycopg.Connection[Any]

#: What a reading session needs on top of the pinned settings. Every statement is planned for its
#: own range: a generic plan would read the whole table for a chunk of it.
_SETTINGS = {
    "default_transaction_read_only": "on",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
}

_SAFE = "nothing was compared"


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: for one statement, for a replica to pass a barrier, for commits to be visible."""

    statement: float = 60.0
    barrier: float = 30.0
    commits: float = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Primary:
    """The primary: `conn` reads, `marks` writes barriers and nothing else."""

    conn: Connection
    marks: Connection
    patience: Patience

    def settle(self, applied: Collection[int]) -> tuple[int, ...]:
        """Wait for commits on their way; return the pids of those that do not end."""
        return inflight.settle(self.conn, self.patience.commits, applied)

    def mark(self) -> int:
        """Write a barrier; return the least LSN a replica has reached when it has passed it."""
        # The message ends at the mark's LSN and its commit beyond it: an END above it will come.
        return barrier.emit(self.marks).lsn + 1


@dataclasses.dataclass(frozen=True, slots=True)
class Replica:
    """A replica that can be compared; `held` are the tables it was filled with."""

    name: str
    conn: Connection
    held: frozenset[TableName]
    config: Config
    patience: Patience

    def standing(self) -> waiting.Standing:
        apply = self.config.application_name(self.name, "apply")
        return waiting.standing(self.conn, self.config.name, apply)

    def applied(self) -> tuple[int, ...]:
        """Return the txids it applied last."""
        at, _ = position.load(self.conn, self.config.name)
        return tuple(txid for txid, _ in at.ring)

    def reach(self, lsn: int) -> None:
        """Wait until everything that ends at or before `lsn` is applied; raises WaitTimeout."""
        waiting.until(self.standing, lsn, self.patience.barrier, self.name)


def open_primary(stack: contextlib.ExitStack, config: Config, patience: Patience) -> Primary:
    """Open the primary for as long as `stack`; raises Unreachable."""
    application = _application(config)
    marks = postgres.connect(config.primary.dsn, application, autocommit=True)
    stack.enter_context(contextlib.closing(marks))
    return Primary(_reading(stack, config, config.primary.dsn, patience), marks, patience)


def open_replica(
    stack: contextlib.ExitStack, config: Config, name: str, patience: Patience
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
    replica = Replica(name, conn, frozenset(coverage), config, patience)
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


def _reading(
    stack: contextlib.ExitStack, config: Config, dsn: str, patience: Patience
) -> Connection:
    settings = {**_SETTINGS, "statement_timeout": f"{round(patience.statement * 1000)}"}
    conn = postgres.connect(dsn, _application(config), autocommit=True, settings=settings)
    return stack.enter_context(contextlib.closing(conn))


def _application(config: Config) -> str:
    return f"cdc-verify/{config.name}"
