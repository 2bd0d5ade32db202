"""Decoding what the exact profile writes: every text survives, nothing is guessed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import events
from cdc.errors import MalformedRecord
from cdc.events import UNCHANGED, Begin, Change, End, Heartbeat, Message, Record, Unchanged
from cdc.names import TableName

#: What PostgreSQL can store in a text value: any character but U+0000 and lone surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
MARKED = st.one_of(TEXTS, st.builds("\x01".__add__, TEXTS))
VALUES = st.one_of(st.none(), st.just(UNCHANGED), MARKED)
ROWS = st.dictionaries(TEXTS.filter(bool), VALUES, min_size=1, max_size=6)


def record(content: Any, link: bytes | None = None) -> Record:
    value = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    return Record("cdc.app", 0, 7, None, value, link)


def row_event(op: str = "u", **other: Any) -> dict[str, Any]:
    """Return a row event as Debezium writes it; `other` replaces fields, `...` takes one away."""
    event = {
        "before": {"id": "1"},
        "after": {"id": "1", "v": None},
        "source": {
            "version": "3.6.3.Final", "schema": "s", "table": "t", "txId": 5, "lsn": 200,
            "sequence": '["100","200"]', "snapshot": "false",
        },
        "op": op,
        "ts_ms": 1,
        "transaction": {"id": "5:200", "total_order": 3, "data_collection_order": 1},
    }  # fmt: skip
    return {k: v for k, v in {**event, **other}.items() if v is not ...}


def on_the_wire(value: str | Unchanged | None) -> str | None:
    """Write a value as the capture plugin does: U+0001 is unchanged, a leading one is doubled."""
    if isinstance(value, Unchanged):
        return "\x01"
    return f"\x01{value}" if value is not None and value.startswith("\x01") else value


@given(row=ROWS, ascii_only=st.booleans())
def test_any_row_comes_back_as_it_was(
    row: dict[str, str | Unchanged | None], ascii_only: bool
) -> None:
    """NULL, unchanged and every text, marks included, stay apart however JSON escapes them."""
    sent = row_event(before=None, after={name: on_the_wire(v) for name, v in row.items()})
    text = json.dumps(sent, ensure_ascii=ascii_only).encode()
    found = events.decode(record(text))

    assert isinstance(found, Change)
    assert (None, row) == (found.before, found.after)


def test_a_row_event_says_where_it_stands() -> None:
    """A row event carries table, transaction, order and its place in the log."""
    assert events.decode(record(row_event())) == Change(
        "u", TableName("s", "t"), {"id": "1"}, {"id": "1", "v": None}, 5, 200, 3, 7,
        len(json.dumps(row_event())), marked=False,
    )  # fmt: skip


def test_boundaries() -> None:
    """BEGIN and END give the transaction, its commit's LSN and its counts, without messages."""
    begin = {"status": "BEGIN", "id": "5:190", "event_count": None, "ts_ms": 1}
    end = {
        "status": "END", "id": "5:300", "event_count": 4, "ts_ms": 1700,
        "data_collections": [
            {"data_collection": "s.t", "event_count": 3},
            {"data_collection": "x.LogicalDecodingMessageId@1f", "event_count": 1},
        ],
    }  # fmt: skip

    assert events.decode(record(begin)) == Begin(5, 190, None, 7, commit_ms=1)
    assert events.decode(record(begin, b"180")) == Begin(5, 190, 180, 7, commit_ms=1)
    assert events.decode(record(end)) == End(5, 300, 4, {"s.t": 3}, 1700, 7, None)


def test_messages_and_heartbeats() -> None:
    """A logical message gives its content; a tombstone or Debezium's heartbeat says nothing."""
    source = {"schema": "", "table": "", "lsn": 9}
    message = row_event(
        "m", before=..., after=..., source=source, transaction=None,
        message={"prefix": "p", "content": "aGk="},
    )  # fmt: skip

    assert events.decode(record(message)) == Message("p", b"hi", None, 9, None, 7)
    assert events.decode(record(None)) == Heartbeat(7)
    assert events.decode(record({"ts_ms": 1})) == Heartbeat(7)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"{}", b'{"op":"u"}', b"[" * 2000,
        {"status": "MIDDLE", "id": "5:1"}, {"status": "BEGIN"}, {"status": "BEGIN", "id": "x:1"},
        {"status": "END", "id": "5:1", "ts_ms": 1}, {"status": "END", "id": "5", "event_count": 0},
        row_event("x"), row_event("r"), row_event("u", after=None), row_event("d", before=None),
        row_event(source=...), row_event(transaction=None), row_event(after={"id": 1}),
        row_event(after={"id": ["1"]}), row_event(after={"id": "\x01x"}),
        row_event(source={"schema": "s", "table": "t", "lsn": 1}),
        row_event(source={"schema": "s", "table": "t", "txId": 1}),
        row_event(source={"schema": "s", "lsn": 1, "txId": 1}),
        row_event("m", message={"prefix": "p", "content": "not base64"}), row_event("m"),
    ],
)  # fmt: skip
def test_what_is_not_an_event_is_refused(content: object) -> None:
    """A record that is not exactly what the profile writes is named by its offset, never guessed."""
    with pytest.raises(MalformedRecord) as refused:
        events.decode(record(content))

    assert refused.value.place.offset == 7


@pytest.mark.parametrize("link", [b"", b"x", b"-5", b" 5", b"1_0", "\u0665".encode(), b"5.0"])
def test_a_link_that_is_no_place_is_refused(link: bytes) -> None:
    """A BEGIN whose header is not an LSN in digits is no BEGIN of the plugin's."""
    with pytest.raises(MalformedRecord):
        events.decode(record({"status": "BEGIN", "id": "5:190", "ts_ms": 1}, link))


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_decoder(value: bytes) -> None:
    """Any bytes give an event or a refusal."""
    with contextlib.suppress(MalformedRecord):
        events.decode(record(value))
