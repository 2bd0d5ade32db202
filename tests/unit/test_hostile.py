"""Hostile records: real streams changed in one named way, through the daemon's own machinery."""

from __future__ import annotations

import functools

import hostile
import pytest
import streams
import truth

from cdc.config import Apply


@functools.cache
def read(name: str) -> truth.Truth:
    return truth.read(streams.load(name))


@pytest.mark.parametrize("name", streams.names())
def test_the_streams_lead_to_the_primary_s_rows(name: str) -> None:
    """Read plainly and applied by the daemon, each kept stream gives the rows the primary had."""
    kept = read(name)
    held = kept.captured.tables
    primary = {table: truth.rows_of(h.columns, h.key, h.after) for table, h in held.items()}
    world = truth.start(kept, 0, kept.raw)

    assert world.run() is None
    assert primary == kept.states[-1] == world.database.tables
    assert truth.judge(kept, world) == sum(bool(whole.changes) for whole in kept.wholes)


@pytest.mark.parametrize("rows", [20_000, 2], ids=["whole", "pieces"])
@pytest.mark.parametrize("name", hostile.CASES)
def test_a_hostile_record_halts_or_changes_nothing(name: str, rows: int) -> None:
    """It halts with the right error and place, again after a restart, or all is applied exactly.

    Whatever it is, what is applied are the first transactions of the truth, each once and whole.
    """
    case = hostile.CASES[name]
    kept = read(case.stream)
    changed = case.change(kept.raw)
    world = truth.start(kept, 0, changed, Apply(max_batch_rows=rows))

    halted = world.run()
    applied = truth.judge(kept, world)

    if case.halts is None:
        assert halted is None
        assert applied == sum(bool(whole.changes) for whole in kept.wholes)
        return
    assert halted is not None
    error, says, at = case.halts, case.says, case.at
    if case.in_pieces and rows == 2:
        error, says, at = case.in_pieces
    assert (error, True) == (type(halted), says in halted.what), halted.what
    assert at is None or halted.place.offset == streams.FIRST + at
    assert case.applied is None or case.applied == applied
    assert halted.safe.startswith("nothing")
    again, commits = world.run(), len(world.database.commits)
    assert (type(halted), halted.what) == (type(again), again and again.what)
    assert commits == len(world.database.commits)


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_event_does_not_halt_where_the_transaction_comes_again(lost: int) -> None:
    """A copy that lacks an event, wherever, is passed over for the whole one further on."""
    kept = read("rows")
    begin, end = kept.wholes[2].first, kept.wholes[2].last
    raw = [*kept.raw[:begin], *kept.raw[begin : end + 1], *kept.raw[begin:]]
    del raw[begin + lost]
    world = truth.start(kept, 0, raw)

    assert world.run() is None
    assert truth.judge(kept, world) == sum(bool(whole.changes) for whole in kept.wholes)


def test_there_are_as_many_classes_as_were_promised() -> None:
    """The corpus has at least sixty classes, each of which changes its stream."""
    unchanged = [
        name for name, case in hostile.CASES.items()
        if case.change(read(case.stream).raw) == read(case.stream).raw
    ]  # fmt: skip

    assert [] == unchanged
    assert len(hostile.CASES) > 60
