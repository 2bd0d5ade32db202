"""A sample of a replica's lag against the thresholds: what it means, and what is coming.

Everything here is pure. Times are seconds of one steady clock; lags are seconds by the primary's.
"""

from __future__ import annotations

import dataclasses
import enum

from cdc.strays import LACKING, Stray

#: An alert is over only below this share of the warning threshold, so that it does not flap.
HYSTERESIS = 0.8

#: A replica that stands still falls behind by one second a second. More than the upper bound is a
#: jump (a gap between samples, a clock that was set), which says nothing about what comes next.
_STANDSTILL = (0.9, 1.2)

#: Share of the target for which it must have stood still: 60 s of 5 minutes.
_STEADY = 0.2

#: Tables that a sentence names.
_NAMED = 5


class Level(enum.IntEnum):
    """How a replica is; the number is the exit code of `once` and `cdc_alert_state`."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Reason(enum.StrEnum):
    """Why a replica is not in order."""

    BEHIND = "behind"
    WILL_BREACH = "will_breach"
    STOPPED = "stopped"
    UNKNOWN = "unknown"
    UNCOVERED = "uncovered"
    ASTRAY = "astray"


class About(enum.StrEnum):
    """What an alert of a replica is about: the lag, or tables that are not as on the primary."""

    LAG = "lag"
    TABLES = "tables"


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds of lag: warned of above `warn`, missed above `target`."""

    warn: float
    target: float

    @property
    def window(self) -> float:
        """Seconds that a replica must have stood still to be predicted to miss the target."""
        return _STEADY * self.target

    @property
    def horizon(self) -> float:
        """Seconds before the target is missed at which that is told."""
        return self.target - self.warn


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """What is known of a replica.

    `lag` is None where it is unknown; `why` says why it is, or what holds the replica up. `stopped`
    says what has certainly ended the flow (a failed connector), whatever the lag is so far. `strays` are the
    tables that are not there as they are on the primary, None where that is not known.
    """

    lag: float | None
    why: str = ""
    stopped: str | None = None
    applied_lsn: str | None = None
    strays: tuple[Stray, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """The known lags of the last window, oldest first, each with its time."""

    points: tuple[tuple[float, float], ...] = ()

    def after(self, now: float, lag: float | None, window: float) -> Trend:
        """Return the trend with one more sample; an unknown one, or time that went back, ends it."""
        if lag is None:
            return Trend()
        points = self.points if not self.points or self.points[-1][0] < now else ()
        # The last one at or before the window's beginning is kept: the points then span it.
        old = [at for at, _ in points if at <= now - window]
        kept = tuple(point for point in points if not old or point[0] >= old[-1])
        return Trend((*kept, (now, lag)))

    def standstill(self, window: float) -> float | None:
        """Return the slope, about 1, if nothing was applied for the whole window; else None."""
        if len(self.points) < 2:
            return None
        (first_at, first), (last_at, last) = self.points[0], self.points[-1]
        half_at, half = self.points[(len(self.points) - 1) // 2]
        if last_at - first_at < window:
            return None
        slope = (last - first) / (last_at - first_at)
        lately = (last - half) / (last_at - half_at)
        low, high = _STANDSTILL
        return slope if low <= slope <= high and low <= lately <= high else None

    def moved(self, seconds: float) -> Trend:
        """Return it as seen by a clock that was set forward by so many seconds."""
        return Trend(tuple((at + seconds, lag) for at, lag in self.points))


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What a sample means.

    `clear`: well enough for an alert to be over. `certain`: it needs no time to be believed.
    """

    level: Level
    reason: Reason | None
    text: str
    clear: bool = False
    certain: bool = False

    @property
    def severity(self) -> Level:
        """How grave it is to people: not to know is as grave as to miss the target."""
        return min(self.level, Level.CRITICAL)


def judge(name: str, sample: Sample, trend: Trend, thresholds: Thresholds) -> Verdict:
    """Judge a sample of the replica `name`; `trend` ends with it."""
    lag, warn, target = sample.lag, thresholds.warn, thresholds.target
    because = f": {sample.why}" if sample.why else ""
    if sample.stopped is not None:
        so_far = "" if lag is None else f" ({name} is {shown(lag)} behind so far)"
        text = f"nothing new reaches {name}: {sample.stopped}{so_far}"
        return Verdict(Level.CRITICAL, Reason.STOPPED, text)
    if lag is None:
        text = f"how far {name} is behind is unknown: {sample.why or 'nothing was measured'}"
        return Verdict(Level.UNKNOWN, Reason.UNKNOWN, text)
    if lag > target:
        text = f"{name} is {shown(lag)} behind and misses the target of {shown(target)}"
        return Verdict(Level.CRITICAL, Reason.BEHIND, text + because)
    slope = trend.standstill(thresholds.window)
    if slope is not None and (left := (target - lag) / slope) < thresholds.horizon:
        text = (
            f"{name} is {shown(lag)} behind and has stood still for {shown(thresholds.window)}: "
            f"it will miss the target of {shown(target)} in {shown(left)}"
        )
        return Verdict(Level.CRITICAL, Reason.WILL_BREACH, text + because, certain=True)
    if lag > warn:
        text = (
            f"{name} is {shown(lag)} behind, more than {shown(warn)}; the target is {shown(target)}"
        )
        return Verdict(Level.WARNING, Reason.BEHIND, text + because)
    return Verdict(Level.OK, None, f"{name} is {shown(lag)} behind", clear=lag < HYSTERESIS * warn)


def judge_tables(name: str, sample: Sample) -> Verdict:
    """Judge the tables of the replica `name`; nothing begins or ends where they are not known."""
    if sample.strays is None:
        return Verdict(Level.OK, None, f"which tables {name} has is unknown")
    if not sample.strays:
        return Verdict(Level.OK, None, f"{name} has the primary's tables", clear=True)
    lacking = any(stray.why in LACKING for stray in sample.strays)
    told = [f"{stray.table} {stray.what}" for stray in sample.strays]
    more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
    return Verdict(
        Level.WARNING,
        Reason.UNCOVERED if lacking else Reason.ASTRAY,
        f"tables are not on {name} as on the primary: {'; '.join(told[:_NAMED])}{more}",
    )


def shown(seconds: float) -> str:
    """Return a number of seconds for people."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 20 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
