"""When an alert fires, when it is over, and what is told."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import hypothesis
import msgspec
from hypothesis import strategies as st

from cdc.alert import machine
from cdc.alert.judgement import HYSTERESIS, Level, Reason, Sample, Thresholds, Trend, judge
from cdc.alert.machine import Kind, Memory, Notice, Phase, Rules

THRESHOLDS = Thresholds(warn=180.0, target=300.0)
RULES = Rules(THRESHOLDS, for_=30.0, clear_for=60.0, repeat=0.0)
EVERY = 5.0


def told(
    samples: Iterable[Sample],
    rules: Rules = RULES,
    memory: Memory | None = None,
    begin: float = 1000.0,
    quiet: Iterable[bool] = (),
) -> tuple[list[Notice], Memory]:
    """Step through samples that are `EVERY` seconds apart; return what is told, and the end."""
    memory, now, notices = memory or Memory(), begin, []
    hushed = iter(quiet)
    for sample in samples:
        memory, notice = machine.step("r1", memory, sample, now, rules, quiet=next(hushed, False))
        notices += [notice] if notice else []
        now += EVERY
    return notices, memory


def lags(*seconds: float | None) -> list[Sample]:
    return [Sample(s, "" if s is not None else "cannot be read") for s in seconds]


def kinds(notices: list[Notice]) -> list[Kind]:
    return [notice.kind for notice in notices]


def stall(seconds: int, start: float = 0.0) -> list[Sample]:
    """Return the samples of a full stall: a second of lag a second."""
    return lags(*(start + n * EVERY for n in range(int(seconds / EVERY))))


def test_a_stall_is_told_before_it_misses_the_target() -> None:
    """A replica that stands still is told of as critical as soon as the target is two minutes away."""
    notices, memory = told(stall(600))

    assert [Kind.NEW] == kinds(notices)
    assert (Level.CRITICAL, Reason.WILL_BREACH) == (notices[0].severity, notices[0].reason)
    assert 180 < (notices[0].lag or 0) <= 190
    assert Phase.FIRING is memory.phase
    assert "misses the target" in memory.summary


def test_what_holds_the_replica_up_is_told() -> None:
    """Whoever is called reads the cause, in a prediction as in a warning and in what is missed."""
    behind = [dataclasses.replace(sample, why="its daemon hangs") for sample in stall(600)]
    drifts = [Sample(190.0, "its daemon hangs")] * 8

    (predicted,), memory = told(behind)
    (warned,), _ = told(drifts)

    assert "its daemon hangs" in predicted.summary
    assert "its daemon hangs" in memory.summary
    assert "its daemon hangs" in warned.summary


def test_a_slow_drift_warns_and_gets_graver_once() -> None:
    """Lag that grows slowly is a warning after `for`, and critical once it is over the target."""
    notices, _ = told(lags(*(100 + n / 2 for n in range(600))))

    assert [Kind.NEW, Kind.ESCALATED] == kinds(notices)
    assert [Level.WARNING, Level.CRITICAL] == [n.severity for n in notices]
    assert 300 < (notices[1].lag or 0) < 302


def test_a_short_excursion_is_told_to_nobody() -> None:
    """What is over before `for` has passed is not told."""
    notices, memory = told(lags(1, *[200] * 6, 1, 1))

    assert [] == notices
    assert Phase.OK is memory.phase


def test_a_burst_that_is_caught_up_with_is_told_to_nobody() -> None:
    """Lag may grow by a second a second for as long as it stays below the warning."""
    notices, _ = told([*stall(170), *lags(*range(170, 0, -20)), *lags(*[0.2] * 10)] * 3)

    assert [] == notices


def test_a_swing_within_the_hysteresis_neither_ends_nor_begins_an_alert() -> None:
    """Between 0.8 of the warning and the warning nothing changes, either way."""
    notices, memory = told(lags(*[200] * 8, *[150, 175] * 50))
    assert [Kind.NEW] == kinds(notices)
    assert Phase.FIRING is memory.phase

    notices, memory = told(lags(*[150, 175] * 50))
    assert [] == notices
    assert Phase.OK is memory.phase


def test_an_alert_is_over_when_the_lag_has_been_small_for_a_while() -> None:
    """`clear_for` must pass without a break; then the end is told, with when it began."""
    notices, memory = told(lags(*[200] * 8, *[1] * 11, 160, *[1] * 13))

    assert [Kind.NEW, Kind.RESOLVED] == kinds(notices)
    first, over = notices
    assert first.starts_at == over.starts_at == first.at
    assert over.ends_at == over.at == 1000 + EVERY * (8 + 11 + 1 + 12)
    assert Phase.OK is memory.phase
    assert over.summary == "r1 is 1.0 s behind again, after 2 min 10 s"


def test_what_is_unknown_is_critical_and_never_clear() -> None:
    """A replica that cannot be read fires after `for`, and an alert does not end by it."""
    notices, memory = told(lags(*[None] * 20))
    assert [(Level.CRITICAL, Reason.UNKNOWN)] == [(n.severity, n.reason) for n in notices]
    assert "r1 is behind is unknown: cannot be read" in notices[0].summary

    notices, memory = told(lags(*[1] * 11, *[None] * 50), memory=memory, begin=2000)
    assert [] == notices
    assert (Phase.FIRING, Level.UNKNOWN) == (memory.phase, memory.level)


def test_a_failed_connector_is_told_before_the_lag_shows_it() -> None:
    """What certainly stops the flow fires after `for`, however small the lag is by then."""
    notices, _ = told([Sample(n * EVERY, stopped="it has failed") for n in range(8)])

    assert [(Level.CRITICAL, Reason.STOPPED)] == [(n.severity, n.reason) for n in notices]
    assert notices[0].summary == "nothing new reaches r1: it has failed (r1 is 30 s behind so far)"


def test_a_lag_that_jumps_predicts_nothing() -> None:
    """A jump between two samples is no standstill."""
    assert [] == told(lags(*[1] * 20, *[175] * 5, *[1] * 20))[0]


def test_a_long_alert_is_repeated() -> None:
    """Each time `repeat` has passed while it fires it is told again, and not after its end."""
    rules = dataclasses.replace(RULES, repeat=60.0)
    notices, _ = told(lags(*[200] * 32, *[1] * 40), rules)

    assert [Kind.NEW, Kind.REPEATED, Kind.REPEATED, Kind.RESOLVED] == kinds(notices)
    assert len({n.id for n in notices}) == 4


def test_a_silence_holds_back_what_begins_and_not_what_ends() -> None:
    """What fires in a silence is told when it is over; the end of what was told is told in it."""
    notices, memory = told(lags(*[200] * 20), quiet=[True] * 15)
    assert [Kind.NEW] == kinds(notices)
    assert notices[0].at == 1000 + 15 * EVERY

    notices, memory = told(lags(*[1] * 20), memory=memory, begin=1100, quiet=[True] * 20)
    assert [Kind.RESOLVED] == kinds(notices)

    notices, _ = told(lags(*[200] * 20, *[1] * 20), memory=memory, begin=1200, quiet=[True] * 40)
    assert [] == notices


def test_without_waiting_times_a_sample_is_enough() -> None:
    """`for` and `clear_for` of 0 fire and end with the first sample that says so."""
    rules = Rules(THRESHOLDS, for_=0.0, clear_for=0.0)

    assert [Kind.NEW, Kind.RESOLVED] * 2 == kinds(told(lags(200, 1, 200, 1), rules)[0])


def test_thresholds_scale_the_prediction() -> None:
    """With a target of 10 s the standstill is believed after 2 s, and told 4 s before the target."""
    small = Thresholds(warn=6.0, target=10.0)
    trend = Trend()
    for n in range(14):
        trend = trend.after(n / 2, n / 2, small.window)
        verdict = judge("r1", Sample(n / 2), trend, small)
        assert (verdict.reason is Reason.WILL_BREACH) == (n / 2 > 6.0)


def test_looks_that_take_longer_than_the_window_predict_too() -> None:
    """Two looks further apart than the window are enough, when a server that hangs slows each look."""
    small, trend = Thresholds(warn=6.0, target=10.0), Trend()
    for at in (0.0, 2.5, 5.0, 7.5):
        trend = trend.after(at, at, small.window)
    assert Reason.WILL_BREACH is judge("r1", Sample(7.5), trend, small).reason


samples = st.one_of(
    st.just(Sample(None)),
    st.builds(Sample, st.floats(0, 400)),
    st.builds(lambda lag: Sample(lag, stopped="failed"), st.floats(0, 400)),
)
#: Long stretches of the like, as in life; single samples as well.
stretches = st.lists(
    st.tuples(samples, st.integers(1, 30)).map(lambda pair: [pair[0]] * pair[1]), max_size=12
).map(lambda found: [sample for stretch in found for sample in stretch])


@hypothesis.given(stretches, st.data())
def test_beginning_and_end_are_told_alternately_whatever_restarts_come_between(
    found: list[Sample], data: st.DataObject
) -> None:
    """Each alert is told once each way, its end after its beginning, through any restarts.

    A restart is what it is in life: what is remembered is written and read again.
    """
    memory, now, notices = Memory(), 1000.0, []
    for sample in found:
        if data.draw(st.booleans()):
            memory = msgspec.json.decode(msgspec.json.encode(memory), type=Memory)
        memory, notice = machine.step("r1", memory, sample, now, RULES)
        notices += [notice] if notice else []
        now += data.draw(st.floats(0.5, 60))

    ways = [n.kind for n in notices if n.kind is not Kind.ESCALATED]
    assert ways == ([Kind.NEW, Kind.RESOLVED] * len(ways))[: len(ways)]
    assert len(notices) == len({n.id for n in notices})
    for before, after in itertools.pairwise(notices):
        if after.kind is Kind.ESCALATED:
            assert before.kind is Kind.NEW
            assert before.severity < after.severity
        if after.kind is not Kind.NEW:
            assert before.starts_at == after.starts_at


@hypothesis.given(stretches)
def test_nothing_ends_but_by_a_small_known_lag(found: list[Sample]) -> None:
    """When the end is told, the lag has been known and below 0.8 of the warning for `clear_for`."""
    memory, now, since = Memory(), 1000.0, None
    for sample in found:
        small = (
            sample.stopped is None
            and sample.lag is not None
            and sample.lag < HYSTERESIS * THRESHOLDS.warn
        )
        since = (since or now) if small else None
        memory, notice = machine.step("r1", memory, sample, now, RULES)
        if notice and notice.kind is Kind.RESOLVED:
            assert since is not None
            assert now - since >= RULES.clear_for
        now += EVERY


@hypothesis.given(st.lists(st.floats(HYSTERESIS * 180.0, 180.0), max_size=200), st.booleans())
def test_it_never_flaps_within_the_hysteresis(swing: list[float], fires: bool) -> None:
    """However the lag swings between the two bounds, nothing is told."""
    memory = told(lags(*[250] * 10))[1] if fires else Memory()

    assert [] == told(lags(*swing), memory=memory, begin=5000)[0]


@hypothesis.given(stretches, st.integers(-1_000_000, 1_000_000))
def test_a_clock_that_is_set_changes_nothing(found: list[Sample], jump: int) -> None:
    """When the clock is set and what is remembered is moved with it, the same is told."""
    half = len(found) // 2
    begin = 2_000_000.0
    whole = told(found, begin=begin)[0]
    first, memory = told(found[:half], begin=begin)
    second, _ = told(found[half:], memory=memory.moved(jump), begin=begin + half * EVERY + jump)

    assert kinds(whole) == kinds([*first, *second])
