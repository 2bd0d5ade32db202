"""Verdicts about a key never accuse a replica that is only behind."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from cdc.verify.reading import Image
from cdc.verify.verdict import Readings, Verdict, judge, judge_set

DIFFERENCES = {Verdict.MISSING, Verdict.EXTRA, Verdict.DIFFERENT}

#: What a key holds after each of its events; None when it was deleted. Few values, so that they
#: come back.
HISTORIES = st.lists(st.none() | st.integers(0, 2), min_size=1, max_size=6)


@dataclasses.dataclass(frozen=True, slots=True)
class Cuts:
    """How many events each reading saw; barrier and guard make it R1 <= S <= R2 <= S2."""

    r1: int
    s: int
    r2: int
    s2: int


@st.composite
def cuts(draw: st.DrawFn, last: int) -> Cuts:
    return Cuts(*sorted(draw(st.integers(0, last)) for _ in range(4)))


def image(history: list[int | None], at: int, end: str) -> Image | None:
    """Return the row after event `at`; a version is an event's, on one end."""
    value = history[at]
    return None if value is None else Image(value, f"{end}{at}")


def read(primary: list[int | None], replica: list[int | None], at: Cuts) -> Readings:
    return Readings(
        image(replica, at.r1, "r"),
        image(primary, at.s, "p"),
        image(replica, at.r2, "r"),
        image(primary, at.s2, "p"),
    )


@given(HISTORIES, st.data())
def test_a_replica_that_is_behind_is_never_accused(
    history: list[int | None], data: st.DataObject
) -> None:
    """Whatever is written between the readings, a sound replica gets no difference."""
    seen = read(history, history, data.draw(cuts(len(history) - 1)))

    assert judge(seen) not in DIFFERENCES


@given(HISTORIES, st.data())
def test_a_lost_change_of_a_quiet_row_is_found(
    history: list[int | None], data: st.DataObject
) -> None:
    """A row that nobody writes any more and that differs is named with its kind."""
    truth = history[-1]
    other = data.draw(st.sampled_from([None, 0, 1, 2]).filter(lambda value: value != truth))
    last = len(history) - 1
    seen = read(history, [*history[:-1], other], Cuts(last, last, last, last))

    kind = (
        Verdict.EXTRA if truth is None else Verdict.MISSING if other is None else Verdict.DIFFERENT
    )
    assert kind == judge(seen)


@given(HISTORIES, st.integers(0, 5), st.data())
def test_a_lost_event_is_seen_or_written_over(
    history: list[int | None], lost: int, data: st.DataObject
) -> None:
    """A replica that lost one event is proven equal only where both ends show the same row."""
    lost %= len(history)
    replica = [*history]
    if lost:
        replica[lost] = history[lost - 1]
    seen = read(history, replica, data.draw(cuts(len(history) - 1)))

    if judge(seen) is Verdict.SAME:
        primary = {None if i is None else i.hash for i in (seen.s, seen.s2)}
        assert primary & {None if i is None else i.hash for i in (seen.r1, seen.r2)}


#: Rows of one content: when each came and went, in events of the whole table.
ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 7)), max_size=5)


def contents(rows: list[tuple[int, int]], at: int, end: str) -> Image | None:
    present = [i for i, (came, went) in enumerate(rows) if came <= at < max(went, came + 1)]
    return Image(len(present), f"{end}{present}") if present else None


@given(ROWS, cuts(7))
def test_contents_that_come_and_go_are_never_accused(rows: list[tuple[int, int]], at: Cuts) -> None:
    """Without a key, equal rows come and go on both ends; a sound replica gets no difference."""
    seen = Readings(
        contents(rows, at.r1, "r"),
        contents(rows, at.s, "p"),
        contents(rows, at.r2, "r"),
        contents(rows, at.s2, "p"),
    )

    assert judge_set(seen) not in DIFFERENCES


@given(ROWS.filter(bool), cuts(7))
def test_a_lost_duplicate_is_never_proven_equal(rows: list[tuple[int, int]], at: Cuts) -> None:
    """Whatever comes and goes meanwhile, a replica without one of the rows is not called equal."""
    came, went = rows[-1]
    seen = Readings(
        contents(rows[:-1], at.r1, "r"),
        contents(rows, at.s, "p"),
        contents(rows[:-1], at.r2, "r"),
        contents(rows, at.s2, "p"),
    )

    if came <= at.s < max(went, came + 1):
        assert judge_set(seen) is not Verdict.SAME


@given(ROWS.filter(bool), st.integers(0, 7))
def test_a_lost_duplicate_is_found(rows: list[tuple[int, int]], at: int) -> None:
    """One of several equal rows too few, or too many, is a difference."""
    here, there = contents(rows, at, "p"), contents(rows[:-1], at, "r")
    verdict = judge_set(Readings(there, here, there, here))
    other = judge_set(Readings(here, there, here, there))

    if here is not None and (there is None or there.hash < here.hash):
        assert (Verdict.MISSING, Verdict.EXTRA) == (verdict, other)
    else:
        assert (Verdict.SAME, Verdict.SAME) == (verdict, other)
