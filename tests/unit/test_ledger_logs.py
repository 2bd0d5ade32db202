"""The loss ledger over whole logs, as a connector leaves them that is killed, loses records, repeats.

The reference model is the sequence of commits on the primary: whatever the log is like, a replica
holds the first of them, each once, in order; of a sound log it holds all.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.errors import BrokenStream
from cdc.events import Begin, Change, End, Event, Heartbeat, Message, Row
from cdc.ledger import Apply, Commit, Gap, Ledger, Restart
from cdc.names import TableName

START = 1000

#: Where the connector's slot stood at first.
SLOT = START - 7

#: What a transaction holds: rows of two tables, logical messages.
Kind = Literal["t", "u", "message"]


def end_of(txid: int) -> int:
    """Return where transaction `txid` ends; the first is 1, and they commit in this order."""
    return START + 100 * txid


def transaction(txid: int, kinds: list[Kind], previous: int | None) -> list[Event]:
    """Return a transaction as the plugin sends it."""
    inside: list[Event] = []
    for order, kind in enumerate(kinds, 1):
        lsn, row = end_of(txid) - 50 + order, Row({"id": f"{txid}.{order}"})
        if kind == "message":
            inside.append(Message("app", b"", txid, lsn, order, 0))
        else:
            inside.append(Change("c", TableName("s", kind), None, row, txid, lsn, order, 0, 10))
    counts = Counter(f"s.{kind}" for kind in kinds if kind != "message")
    begin = Begin(txid, end_of(txid) - 50, previous, 0)
    return [begin, *inside, End(txid, end_of(txid), len(kinds), dict(counts), 0, 0, None)]


@dataclasses.dataclass(frozen=True, slots=True)
class Life:
    """One life of the connector, which sends `whole` transactions and `part` of the next.

    Of its transaction number `torn` (if it gets there) the record `lost` never reaches the topic;
    Connect then stores no offset from there on. The next life begins `back` transactions earlier.
    """

    whole: int
    part: int
    back: int
    torn: int
    lost: int


class World:
    """What was committed on the primary, the lives of its connector, and the log they left."""

    def __init__(self, kinds: list[list[Kind]], lives: list[Life], filler: list[int]) -> None:
        self.kinds = kinds
        self.log: list[Event] = []
        stored = 0
        for life in [*lives, Life(len(kinds), 0, 0, len(kinds), 0)]:
            stored = self._live(life, stored)
        for at in filler:
            outside = Message("app", b"", None, START + at, None, 0)
            self.log.insert(at % (len(self.log) + 1), outside if at % 2 else Heartbeat(0))

    def _live(self, life: Life, stored: int) -> int:
        """Write the log of one life; return the last transaction whose END Connect keeps."""
        upto = min(stored + life.whole, len(self.kinds))
        for number, txid in enumerate(range(stored + 1, min(upto + 1, len(self.kinds)) + 1)):
            # Without a stored offset the connector begins at its slot, which is at no END.
            follows = end_of(txid - 1) if txid > 1 else SLOT
            events = transaction(txid, self.kinds[txid - 1], follows)
            if txid > upto:
                events = events[: min(life.part, len(events) - 1)]
            elif number == life.torn:
                del events[life.lost % len(events)]
            self.log += events
        return max(0, min(stored + life.torn, upto) - life.back)

    def after_first(self) -> int:
        """Return where in the log the first transaction is whole for the first time."""
        seen: list[Event] = []
        for at, event in enumerate(self.log):
            if isinstance(event, Begin):
                seen = []
            if not isinstance(event, Heartbeat) and getattr(event, "txid", None) == 1:
                seen.append(event)
            if isinstance(event, End) and seen == transaction(1, self.kinds[0], SLOT):
                return at + 1
        raise AssertionError("the last life sends everything")

    def applied(self, log: list[Event], ledger: Ledger) -> list[int]:
        """Follow a log as the replicator does; return the transactions applied, each whole.

        Raises BrokenStream where a daemon would halt, with what was applied as its cause.
        """
        done: list[int] = []
        rows: list[str] = []
        at = 0
        while at < len(log):
            at += 1
            try:
                step = ledger.accept(log[at - 1])
            except Gap as gap:
                copies = [n for n, e in enumerate(log[at:], at) if self._follows(ledger, e)]
                if not copies:
                    raise Halted(done) from gap.error
                ledger, rows, at = Ledger(ledger.applied, ledger.ring), [], copies[0]
                continue
            except BrokenStream as error:
                raise Halted(done) from error
            match step:
                case Apply(change):
                    rows.append((change.after or {})["id"])  # type: ignore[arg-type]  # never NULL
                case Restart():
                    rows = []
                case Commit(end, contained):
                    if not contained:
                        assert self._rows(end.txid) == rows
                        done.append(end.txid)
                    rows = []
        return done

    def _follows(self, ledger: Ledger, event: Event) -> bool:
        return isinstance(event, Begin) and ledger.follows(event)

    def _rows(self, txid: int) -> list[str]:
        kinds = enumerate(self.kinds[txid - 1], 1)
        return [f"{txid}.{order}" for order, kind in kinds if kind != "message"]


class Halted(Exception):  # noqa: N818 -- the outcome of a log, not an error
    """Where a daemon would halt; `done` is what was applied before."""

    def __init__(self, done: list[int]) -> None:
        super().__init__(done)
        self.done = done


worlds = st.builds(
    World,
    kinds=st.lists(
        st.lists(st.sampled_from(["t", "u", "message"]), max_size=4), min_size=1, max_size=8
    ),
    lives=st.lists(
        st.builds(
            Life,
            whole=st.integers(0, 5),
            part=st.integers(0, 6),
            back=st.integers(0, 3),
            torn=st.integers(0, 7),
            lost=st.integers(0, 6),
        ),
        max_size=4,
    ),
    filler=st.lists(st.integers(0, 60), max_size=6),
)


@given(worlds)
def test_a_sound_log_is_applied_whole(world: World) -> None:
    """Whatever the connector repeats, and whatever it loses and brings later: all, once, in order."""
    log = world.log[world.after_first() :]

    done = world.applied(log, Ledger(end_of(1), [(1, end_of(1))]))

    assert [*range(2, len(world.kinds) + 1)] == done


@given(worlds, st.integers(0, 8))
def test_a_sound_log_is_applied_from_the_snapshot_on(world: World, held: int) -> None:
    """The same after a bootstrap whose snapshot holds some of the commits, and no more of them."""
    log, held = world.log[world.after_first() :], max(1, min(held, len(world.kinds)))

    done = world.applied(log, Ledger(end_of(held), []))

    assert [*range(held + 1, len(world.kinds) + 1)] == done


@given(worlds, st.booleans(), st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=3))
def test_a_damaged_log_is_applied_up_to_the_damage(
    world: World, bootstrapped: bool, damages: list[tuple[int, int]]
) -> None:
    """Records removed, repeated or swapped: what is applied is a beginning of what was committed."""
    log = world.log[world.after_first() :]
    for kind, where in damages:
        if not log:
            break
        at, other = where % len(log), (where // 7) % len(log)
        match kind % 3:
            case 0:
                del log[at]
            case 1:
                log.insert(other, log[at])
            case 2:
                log[at], log[other] = log[other], log[at]
    try:
        done = world.applied(log, Ledger(end_of(1), [] if bootstrapped else [(1, end_of(1))]))
    except Halted as halted:
        done = halted.done

    assert [*range(2, 2 + len(done))] == done


def test_a_transaction_that_was_applied_goes_on_without_its_beginning() -> None:
    """Hazard 4: the rest of it comes again, numbered anew and counted less; the next one follows."""
    world = World([["t"] * 9, ["u"]], [], [])
    rest = transaction(1, ["t"] * 5, START)[1:]

    assert [2] == world.applied(
        [*rest, *transaction(2, ["u"], end_of(1))], Ledger(end_of(1), [(1, end_of(1))])
    )


def test_a_transaction_that_was_not_applied_goes_on_without_its_beginning() -> None:
    """Hazard 4: halted, also where the numbers of the rest agree with its END."""
    world = World([["t"] * 9, ["u"] * 9], [], [])
    rest = transaction(2, ["u"] * 5, end_of(1))[1:]

    with pytest.raises(Halted) as halted:
        world.applied(rest, Ledger(end_of(1), [(1, end_of(1))]))

    assert [] == halted.value.done
    assert "without the transaction's beginning" in str(halted.value.__cause__)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_record_that_comes_late(lost: int) -> None:
    """Hazard 5: T1 without one of its records, T2, T3, then T1 whole and the others again."""
    world = World([["t"], ["u"], ["t"]], [], [])
    first, second, third = (transaction(n, world.kinds[n - 1], end_of(n - 1)) for n in (1, 2, 3))
    torn = first[:lost] + first[lost + 1 :]

    assert [1, 2, 3] == world.applied(
        [*torn, *second, *third, *first, *second, *third], Ledger(START, [(0, START)])
    )


def test_a_record_that_comes_late_without_its_transaction() -> None:
    """Hazard 5 as it was measured: the row alone and its END again. Nothing is guessed: halted."""
    world = World([["t"], ["u"]], [], [])
    begin, row, end = transaction(1, ["t"], START)
    second = transaction(2, ["u"], end_of(1))

    with pytest.raises(Halted) as halted:
        world.applied([begin, end, *second, row, end, *second], Ledger(START, [(0, START)]))

    assert [] == halted.value.done
    assert "its END counts 1 events, 0 came" in str(halted.value.__cause__)


def test_a_large_transaction_that_comes_again_is_discarded_from_its_first_event_on() -> None:
    """Hazard 6: nothing of it is handed on, however many rows it has."""
    ledger = Ledger(end_of(1), [(1, end_of(1))])
    again = transaction(1, ["t"] * 100_000, START)

    assert {None} == {ledger.accept(event) for event in again}
