"""Hostile records: real streams changed in one named way, through the daemon's own machinery."""

from __future__ import annotations

import functools

import hostile
import mutants
import pytest
import streams
import truth

from cdc.config import Apply
from cdc.errors import BrokenStream
from cdc.ledger import Ledger


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


@pytest.mark.parametrize("rows", [20_000, 2], ids=["whole", "pieces"])
def test_a_lost_end_right_after_a_bootstrap_is_not_waited_for(rows: int) -> None:
    """Whether the snapshot holds a large transaction is said by its END; the next BEGIN tells it too."""
    kept = read("rows")
    raw = hostile.without(hostile.END)(kept.raw)
    world = truth.start(kept, 2, raw, Apply(max_batch_rows=rows), copied=True, offset=hostile.BEGIN)

    halted = world.run()

    assert isinstance(halted, BrokenStream)
    assert (halted.place.offset, 0) == (streams.FIRST + hostile.END, truth.judge(kept, world, 2))


@pytest.mark.parametrize(
    ("name", "old", "new", "found_by"),
    [
        pytest.param(
            "_known_duplicate", "if event.lsn >= oldest", "if False and event.lsn >= oldest",
            "a transaction that was never applied among repeated ones", id="no ring",
        ),
        pytest.param(
            "_end", "or counts != opened.counts", "or False and counts != opened.counts",
            "END counts right in sum, wrong by table", id="no counts by table",
        ),
        pytest.param(
            "_end", "or event.total != opened.total", "or False and event.total != opened.total",
            "END counts 4 events", id="no counts",
        ),
        pytest.param(
            "_verdict", "if previous == self.applied and not others", "if not others",
            "a transaction lost before an empty one", id="no chain",
        ),
    ],
)  # fmt: skip
def test_a_ledger_without_a_check_is_found_out(
    name: str, old: str, new: str, found_by: str
) -> None:
    """Each check of the ledger is what halts one of the classes."""
    with mutants.mutant(Ledger, name, old, new), pytest.raises(AssertionError):
        test_a_hostile_record_halts_or_changes_nothing(found_by, 20_000)


def test_there_are_as_many_classes_as_were_promised() -> None:
    """The corpus has at least sixty classes, each of which changes its stream."""
    unchanged = [
        name for name, case in hostile.CASES.items()
        if case.change(read(case.stream).raw) == read(case.stream).raw
    ]  # fmt: skip

    assert [] == unchanged
    assert len(hostile.CASES) > 60
