"""The loss ledger over generated logs: what a connector repeats is discarded, what it loses is seen."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import BrokenStream
from cdc.events import Begin, Change, End, Event, Heartbeat, Message
from cdc.ledger import Apply, Commit, Gap, Ledger, Restart
from cdc.names import TableName

T = TableName("s", "t")
START = 1000


def transaction(txid: int, end: int, rows: int, previous: int | None) -> list[Event]:
    """Return one source transaction as the topic has it; 0 rows for excluded tables."""
    changes: list[Event] = [
        Change("c", T, None, {"id": f"{txid}.{n}"}, txid, end - 50 + n, n, 0, 10)
        for n in range(1, rows + 1)
    ]
    counts = {"s.t": rows} if rows else {}
    begin = Begin(txid, end - 50, previous, 0)
    return [begin, *changes, End(txid, end, rows, counts, 0, 0, None)]


def chain(sizes: Iterable[int], start: int = START) -> list[list[Event]]:
    """Return consecutive transactions; each names the end of the one before."""
    made, end = [], start
    for n, size in enumerate(sizes, 1):
        made.append(transaction(n, end + 100, size, end))
        end += 100
    return made


def applied(ledger: Ledger, events: Iterable[Event]) -> list[int]:
    """Feed the ledger; return the txids committed, with rows only of those that committed whole."""
    done: list[int] = []
    rows: list[str] = []
    for event in events:
        match ledger.accept(event):
            case Apply(change):
                rows.append(str((change.after or {})["id"]))
            case Restart(txid, _):
                rows = [r for r in rows if not r.startswith(f"{txid}.")]
            case Commit(end, contained):
                if not contained:
                    assert [f"{end.txid}.{n}" for n in range(1, end.total + 1)] == rows
                    done.append(end.txid)
                rows = []
    return done


sizes = st.lists(st.integers(0, 4), min_size=1, max_size=8)


#: Where a run of the connector ends (in transactions sent whole, then events of the next) and how
#: many commits before that the next one begins.
runs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 6), st.integers(0, 3)), max_size=4)


def restarted(made: list[list[Event]], stops: list[tuple[int, int, int]]) -> list[Event]:
    """Return the log that a connector leaves which is killed and goes back at each of `stops`."""
    log: list[Event] = []
    at = 0
    for whole, part, back in stops:
        upto = min(at + whole, len(made) - 1)
        log += [event for t in made[at:upto] for event in t] + made[upto][:-1][:part]
        at = max(0, upto - back)
    return log + [event for t in made[at:] for event in t]


@given(sizes, runs)
def test_a_connector_that_starts_again_at_a_commit_repeats_nothing(
    lengths: list[int], stops: list[tuple[int, int, int]]
) -> None:
    """After any number of restarts at earlier commits, each transaction is applied exactly once."""
    made = chain(lengths)

    done = applied(Ledger(START, [(0, START)]), restarted(made, stops))

    assert list(range(1, len(made) + 1)) == done


@given(sizes, runs, st.integers(0, 8))
def test_nor_does_it_right_after_a_bootstrap(
    lengths: list[int], stops: list[tuple[int, int, int]], held: int
) -> None:
    """The same with a snapshot that holds the first transactions, wherever the log begins again."""
    made = chain(lengths)

    done = applied(Ledger(START + 100 * held, []), restarted(made, stops))

    assert list(range(held + 1, len(made) + 1)) == done


@given(sizes.filter(lambda s: sum(s) > 0), st.data())
def test_a_lost_record_is_never_passed_over(lengths: list[int], data: st.DataObject) -> None:
    """With any one record of a transaction with rows gone, that transaction never commits."""
    made = chain(lengths)
    index = data.draw(st.sampled_from([i for i, n in enumerate(lengths) if n]))
    gone = data.draw(st.integers(0, len(made[index]) - 1))
    del made[index][gone]
    count = len(made)
    made.append(transaction(count + 1, START + 100 * (count + 1), 1, START + 100 * count))
    ledger = Ledger(START, [(0, START)])
    done: list[int] = []

    def follow() -> None:
        for step in (ledger.accept(event) for t in made for event in t):
            match step:
                case Commit(end, _):
                    done.append(end.txid)

    with pytest.raises((BrokenStream, Gap)):
        follow()

    assert list(range(1, index + 1)) == done


@given(sizes, st.integers(0, 2), st.integers(0, 2))
def test_a_lost_transaction_is_noticed_at_the_next_one(
    lengths: list[int], lost: int, after: int
) -> None:
    """A transaction missing whole breaks the chain at the next BEGIN, be either of them empty."""
    made = chain([*lengths, lost, after])
    ledger = Ledger(START, [(0, START)])
    applied(ledger, [event for t in made[:-2] for event in t])

    with pytest.raises(Gap, match="transactions are missing"):
        ledger.accept(made[-1][0])


def test_a_late_transaction_that_was_never_applied_is_no_duplicate() -> None:
    """A transaction that arrives behind later ones, and is not among those applied, stops all."""
    first, _, third = chain([1, 0, 0])
    late = transaction(2, START + 150, 1, START + 50)
    third = transaction(3, START + 300, 0, START + 100)
    ledger = Ledger(START, [(0, START)])
    applied(ledger, [*first, *third])

    with pytest.raises(BrokenStream, match="comes late"):
        applied(ledger, late)


def test_a_transaction_the_snapshot_holds_is_not_applied() -> None:
    """Right after a bootstrap, transactions that end at or before the snapshot only move on."""
    ledger = Ledger(START, [])
    inside = transaction(1, START, 3, START - 500)
    across = transaction(2, START + 10, 2, START)

    assert [2] == applied(ledger, [*inside, *across])
    assert [(2, START + 10)] == list(ledger.ring)


def test_a_long_transaction_across_the_snapshot_is_applied() -> None:
    """A transaction that began before the snapshot and ends after it is new, whatever it follows."""
    assert [7] == applied(Ledger(START, []), transaction(7, START + 10, 2, START - 300))


def test_a_transaction_open_across_another_one_s_repetition_goes_on() -> None:
    """A repeated older transaction inside an open one is discarded and the open one stays whole."""
    first, second = chain([2, 3])
    ledger = Ledger(START, [(0, START)])

    assert [1, 2] == applied(ledger, [*first, *second[:2], *first, *second[2:]])


def test_counts_that_do_not_match_are_incomplete() -> None:
    """An END that counts more events than came is a finding, and nothing is committed by it."""
    (only,) = chain([3])
    ledger = Ledger(START, [(0, START)])

    with pytest.raises(Gap) as found:
        applied(ledger, [*only[:3], only[-1]])

    assert "its END counts 3 events, 2 came" in found.value.error.what


def test_rows_without_a_beginning_stop_all() -> None:
    """A row of a transaction that neither began nor was applied is not guessed about."""
    with pytest.raises(Gap, match="without the transaction's beginning"):
        applied(Ledger(START, [(0, START)]), chain([2])[0][1:])


def test_a_transaction_that_follows_nothing_stops_all() -> None:
    """A BEGIN without the plugin's header is from another connector: what it left out nobody knows."""
    with pytest.raises(Gap, match="does not say which commit it follows"):
        applied(Ledger(START, [(0, START)]), transaction(5, START + 100, 1, None))


def test_a_slot_made_anew_too_late_stops_all() -> None:
    """Hazard 7: it promises only what commits after it, and more than the last applied END is before."""
    with pytest.raises(Gap, match="transactions are missing"):
        applied(Ledger(START, [(0, START)]), transaction(5, START + 100, 0, START + 1))


def test_a_message_outside_transactions_is_no_link() -> None:
    """A non-transactional message changes nothing for the transaction after it."""
    (only,) = chain([1])
    message = Message("app", b"", None, START + 40, None, 0)

    assert [1] == applied(Ledger(START, [(0, START)]), [message, *only])


def test_heartbeats_may_stand_anywhere() -> None:
    """Debezium's own heartbeats change nothing, inside transactions and outside."""
    first, second = chain([2, 2])
    log = [e for event in (*first, *second) for e in (Heartbeat(0), event)]

    assert [1, 2] == applied(Ledger(START, [(0, START)]), log)


def test_commits_the_snapshot_holds_do_not_end_a_transaction_that_is_open() -> None:
    """What comes again before the first new transaction, while that is open, is no commit."""
    ledger = Ledger(START, [])
    older = transaction(1, START - 100, 2, START - 200)
    empty = transaction(2, START - 50, 0, START - 100)
    first = transaction(3, START + 100, 3, START)
    applied(ledger, older)
    for event in first[:3]:
        ledger.accept(event)

    assert [None] * 6 == [ledger.accept(event) for event in (*older, *empty)]
    assert ledger.accept(first[0]) == Restart(3, 0)
    assert [3] == applied(ledger, first[1:])


def test_a_connector_without_offsets_begins_where_its_slot_is() -> None:
    """Hazard 7: what was applied since is a duplicate, and nothing is missing after it."""
    first, second = chain([1, 1])
    first = transaction(1, START + 100, 1, START - 30)
    bootstrapped = Ledger(START + 100, [])
    long_ago = Ledger(START + 200, [(9, START + 200)])

    assert [2] == applied(bootstrapped, [*first, *second])
    assert [] == applied(long_ago, first)


def test_a_slot_that_passed_over_an_applied_commit_stops_all() -> None:
    """The first transaction after it ends later than what was applied meanwhile: they contradict."""
    with pytest.raises(BrokenStream, match="now ends later"):
        applied(Ledger(START, [(0, START)]), transaction(5, START + 40, 1, START - 30))


@given(st.integers(0, 3), st.integers(1, 4), st.none() | st.integers(0, 3), st.booleans())
def test_rows_taken_at_once_are_accounted_for_as_one_by_one(
    before: int, count: int, wrong: int | None, begun: bool
) -> None:
    """What goes on with an open transaction may come together; anything else changes nothing."""
    orders = [*range(before + 1, before + count + 1)]
    if wrong is not None:
        orders[wrong % count] += 1
    together, single = Ledger(START, ((1, START),)), Ledger(START, ((1, START),))
    begin, *rows, _ = transaction(2, START + 100, before, START)
    for event in [begin, *rows] if begun else []:
        together.accept(event)
        single.accept(event)
    more = [Change("c", T, None, {"id": "1"}, 2, START + 60, n, 0, 10) for n in orders]

    taken = together.continues(more)

    assert taken == (begun and wrong is None)
    if taken:
        assert [Apply(row) for row in more] == [single.accept(row) for row in more]
    assert vars(together)["_open"] == vars(single)["_open"]


def test_rows_of_a_transaction_that_was_applied_are_not_taken_at_once() -> None:
    """What is a duplicate, or out of number, is looked at one by one."""
    ledger = Ledger(START, ((1, START),))
    begin, first, second, _ = transaction(2, START - 100, 2, START - 200)
    assert isinstance(first, Change)
    assert isinstance(second, Change)
    ledger.accept(begin)

    assert not ledger.continues([first, second])

    ledger = Ledger(START, ((1, START),))
    begin, first, second, _ = transaction(2, START + 100, 2, START)
    assert isinstance(second, Change)
    ledger.accept(begin)
    ledger.accept(second)

    assert not ledger.continues([second])


@given(
    sizes,
    st.integers(0, 7),
    st.sampled_from(
        ["sound", "row lost", "row twice", "count", "table", "previous", "end", "repeated"]
    ),
    st.booleans(),
)
def test_a_whole_transaction_is_accounted_for_as_its_events_are(
    before: list[int], at: int, how: str, fresh: bool
) -> None:
    """What is plainly the next link comes at once; anything else changes nothing and is looked at by event."""
    log = chain(before)
    begin, *rows, end = log[at % len(log)]
    assert isinstance(begin, Begin)
    assert isinstance(end, End)
    changes = [row for row in rows if isinstance(row, Change)]
    match how:
        case "row lost":
            changes = changes[1:]
        case "row twice":
            changes += changes[-1:]
        case "count":
            end = msgspec.structs.replace(end, total=end.total + 1)
        case "table":
            end = msgspec.structs.replace(end, counts={"s.other": len(changes)})
        case "previous":
            begin = msgspec.structs.replace(begin, previous=(begin.previous or 0) - 1)
        case "end":
            end = msgspec.structs.replace(end, lsn=begin.previous or 0)
    together, single = (Ledger(START, [] if fresh else [(0, START)]) for _ in range(2))
    ledgers = (together, single)
    for earlier in log[: at % len(log)] + ([log[at % len(log)]] if how == "repeated" else []):
        for ledger in ledgers:
            applied(ledger, earlier)
    known = (together.applied, [*together.ring])

    taken = bool(changes) and together.links(begin, changes, end)

    if taken:
        expected = [None, *map(Apply, changes), Commit(end, contained=False)]
        whole: list[Event] = [begin, *changes, end]
        assert expected == [single.accept(event) for event in whole]
        assert vars(single) == vars(together)
    else:
        assert known == (together.applied, [*together.ring])
        assert {} == vars(together)["_open"]
    plain = how == "sound" or (how == "row twice" and not rows)
    assert taken == bool(changes and plain and (not fresh or at % len(log)))
