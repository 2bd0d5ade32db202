"""Lag: how far behind the primary a replica is, in seconds of the primary's clock.

    lag = max(now - commit time of the first transaction not yet applied,
              now - time of the newest heartbeat applied, less the heartbeat period)

A heartbeat is a transaction of its own that travels between the data (connectors/postgres.json), so a
heartbeat applied proves that everything committed before it is applied. The first term is exact while
records wait in the topic, the second grows when nothing arrives any more; either alone is wrong. Where
rows come without heartbeats, the commit time of the last one applied proves as much.

Everything here is pure. Times are seconds since 1970 by the primary's clock unless said otherwise.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

#: following: what is committed arrives and is applied.
#: not fed: nothing comes out of the connector any more.
#: not moving: records wait in the topic and none is applied.
#: heartbeat failing: rows arrive, heartbeats do not (the connector's heartbeat query fails).
#: filling: a bootstrap has not finished. diverged: the primary lacks what the replica holds.
#: unknown: the replica or the primary's clock cannot be read.
State = Literal[
    "following", "not fed", "not moving", "heartbeat failing", "filling", "diverged", "unknown"
]

#: Heartbeats that may be missing, and seconds at least, before silence means something.
_MISSING, _SILENT = 5, 10.0

#: Seconds of samples that slope and rates are taken from, and at least.
WINDOW, _ENOUGH = 90.0, 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a replica's own tables said `at` a moment.

    `filling` says what a bootstrap has not finished, `diverged` what the primary lacks. `written`
    tells whether a daemon holds the writer's lock.
    """

    at: float
    applied_lsn: int
    next_offset: int
    applied_at: float | None
    heartbeat_at: float | None
    filling: str | None = None
    diverged: str | None = None
    written: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class First:
    """The first transaction in the topic that a replica has not applied.

    It was committed on the primary, captured by the connector and appended to the topic at these
    times; the last two are by the connector's clock, None where the record does not tell.
    """

    offset: int
    committed: float
    captured: float | None = None
    appended: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Split:
    """Where the lag is: seconds on the way into the connector, into the topic, into the replica."""

    capture: float
    transport: float
    apply: float


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A look at a replica, remembered for what changes between looks; `end` is the topic's end."""

    at: float
    seconds: float | None
    next_offset: int | None
    end: int | None
    rows_alone: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Lag:
    """How far one replica is behind `at` a moment.

    `seconds` is None where it is not known (`state` says which: filling, diverged, unknown).
    `why` says in one sentence why it is not known, or what holds the replica up. `heartbeat_age` and
    `first_unapplied` (a commit time) are the two terms. `backlog` counts records in the topic that
    are not applied. `eta` is seconds until the backlog is gone at the present rates, None where it
    does not shrink. `slope` is seconds of lag per second: 1 when nothing is applied, below 0 while
    it catches up; None until there are samples of 10 s.
    """

    replica: str
    at: float
    seconds: float | None
    state: State
    why: str | None = None
    applied_lsn: int | None = None
    heartbeat_age: float | None = None
    first_unapplied: float | None = None
    backlog: int | None = None
    eta: float | None = None
    slope: float | None = None
    split: Split | None = None


def seconds(
    now: float,
    *,
    heartbeat_at: float | None,
    applied_at: float | None,
    first_unapplied: float | None,
    period: float,
) -> float | None:
    """Return the lag at `now`, None where nothing was applied and nothing waits; never negative.

    `applied_at` is the commit time of the last transaction applied, `period` the heartbeat's.
    """
    proofs = [] if applied_at is None else [applied_at]
    proofs += [] if heartbeat_at is None else [heartbeat_at + period]
    terms = [now - max(proofs)] if proofs else []
    terms += [] if first_unapplied is None else [now - first_unapplied]
    return max(0.0, *terms) if terms else None


def silence(period: float) -> float:
    """Return the seconds without a heartbeat that are more than slowness."""
    return max(_SILENT, _MISSING * period)


def _rows_alone(reading: Reading, now: float, period: float) -> bool:
    """Tell whether rows are applied as they are committed while heartbeats stay out."""
    if reading.applied_at is None or now - reading.applied_at > 2 * period + 1:
        return False
    return reading.heartbeat_at is None or now - reading.heartbeat_at > silence(period) + period


def measure(
    replica: str,
    now: float,
    reading: Reading | None,
    *,
    first: First | None,
    end: int | None,
    before: Sequence[Sample],
    period: float,
    cut_at: float | None = None,
) -> tuple[Lag, Sample]:
    """Return the lag at `now`, and the sample to remember of it.

    `reading` is None where nothing fresh enough is known; `before` are earlier samples, oldest
    first; `end` is the offset that the topic's next record will get, where Kafka tells; `cut_at` is
    when the topic's last record was appended, where the topic ends inside a transaction.
    """
    if reading is None:
        return Lag(replica, now, None, "unknown"), Sample(now, None, None, end)
    alone = _rows_alone(reading, now, period)
    # Right after a standstill rows may come a moment before the first new heartbeat.
    failing = alone and any(now - s.at >= period for s in _tail(before))
    committed = None if first is None else first.committed
    found = None
    if reading.filling is None and reading.diverged is None:
        found = seconds(
            now,
            heartbeat_at=reading.heartbeat_at,
            applied_at=reading.applied_at,
            first_unapplied=committed,
            period=period,
        )
    sample = Sample(now, found, reading.next_offset, end, alone)
    trail = [*within(before, now), sample]
    cut_off = cut_at is not None and _cut_off(cut_at, trail, period)
    backlog = None if end is None else max(0, end - reading.next_offset)
    return Lag(
        replica,
        now,
        found,
        _state(reading, found, first, trail, period, failing=failing, cut_off=cut_off),
        reading.diverged or reading.filling,
        reading.applied_lsn,
        None if reading.heartbeat_at is None else max(0.0, now - reading.heartbeat_at),
        committed,
        backlog,
        _eta(trail, backlog),
        _slope(trail),
        None if found is None else _split(now, first, found),
    ), sample


def within(samples: Sequence[Sample], now: float) -> list[Sample]:
    """Return the samples that are recent enough for rates; none from the future (a clock set back)."""
    return [s for s in samples if 0 <= now - s.at <= WINDOW]


def _tail(samples: Sequence[Sample]) -> list[Sample]:
    """Return the unbroken run, back from the newest, of samples with rows alone."""
    return list(itertools.takewhile(lambda s: s.rows_alone, reversed(samples)))


def _state(
    reading: Reading,
    found: float | None,
    first: First | None,
    trail: Sequence[Sample],
    period: float,
    *,
    failing: bool,
    cut_off: bool,
) -> State:
    if reading.diverged is not None:
        return "diverged"
    if found is None:
        return "unknown" if reading.filling is None else "filling"
    if failing:
        return "heartbeat failing"
    silent = found >= silence(period) - period
    if first is None or (cut_off and reading.written):
        return "not fed" if silent else "following"
    if not reading.written:
        return "not moving"
    now, at = trail[-1].at, trail[-1].next_offset
    moved = max((s.at for s in trail if s.next_offset != at), default=trail[0].at)
    still = silent and now - moved >= silence(period)
    return "not moving" if still else "following"


def _cut_off(cut_at: float, trail: Sequence[Sample], period: float) -> bool:
    """Tell whether the rest of a transaction stays out, and not just takes its time."""
    now, end = trail[-1].at, trail[-1].end
    lately = [s for s in trail if now - s.at < silence(period)]
    return now - cut_at >= silence(period) and all(s.end == end for s in lately)


def _split(now: float, first: First | None, found: float) -> Split:
    """Divide the age of the first unapplied transaction; all is before the topic where none waits."""
    if first is None:
        return Split(found, 0.0, 0.0)
    appended = now if first.appended is None else first.appended
    captured = appended if first.captured is None else first.captured
    return Split(
        max(0.0, captured - first.committed),
        max(0.0, appended - captured),
        max(0.0, now - max(appended, first.committed)),
    )


def _slope(trail: Sequence[Sample]) -> float | None:
    """Return the slope of the line that fits the known samples best, in seconds per second."""
    known = [(s.at, s.seconds) for s in trail if s.seconds is not None]
    if len(known) < 3 or known[-1][0] - known[0][0] < _ENOUGH:
        return None
    middle_at = sum(at for at, _ in known) / len(known)
    middle = sum(lag for _, lag in known) / len(known)
    spread = sum((at - middle_at) ** 2 for at, _ in known)
    return sum((at - middle_at) * (lag - middle) for at, lag in known) / spread


def _eta(trail: Sequence[Sample], backlog: int | None) -> float | None:
    """Return backlog / (rate applied - rate arriving), None where that does not end."""
    if not backlog:
        return 0.0 if backlog == 0 else None
    known = [s for s in trail if s.next_offset is not None and s.end is not None]
    if len(known) < 2 or known[-1].at - known[0].at < _ENOUGH / 2:
        return None
    first, last = known[0], known[-1]
    assert first.next_offset is not None
    assert last.next_offset is not None
    assert first.end is not None
    assert last.end is not None
    shrunk = (last.next_offset - first.next_offset) - (last.end - first.end)
    return backlog * (last.at - first.at) / shrunk if shrunk > 0 else None
