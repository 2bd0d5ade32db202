"""What `cdc status` tells: each replica as its own tables say, the primary's clock as the measure."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from cdc import explanation
from cdc import lsn as lsns
from cdc.config import Config
from cdc.errors import NotReady
from cdc.lag import Lag
from cdc.observation import Observation, Observer
from cdc.readings import ReplicaReading


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
    with contextlib.closing(Observer(config, names)) as observer:
        return of(observer.look(time.time()))


def of(seen: Observation) -> Status:
    """Return what a look says about the replicas."""
    primary, connect = seen.unread.get("primary"), seen.unread.get("connect")
    return Status(
        tuple(_replica(seen, found) for found in seen.lags),
        None if primary is None else primary.what,
        None if seen.capture is None else seen.capture.standstill,
        None if connect is None else connect.what,
    )


def _replica(seen: Observation, found: Lag) -> ReplicaStatus:
    name = found.replica
    if (error := seen.unread.get(name)) is not None:
        if isinstance(error, NotReady):
            return ReplicaStatus(name, "not set up", error="run `cdc setup`")
        return ReplicaStatus(name, "unreachable", error=error.what)
    said = seen.readings[name]
    if said.position is None:
        return ReplicaStatus(name, "not filled", error="run `cdc bootstrap`")
    applied_ms = said.position.applied_ms
    at = None if applied_ms is None else datetime.fromtimestamp(applied_ms / 1000, UTC)
    return ReplicaStatus(
        name,
        _state(found, said),
        explanation.daemon_state(said),
        found.seconds,
        lsns.show(said.position.applied_lsn),
        None if at is None else at.isoformat(sep=" "),
        said.position.next_offset,
        len(said.tables),
        said.transactions or 0,
        said.rows or 0,
        said.unmatched or 0,
        found.why,
    )


def _state(found: Lag, said: ReplicaReading) -> str:
    if found.state == "diverged":
        return "diverged"
    if any(state != "copied" for _, _, state, _ in said.tables):
        return "copying"
    return "catching up" if found.state == "filling" else "live"


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
