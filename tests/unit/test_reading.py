"""What the loop gets of the topic at once."""

from __future__ import annotations

import json
from typing import Any

from cdc import events, reading
from cdc.errors import MalformedRecord
from cdc.events import Begin, Change, Event, Record
from cdc.reading import Block, Failed


def read(*records: Record) -> Block:
    """Return the block that a source with these records gives."""

    class Topic:
        def read(self, _most: int, _timeout: float) -> list[Record]:
            return [*records]

    return reading.block(Topic(), decoded)  # type: ignore[arg-type]  # only `read` is asked


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


def offsets(given: Any) -> list[int]:
    flat: list[Event] = []
    for found in given:
        flat += found if isinstance(found, list) else [found]
    return [event.offset for event in flat]


def test_rows_of_one_transaction_come_together() -> None:
    """Rows that follow each other in a transaction stand in one list, boundaries and others apart."""
    records = begin(0, 7), row(1, 7), row(2, 7), row(3, 8), begin(4, 9), row(5, 9)
    found = [*read(*records).events()]

    assert [[0], [1, 2], [3], [4], [5]] == [offsets([one]) for one in found]
    assert [Begin, list, list, Begin, list] == [type(one) for one in found]
    assert all(isinstance(e, Change) for one in found if isinstance(one, list) for e in one)


def test_a_record_that_is_no_event_stands_behind_those_before_it() -> None:
    """What comes before an undecodable record is told first, and nothing of what comes after."""
    rows, failed = read(row(1, 7), Record("t", 0, 2, None, b"{"), row(3, 7)).events()

    assert [1] == offsets([rows])
    assert isinstance(failed, Failed)
    assert isinstance(failed.trouble, MalformedRecord)
    assert (2, 2) == (failed.offset, failed.trouble.place.offset)


def test_large_rows_come_one_by_one() -> None:
    """No more than what is asked for is decoded, and nothing is kept of what was taken."""
    taken = read(row(1, 7, "x" * (1 << 20)), row(2, 7), row(3, 7))
    found = taken.events()

    assert [1] == offsets([next(found)])
    assert 2 == len(taken.records)
    assert [[2, 3]] == [offsets([rows]) for rows in found]
