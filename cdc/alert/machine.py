"""When an alert of a replica fires, when it is over, and what is told: once each way.

`ok → pending → firing → resolving → ok`, a pure function of samples, thresholds and `now`.

One alert per replica, whatever is wrong with its lag: its cause may change while it fires. It gets graver
at most once (`escalated`) and never milder, so a swing between two thresholds tells nobody twice.
Another, which is never more than a warning, is about tables that it lacks: beside the first, since it may last
for days and must neither hide nor prolong what is told of the lag.
Times are seconds since 1970 by a clock that does not jump (`watcher.Clock`).
"""

from __future__ import annotations

import dataclasses
import enum

from cdc.alert.judgement import (
    About,
    Level,
    Reason,
    Sample,
    Thresholds,
    Trend,
    Verdict,
    judge,
    judge_tables,
    shown,
)

#: Seconds for which tables may be on their way: made, published, filled. As in Prometheus' rules.
_TABLES_FOR = 900.0


class Phase(enum.StrEnum):
    OK = "ok"
    PENDING = "pending"
    FIRING = "firing"
    RESOLVING = "resolving"


class Kind(enum.StrEnum):
    """Why something is told."""

    NEW = "new"
    ESCALATED = "escalated"
    REPEATED = "repeated"
    RESOLVED = "resolved"
    TEST = "test"


@dataclasses.dataclass(frozen=True, slots=True)
class Rules:
    """Thresholds and times, in seconds; `repeat` 0 is never."""

    thresholds: Thresholds
    for_: float = 30.0
    clear_for: float = 60.0
    repeat: float = 4 * 3600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Notice:
    """Something that is told. `id` is the same however often it is sent."""

    id: str
    kind: Kind
    replica: str
    severity: Level
    reason: Reason | None
    summary: str
    at: float
    starts_at: float
    ends_at: float | None = None
    lag: float | None = None
    applied_lsn: str | None = None
    about: About = About.LAG


@dataclasses.dataclass(frozen=True, slots=True)
class Memory:
    """What is kept of one replica, across restarts.

    `since` is when the phase began. Of an alert that fires: `severity` the gravest so far, `told` what
    people were told (None: nothing yet), `notices` how many times, `summary` what is the case now.
    """

    phase: Phase = Phase.OK
    since: float = 0.0
    level: Level = Level.OK
    reason: Reason | None = None
    summary: str = ""
    severity: Level = Level.OK
    starts_at: float = 0.0
    told: Level | None = None
    told_at: float = 0.0
    notices: int = 0
    trend: Trend = dataclasses.field(default_factory=Trend)

    def moved(self, seconds: float) -> Memory:
        """Return it as seen by a clock that was set forward by so many seconds."""
        return dataclasses.replace(
            self,
            since=self.since + seconds,
            starts_at=self.starts_at + seconds,
            told_at=self.told_at + seconds,
            trend=self.trend.moved(seconds),
        )


def step(
    replica: str, before: Memory, sample: Sample, now: float, rules: Rules, *, quiet: bool = False
) -> tuple[Memory, Notice | None]:
    """Return what is remembered after a sample, and what is to be told, if anything.

    `quiet`: people do not want to hear of it now (a silence, or everything has only just started).
    What fires meanwhile is told afterwards if it still does. The end of what was told is always told.
    """
    trend = before.trend.after(now, sample.lag, rules.thresholds.window)
    verdict = judge(replica, sample, trend, rules.thresholds)
    before = dataclasses.replace(before, trend=trend)
    return _step(replica, before, sample, verdict, now, about=About.LAG, rules=rules, quiet=quiet)


def step_tables(
    replica: str, before: Memory, sample: Sample, now: float, rules: Rules, *, quiet: bool = False
) -> tuple[Memory, Notice | None]:
    """Do as `step` does, of tables that are not as on the primary."""
    rules = dataclasses.replace(rules, for_=max(rules.for_, _TABLES_FOR))
    verdict = judge_tables(replica, sample)
    if sample.strays is None and before.phase is not Phase.OK:
        return before, None
    return _step(
        replica, before, sample, verdict, now, about=About.TABLES, rules=rules, quiet=quiet
    )


def _step(
    replica: str, before: Memory, sample: Sample, verdict: Verdict, now: float, *, about: About,
    rules: Rules, quiet: bool,
) -> tuple[Memory, Notice | None]:  # fmt: skip
    after = _moved_on(before, verdict, now, rules)
    after = dataclasses.replace(
        after,
        trend=before.trend,
        level=verdict.level,
        reason=verdict.reason or (None if after.phase is Phase.OK else before.reason),
        summary=verdict.text,
    )
    kind = _kind(before, after, now, rules, quiet=quiet)
    if kind is Kind.RESOLVED:
        lasted = shown(now - before.starts_at)
        over = dataclasses.replace(
            _notice(replica, before, sample, now, kind, about=about),
            summary=f"{verdict.text} again, after {lasted}",
            ends_at=now,
        )
        return after, over
    if kind is None:
        return after, None
    notice = _notice(replica, after, sample, now, kind, about=about)
    told = dataclasses.replace(after, told=after.severity, told_at=now, notices=after.notices + 1)
    return told, notice


def _moved_on(before: Memory, verdict: Verdict, now: float, rules: Rules) -> Memory:
    """Return the phase after a verdict; several steps at once where no time is asked for."""
    memory = before
    bad = verdict.level is not Level.OK
    if memory.phase is Phase.OK and bad:
        memory = Memory(Phase.PENDING, now)
    if memory.phase is Phase.PENDING:
        if not bad:
            return Memory(Phase.OK, now)
        if verdict.certain or now - memory.since >= rules.for_:
            memory = Memory(Phase.FIRING, now, starts_at=now)
    if memory.phase is Phase.RESOLVING and not verdict.clear:
        memory = dataclasses.replace(memory, phase=Phase.FIRING, since=now)
    if memory.phase is Phase.FIRING:
        memory = dataclasses.replace(memory, severity=max(memory.severity, verdict.severity))
        if verdict.clear:
            memory = dataclasses.replace(memory, phase=Phase.RESOLVING, since=now)
    if memory.phase is Phase.RESOLVING and now - memory.since >= rules.clear_for:
        return Memory(Phase.OK, now)
    return memory


def _kind(before: Memory, after: Memory, now: float, rules: Rules, *, quiet: bool) -> Kind | None:
    """Decide what is told of the way from one phase to another."""
    if after.phase is Phase.OK and before.told is not None:
        return Kind.RESOLVED
    if after.phase is not Phase.FIRING or quiet:
        return None
    if after.told is None:
        return Kind.NEW
    if after.severity > after.told:
        return Kind.ESCALATED
    return Kind.REPEATED if 0 < rules.repeat <= now - after.told_at else None


def _notice(
    replica: str, memory: Memory, sample: Sample, now: float, kind: Kind, *, about: About
) -> Notice:
    which = replica if about is About.LAG else f"{replica}/{about}"
    return Notice(
        id=f"{which}/{memory.starts_at:.3f}/{memory.notices + 1}",
        kind=kind,
        replica=replica,
        severity=memory.severity,
        reason=memory.reason,
        summary=memory.summary,
        at=now,
        starts_at=memory.starts_at,
        lag=sample.lag,
        applied_lsn=sample.applied_lsn,
        about=about,
    )
