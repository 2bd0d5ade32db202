"""What `cdc status` tells of a look at the stream: whether one is safe, then each part. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime

from cdc import explanation, lag
from cdc import lsn as lsns
from cdc.config import Config
from cdc.errors import NotReady
from cdc.lag import Lag
from cdc.observation import Observation
from cdc.readings import ReplicaReading
from cdc.strays import LACKING, Stray

#: Columns that a line for people has at most.
WIDTH = 80

#: Seconds that two clocks may differ before it is said, and that a transaction may stay open.
_SKEW, _OLD = 1.0, 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica.

    `state` is one of unreachable, not set up, not filled, copying, catching up, live, diverged (it
    holds commits that the primary, failed over, does not have); `lag_state` is `cdc.lag.State`;
    `lag_seconds` is None where it is unknown; `daemon` is the state it last recorded, or "not
    connected" where it recorded to be applying, or to wait a while ago, and holds no lock.
    `verified` is what cdc-verify found last, of what the primary showed `verified_seconds` ago.
    `as_of` is the moment the lag is of, by the primary's clock, in seconds since 1970.
    """

    name: str
    state: str
    daemon: str = "never ran"
    lag_seconds: float | None = None
    lag_state: lag.State = "unknown"
    applied_lsn: str | None = None
    applied_at: str | None = None
    next_offset: int | None = None
    backlog_records: int | None = None
    eta_seconds: float | None = None
    tables: int = 0
    transactions_applied: int = 0
    rows_applied: int = 0
    unmatched: int = 0
    verified: str | None = None
    verified_seconds: float | None = None
    error: str | None = None
    as_of: float | None = None

    @property
    def fresh(self) -> bool:
        return self.state == "live" and self.lag_seconds is not None and self.daemon == "applying"


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """All replicas asked about, and what is before them.

    `primary` says why its clock cannot be read, None when it can; `standstill` why the connector
    sends nothing; `connect` and `kafka` why these cannot be asked. `strays` are tables that primary
    and replicas do not share as they should. `notes` are further lines for people.
    """

    replicas: tuple[ReplicaStatus, ...]
    primary: str | None
    standstill: str | None
    connect: str | None
    kafka: str | None
    strays: tuple[Stray, ...]
    notes: tuple[str, ...]

    def safe(self, target: float) -> bool:
        """Whether every replica is live, applied to and within `target` seconds, and no table is astray."""
        within = all(r.fresh and (r.lag_seconds or 0.0) <= target for r in self.replicas)
        return within and self.standstill is None and not self.strays

    @property
    def uncovered(self) -> tuple[str, ...]:
        """The tables that match the patterns and that a replica lacks."""
        return tuple(dict.fromkeys(str(s.table) for s in self.strays if s.why in LACKING))


def of(config: Config, seen: Observation) -> Status:
    """Return what a look says."""
    what = {end: error.what for end, error in seen.unread.items()}
    return Status(
        tuple(_replica(seen, found) for found in seen.lags),
        what.get("primary"),
        None if seen.capture is None else seen.capture.standstill,
        what.get("connect"),
        what.get("kafka"),
        seen.strays,
        tuple(_notes(config, seen)),
    )


def _replica(seen: Observation, found: Lag) -> ReplicaStatus:
    name = found.replica
    if (error := seen.unread.get(name)) is not None:
        if isinstance(error, NotReady):
            return ReplicaStatus(name, "not set up", error="run `cdc setup`")
        return ReplicaStatus(
            name,
            "unreachable",
            lag_seconds=found.seconds,
            lag_state=found.state,
            error=error.what,
            as_of=found.at,
        )
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
        found.state,
        lsns.show(said.position.applied_lsn),
        None if at is None else at.isoformat(sep=" "),
        said.position.next_offset,
        found.backlog,
        found.eta,
        len(said.tables),
        said.transactions or 0,
        said.rows or 0,
        said.unmatched or 0,
        None if said.verified.last is None else said.verified.verdict,
        None if said.verified.last is None else max(0.0, found.at - said.verified.last),
        explanation.idle(said) or found.why,
        found.at,
    )


def _state(found: Lag, said: ReplicaReading) -> str:
    if found.state == "diverged":
        return "diverged"
    if any(state != "copied" for _, _, state, _ in said.tables):
        return "copying"
    return "catching up" if found.state == "filling" else "live"


def _notes(config: Config, seen: Observation) -> list[str]:
    """Return what else a person may want to know: connector, slot, and what is out of the ordinary."""
    notes = []
    if seen.capture is not None:
        notes.append(f"{config.connector}: {seen.capture.state}")
    if seen.slot is not None:
        held = "" if seen.slot.retained is None else f", retains {size(seen.slot.retained)} of log"
        lost = (
            "" if seen.slot.lost_in is None else f", lost in {ago(seen.slot.lost_in)} at this rate"
        )
        active = "active" if seen.slot.active else "NOT active"
        reserved = "" if seen.slot.wal_status == "reserved" else f" ({seen.slot.wal_status})"
        notes.append(f"slot {config.slot}: {active}{reserved}{held}{lost}")
    elif "primary" not in seen.unread:
        notes.append(f"slot {config.slot}: there is none; the connector makes it")
    for stray in seen.strays:
        lacks = "NOT replicated" if stray.why in LACKING else "NOT as on the primary"
        where = ", ".join(stray.replicas)
        notes.append(f"{lacks}: {stray.table} (on {where}) {stray.what}; {stray.fix}")
    if config.check.accept:
        notes.append(f"accepted although data may be lost by it: {', '.join(config.check.accept)}")
    if (seen.oldest_transaction or 0) > _OLD:
        notes.append(
            f"a transaction on the primary is open for {ago(seen.oldest_transaction or 0)}"
        )
    for end, skew in seen.skew.items():
        if end != "primary" and abs(skew - seen.skew.get("primary", skew)) > _SKEW:
            notes.append(f"the clock of {end} differs from the primary's by {skew:.1f} s")
    return notes


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
    noun = "replica" if len(found) == 1 else "replicas"
    parts = [f"{len(found)} {noun}, at most {most:.1f} s behind{late}"]
    for state, words in (("not fed", "nothing arrives"), ("not moving", "stands still")):
        if still := [r.name for r in found if r.lag_state == state]:
            parts.append(f"{words}: {', '.join(still)}")
    if status.uncovered:
        parts.append(f"NOT replicated: {len(status.uncovered)} of the tables")
    if others := {s.table for s in status.strays if s.why not in LACKING}:
        parts.append(f"NOT as on the primary: {len(others)} of the tables")
    if changed := [r.name for r in found if r.unmatched]:
        parts.append(f"changed by someone else: {', '.join(changed)}, run `cdc-verify`")
    return ", ".join([*parts, _verified(found)])


def _verified(found: Sequence[ReplicaStatus]) -> str:
    """Say when all replicas were last compared with the primary, by the one whose turn is longest ago."""
    if unknown := [r.name for r in found if r.verified is None]:
        return "never verified" + (f": {', '.join(unknown)}" if len(unknown) < len(found) else "")
    wrong = [r for r in found if r.verified != "identical"]
    told = max(wrong or found, key=lambda r: r.verified_seconds or 0.0)
    which = f" ({told.name})" if wrong and len(found) > 1 else ""
    return f"last verified {ago(told.verified_seconds or 0.0)} ago: {told.verified}{which}"


def table(found: Sequence[ReplicaStatus]) -> list[str]:
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
        if r.backlog_records and (r.lag_seconds or 0) > 1:
            eta = "" if r.eta_seconds is None else f", caught up in about {ago(r.eta_seconds)}"
            lines.append(f"  {r.backlog_records:,} records wait in the topic{eta}")
        lines += [f"  {line}" for line in (r.error or "").splitlines()]
    return lines


def text(config: Config, status: Status) -> list[str]:
    """Return everything for people, the answer first."""
    unread = [
        f"{end} cannot be asked: {why}"
        for end, why in (("Kafka Connect", status.connect), ("Kafka", status.kafka))
        if why
    ]
    return [headline(config, status), "", *table(status.replicas), "", *status.notes, *unread]


def wrapped(lines: Sequence[str], width: int = WIDTH) -> list[str]:
    """Return the lines in at most `width` columns; what goes on is indented by two more."""
    found: list[str] = []
    for line in lines:
        lead = " " * (len(line) - len(line.lstrip()) + 2)
        found += textwrap.wrap(line, width, subsequent_indent=lead, break_on_hyphens=False) or [""]
    return found


def ago(seconds: float) -> str:
    """Return a time span in its largest unit."""
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Return bytes in their largest unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
