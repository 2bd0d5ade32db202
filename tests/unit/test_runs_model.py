"""A model of a stock connector that is killed at random: nothing that is applied is ever incomplete.

The model resumes as Debezium 3.6.3 does (WalPositionLocator): it looks for the message at its stored
place and passes over everything before it, and counts on from what it has stored.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import runs
from cdc.events import Begin, Change, End, Event, Message
from cdc.ledger import Apply, Commit, Gap, Ledger, Restart
from cdc.names import TableName
from cdc.runs import Runs
from cdc.stock import BEAT, Found

T = TableName("public", "t")


@dataclasses.dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of the log: the place of each row, and of its commit's end."""

    txid: int
    rows: tuple[int, ...]
    end: int
    heartbeat: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What Connect has stored: where, after which commit, whether a BEGIN or END, and what was counted."""

    lsn: int
    commit: int
    boundary: bool
    counting: int | None = None
    counted: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Sent:
    """A message of the server: 'begin', 'row' or 'commit'."""

    kind: str
    lsn: int
    of: Transaction


def wal(dice: random.Random, most: int) -> list[Transaction]:
    """Return transactions in the order of their commits, whose records lie among each other."""
    at, open_, done = 800, dict[int, list[int]](), list[Transaction]()
    for txid in range(1, most):
        open_[txid] = []
        for _ in range(dice.randint(1, 4)):
            writing = dice.choice([*open_])
            at += 8
            # A COPY writes many rows into one record.
            open_[writing] += [at] * dice.choice([1, 1, 1, 4])
            if dice.random() < 0.6:
                ending = dice.choice([*open_])
                rows = open_.pop(ending)
                at += 8
                if rows:
                    # The end of a commit is where the next record begins.
                    done.append(Transaction(ending, tuple(rows), at + 8, heartbeat=False))
                if dice.random() < 0.5:
                    done.append(Transaction(1000 + at, (at + 8,), at + 24, heartbeat=True))
                    at += 16
            if not open_:
                break
    for number in range(3):
        done.append(Transaction(9000 + number, (at + 8,), at + 24, heartbeat=True))
        at += 24
    return done


def sent(log: list[Transaction], after: int) -> Iterator[Sent]:
    """Yield what the server sends from a place on: transactions whose commit is written there or later."""
    for one in log:
        if one.end - 8 >= after:
            yield Sent("begin", one.rows[0], one)
            yield from (Sent("row", lsn, one) for lsn in one.rows)
            yield Sent("commit", one.end, one)


def start(log: list[Transaction], stored: Place) -> int | None:
    """Return the place from which on Debezium hands on what the server sends, as its search finds it."""
    begin = after = None
    seen = False
    for message in sent(log, stored.lsn):
        if seen and after is None:
            if message.lsn == stored.lsn:
                if begin is not None and stored.boundary:
                    return begin
                continue
            return message.lsn
        seen = seen or message.lsn == stored.lsn
        if message.kind == "begin":
            begin = message.lsn
        if message.kind == "commit" and message.lsn > stored.commit:
            return begin
    return None


def connector(log: list[Transaction], stored: Place, run: bytes) -> Iterator[tuple[Found, Place]]:
    """Yield the records of a run, each with the place that is stored once Kafka has it."""
    passing = start(log, stored)
    commit, counting, counted = stored.commit, stored.counting, stored.counted
    filtering = passing is not None
    for message in sent(log, stored.lsn):
        if filtering and message.lsn != passing:
            continue
        filtering = False
        txid = message.of.txid
        if message.kind == "commit":
            commit = message.lsn
            if counting is not None:
                counts = (
                    {"public.t": counted}
                    if not message.of.heartbeat
                    else {"cdc.heartbeat": counted}
                )
                counting = None
                yield (
                    Found(End(txid, message.lsn, counted, counts, 0, 0, None)),
                    Place(message.lsn, commit, boundary=True),
                )
            continue
        if message.kind == "begin" or counting != txid:
            counting, counted = txid, 0
            yield (
                Found(Begin(txid, message.lsn, None, 0)),
                Place(message.lsn, commit, boundary=True, counting=txid),
            )
        if message.kind == "row":
            counted += 1
            table = BEAT if message.of.heartbeat else T
            row = Change("c", table, None, {}, txid, message.lsn, counted, 0, 1)
            yield (
                Found(row, run, commit),
                Place(message.lsn, commit, boundary=False, counting=txid, counted=counted),
            )


class Daemon:
    """The daemon's reading: what it applies, and where it would go on."""

    def __init__(self) -> None:
        self.applied = [(0, 800)]
        self.whole = list[tuple[int, int]]()
        self.again(None)

    def again(self, run: bytes | None) -> None:
        self.runs = Runs(self.applied[-1][1], run, deque(txid for txid, _ in self.applied))
        self.ledger = Ledger(self.applied[-1][1], self.applied)
        self.rows = 0

    def take(self, found: Found) -> None:
        for event in self.runs.accept(found):
            self.step(event)

    def step(self, event: Event) -> None:
        match self.ledger.accept(event):
            case Apply():
                self.rows += 1
            case Restart():
                self.rows = 0
            case Commit(end):
                self.applied.append((end.txid, end.lsn))
                self.whole.append((end.txid, self.rows))
                self.rows = 0
            case Message() | None:
                pass


@given(st.integers(0, 2**32))
def test_what_is_applied_is_whole_and_in_order(seed: int) -> None:
    """Whatever is killed wherever: every applied transaction is whole, the order is the log's, none is left out."""
    survived(seed)


def survived(seed: int) -> int:
    """Run the model to its end; return how often the connector had to be set back."""
    dice = random.Random(seed)
    log = wal(dice, 12)
    expected = [(one.txid, 0 if one.heartbeat else len(one.rows)) for one in log]
    daemon, stored, rewinds = Daemon(), Place(800, 800, boundary=True), 0
    marked = True
    for number in range(1, 60):
        begins = Place(
            runs.mark(daemon.applied[-1][1]), runs.mark(daemon.applied[-1][1]), boundary=True
        )
        stored = begins if marked else stored
        if marked:
            daemon.again(None)
        records = list(connector(log, stored, str(number).encode()))
        # Killed anywhere while there is something to kill, and what it has stored may be older.
        most = len(records) if number > 12 else dice.randint(0, len(records))
        marked = False
        try:
            for at in range(most):
                daemon.take(records[at][0])
                if dice.random() < 0.3:
                    stored = records[at][1]
        except Gap:
            marked, rewinds = True, rewinds + 1
        assert expected[: len(daemon.whole)] == daemon.whole
        if len(daemon.whole) == len(expected) - 1:  # the last END waits for a row
            break
    assert len(daemon.whole) >= len(expected) - 3
    return rewinds


def test_the_model_loses_rows_as_debezium_does() -> None:
    """Believed as they come, such streams lose rows though every count agrees: the model is no straw man."""
    lost = 0
    for seed in range(300):
        dice = random.Random(seed)
        log = wal(dice, 12)
        rows = {one.txid: len(one.rows) for one in log}
        records = [*connector(log, Place(800, 800, boundary=True), b"1")]
        if not records:
            continue
        cut = dice.randrange(len(records))
        given_ = dict[int, int]()
        for found, _ in [*records[: cut + 1], *connector(log, records[cut][1], b"2")]:
            if isinstance(found.event, Begin):
                given_[found.event.txid] = 0
            elif isinstance(found.event, Change):
                given_[found.event.txid] = given_.get(found.event.txid, 0) + 1
        lost += any(given_.get(txid, 0) < count for txid, count in rows.items())
    assert lost > 20


@pytest.mark.parametrize("seed", range(3))
def test_the_model_does_not_always_halt(seed: int) -> None:
    """Where a run repeats what was applied, or heartbeats stand at the border, nobody has to act."""
    assert any(survived(seed * 100 + more) == 0 for more in range(100))
