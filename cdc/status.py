"""What `cdc status` tells: each replica as its own tables say, the primary's clock as the measure."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import psycopg

from cdc import daemon, guard, history, lag, position, postgres
from cdc import lsn as lsns
from cdc.config import Config
from cdc.connect import Connect
from cdc.errors import BrokenStream, CdcError
from cdc.history import History

#: Seconds without anything applied after which `cdc status` says so; heartbeats come more often.
_SILENT = 30.0

#: Seconds Kafka Connect has to answer.
_CONNECT_TIMEOUT = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica.

    `state` is one of unreachable, not set up, not filled, copying, catching up, live, diverged (it
    holds commits that the primary, failed over, does not have);
    `lag_seconds` is None where it is unknown; `daemon` is the state it last recorded, or "not
    connected" where it recorded to be applying, or to wait a while ago, and holds no lock.
    """

    name: str
    state: str
    daemon: str = "never ran"
    lag_seconds: float | None = None
    applied_lsn: str | None = None
    applied_at: str | None = None
    next_offset: int | None = None
    tables: int = 0
    transactions_applied: int = 0
    rows_applied: int = 0
    unmatched: int = 0
    error: str | None = None

    @property
    def fresh(self) -> bool:
        return self.state == "live" and self.lag_seconds is not None and self.daemon == "applying"


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """All replicas asked about, and what is before them.

    `primary` says why its clock cannot be read, None when it can; `standstill` why the connector
    sends nothing; `connect` why Kafka Connect cannot be asked.
    """

    replicas: tuple[ReplicaStatus, ...]
    primary: str | None
    standstill: str | None
    connect: str | None


def read(config: Config, names: Sequence[str]) -> Status:
    """Return the status of the replicas `names`; what cannot be read is said in it, not raised."""
    now, primary, trouble = None, None, None
    try:
        now = _primary_clock(config)
        primary = history.read(config.primary.dsn, config.application_name("primary", "status"))
    except CdcError as error:
        trouble = error.what
    except psycopg.Error as error:
        trouble = postgres.first_line(error)
    standstill, connect = None, None
    try:
        asked = Connect(config.connect.url, patience=0, timeout=_CONNECT_TIMEOUT)
        standstill = guard.standstill(asked, config.connector)
    except CdcError as error:
        connect = error.what
    found = tuple(_replica(config, name, now, primary) for name in names)
    return Status(found, trouble, standstill, connect)


def _primary_clock(config: Config) -> float:
    with contextlib.closing(_connect(config, config.primary.dsn, "primary")) as conn:
        row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def _connect(config: Config, dsn: str, name: str) -> psycopg.Connection[Any]:
    return postgres.connect(dsn, config.application_name(name, "status"), autocommit=True)


def _replica(
    config: Config, name: str, now: float | None, primary: History | None
) -> ReplicaStatus:
    try:
        with contextlib.closing(_connect(config, config.replica(name).dsn, name)) as conn:
            found = _read_replica(conn, config, name, now)
            return found if primary is None else _diverged(conn, config, found, primary)
    except psycopg.errors.UndefinedTable:
        return ReplicaStatus(name, "not set up", error="run `cdc setup`")
    except CdcError as error:
        return ReplicaStatus(name, "unreachable", error=error.what)
    except psycopg.Error as error:
        return ReplicaStatus(name, "unreachable", error=postgres.first_line(error))


def _read_replica(
    conn: psycopg.Connection[Any], config: Config, name: str, now: float | None
) -> ReplicaStatus:
    row = conn.execute(
        "SELECT p.applied_lsn - '0/0', p.applied_at::text, p.next_offset,"
        " extract(epoch FROM p.heartbeat_at)::float8, p.transactions_applied, p.rows_applied,"
        " p.unmatched_updates + p.unmatched_deletes, d.state, d.error,"
        " extract(epoch FROM clock_timestamp() - d.updated_at)::float8,"
        " (SELECT count(*) FROM cdc.tables t WHERE t.stream = p.stream),"
        " (SELECT count(*) FROM cdc.tables t WHERE t.stream = p.stream AND state <> 'copied'),"
        " (SELECT max(snapshot_lsn) - '0/0' FROM cdc.tables t WHERE t.stream = p.stream),"
        " extract(epoch FROM clock_timestamp() - p.updated_at)::float8"
        " FROM cdc.position p LEFT JOIN cdc.daemon d USING (stream) WHERE p.stream = %s",
        [config.name],
    ).fetchone()
    if row is None:
        return ReplicaStatus(name, "not filled", error="run `cdc bootstrap`")
    applied, snapshot, copying = int(row[0]), int(row[12] or 0), row[11]
    locked = position.lock_holder(conn, config.name) is not None
    said, error = _daemon(row[7] or "never ran", row[8], row[9] or 0.0, locked=locked)
    if said == "applying":
        error = error or _silence(config, row[13])
    behind = None if now is None else lag.seconds(now, row[3], config.connect.heartbeat)
    state = "copying" if copying else "catching up" if applied < snapshot else "live"
    return ReplicaStatus(
        name,
        state,
        said,
        behind if state == "live" else None,
        lsns.show(applied),
        row[1],
        row[2],
        row[10],
        row[4],
        row[5],
        row[6],
        error,
    )


def _diverged(
    conn: psycopg.Connection[Any], config: Config, found: ReplicaStatus, primary: History
) -> ReplicaStatus:
    """Say so when the primary was failed over to a server that lacks what the replica holds."""
    if found.applied_lsn is None:
        return found
    at, coverage = position.load(conn, config.name)
    try:
        history.require(at, position.holds(at.applied_lsn, coverage.values()), primary)
    except BrokenStream as error:
        return dataclasses.replace(found, state="diverged", lag_seconds=None, error=str(error))
    return found


def _silence(config: Config, age: float) -> str | None:
    """Say what it means that nothing has been applied for so many seconds, though a daemon could."""
    if age <= max(_SILENT, 5 * config.connect.heartbeat):
        return None
    return (
        f"nothing has been applied for {age:.0f} s, not even a heartbeat: unless a large transaction "
        "is on its way the connector sends nothing, whatever Connect says of its state "
        "(docs/operations.md)"
    )


def _daemon(state: str, error: str | None, age: float, *, locked: bool) -> tuple[str, str | None]:
    """Return what is true of a daemon that recorded `state` so many seconds ago."""
    if locked or state not in {"applying", "waiting"}:
        return state, error
    if state == "waiting" and age <= daemon.WAITING_FOR:
        return state, error
    last = f"; {age:.0f} s ago it said that it {error}" if error else ""
    return "not connected", f"no daemon holds the writer's lock{last}"


def headline(config: Config, status: Status) -> str:
    """Answer "am I safe?" in one line."""
    found = status.replicas
    bad = [r for r in found if not r.fresh]
    if status.standstill:
        return f"nothing new comes from the primary: {status.standstill}"
    if status.primary:
        return f"how far the replicas are behind is unknown: the primary: {status.primary}"
    if bad:
        worst = ", ".join(f"{r.name} {r.state}, daemon {r.daemon}" for r in bad)
        return f"{len(bad)} of {len(found)} replicas not in order: {worst}"
    most = max(r.lag_seconds or 0.0 for r in found)
    late = "" if most <= config.lag.target else f" (target {config.lag.target:.0f} s MISSED)"
    changed = [r.name for r in found if r.unmatched]
    noun = "replica" if len(found) == 1 else "replicas"
    line = f"{len(found)} {noun}, at most {most:.1f} s behind{late}"
    if changed:
        line += f"; changed by someone else: {', '.join(changed)}, compare it with the primary"
    return line


def table(found: Sequence[ReplicaStatus]) -> str:
    """Return the replicas as lines for people, at most 80 columns where nothing is wrong."""
    lines = [
        f"{'replica':<10}{'state':<13}{'daemon':<14}{'behind':>9}{'applied LSN':>16}{'transactions':>14}"
    ]
    for r in found:
        behind = "unknown" if r.lag_seconds is None else f"{r.lag_seconds:.1f} s"
        lines.append(
            f"{r.name:<10}{r.state:<13}{r.daemon:<14}{behind:>9}{r.applied_lsn or '-':>16}"
            f"{r.transactions_applied:>14,}"
        )
        lines += [f"  {line}" for line in (r.error or "").splitlines()]
    return "\n".join(lines)
