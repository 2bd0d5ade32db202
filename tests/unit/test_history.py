"""Whether a replica may follow the primary to another timeline."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_connectors import config

from cdc import history
from cdc.errors import BrokenStream, NotReady
from cdc.history import History, Succession
from cdc.origins import Origin
from cdc.position import RING, Position

#: As PostgreSQL 16 writes it.
FILE = """\
1\t0/3000148\tno recovery target specified

2\t0/5000060\tbefore 2000-01-01 00:00:00+00
"""

THIRD = History("7", 3, ((1, 0x3000148), (2, 0x5000060)))


def at(applied: int, timeline: int = 1, ring: tuple[tuple[int, int], ...] = ()) -> Position:
    return Position(
        "app", "cdc.app", "id", 5, None, applied, "7", timeline, ring, 0, 1_700_000_000_000
    )


def follow(position: Position, timeline: int, lsn: int, primary: History) -> Position:
    return history.follow(position, position.applied_lsn, Origin("7", timeline), lsn, primary)


def test_a_history_file_tells_where_each_timeline_ended() -> None:
    """Empty lines and comments are none; the reason may have blanks."""
    assert ((1, 0x3000148), (2, 0x5000060)) == history.parse("# comment\n" + FILE)


@pytest.mark.parametrize(("timeline", "end"), [(1, 0x3000148), (2, 0x5000060), (4, None)])
def test_a_timeline_is_part_of_a_history_up_to_its_end(timeline: int, end: int | None) -> None:
    """One that branched off elsewhere is no part of it."""
    assert end == THIRD.end_of(timeline)


def test_a_replica_without_anything_beyond_the_fork_goes_on() -> None:
    """A commit that ends exactly where the timeline ended is there."""
    position = at(0x3000148)

    assert dataclasses.replace(position, timeline=2) == follow(position, 2, 0x3000200, THIRD)
    assert dataclasses.replace(position, timeline=3) == follow(position, 3, 0x9000000, THIRD)


def test_what_the_primary_lacks_is_named() -> None:
    """The halt lists each commit beyond the fork, where it ended and when the last was made."""
    position = at(0x3000300, ring=((70, 0x3000100), (71, 0x3000200), (72, 0x3000300)))

    with pytest.raises(BrokenStream) as lost:
        follow(position, 2, 0x3000400, THIRD)

    assert (
        "the primary was failed over to a server that lacks 2 commits applied here, up to LSN "
        "0/3000300. It is on timeline 3; timeline 1 ended for it at 0/3000148: transaction 71 at "
        "0/3000200, transaction 72 at 0/3000300; the last was committed at 2023-11-14 22:13:20 UTC"
    ) == lost.value.what
    assert "cdc bootstrap -r NAME --overwrite" in lost.value.next


def test_more_commits_than_are_remembered_are_at_least_those() -> None:
    """With the whole ring beyond the fork there may be more; the middle of a long list is counted."""
    ring = tuple((n, 0x4000000 + n) for n in range(RING))

    with pytest.raises(BrokenStream, match=f"lacks at least {RING} commits .* 52 more") as lost:
        history.require(at(ring[-1][1], ring=ring), ring[-1][1], THIRD)

    assert 12 == lost.value.what.count("transaction ")


def test_what_was_copied_counts_as_held() -> None:
    """A table copied beyond the fork has rows that the primary lacks, wherever the position is."""
    with pytest.raises(
        BrokenStream, match="lacks what was copied and applied here up to LSN 0/4000"
    ):
        history.require(at(0x100), 0x4000000, THIRD)


def test_another_system_is_never_followed() -> None:
    """A restored copy with an identifier of its own has LSNs that mean nothing here."""
    with pytest.raises(BrokenStream, match=r"another server .* system 8 timeline 1, expected 7"):
        history.follow(at(0x100), 0x100, Origin("8", 1), 0x200, History("8", 1))
    with pytest.raises(BrokenStream, match="another server"):
        history.require(at(0x100), 0x100, History("8", 1))


def test_a_copy_restored_to_an_earlier_point_halts() -> None:
    """Recovery to a point in time keeps the identifier and begins a timeline there."""
    with pytest.raises(BrokenStream, match=r"timeline 2 ended for it at 0/5000060"):
        history.require(at(0x6000000, 2, ((9, 0x6000000),)), 0x6000000, THIRD)


def test_a_timeline_of_another_branch_halts() -> None:
    """A primary whose history leaves out the replica's timeline lacks what came on it."""
    sibling = History("7", 5, ((1, 0x3000148),))

    with pytest.raises(BrokenStream, match="timeline 4 is not in its history"):
        history.require(at(0x3000100, 4), 0x3000100, sibling)


def test_a_primary_that_was_replaced_is_not_believed() -> None:
    """With primary.dsn on the old server the new timeline cannot be judged, and is not applied."""
    with pytest.raises(BrokenStream, match=r"only one server|not in the history") as refused:
        follow(at(0x3000100), 2, 0x3000200, History("7", 1))

    assert "only one server may be the primary" in refused.value.next
    history.require(at(0x3000100, 2), 0x3000100, History("7", 1))


def test_what_comes_again_from_before_the_fork_changes_nothing() -> None:
    """A heartbeat of the old timeline, sent again, is judged by the ledger; its lost tail halts."""
    position = at(0x3000200, 2)

    assert position == follow(position, 1, 0x3000148, THIRD)
    with pytest.raises(BrokenStream, match=r"sends timeline 1 .* up to 0/3000149"):
        follow(position, 1, 0x3000149, THIRD)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.data())
def test_only_what_every_switch_kept_is_followed(lengths: list[int], data: st.DataObject) -> None:
    """Along any chain of switches: followed exactly when nothing held lies beyond a switch."""
    ends = [*itertools.accumulate(lengths)]
    primary = History("7", len(ends) + 1, tuple(enumerate(ends, 1)))
    timeline = data.draw(st.integers(1, len(ends)))
    applied = data.draw(st.integers(0, 300))

    try:
        moved = follow(at(applied, timeline), primary.timeline, 1000, primary)
    except BrokenStream:
        assert applied > ends[timeline - 1]
    else:
        assert (primary.timeline, applied) == (moved.timeline, moved.applied_lsn)
        assert applied <= ends[timeline - 1]


def looked(succession: Succession, position: Position) -> None:
    """Start a look in the background and wait until it has ended."""
    succession.again(position, position.applied_lsn)
    for thread in threading.enumerate():
        if thread.name == "history":
            thread.join()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[History | None], None]:
    """Give a function that says what the primary answers from then on; None for nothing."""

    def answers(found: History | None) -> None:
        def read(_dsn: str, _application: str) -> History:
            if found is None:
                raise NotReady("nobody there", safe="", next="")
            return found

        monkeypatch.setattr(history, "read", read)

    return answers


def test_the_daemon_halts_though_nothing_comes(answer: Callable[[History | None], None]) -> None:
    """A failover is found by looking, also where the connector sends nothing any more."""
    answer(THIRD)
    succession = Succession(config(), "r1")
    position = at(0x4000000, ring=((9, 0x4000000),))
    looked(succession, position)

    with pytest.raises(BrokenStream, match=r"lacks at least|lacks 1 commit "):
        succession.again(position, position.applied_lsn)


def test_a_primary_that_does_not_answer_halts_nothing(
    answer: Callable[[History | None], None],
) -> None:
    """While it is away the daemon applies what the topic holds."""
    answer(None)
    succession = Succession(config(), "r1")
    looked(succession, at(0x100))
    succession.again(at(0x100), 0x100)
    succession.explain(at(0x100), 0x100)


def test_a_history_that_is_known_is_not_asked_for_again(
    answer: Callable[[History | None], None],
) -> None:
    """What is sent again from before a switch must not cost a session each."""
    answer(THIRD)
    succession = Succession(config(), "r1")
    position = succession.follow(at(0x100), 0x100, Origin("7", 3), 0x200)
    answer(None)

    assert 3 == position.timeline
    assert position == succession.follow(position, 0x100, Origin("7", 2), 0x200)
