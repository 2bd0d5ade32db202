"""What a captured stream says happened, by the plainest reading, and the judgement of a replica."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import streams
import world
from streams import Captured, Raw
from world import Applied, Database, Log, Tables, World

from cdc import events
from cdc.catalog import Table
from cdc.config import Apply
from cdc.events import UNCHANGED, Begin, Change, End, Row
from cdc.names import TableName
from cdc.position import Coverage, Position

TOPIC_ID = "one"


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """A committed transaction of the primary; `first` and `last` are where its records stand."""

    txid: int
    end: int
    changes: tuple[Change, ...]
    first: int
    last: int


@dataclasses.dataclass(frozen=True, slots=True)
class Truth:
    """The transactions of a stream in commit order, and the rows after each of them.

    `states[n]` are the rows after `n` transactions.
    """

    captured: Captured
    keys: dict[TableName, tuple[str, ...]]
    wholes: tuple[Whole, ...]
    states: tuple[Tables, ...]

    @property
    def raw(self) -> list[Raw]:
        return list(self.captured.raw)


def read(captured: Captured) -> Truth:
    """Read a stream event by event; what comes again is left out by its transaction number."""
    keys = {name: held.key for name, held in captured.tables.items()}
    state: Tables = {
        name: rows_of(held.columns, held.key, held.before) for name, held in captured.tables.items()
    }
    states, wholes = [state], list[Whole]()
    open_: list[Change] = []
    first = 0
    for at, record in enumerate(captured.records):
        match events.decode(record):
            case Begin():
                open_, first = [], at
            case Change() as change:
                open_.append(change)
            case End(txid, lsn) if txid not in {whole.txid for whole in wholes}:
                wholes.append(Whole(txid, lsn, tuple(open_), first, at))
                state = after(state, open_, keys)
                states.append(state)
            case _:
                pass
    return Truth(captured, keys, tuple(wholes), tuple(states))


def rows_of(
    columns: Sequence[str], key: Sequence[str], rows: Sequence[Sequence[str | None]]
) -> world.Rows:
    """Return rows given as lists, by their key."""
    made: list[Row] = [dict(zip(columns, row, strict=True)) for row in rows]
    return {tuple(str(row[column]) for column in key): row for row in made}


def after(
    state: Tables, changes: Sequence[Change], keys: dict[TableName, tuple[str, ...]]
) -> Tables:
    """Return the rows after one transaction, one event at a time.

    A row that comes without a value had that value before, under its old key if that has changed.
    """
    state = {name: dict(rows) for name, rows in state.items()}
    gone: Row = {}
    for change in changes:
        rows, key = state[change.table], keys[change.table]
        if change.op == "t":
            rows.clear()
            continue
        old = change.after if change.before is None else change.before
        had = rows.pop(tuple(str((old or {})[c]) for c in key), gone) if change.op != "c" else gone
        if change.after is not None:
            row = {c: had[c] if v is UNCHANGED else v for c, v in change.after.items()}
            rows[tuple(str(row[c]) for c in key)] = row
        gone = had if change.op == "d" else {}
    return state


def start(
    truth: Truth,
    done: int,
    raw: Sequence[Raw],
    limits: Apply | None = None,
    *,
    copied: bool = False,
    offset: int = 0,
) -> World:
    """Return a world whose replica has applied the first `done` transactions of the truth.

    `raw` is what the topic holds, read from its record `offset` on. With `copied` the replica was
    filled from a snapshot right after these transactions and remembers no commit.
    """  # fmt: skip
    captured = truth.captured
    links = [captured.applied, *((w.txid, w.end) for w in truth.wholes[:done])]
    log = Log(streams.FIRST)
    for value, headers in raw:
        log.append(value, headers)
    catalog = {
        name: Table(name, held.columns, held.key, frozenset())
        for name, held in captured.tables.items()
    }
    position = Position(
        "app", streams.TOPIC, TOPIC_ID, streams.FIRST + offset, 0, links[-1][1], captured.system,
        captured.timeline, () if copied else tuple(links), 0,
    )  # fmt: skip
    covered = Coverage("copied", links[-1][1] if copied else 0)
    database = Database(
        catalog,
        {name: dict(rows) for name, rows in truth.states[done].items()},
        position,
        dict.fromkeys(catalog, covered),
    )
    return World(log, database, limits)


def judge(truth: Truth, found: World, done: int = 0) -> int:
    """Return how many of the transactions with rows, beyond the first `done`, are applied.

    Fails unless those are the next ones in order, each once with exactly its events, the rows are
    the primary's at that point, and the position says so.
    """
    replica = found.database
    due = [w for w in truth.wholes[done:] if w.changes]
    applied: list[Applied] = [event for commit in replica.commits for event in commit.events]
    count, at = 0, 0
    while at < len(applied):
        assert count < len(due), f"events beyond the last transaction: {applied[at:]}"
        expected = [world.identity(change) for change in due[count].changes]
        assert expected == applied[at : at + len(expected)]
        at += len(expected)
        count += 1
    last = due[count - 1].txid if count else None
    reached = 1 + next((n for n, w in enumerate(truth.wholes) if w.txid == last), done - 1)
    assert truth.states[reached] == replica.tables
    assert replica.unmatched == 0
    linked = [txid for txid, _ in replica.position.ring]
    with_rows = {w.txid for w in due}
    assert [w.txid for w in due[:count]] == [t for t in linked if t in with_rows]
    return count
