"""Tables that came, went, were renamed or made anew: told by their numbers, and what the daemon does at each."""

from __future__ import annotations

import threading

import pytest
from test_tables import config

from cdc import strangers, strays
from cdc.errors import SchemaMismatch
from cdc.events import Change
from cdc.names import TableName
from cdc.position import Coverage, Fenced
from cdc.strangers import Seen, Strangers
from cdc.strays import Inventory, Stray

A, B, NEW = (TableName("app", name) for name in ("a", "b", "new"))

#: What the primary has: a and b, both to be replicated and published.
BOTH = Inventory((A, B), frozenset({A, B}), {1: A, 2: B})


def judged(inventory: Inventory, followed: dict[TableName, int | None]) -> set[tuple[str, str]]:
    return {(str(s.table), s.why) for s in strays.of(inventory, {"r1": followed})}


def test_nothing_is_astray_where_numbers_and_names_agree() -> None:
    """Tables under their names and numbers, or of an older release without numbers, are in order."""
    assert set() == judged(BOTH, {A: 1, B: 2})
    assert set() == judged(BOTH, {A: None, B: None})


@pytest.mark.parametrize(
    ("inventory", "followed", "expected"),
    [
        (Inventory((A, B), frozenset({A}), {1: A, 2: B}), {A: 1}, {("app.b", "unpublished")}),
        (BOTH, {A: 1}, {("app.b", "unfilled")}),
        (Inventory((A, B), frozenset({A}), {1: A, 2: B}), {A: 1, B: 2}, {("app.b", "silent")}),
        (Inventory((A, B), frozenset({A}), {1: A, 2: B}), {A: 1, B: None}, {("app.b", "silent")}),
        (Inventory((A, NEW), frozenset({A, NEW}), {1: A, 2: NEW}), {A: 1, B: 2}, {("app.b", "renamed")}),
        (Inventory((A, B), frozenset({A, B}), {1: A, 9: B}), {A: 1, B: 2}, {("app.b", "made anew")}),
        (Inventory((A,), frozenset({A}), {1: A, 2: B}), {A: 1, B: 2}, {("app.b", "left out")}),
        (Inventory((A,), frozenset({A}), {1: A}), {A: 1, B: 2}, {("app.b", "gone")}),
        (Inventory((A,), frozenset({A}), {1: A}), {A: 1, B: None}, {("app.b", "gone")}),
        # b was renamed to a after a had been renamed away: both are told by what they were.
        (
            Inventory((NEW, A), frozenset({NEW, A}), {1: NEW, 2: A}),
            {A: 1, B: 2},
            {("app.a", "renamed"), ("app.b", "renamed")},
        ),
    ],
)  # fmt: skip
def test_each_kind_is_told_apart(
    inventory: Inventory, followed: dict[TableName, int | None], expected: set[tuple[str, str]]
) -> None:
    """A new, renamed, dropped, newly made, left out or unpublished table is each called what it is."""
    assert expected == judged(inventory, followed)


def test_replicas_are_told_together_and_the_fix_names_the_table() -> None:
    """One line tells a table and all replicas that lack it; its fix can be typed."""
    found = strays.of(BOTH, {"r1": {A: 1}, "r2": {A: 1}})

    assert (Stray(B, "unfilled", ("r1", "r2")),) == found
    assert "`cdc bootstrap --table app.b`" in found[0].fix


def seen(*found: tuple[int, TableName, str, int | None]) -> dict[TableName, Seen]:
    return {name: Seen(oid, name, kind, root) for oid, name, kind, root in found}


COVERED = {A: Coverage("copied", 5, 1), B: Coverage("copied", 5, 2)}


@pytest.mark.parametrize(
    "there",
    [
        seen((1, A, "r", None), (2, B, "r", None), (3, NEW, "r", None)),
        # Dropped since, while every table that is followed is where it was.
        seen((1, A, "r", None), (2, B, "r", None)),
        # A partition of a table of which nothing is followed.
        seen((1, A, "r", None), (2, B, "r", None), (3, NEW, "r", 30)),
        # One that is followed was dropped: the new one has another number, or is gone as well.
        seen((1, A, "r", None), (3, NEW, "r", None)),
        seen((1, A, "r", None)),
    ],
)
def test_a_new_table_is_passed_over(there: dict[TableName, Seen]) -> None:
    """Changes of a table that is none of those followed, and no part of one, are passed over."""
    assert strangers.verdict(NEW, there, COVERED) is None


@pytest.mark.parametrize(
    ("there", "covered", "why"),
    [
        (seen((1, A, "r", None), (2, NEW, "r", None)), COVERED, "app.b, which is followed, was renamed to app.new"),
        (seen((1, A, "r", 9), (2, B, "r", None), (9, NEW, "p", None)), COVERED, "it is partitioned"),
        (
            seen((1, A, "r", 9), (2, B, "r", None), (3, NEW, "r", 9)),
            COVERED,
            "it is a partition of a table that is followed",
        ),
        (
            seen((1, A, "r", None), (2, TableName("app", "c"), "r", None), (3, NEW, "r", None)),
            COVERED,
            "app.b, which is followed, was renamed to app.c",
        ),
        (
            seen((1, A, "r", None), (2, NEW, "r", None)),
            {A: Coverage("copied", 5, 1), B: Coverage("copied", 5)},
            "app.b, which is followed, is not there any more under that name",
        ),
    ],
)  # fmt: skip
def test_what_may_be_a_table_that_is_followed_is_not_passed_over(
    there: dict[TableName, Seen], covered: dict[TableName, Coverage], why: str
) -> None:
    """Renamed, partitioned, a partition of one that is followed, or not to be told from that: it halts."""
    assert why == strangers.verdict(NEW, there, covered)


class Looks(Strangers):
    """Counts its looks at a primary whose log ends at 100, then 200."""

    def __init__(self, found: dict[TableName, Seen]) -> None:
        self.stopping = Stopping()
        super().__init__(config("app.*"), "r1", self.stopping)
        self.found, self.looks = found, 0

    def _look(self, *_: object) -> tuple[int, dict[TableName, Seen]]:
        self.looks += 1
        return 100 * self.looks, self.found


class Stopping(threading.Event):
    """Counts what is waited for, and does not wait."""

    waits = 0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits += 1
        return self.is_set()


def change(lsn: int, table: TableName = NEW) -> Change:
    return Change("c", table, None, {"id": "1"}, 1, lsn, 1, 0, 10)


def test_a_look_is_good_for_what_was_written_before_it() -> None:
    """The primary is asked once for all that is older than the look, then again, not twice a second."""
    looks = Looks(seen((1, A, "r", None), (2, B, "r", None), (3, NEW, "r", None)))
    for lsn in (10, 20, 99):
        looks.pass_over(COVERED, change(lsn))
    assert 1 == looks.looks
    looks.pass_over(COVERED, change(100))
    looks.pass_over(COVERED, change(199))

    assert 2 == looks.looks
    assert 1 == looks.stopping.waits


def test_a_strange_table_that_is_not_new_halts_with_what_it_is() -> None:
    """The error names the table, why it is not passed over, and what to do."""
    looks = Looks(seen((1, A, "r", None), (2, NEW, "r", None)))
    with pytest.raises(
        SchemaMismatch, match=r"app\.new.*app\.b, which is followed, was renamed"
    ) as raised:
        looks.pass_over(COVERED, change(10))

    assert "rename it here first and add --overwrite" in raised.value.next


def test_a_daemon_that_is_stopped_does_not_wait_for_its_next_look() -> None:
    """Between two looks it can be stopped."""
    looks = Looks(seen((3, NEW, "r", None), (1, A, "r", None)))
    looks.pass_over(COVERED, change(10))
    looks.stopping.set()
    with pytest.raises(Fenced):
        looks.pass_over(COVERED, change(150))
