"""Which of a stock connector's transactions are believed, and how each is chained to the one before."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from cdc import runs
from cdc.events import Begin, Change, End, Event, Message
from cdc.ledger import Apply, Commit, Gap, Ledger, Restart
from cdc.names import TableName
from cdc.runs import Runs
from cdc.stock import BEAT, Found

ONE, TWO = b"one", b"two"
APPLIED = 800
T = TableName("public", "t")


def row(txid: int, order: int, run: bytes, link: int | None, table: TableName = T) -> Found:
    change = Change("c", table, None, {"id": "1"}, txid, 10 * txid, order, 0, 1)
    return Found(change, run, link)


def message(txid: int, order: int, link: int | None, prefix: str = "cdc.heartbeat") -> Found:
    return Found(Message(prefix, b"", txid, 10 * txid, order, 0), None, link)


def begin(txid: int) -> Found:
    return Found(Begin(txid, 10 * txid, None, 0))


def end(txid: int, at: int, rows: int, beats: int = 0, messages: int = 0) -> Found:
    counts = {"public.t": rows} if rows else {}
    counts |= {"cdc.heartbeat": beats} if beats else {}
    return Found(End(txid, at, rows + beats + messages, counts, 0, 0, None))


def transaction(txid: int, at: int, run: bytes, link: int | None, rows: int = 2) -> list[Found]:
    return [
        begin(txid), *(row(txid, n + 1, run, link) for n in range(rows)), end(txid, at, rows),
    ]  # fmt: skip


def heartbeat(txid: int, at: int, run: bytes, link: int | None) -> list[Found]:
    return [
        begin(txid), row(txid, 1, run, link, BEAT), message(txid, 2, link),
        end(txid, at, 0, beats=1, messages=1),
    ]  # fmt: skip


def commits(given: Iterable[Found], run: bytes | None = ONE) -> list[int]:
    """Return the transactions that are applied, in order; Gap where one cannot be believed."""
    believed, ledger = Runs(APPLIED, run), Ledger(APPLIED, [(80, APPLIED)])
    applied, open_ = list[int](), 0
    for found in given:
        for event in believed.accept(found):
            match ledger.accept(event):
                case Commit(done):
                    assert open_ == done.counts.get("public.t", 0)
                    applied, open_ = [*applied, done.txid], 0
                case Apply():
                    open_ += 1
                case Restart():
                    open_ = 0
    return applied


def test_an_end_is_believed_with_the_next_row_of_its_run() -> None:
    """A transaction is applied once something later of the same run has come."""
    first, second = transaction(1, 808, ONE, 800), transaction(2, 816, ONE, 808)

    assert [] == commits(first)
    assert [1] == commits([*first, *second])
    assert [1, 2] == commits([*first, *second, *heartbeat(3, 824, ONE, 816)])


def test_a_restart_inside_a_transaction_is_a_gap() -> None:
    """Rows of two runs without a BEGIN between them: what was passed over nobody can count."""
    with pytest.raises(Gap, match="restart of the connector inside it") as gap:
        commits([begin(1), row(1, 1, ONE, 800), row(1, 2, TWO, 800), end(1, 808, 2)])

    assert "cdc connectors rewind" in gap.value.error.next
    assert "rewind" in gap.value.awaits


def test_a_transaction_whose_tail_may_be_missing_is_not_applied() -> None:
    """The END of a transaction that a new run may have written is no proof that it is whole."""
    with pytest.raises(Gap, match="started again"):
        commits([*transaction(1, 808, ONE, 800), *transaction(2, 816, TWO, 808)])


def test_the_first_transaction_of_a_run_may_lack_its_head() -> None:
    """Nothing was held, and yet the first that a new run sends is not believed."""
    with pytest.raises(Gap, match="started again"):
        commits(transaction(1, 808, TWO, 800))


def test_a_run_that_repeats_what_was_applied_is_believed() -> None:
    """Its first transaction is known already; the others come whole."""
    again = transaction(80, 800, TWO, 792)
    following = [*transaction(1, 808, TWO, 800), *heartbeat(2, 816, TWO, 808)]

    assert [1] == commits([*again, *following])


def test_a_run_that_begins_with_what_waits_proves_its_end() -> None:
    """The END that was waited for came from the run before, or the new one could not begin there."""
    given = [
        *transaction(1, 808, ONE, 800), *transaction(1, 808, TWO, 800), *transaction(2, 816, TWO, 808),
        *heartbeat(3, 824, TWO, 816),
    ]  # fmt: skip

    assert [1, 2] == commits(given)


def test_a_torn_transaction_comes_again_behind_an_older_one() -> None:
    """A killed worker begins before what it had stored: what was open begins again, whole."""
    given = [
        begin(1), row(1, 1, ONE, 800),
        *transaction(80, 800, TWO, 792), *transaction(1, 808, TWO, 800, rows=5),
        *heartbeat(2, 816, TWO, 808),
    ]  # fmt: skip

    assert [1] == commits(given)


def test_a_restart_between_heartbeats_is_survived() -> None:
    """Where nothing but ours stands on either side, nothing of anybody can be missing."""
    given = [
        *transaction(1, 808, ONE, 800), *heartbeat(2, 816, ONE, 808),
        *heartbeat(3, 824, TWO, 816), *transaction(4, 832, TWO, 824), *heartbeat(5, 840, TWO, 832),
    ]  # fmt: skip

    assert [1, 2, 3, 4] == commits(given)


def test_only_heartbeats_prove_a_heartbeat() -> None:
    """A row of somebody else in the transaction that proves the border is not believed."""
    mixed = [begin(3), row(3, 1, TWO, 816, BEAT), row(3, 2, TWO, 816), end(3, 824, 1, beats=1)]

    with pytest.raises(Gap):
        commits([*transaction(1, 808, ONE, 800), *heartbeat(2, 816, ONE, 808), *mixed])


def test_a_transaction_without_rows_at_the_border_is_not_believed() -> None:
    """All of its rows may have been passed over: an empty one, or somebody's message."""
    for border in ([begin(3), end(3, 824, 0)],
                   [begin(3), message(3, 1, 816, "app"), end(3, 824, 0, messages=1)]):  # fmt: skip
        with pytest.raises(Gap):
            commits([*heartbeat(2, 808, ONE, 800), *border, *heartbeat(4, 832, TWO, 824)])


def test_a_run_that_was_let_begin_is_believed() -> None:
    """Its link is no place where a record stands: nothing is passed over, and it says after what."""
    mark = runs.mark(APPLIED)
    given = [
        begin(1), row(1, 1, ONE, 800),
        *transaction(1, 808, TWO, mark, rows=3), *heartbeat(2, 816, TWO, 808),
    ]  # fmt: skip

    assert APPLIED == runs.marked(mark)
    assert runs.marked(APPLIED) is None
    assert [1] == commits(given)
    earlier = [*transaction(80, 800, TWO, runs.mark(792)), *transaction(1, 808, TWO, 800)]
    assert [1] == commits([*earlier, *heartbeat(2, 816, TWO, 808)], run=None)


def test_a_message_may_be_the_first_of_a_run_that_was_let_begin() -> None:
    """It is applied, so that the next run can be let begin behind it; what follows it is not believed yet."""
    first = [begin(1), message(1, 1, runs.mark(APPLIED), "app"), end(1, 808, 0, messages=1)]

    assert [1] == commits(first)
    assert [1, 2] == commits([*first, *heartbeat(2, 816, TWO, 808), *heartbeat(3, 824, TWO, 816)])
    with pytest.raises(Gap):
        commits([*first, *transaction(2, 816, TWO, 808)])
    assert [1, 2] == commits(
        [*first, *transaction(2, 816, TWO, runs.mark(808)), *heartbeat(3, 824, TWO, 816)]
    )


def test_what_a_run_leaves_out_is_a_gap() -> None:
    """A run that begins after more than was applied is not followed."""
    with pytest.raises(Gap, match="missing"):
        commits(transaction(2, 816, TWO, runs.mark(808)))
    with pytest.raises(Gap):
        commits(transaction(2, 816, TWO, None))


def test_a_message_outside_transactions_takes_the_place_of_an_end() -> None:
    """Debezium remembers its place instead of the END's; the chain holds all the same."""
    outside = Found(Message("app", b"", None, 812, None, 0), None, 808)
    given: list[Found] = [
        *transaction(1, 808, ONE, 800), outside, *transaction(2, 816, ONE, 812),
        *heartbeat(3, 824, ONE, 816),
    ]  # fmt: skip

    assert [1, 2] == commits(given)


def test_after_a_bootstrap_only_the_same_run_or_a_heartbeat_is_believed() -> None:
    """The snapshot's place is no commit: what a new run begins with may lie on either side of it."""
    same = Runs(None, ONE)
    other = Runs(None, TWO)

    handed: list[Event] = [e for f in transaction(1, 808, ONE, 784) for e in same.accept(f)]
    assert 784 == handed[0].previous if isinstance(handed[0], Begin) else None
    with pytest.raises(Gap):
        [other.accept(f) for f in transaction(1, 808, ONE, 784)]
