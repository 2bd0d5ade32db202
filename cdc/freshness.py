"""Is a replica fresh enough? The daemon's answer, from what it has in memory. Pure."""

from __future__ import annotations

import dataclasses

from cdc import lag
from cdc.gauge import Gauge
from cdc.lag import Lag, State
from cdc.units import Duration

#: A replica comes back at this share of the limit, and goes after so many samples beyond it.
_BACK, _BEYOND = 0.8, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Fresh:
    """The lag at `at` of the primary's clock; `seconds` is None where it is not known."""

    at: float
    seconds: float | None
    state: State
    why: str | None = None
    applied_lsn: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """A look from outside; the replica was read at `looked_at` of the monotonic clock, or later.

    The replica's lag, the heartbeat and the commit it had applied last, and the primary's clock less
    our monotonic one.
    """

    lag: Lag
    heartbeat_at: float | None
    applied_at: float | None
    clock: float
    looked_at: float


def current(gauge: Gauge, look: Look | None, now: float, period: float, stale: float) -> Fresh:
    """Return how fresh the replica is at `now`, by the monotonic clock.

    The last look says whether replica and primary can be read; what the loop has applied since then it
    knows itself. A look older than `stale` seconds proves nothing, nor does one from before the session
    on the replica was lost.
    """
    if look is None or now - look.looked_at > stale:
        why = "it was not measured yet" if look is None else "nothing has been measured lately"
        return Fresh(now, None, "unknown", why)
    at, seen = now + look.clock, look.lag
    if seen.seconds is None:
        return Fresh(at, None, seen.state, seen.why, seen.applied_lsn)
    if max(gauge.known_at, look.looked_at) < gauge.lost_at:
        return Fresh(at, None, "unknown", gauge.trouble, seen.applied_lsn)
    applied = seen.applied_lsn
    if gauge.position is not None and gauge.known_at > look.looked_at:
        known, applied = gauge.lag(at, period), gauge.position.applied_lsn
        if gauge.filling and gauge.loaded_at > look.looked_at:
            return Fresh(at, None, "filling", "its tables do not stand at one point yet", applied)
    else:
        known = lag.seconds(
            at,
            heartbeat_at=look.heartbeat_at,
            applied_at=look.applied_at,
            first_unapplied=gauge.first_at
            if seen.first_unapplied is None
            else seen.first_unapplied,
            period=period,
        )
    return Fresh(at, known, "unknown" if known is None else seen.state, seen.why, applied)


@dataclasses.dataclass(frozen=True, slots=True)
class Gate:
    """Whether a replica is in for a limit of the lag; `beyond` counts samples above it in a row."""

    limit: float
    open: bool = False
    beyond: int = 0

    @classmethod
    def first(cls, limit: float, seconds: float | None) -> Gate:
        """Return the gate for a limit that nobody asked about before."""
        return cls(limit, seconds is not None and seconds <= limit)

    def after(self, seconds: float | None) -> Gate:
        """Return the gate after a sample: out at the second beyond the limit, in well below it.

        What is not known closes it at once.
        """
        if seconds is None:
            return Gate(self.limit)
        if seconds > self.limit:
            beyond = self.beyond + 1
            return Gate(self.limit, self.open and beyond < _BEYOND, beyond)
        return Gate(self.limit, self.open or seconds <= _BACK * self.limit)


def limit(text: str) -> float:
    """Return the seconds of a max_lag such as "300s" or "5m"; ValueError."""
    return float(Duration.parse(text))
