"""Records of Debezium's own converters, with and without schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_codecs import MODES, of

from cdc import stock
from cdc.errors import MalformedRecord
from cdc.events import UNCHANGED, Begin, Change, End, Heartbeat, Message, Record
from cdc.names import TableName
from cdc.stock import Found

T = TableName("public", "t")
COLUMNS = {T: {"id": of("int4"), "v": of("text"), "b": of("bytea")}}

ROW: dict[str, Any] = {
    "before": None,
    "after": {"id": 7, "v": "\x01x", "b": "00ff"},
    "source": {
        "schema": "public",
        "table": "t",
        "txId": 5,
        "lsn": 816,
        "sequence": '["808","816"]',
    },
    "transaction": {"id": "5:816", "total_order": 1, "data_collection_order": 1},
    "op": "c",
    "ts_ms": 9,
}
BEGIN = {
    "status": "BEGIN",
    "id": "5:816",
    "event_count": None,
    "data_collections": None,
    "ts_ms": 9,
}
END = {
    "status": "END", "id": "5:824", "event_count": 1, "ts_ms": 9,
    "data_collections": [{"data_collection": "public.t", "event_count": 1}],
}  # fmt: skip


def record(value: Any, *, schema: bool = False, run: bytes | None = b"r") -> Record:
    value = {"schema": {"type": "struct"}, "payload": value} if schema else value
    text = json.dumps(value, separators=(",", ":"))
    return Record("cdc.app", 0, 3, None, text.encode(), run=run)


def decode(value: Any, *, schema: bool = False) -> Found:
    return stock.decode(record(value, schema=schema), MODES, COLUMNS.get)


@pytest.mark.parametrize("schema", [False, True])
def test_a_record_reads_the_same_with_a_schema_in_front(schema: bool) -> None:
    """Rows become PostgreSQL's text, with the run and the END before; boundaries are told at sight."""
    found = decode(ROW, schema=schema)

    assert isinstance(found.event, Change)
    assert {"id": "7", "v": "\x01x", "b": "\\x00ff"} == found.event.after
    assert (b"r", 808) == (found.run, found.link)
    assert isinstance(decode(BEGIN, schema=schema).event, Begin)
    assert isinstance(decode(END, schema=schema).event, End)
    assert isinstance(decode({"ts_ms": 5}, schema=schema).event, Heartbeat)
    for value, boundary in ((BEGIN, True), (END, True), (ROW, False)):
        assert boundary == stock.is_boundary(record(value, schema=schema).value)


def test_a_value_that_was_not_sent_is_unchanged() -> None:
    """The placeholder means so in texts and binary data alike; NULL stays NULL."""
    row = {**ROW, "op": "u", "after": {"id": 7, "v": MODES.placeholder, "b": None}}

    found = decode(row).event

    assert isinstance(found, Change)
    assert {"id": "7", "v": UNCHANGED, "b": None} == found.after


def test_messages_are_written_as_binary_data() -> None:
    """In hexadecimal digits, where binary.handling.mode says so."""
    message = {"prefix": "app", "content": "68690a"}
    row = {**ROW, "op": "m", "after": None, "message": message}

    found = decode(row)

    assert isinstance(found.event, Message)
    assert (b"hi\n", 808) == (found.event.content, found.link)


@pytest.mark.parametrize(
    "changed",
    [{"after": {"id": "7", "v": "", "b": ""}}, {"after": {"id": 7, "other": 1}}, {"op": "r"}],
)
def test_what_does_not_fit_halts(changed: dict[str, Any]) -> None:
    """A value of another form, a column that is not here, a snapshot's row: named by its offset."""
    with pytest.raises(MalformedRecord) as malformed:
        decode({**ROW, **changed})

    assert 3 == malformed.value.place.offset


def test_a_row_must_say_its_run() -> None:
    """Without that header no restart could be told; boundaries have none."""
    with pytest.raises(MalformedRecord, match=r"extended\.headers"):
        stock.decode(record(ROW, run=None), MODES, COLUMNS.get)

    assert isinstance(stock.decode(record(END, run=None), MODES, COLUMNS.get).event, End)
    assert isinstance(stock.decode(record(ROW, run=None), MODES).event, Change)
