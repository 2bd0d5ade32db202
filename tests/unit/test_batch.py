"""Batches: whole transactions, pieces of large ones, and tables that are being copied."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from cdc.batch import Buffer, Held, Torn
from cdc.config import Apply as Limits
from cdc.errors import SchemaMismatch
from cdc.events import Change, End
from cdc.ledger import Apply, Commit, Restart
from cdc.names import TableName
from cdc.position import Coverage
from cdc.units import Size

T, NEW = TableName("s", "t"), TableName("s", "new")


def row(txid: int = 1, table: TableName = T) -> Apply:
    return Apply(Change("c", table, None, {"id": "1"}, txid, 0, 1, 0, 100))


def commit(txid: int = 1, lsn: int = 500, *, contained: bool = False) -> Commit:
    return Commit(End(txid, lsn, 1, {}, 0, 0, None), contained)


def buffer(rows: int = 3, **coverage: Coverage) -> Buffer:
    covered = {TableName("s", name): c for name, c in coverage.items()}
    return Buffer(Limits(max_batch_rows=rows, max_batch_bytes=Size(1 << 20)), covered)


COPIED = Coverage("copied", 100)


def test_nothing_leaves_before_its_end() -> None:
    """An open transaction is not taken, however often one asks."""
    collected = buffer(t=COPIED)
    collected.add(row())

    assert collected.take() is None


def test_whole_transactions_leave_together() -> None:
    """All whole transactions leave as one batch, with every END, in order."""
    collected = buffer(t=COPIED)
    for txid in (1, 2):
        collected.add(row(txid))
        collected.add(commit(txid, 500 + txid))
    batch = collected.take()

    assert batch is not None
    assert ([1, 2], [501, 502]) == ([c.txid for c in batch.changes], [e.lsn for e in batch.ends])
    assert (0, 0) == (collected.rows, collected.size)


def test_rows_that_fit_are_taken_at_once() -> None:
    """Together they count as one by one; rows that would fill the batch, and large ones, do not fit."""
    together, single = buffer(t=COPIED), buffer(t=COPIED)
    changes = [row().change, row().change]
    assert together.fits(changes)
    together.extend(changes)
    for change in changes:
        single.add(Apply(change))

    assert single == together
    assert not together.fits(changes[:1])
    assert not buffer(t=COPIED).fits([msgspec.structs.replace(changes[0], size=1 << 20)])


def test_a_restarted_transaction_leaves_nothing_behind() -> None:
    """Rows of a transaction that begins again are dropped."""
    collected = buffer(t=COPIED)
    for step in (row(), row(), Restart(1, 5), row(), commit()):
        collected.add(step)
    batch = collected.take()

    assert batch is not None
    assert 1 == len(batch.changes)


def test_a_restart_after_pieces_were_written_tears() -> None:
    """When pieces of it are written, a transaction that begins again is to be read from there."""
    collected = buffer(rows=1, t=COPIED)
    collected.add(row())
    collected.take_piece(500)

    with pytest.raises(Torn) as torn:
        collected.add(Restart(1, 77))

    assert 77 == torn.value.offset


@pytest.mark.parametrize("op", ["d", "t"])
def test_a_piece_keeps_back_what_may_belong_to_the_next_event(op: Literal["d", "t"]) -> None:
    """A delete may be half of a key change, a truncate one of several: it leaves with what follows."""
    collected = buffer(rows=2, t=COPIED)
    last = Change(op, T, {"id": "1"}, None, 1, 7, 2, 0, 100)
    collected.add(row())
    collected.add(Apply(last))

    assert 1 == len(collected.take_piece(500).changes)
    assert ([last], 1, 100) == (collected.open, collected.rows, collected.size)

    collected.add(row())

    assert [last, row().change] == collected.take_piece(500).changes


def test_rows_that_the_copy_holds_are_skipped() -> None:
    """Events of transactions that end at or before a table's snapshot are not applied to it."""
    collected = buffer(t=Coverage("copied", 500), new=Coverage("copied", 499))
    for step in (row(), row(table=NEW), commit(lsn=500)):
        collected.add(step)
    batch = collected.take()

    assert batch is not None
    assert ([NEW], 1) == ([c.table for c in batch.changes], batch.skipped)


def test_a_table_never_filled_here_halts() -> None:
    """What came before its first event leaves; then it is named, with what to do about it."""
    collected = buffer(t=COPIED)
    for step in (row(1), commit(1, 450), row(2, NEW), commit(2, 500)):
        collected.add(step)
    first = collected.take()

    assert first is not None
    assert [450] == [e.lsn for e in first.ends]
    with pytest.raises(SchemaMismatch, match=r"never filled with") as raised:
        collected.take()
    assert "cdc bootstrap --table s.new" in raised.value.next


def test_a_table_that_is_new_is_passed_over() -> None:
    """Its changes are skipped and counted, those of others in the same transaction are applied."""
    asked: list[Change] = []
    collected = buffer(t=COPIED)
    collected.strange = asked.append
    for step in (row(1), row(1, NEW), commit(1, 450)):
        collected.add(step)
    batch = collected.take()

    assert batch is not None
    assert ([T], 1) == ([c.table for c in batch.changes], batch.skipped)
    assert [NEW] == [c.table for c in asked]


@pytest.mark.parametrize("state", [Coverage("registered", None), Coverage("copying", 400)])
def test_a_table_being_copied_holds_what_comes_after_its_snapshot(state: Coverage) -> None:
    """What came before the held transaction leaves first; the held one waits, whole."""
    collected = buffer(t=COPIED, new=state)
    for step in (row(1), commit(1, 450), row(2), row(2, NEW), commit(2, 500)):
        collected.add(step)
    first = collected.take()

    assert first is not None
    assert [450] == [e.lsn for e in first.ends]
    with pytest.raises(Held):
        collected.take()


def test_only_a_copy_that_may_hold_the_rows_needs_the_end() -> None:
    """The END of a large transaction is needed as long as a copy is newer than the least it can be."""
    collected = buffer(rows=1, t=Coverage("copied", 700))
    collected.add(row())

    assert collected.needs_end(600)
    assert not collected.needs_end(700)


def test_contained_transactions_bring_no_rows() -> None:
    """A transaction that the bootstrap's snapshot holds moves the position and writes nothing."""
    collected = buffer(t=Coverage("copied", 500))
    collected.add(row())
    collected.add(commit(lsn=400, contained=True))
    batch = collected.take()

    assert batch is not None
    assert ([], 1) == (batch.changes, len(batch.ends))


def test_empty_transactions_fill_a_batch_too() -> None:
    """A backlog of transactions without rows is written now and then, not collected to its end."""
    collected = buffer(rows=3, t=COPIED)
    for txid in (1, 2, 3):
        assert not collected.full
        collected.add(commit(txid, 500 + txid))

    assert collected.full
    assert collected.take() is not None
    assert not collected.full
