"""What the loop gets of the topic at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cdc import events, reading
from cdc.errors import MalformedRecord, PositionLost
from cdc.events import Begin, Change, End, Event, Record
from cdc.reading import Failed, Reading, Whole

FULL = reading._RECORDS


class Topic:
    """A source that gives what it was told to, a list at each read, and nothing afterwards."""

    def __init__(self, *reads: list[Record] | Exception) -> None:
        self._reads = list(reads)
        self.asked: list[float] = []

    def read(self, most: int, timeout: float) -> list[Record]:
        assert most == FULL
        self.asked.append(timeout)
        found = self._reads.pop(0) if self._reads else []
        if isinstance(found, Exception):
            raise found
        return found


def reader(*reads: list[Record] | Exception) -> tuple[Reading, Topic]:
    topic = Topic(*reads)
    return Reading(topic, decoded), topic  # type: ignore[arg-type]  # only `read` is asked


def decoded(record: Record) -> list[Event]:
    return [events.decode(record)]


def record(offset: int, value: Any) -> Record:
    return Record("t", 0, offset, None, json.dumps(value).encode(), b"1")


def begin(offset: int, txid: int) -> Record:
    return record(offset, {"status": "BEGIN", "id": f"{txid}:1"})


def end(offset: int, txid: int) -> Record:
    return record(offset, {"status": "END", "id": f"{txid}:1", "event_count": 1, "ts_ms": 1})


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
        flat += found if isinstance(found, list | Whole) else [found]
    return [event.offset for event in flat]


def test_rows_of_one_transaction_come_together() -> None:
    """Rows that follow each other in a transaction stand in one list, boundaries and others apart."""
    read, _ = reader([begin(0, 7), row(1, 7), row(2, 7), row(3, 8), begin(4, 9), row(5, 9)])
    found = [*read.next().events]

    assert [[0], [1, 2], [3], [4], [5]] == [offsets([one]) for one in found]
    assert [Begin, list, list, Begin, list] == [type(one) for one in found]
    assert all(isinstance(e, Change) for one in found if isinstance(one, list) for e in one)


def test_a_transaction_of_rows_comes_whole() -> None:
    """From BEGIN to END where only its own rows stand between, all in one block; else in parts."""
    read, _ = reader(
        [begin(0, 7), row(1, 7), row(2, 7), end(3, 7), begin(4, 8), row(5, 8), end(6, 8)],
        [
            begin(7, 9),
            end(8, 9),
            begin(9, 10),
            row(10, 11),
            end(11, 10),
            begin(12, 12),
            row(13, 12),
        ],
        [row(14, 12), end(15, 12), begin(16, 13), row(17, 13), end(18, 14)],
    )
    blocks = [[*read.next().events] for _ in range(3)]

    assert [[0, 1, 2, 3], [4, 5, 6]] == [offsets([one]) for one in blocks[0]]
    assert [Whole, Whole] == [type(one) for one in blocks[0]]
    assert [Begin, End, Begin, list, End, Begin, list] == [type(one) for one in blocks[1]]
    assert [list, End, Begin, list, End] == [type(one) for one in blocks[2]]
    assert [*range(7, 19)] == offsets([*blocks[1], *blocks[2]])


def test_a_record_that_is_no_event_stands_behind_those_before_it() -> None:
    """What comes before an undecodable record is told first, and nothing of what comes after."""
    read, _ = reader([row(1, 7), Record("t", 0, 2, None, b"{"), row(3, 7)])
    rows, failed = read.next().events

    assert [1] == offsets([rows])
    assert isinstance(failed, Failed)
    assert isinstance(failed.trouble, MalformedRecord)
    assert (2, 2) == (failed.offset, failed.trouble.place.offset)


def test_large_rows_come_one_by_one() -> None:
    """No more than what is asked for is decoded, and nothing is kept of what was taken."""
    seen: list[int] = []

    def decode(record: Record) -> list[Event]:
        seen.append(record.offset)
        return decoded(record)

    topic = Topic([row(1, 7, "x" * (1 << 20)), row(2, 7), row(3, 7)])
    read = Reading(topic, decode)  # type: ignore[arg-type]  # only `read` is asked
    found = read.next().events

    assert [1] == offsets([next(found)])
    assert [1] == seen
    assert [[2, 3]] == [offsets([rows]) for rows in found]


def test_a_backlog_is_read_ahead_in_order() -> None:
    """While more waits it is read meanwhile, without waiting; the loop gets every event once, in order."""
    read, topic = reader(full(0), full(FULL), [row(2 * FULL, 7)], [row(2 * FULL + 1, 8)])
    assert not read.ahead()
    blocks = [read.next()]

    assert [True, True, False] == [read.ahead() for _ in range(3)]
    blocks += [read.next() for _ in range(3)]

    assert [*range(2 * FULL + 2)] == [o for block in blocks for o in offsets(block.events)]
    assert [True, True, False, False] == [block.full for block in blocks]
    assert [reading._PATIENCE, 0, 0, reading._PATIENCE] == topic.asked


def test_what_the_source_raises_comes_after_what_was_read_before() -> None:
    """The log's loss, met while reading ahead, does not overtake the events before it."""
    read, topic = reader(full(0), full(FULL), PositionLost("gone", safe="", next=""))
    found = offsets(read.next().events)
    assert [True, False, False] == [read.ahead() for _ in range(3)]

    assert [*range(2 * FULL)] == found + offsets(read.next().events)
    for _ in range(2):
        with pytest.raises(PositionLost):
            read.next()
    assert 3 == len(topic.asked)


def test_only_so_much_is_held_ahead() -> None:
    """What is read and not asked for takes no more memory than a limit and one read."""
    text = "x" * (reading._AHEAD // FULL // 2)
    read, topic = reader(*(full(number * FULL, text) for number in range(5)))
    read.next()

    assert [True, True, False] == [read.ahead() for _ in range(3)]
    assert 3 == len(topic.asked)
    read.next()
    assert read.ahead()


class Ordered:
    """Decodes as one does who must see every record once, in order; row 700 is none to it."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, record: Record) -> list[Event]:
        assert record.offset == len(self.seen)
        self.seen.append(record.offset)
        if record.offset == 700:
            raise OverflowError(700)
        return decoded(record)


def test_reading_ahead_in_the_middle_of_a_block_keeps_the_order() -> None:
    """What of the block at hand is not decoded yet comes before the next block; what is raised, where it stands."""
    mixed = [row(n, 7) if n % 3 else begin(n, 7) for n in range(2 * FULL)]
    ordered = Ordered()
    topic = Topic(mixed[:FULL], mixed[FULL:])
    read = Reading(topic, ordered)  # type: ignore[arg-type]  # only `read` is asked
    first = read.next().events
    taken = [next(first), next(first)]

    assert read.ahead()

    assert [*range(701)] == ordered.seen
    second = read.next().events
    assert [*range(FULL)] == offsets([*taken, *first])
    found: list[Any] = []
    with pytest.raises(OverflowError):
        found.extend(second)  # what came before was taken
    assert [*range(FULL, 700)] == offsets(found)


def test_nothing_is_read_ahead_of_a_large_block() -> None:
    """A block that takes much memory is decoded as it is asked for, and nothing is read until it was taken."""
    text = "x" * (reading._AHEAD // FULL)
    read, topic = reader(full(0, text), full(FULL), [])
    large = read.next()

    assert not read.ahead()
    assert [*range(FULL)] == offsets(large.events)
    assert not read.ahead()
    read.next()
    assert read.ahead()
    assert 3 == len(topic.asked)
