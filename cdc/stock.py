"""What a record says that Debezium's own connector and converters wrote, with or without schema.

Row images come out as `cdc.events` has them, text by text, through the codecs of the replica's
columns. Besides the event a record tells what its place in the stream is judged by (`cdc.runs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cdc import connectors, events, wire
from cdc.config import Config
from cdc.events import Change, Event, Heartbeat, Record, Row
from cdc.modes import Codec, Modes
from cdc.names import TableName

#: The row that each heartbeat changes on the primary, so that it says which run it is of: Debezium
#: says that of rows alone.
BEAT = TableName("cdc", "heartbeat")

#: The header that says which start of its task a row is of.
RUN = "__debezium.context.runId"

#: Codecs per column of a table; None for a table that the replica does not have.
Columns = Callable[[TableName], Mapping[str, Codec] | None]


class Found(msgspec.Struct, frozen=True):
    """An event, and of rows and messages `link`: the END before it, as Debezium remembers it."""

    event: Event
    run: bytes | None = None
    link: int | None = None


class _Source(wire.Source):
    sequence: str | None = None


class _Wire(wire.Wire):
    # Values as the converters write them, until codecs have read them.
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    source: _Source | None = None


class _Enveloped(msgspec.Struct):
    """A record with its schema in front."""

    payload: msgspec.Raw


_enveloped = msgspec.json.Decoder(_Enveloped)
_bare = msgspec.json.Decoder(_Wire)
_sequence = msgspec.json.Decoder(tuple[str | None, str | None])

_SCHEMA = b'{"schema":'
_BOUNDARY = b'"payload":{"status"'


def is_boundary(value: bytes | None) -> bool:
    """Tell a BEGIN or END without decoding it."""
    if value is None or not value.startswith(_SCHEMA):
        return events.is_boundary(value)
    return _BOUNDARY in value[-2000:]


def decode(record: Record, modes: Modes, columns: Columns | None = None) -> Found:
    """Return what `record` says, without rows where no `columns` are given; MalformedRecord."""
    if record.value is None:
        return Found(Heartbeat(record.offset))
    try:
        value = record.value
        if value.startswith(_SCHEMA):
            value = bytes(_enveloped.decode(value).payload)
        found = _bare.decode(value)
        source = found.source
        if found.op in ("c", "u", "d") and source is not None:
            _images(found, TableName(source.schema, source.table), columns)
        event = events.of(found, record, lambda text: _content(text, modes))
        if columns is not None and isinstance(event, Change) and record.run is None:
            raise ValueError("a row does not say which run it is of (extended.headers.enabled)")
        return Found(event, record.run, _link(source))
    except events.UNREADABLE as error:
        raise events.malformed(record, str(error)) from error


def reader(config: Config) -> Callable[[Record], Event]:
    """Return what reads a record by itself in the configured profile, in this one without its rows."""
    modes = connectors.modes_of(config)
    if modes is None:
        return events.decode
    return lambda record: decode(record, modes).event


def _images(found: _Wire, table: TableName, columns: Columns | None) -> None:
    """Turn the values of the row images into PostgreSQL's text."""
    of = None if columns is None or table == BEAT else columns(table)
    found.before = _texts(found.before, of, table)
    found.after = _texts(found.after, of, table)


def _texts(
    image: dict[str, Any] | None, of: Mapping[str, Codec] | None, table: TableName
) -> Row | None:
    if image is None:
        return None
    if of is None:
        return {}
    texts: Row = {}
    for name, value in image.items():
        read = of.get(name)
        if read is None:
            raise ValueError(f"{table} has no column {name} here, or not one that is carried")
        try:
            texts[name] = None if value is None else read(value)
        except ValueError as error:
            raise ValueError(f"{table}.{name}: {error}") from error
    return texts


def _link(source: _Source | None) -> int | None:
    if source is None or source.sequence is None:
        return None
    before = _sequence.decode(source.sequence)[0]
    return None if before is None else int(before)


def _content(text: str, modes: Modes) -> bytes:
    """Return a logical message's content, which is written as binary data are."""
    if modes.binary == "hex":
        return bytes.fromhex(text)
    return events.base64_bytes(text.replace("-", "+").replace("_", "/"))  # of either alphabet
