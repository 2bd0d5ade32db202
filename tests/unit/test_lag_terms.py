"""Lag: its two terms, its states, its trend; and when a replica is fresh enough."""

from __future__ import annotations

from typing import Any

import pytest

from cdc import freshness, lag
from cdc.freshness import Gate, Look
from cdc.gauge import Gauge
from cdc.lag import First, Lag, Reading, Sample
from cdc.position import Position

PERIOD = 2.0


def reading(**known: Any) -> Reading:
    """Return a replica that was read at 1000 and had applied a heartbeat one second before."""
    given: dict[str, Any] = {
        "at": 1000.0,
        "applied_lsn": 7,
        "next_offset": 50,
        "applied_at": 999.0,
        "heartbeat_at": 999.0,
    }
    return Reading(**given | known)


def measured(
    now: float, read: Reading | None, first: First | None = None, end: int = 50,
    before: list[Sample] | None = None, *, cut_at: float | None = None,
) -> Lag:  # fmt: skip
    """Return the lag at `now`."""
    return lag.measure(
        "r1", now, read, first=first, end=end, before=before or [], period=PERIOD, cut_at=cut_at
    )[0]


@pytest.mark.parametrize(
    ("heartbeat", "applied", "first", "seconds"),
    [
        (999.0, 999.0, None, 0.0),  # idle: the next heartbeat is not due yet
        (990.0, 990.0, None, 8.0),  # nothing arrives any more
        (990.0, 991.0, None, 8.0),  # as many rows came before the standstill as there were
        (999.0, 999.0, 960.0, 40.0),  # something waits in the topic, however fresh the heartbeat
        (900.0, 900.0, 995.0, 98.0),  # both: the greater one
        (900.0, 999.0, None, 1.0),  # rows without heartbeats prove as much
        (None, None, 995.0, 5.0),  # nothing was ever applied
        (1001.0, 1001.0, None, 0.0),  # a clock that was set back
        (None, None, None, None),
    ],
)
def test_lag_is_the_greater_of_two_ages(
    heartbeat: float | None, applied: float | None, first: float | None, seconds: float | None
) -> None:
    """The first unapplied commit's age, and the newest heartbeat's beyond its period; never negative."""
    assert seconds == lag.seconds(
        1000.0,
        heartbeat_at=heartbeat,
        applied_at=applied,
        first_unapplied=first,
        period=PERIOD,
    )


@pytest.mark.parametrize(
    ("read", "first", "state", "seconds"),
    [
        (reading(), None, "following", 0.0),
        (reading(heartbeat_at=900.0, applied_at=900.0), None, "not fed", 98.0),
        (reading(written=False), First(50, 997.0), "not moving", 3.0),
        (reading(filling="2 tables"), First(50, 500.0), "filling", None),
        (reading(diverged="3 commits"), None, "diverged", None),
        (None, None, "unknown", None),
    ],
)
def test_states(
    read: Reading | None, first: First | None, state: str, seconds: float | None
) -> None:
    """Each way to be behind, or not to know, has a state of its own."""
    found = measured(1000.0, read, first)

    assert (state, seconds) == (found.state, found.seconds)


def trail(seconds: list[float | None], *, offset: int = 50, moves: int = 0) -> list[Sample]:
    """Return samples two seconds apart, the last one two seconds before 1000."""
    start = 1000.0 - 2 * len(seconds)
    return [
        Sample(start + 2 * n, s, offset + moves * n, offset + 200) for n, s in enumerate(seconds)
    ]


def test_records_that_wait_and_are_not_applied_are_a_standstill() -> None:
    """A daemon that holds the lock and does nothing is told from one that catches up."""
    first = First(50, 960.0)
    read = reading(heartbeat_at=950.0)

    still = measured(1000.0, read, first, 250, trail([20.0 + 2 * n for n in range(10)]))
    moves = measured(1000.0, reading(next_offset=150), first, 250, trail([40.0] * 10, moves=10))

    assert ("not moving", "following") == (still.state, moves.state)


@pytest.mark.parametrize(
    ("cut_at", "end", "state"),
    [
        (985.0, 250, "not fed"),
        (995.0, 250, "not moving"),  # it may still come
        (985.0, 300, "not moving"),  # it comes: the connector's clock is behind the primary's
        (None, 250, "not moving"),  # all that waits is whole
    ],
)
def test_a_transaction_that_is_never_sent_to_its_end_is_no_fault_of_the_replica(
    cut_at: float | None, end: int, state: str
) -> None:
    """The topic ends inside it and does not grow: nothing comes out of the connector any more."""
    before = [Sample(980.0 + 2 * n, 20.0 + 2 * n, 50, 250) for n in range(10)]

    found = measured(
        1000.0, reading(heartbeat_at=958.0), First(50, 960.0), end, before, cut_at=cut_at
    )

    assert state == found.state


def test_a_single_look_tells_a_transaction_that_is_never_sent_to_its_end() -> None:
    """`cdc status` has no looks before to compare with."""
    found = measured(1000.0, reading(heartbeat_at=958.0), First(50, 960.0), 52, cut_at=960.0)

    assert "not fed" == found.state


def test_rows_without_heartbeats_are_a_state_of_their_own() -> None:
    """The heartbeat query fails: rows prove freshness instead, and only what lasts is called so."""
    read = reading(heartbeat_at=900.0, applied_at=999.5)
    first_seen = lag.measure("r1", 998.0, reading(heartbeat_at=900.0, applied_at=997.5), first=None,
                             end=50, before=[], period=PERIOD)  # fmt: skip

    at_once, later = first_seen[0], measured(1000.0, read, before=[first_seen[1]])

    assert "heartbeat failing" != at_once.state
    assert ("heartbeat failing", 0.5) == (later.state, later.seconds)


def test_catching_up_is_not_a_failing_heartbeat() -> None:
    """What committed long ago is applied without heartbeats while these wait behind it."""
    read = reading(heartbeat_at=300.0, applied_at=700.0)

    found = measured(1000.0, read, First(50, 700.0), 900, trail([300.0] * 20, moves=10))

    assert ("following", 300.0) == (found.state, found.seconds)


def test_trend_of_a_standstill_and_of_catching_up() -> None:
    """One second per second while nothing is applied; the backlog's end when it shrinks."""
    stall = measured(1000.0, reading(heartbeat_at=960.0, applied_at=960.0), before=trail([float(n) for n in range(18, 38, 2)]))  # fmt: skip
    shrinks = measured(1000.0, reading(next_offset=150), First(150, 980.0), 250, trail([20.0] * 10, moves=10))  # fmt: skip

    assert stall.slope == pytest.approx(1.0)
    assert 100 == shrinks.backlog
    assert shrinks.eta == pytest.approx(20.0)


def test_a_clock_set_back_gives_no_trend() -> None:
    """Samples from the future say nothing about rates."""
    found = measured(1000.0, reading(), before=[Sample(2000.0 + n, 5.0, 1, 1) for n in range(20)])

    assert found.slope is None


def test_the_lag_is_divided_among_the_stages() -> None:
    """What lies in the topic waits for the replica; what does not is on its way to the topic."""
    waits = measured(1000.0, reading(), First(50, 990.0, captured=991.0, appended=991.5), 90)
    before = measured(1000.0, reading(heartbeat_at=988.0, applied_at=988.0))

    assert lag.Split(1.0, 0.5, 8.5) == waits.split
    assert lag.Split(10.0, 0.0, 0.0) == before.split


def test_a_gate_closes_at_the_second_sample_beyond_and_opens_well_below() -> None:
    """One late sample is no reason to move readers, and coming back needs a margin."""
    gate = Gate.first(10.0, 9.0)
    states = []
    for seconds in (11.0, 9.0, 11.0, 12.0, 9.0, 8.0, None, 9.0, 7.0):
        gate = gate.after(seconds)
        states.append(gate.open)

    assert [True, True, True, False, False, True, False, False, True] == states


def daemon() -> Gauge:
    """Return the gauge of a loop that applied a heartbeat of 999 right after the look below."""
    gauge = Gauge("r1", doing="applying")
    gauge.loaded(Position("app", "cdc.app", "id", 50, None, 7, "7", 1, (), 0), {})
    gauge.heartbeat_at, gauge.known_at = 999.0, 10.5
    return gauge


def looked(**known: Any) -> Look:
    """Return a look of the monotonic moment 10, at which the primary's clock showed 1000.

    The replica had applied a heartbeat of 989 then.
    """
    given: dict[str, Any] = {"replica": "r1", "at": 1000.0, "seconds": 0.0, "state": "following"}
    return Look(Lag(**given | known), 989.0, 989.0, 990.0, 10.0)


@pytest.mark.parametrize(
    ("look", "now", "state", "seconds"),
    [
        (looked(), 10.0, "following", 0.0),
        (looked(), 21.0, "following", 10.0),  # the gauge grows by itself
        (looked(), 26.0, "unknown", None),  # nobody has looked for three intervals
        (looked(seconds=None, state="unknown"), 10.0, "unknown", None),
        (looked(seconds=None, state="filling"), 10.0, "filling", None),
        (None, 10.0, "unknown", None),
    ],
)
def test_the_daemon_answers_from_memory(
    look: Look | None, now: float, state: str, seconds: float | None
) -> None:
    """What the loop knows since the last look counts; an old look proves nothing."""
    found = freshness.current(daemon(), look, now, PERIOD, 15.0)

    assert (state, seconds) == (found.state, found.seconds)


def test_the_newest_evidence_counts() -> None:
    """What the loop knew before the look does not, and nothing from before a session was lost."""
    looked_later, lost = daemon(), daemon()
    looked_later.known_at, lost.lost_at = 9.0, 10.8

    found = [
        freshness.current(gauge, looked(), 11.0, PERIOD, 15.0) for gauge in (looked_later, lost)
    ]

    assert [("following", 10.0), ("unknown", None)] == [(f.state, f.seconds) for f in found]


def test_a_copy_that_has_ended_is_seen_by_the_look() -> None:
    """The loop learns of a copy's end only at an event of its table; a later look does at once."""
    gauge = daemon()
    gauge.unfilled, gauge.loaded_at = 1, 10.4
    before = freshness.current(gauge, looked(), 10.6, PERIOD, 15.0)
    gauge.loaded_at = 9.0
    after = freshness.current(gauge, looked(), 10.6, PERIOD, 15.0)

    assert ("filling", "following") == (before.state, after.state)


def test_what_was_read_and_not_applied_counts_from_the_first() -> None:
    """The age is that of the first transaction since the last commit, in whatever batch it is."""
    gauge = daemon()
    gauge.pending(None)
    gauge.pending(990_000)
    gauge.pending(995_000)

    assert 10.0 == gauge.lag(1000.0, PERIOD)
