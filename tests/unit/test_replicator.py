"""What the daemon's loop looks at itself, before the ledger has its say."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from cdc import events, history
from cdc.batch import Batch, Buffer
from cdc.config import Apply, Config, Connect, Kafka, Primary, Replica
from cdc.errors import BrokenStream, CdcError, Unreachable
from cdc.events import Change, End, Record
from cdc.following import Follower
from cdc.gauge import Gauge
from cdc.history import History
from cdc.ledger import Gap, Ledger
from cdc.lookahead import Lookahead, Resume
from cdc.names import TableName
from cdc.position import Coverage, Fenced, Position
from cdc.reading import Reading
from cdc.replicator import Replicator
from cdc.writing import Turn

APPLIED = 1000
RING = ((7, APPLIED),)


#: What the ledger finds where a record is missing.
MISSING = Gap(8, BrokenStream("one is missing", safe="", next=""))


def new_turn() -> Turn:
    """Return a daemon's turn on a replica whose last commit ends at APPLIED; no server is asked."""
    position = Position("app", "cdc.app", "id", 5, None, APPLIED, "7", 1, RING, 0)
    return Turn(
        mock.Mock(closed=False),
        mock.Mock(),
        position,
        Ledger(APPLIED, RING),
        Buffer(Apply(), {}),
        5,
        Lookahead(mock.Mock(), threading.Event()),
        lambda record: [events.decode(record)],
    )


def replicator() -> Replicator:
    config = Config(
        name="app",
        primary=Primary(dsn=""),
        kafka=Kafka(bootstrap_servers="127.0.0.1:1"),
        connect=Connect(url="http://127.0.0.1:1"),
        replicas={"r1": Replica(dsn="")},
    )
    return Replicator(config, "r1", threading.Event(), Gauge("r1"))


def heartbeat(previous: int, system: str, timeline: int) -> list[Record]:
    """Return a heartbeat's records as far as they tell whose it is: BEGIN and the message."""
    content = json.dumps({"ts": 1.0, "system": system, "timeline": timeline, "lsn": "0/1"})
    begin: dict[str, Any] = {"status": "BEGIN", "id": "8:900"}
    message = {
        "op": "m",
        "source": {"txId": 8, "lsn": previous + 10},
        "transaction": {"total_order": 1},
        "message": {
            "prefix": "cdc.heartbeat",
            "content": base64.b64encode(content.encode()).decode(),
        },
    }
    return [
        Record("cdc.app", 0, offset, None, json.dumps(value).encode(), b"%d" % previous)
        for offset, value in enumerate((begin, message), 5)
    ]


@pytest.mark.parametrize("previous", [APPLIED, APPLIED - 500])
def test_a_heartbeat_tells_of_a_failover_where_the_log_looks_repeated(
    previous: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover LSNs go back: what the new primary sends looks applied, its name tells."""
    monkeypatch.setattr(history, "read", lambda *_: History("7", 2, ((1, APPLIED - 1),)))
    turn, daemon = new_turn(), replicator()
    begin, message = heartbeat(previous, "7", 2)
    daemon._take(turn, events.decode(begin))

    with pytest.raises(BrokenStream, match="lacks 1 commit applied here"):
        daemon._take(turn, events.decode(message))


def next_transaction(origin: bytes | None) -> list[Record]:
    """Return the transaction that the chain expects, sent by `origin`."""
    begin: dict[str, Any] = {"status": "BEGIN", "id": f"8:{APPLIED + 5}"}
    end = {
        "status": "END", "id": f"8:{APPLIED + 20}", "event_count": 0, "data_collections": [],
        "ts_ms": 1,
    }  # fmt: skip
    return [
        Record("cdc.app", 0, 5, None, json.dumps(begin).encode(), b"%d" % APPLIED, origin),
        Record("cdc.app", 0, 6, None, json.dumps(end).encode()),
    ]


def test_the_next_link_of_the_chain_is_not_taken_from_a_history_that_lacks_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """New LSNs may overtake the old ones, and Debezium's chain then goes on as if nothing were."""
    monkeypatch.setattr(history, "read", lambda *_: History("7", 2, ((1, APPLIED - 1),)))
    turn, daemon = new_turn(), replicator()

    with pytest.raises(BrokenStream, match="lacks 1 commit applied here"):
        daemon._take(turn, events.decode(next_transaction(b"7/2")[0]))


@pytest.mark.parametrize(("origin", "timeline"), [(None, 1), (b"7/1", 1), (b"7/2", 2)])
def test_a_switchover_without_loss_is_followed(
    origin: bytes | None, timeline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the timeline ended at or after the last commit applied, the next one is taken."""
    monkeypatch.setattr(history, "read", lambda *_: History("7", 2, ((1, APPLIED),)))
    turn, daemon = new_turn(), replicator()
    for record in next_transaction(origin):
        daemon._take(turn, events.decode(record))

    taken = turn.buffer.take()

    assert taken is not None
    assert [APPLIED + 20] == [e.lsn for e in taken.ends]
    assert timeline == turn.position.timeline


def test_a_repeated_heartbeat_does_not_count() -> None:
    """A heartbeat that comes again is older than what was applied: freshness must not go back."""
    turn, daemon = new_turn(), replicator()
    for record in heartbeat(APPLIED - 500, "7", 1):
        daemon._take(turn, events.decode(record))

    assert turn.buffer.heartbeat is None


class Ahead:
    """A topic ahead of the position: gives its records to whoever looks, and counts the looks.

    `late` are those that come with each further look.
    """

    def __init__(self, records: list[Record], *late: list[Record]) -> None:
        self.records, self.late, self.looks, self.read = records, [*late], 0, 0

    def ahead(self, offset: int) -> Iterator[Record]:
        if self.looks and self.late:
            self.records = self.records + self.late.pop(0)
        self.looks += 1
        for record in self.records:
            if record.offset >= offset:
                self.read += 1
                yield record


def end_of(txid: int, lsn: int, offset: int = 99) -> Record:
    value = {
        "status": "END", "id": f"{txid}:{lsn}", "event_count": 1, "data_collections": [], "ts_ms": 1,
    }  # fmt: skip
    return Record("cdc.app", 0, offset, None, json.dumps(value, separators=(",", ":")).encode())


def large(turn: Turn, txid: int) -> None:
    """Let a transaction be open on a table whose copy may hold it."""
    name = TableName("s", "t")
    turn.buffer.coverage = {name: Coverage("copied", APPLIED + 500)}
    turn.buffer.open.append(Change("c", name, None, {"id": "1"}, txid, 0, 1, 6, 10))


def test_the_end_of_a_large_transaction_is_looked_up_once() -> None:
    """However many pieces it is written in, the log ahead is read for its END only once."""
    turn, topic = new_turn(), Ahead([end_of(7, 1100), end_of(8, 1200)])
    turn.ahead.source = topic  # type: ignore[assignment]  # only `ahead` is asked
    large(turn, 8)

    assert [1200, 1200] == [turn.end_of_open(), turn.end_of_open()]
    assert 1 == topic.looks


def test_an_end_that_another_look_has_passed_is_found() -> None:
    """Where a copy is looked for, the log is read further on; what that passes is not taken for seen."""
    turn, topic = new_turn(), Ahead([end_of(7, 1100, 98)], [end_of(8, 1200)], [])
    turn.ahead.source = topic  # type: ignore[assignment]  # only `ahead` is asked
    large(turn, 8)

    assert turn.end_of_open() is None
    assert turn.ahead.later_copy(Gap(5, BrokenStream("", safe="", next="")), turn.ledger) is None
    assert 1200 == turn.end_of_open()


def test_an_end_that_is_to_come_is_waited_for_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon says what it waits for, looks at what it may hang on, and reads each record ahead once."""
    turn, daemon, watched = new_turn(), replicator(), list[tuple[str, str | None]]()
    topic = Ahead([end_of(7, 1100, 98)], [], [end_of(8, 1200)])
    turn.ahead.source = topic  # type: ignore[assignment]  # only `ahead` is asked
    large(turn, 8)
    gauge = daemon._gauge
    monkeypatch.setattr("cdc.writing.LOOK_AGAIN", 0.0)
    monkeypatch.setattr("cdc.position.generation", lambda *_: 0)
    monkeypatch.setattr("cdc.guard.Guard.holdup", lambda _guard: "the connector has failed")
    monkeypatch.setattr(
        "cdc.guard.Guard.again", lambda _guard: watched.append((gauge.doing, gauge.trouble))
    )
    monkeypatch.setattr("cdc.history.Succession.again", lambda *_: None)
    monkeypatch.setattr("cdc.source.Source.watch", lambda *_: None)

    assert 1200 == daemon._awaiting.end(turn)
    told = "the end of transaction 8 is not in the topic yet; the connector has failed"
    assert [("waiting", told)] * 2 == watched
    assert (3, 2) == (topic.looks, topic.read)


def test_a_bootstrap_gives_up_where_an_end_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the daemon it holds nothing for ever: a topic that stays silent ends it."""
    turn = new_turn()
    turn.ahead.source = Ahead([end_of(7, 1100)])  # type: ignore[assignment]  # only `ahead` is asked
    large(turn, 8)
    follower = object.__new__(Follower)
    follower._turn, follower._config = turn, replicator()._config
    monkeypatch.setattr("cdc.following._PATIENCE", 0.3)

    with pytest.raises(Unreachable, match="gives nothing more"):
        follower._end_of_open()


def test_looking_ahead_ends_when_stopped() -> None:
    """SIGTERM ends also a look through a long log."""
    turn = new_turn()
    turn.ahead.source = Ahead([end_of(7, 1100)])  # type: ignore[assignment]  # only `ahead` is asked
    turn.ahead.stop.set()

    with pytest.raises(Fenced):
        turn.ahead.later_copy(MISSING, turn.ledger)
    large(turn, 7)
    with pytest.raises(Fenced):
        turn.end_of_open()


def test_the_pause_grows_until_something_is_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that opens and then fails each time is no success: only a commit is."""
    daemon, pauses = replicator(), list[int]()
    trouble = Unreachable("no answer", safe="", next="")
    outcomes: Iterator[CdcError | None] = iter([trouble, trouble, trouble, None, trouble])

    def follow(turn: Turn, _read: Reading, _until: int | None) -> bool:
        if (outcome := next(outcomes, ...)) is ...:
            daemon._stop.set()
        elif outcome is None:
            daemon._write(turn, Batch([], [End(9, APPLIED + 9, 0, {}, 0, 5, None)], None, 0))
            raise Resume(5)
        else:
            raise outcome
        return True

    def pause(failures: int) -> float:
        pauses.append(failures)
        return 0.0

    monkeypatch.setattr("cdc.policy.pause", pause)
    monkeypatch.setattr("cdc.position.advance", lambda _conn, at, *_rest: at)
    monkeypatch.setattr(
        daemon, "_session", lambda: contextlib.nullcontext(mock.MagicMock(closed=False))
    )
    monkeypatch.setattr(daemon, "_turn", lambda _conn: new_turn())
    monkeypatch.setattr(daemon, "_follow", follow)
    daemon._source = mock.Mock()

    daemon.run()

    assert [1, 2, 3, 1] == pauses
