"""What the loop gets of the topic, and what is read ahead of it."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from harness import wait_until

from cdc import events, reading
from cdc.errors import MalformedRecord, PositionLost
from cdc.events import Begin, Change, Event, Record
from cdc.reading import Reading

FULL = reading._RECORDS


class Topic:
    """A source that gives what it was told to, a list at each read, and nothing afterwards."""

    def __init__(self, *reads: list[Record] | Exception) -> None:
        self._reads, self.asked = list(reads), 0

    def read(self, most: int, _timeout: float) -> list[Record]:
        assert most == FULL
        self.asked += 1
        found = self._reads.pop(0) if self._reads else []
        if isinstance(found, Exception):
            raise found
        return found


def reader(*reads: list[Record] | Exception) -> tuple[Reading, Topic]:
    topic = Topic(*reads)
    return Reading(topic), topic  # type: ignore[arg-type]  # only `read` is asked


def decoded(record: Record) -> list[Event]:
    return [events.decode(record)]


def record(offset: int, value: Any) -> Record:
    return Record("t", 0, offset, None, json.dumps(value).encode(), b"1")


def begin(offset: int, txid: int) -> Record:
    return record(offset, {"status": "BEGIN", "id": f"{txid}:1"})


def row(offset: int, txid: int, text: str = "") -> Record:
    source = {"schema": "s", "table": "t", "txId": txid, "lsn": 1}
    image = {"id": "1", "text": text}
    return record(
        offset, {"op": "c", "after": image, "source": source, "transaction": {"total_order": 1}}
    )


def full(start: int, text: str = "") -> list[Record]:
    return [row(offset, 7, text) for offset in range(start, start + FULL)]


def offsets(given: Any) -> list[int]:
    flat: list[Event] = []
    for found in given:
        flat += found if isinstance(found, list) else [found]
    return [event.offset for event in flat]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "reading"]


def test_a_backlog_is_read_ahead_in_order() -> None:
    """While more waits a thread reads it; the loop gets every event once, in the topic's order."""
    read, _ = reader(full(0), full(FULL), [row(2 * FULL, 7)], [row(2 * FULL + 1, 8)])

    blocks = [read.next(decoded) for _ in range(4)]

    assert [*range(2 * FULL + 2)] == [o for block in blocks for o in offsets(block.events)]
    assert [True, True, False, False] == [block.full for block in blocks]
    assert [] == threads()


def test_what_the_source_raises_comes_after_what_was_read_before() -> None:
    """The log's loss, met while reading ahead, does not overtake the events before it."""
    lost = PositionLost("gone", safe="", next="")
    read, _ = reader(full(0), full(FULL), lost)

    assert 2 * FULL == sum(len(offsets(read.next(decoded).events)) for _ in range(2))
    with pytest.raises(PositionLost):
        read.next(decoded)
    read.stop()


def test_what_was_read_ahead_is_forgotten_when_stopped() -> None:
    """After a stop nothing of the old place in the log comes any more, and no thread runs."""
    read, topic = reader(full(0), full(FULL), [])
    read.next(decoded)
    wait_until(lambda: topic.asked == 3, "the thread has read to the end")

    read.stop()

    assert [] == threads()
    assert [] == offsets(read.next(decoded).events)


def test_only_so_much_is_held_ahead() -> None:
    """What is read and not asked for takes no more memory than a limit and one read."""
    text = "x" * (reading._AHEAD // FULL)
    read, topic = reader(*(full(number * FULL, text) for number in range(5)))
    read.next(decoded)
    wait_until(lambda: topic.asked == 2, "the thread has read once")

    read.stop()

    assert 2 == topic.asked


def test_rows_of_one_transaction_come_together() -> None:
    """Rows that follow each other in a transaction stand in one list, boundaries and others apart."""
    read, _ = reader([begin(0, 7), row(1, 7), row(2, 7), row(3, 8), begin(4, 9), row(5, 9)])

    found = read.next(decoded).events

    assert [[0], [1, 2], [3], [4], [5]] == [offsets([one]) for one in found]
    assert [Begin, list, list, Begin, list] == [type(one) for one in found]
    assert all(isinstance(e, Change) for one in found if isinstance(one, list) for e in one)


def test_a_record_that_is_no_event_stands_behind_those_before_it() -> None:
    """What comes before an undecodable record is told first, and nothing of what comes after."""
    read, _ = reader([row(1, 7), Record("t", 0, 2, None, b"{"), row(3, 7)])

    block = read.next(decoded)

    assert [1] == offsets(block.events)
    assert isinstance(block.trouble, MalformedRecord)
    assert (2, 2) == (block.offset, block.trouble.place.offset)
