"""Change events: what one record of the topic says.

A record is Debezium's JSON without schema as the exact profile writes it (docs/capture.md): row
images are PostgreSQL's own text, one object per row, `null` for NULL. `decode` turns it into one
of the event types below or raises MalformedRecord; it never guesses. `cdc.stock` reads what the
stock profile writes.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import re
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from cdc import origins
from cdc.errors import MalformedRecord
from cdc.names import TableName
from cdc.origins import Origin
from cdc.wire import Wire

#: The header of each BEGIN in which the capture plugin says what the transaction follows.
LINK = "cdc.previous"

HEARTBEAT_PREFIX = "cdc.heartbeat"
BARRIER_PREFIX = "cdc.barrier"


class Unchanged(enum.Enum):
    """The value of a column whose unchanged, out-of-line (TOAST) value the WAL does not repeat."""

    UNCHANGED = "unchanged"

    def __repr__(self) -> str:
        return "UNCHANGED"


UNCHANGED: Final = Unchanged.UNCHANGED

Value = str | None | Literal[Unchanged.UNCHANGED]
Row = dict[str, Value]


# Structs rather than dataclasses: one is made per row, and msgspec makes them several times faster.
# Of many, Python's search for cycles need not know (`gc=False`): they form none.
class Record(msgspec.Struct, frozen=True, gc=False):
    """A record as it lies in the topic; `offset` is its own, the next to read is one more.

    `link` and `origin` are what its headers LINK and `origins.HEADER` say, and `appended_ms` when it
    was made for the topic (milliseconds since 1970, the connector's clock), where it is a boundary.
    `run` is which start of its task Debezium says a row is of; it is asked for in the stock profile.
    """

    topic: str
    partition: int
    offset: int
    leader_epoch: int | None
    value: bytes | None
    link: bytes | None = None
    origin: bytes | None = None
    appended_ms: int | None = None
    run: bytes | None = None


class Begin(msgspec.Struct, frozen=True):
    """The start of a source transaction, whose first record in the log stands at `lsn`.

    `previous` is the place after which the connector has left out no commit: the END before this
    one, or where it began. It and `origin` are None from a connector that is not the plugin's.
    `commit_ms` is the commit time in milliseconds since 1970, as in END.
    """

    txid: int
    lsn: int
    previous: int | None
    offset: int
    origin: Origin | None = None
    commit_ms: int | None = None


class End(msgspec.Struct, frozen=True):
    """The end of a source transaction: its commit.

    `lsn` is the end of the commit record. `counts` are events per `schema.table`, logical messages
    left out; `total` includes them. `commit_ms` is the commit time in milliseconds since 1970,
    `appended_ms` what the record says.
    """

    txid: int
    lsn: int
    total: int
    counts: dict[str, int]
    commit_ms: int
    offset: int
    leader_epoch: int | None
    appended_ms: int | None = None


class Change(msgspec.Struct, frozen=True, gc=False):
    """One row inserted, updated, deleted, or a table truncated.

    `order` is the event's number within its transaction, from 1, `size` the record's bytes. Not
    `marked` is a promise that no value is UNCHANGED.
    """

    op: Literal["c", "u", "d", "t"]
    table: TableName
    before: Row | None
    after: Row | None
    txid: int
    lsn: int
    order: int
    offset: int
    size: int
    marked: bool = True


class Message(msgspec.Struct, frozen=True):
    """A logical message (pg_logical_emit_message); `txid` is None for a non-transactional one."""

    prefix: str
    content: bytes
    txid: int | None
    lsn: int
    order: int | None
    offset: int


class Heartbeat(msgspec.Struct, frozen=True):
    """Debezium's own heartbeat or a tombstone: says nothing about the primary."""

    offset: int


Event = Begin | End | Change | Message | Heartbeat


_wire = msgspec.json.Decoder(Wire)

#: Finds U+0001, with which the capture plugin marks values; twice as fast as `in`.
_marked = re.compile(rb"\\u0001").search

#: Each table's name is one object: that it is the one before can be told at a glance.
_table = functools.lru_cache(maxsize=4096)(TableName)

#: Debezium counts logical messages under a Java object's name that differs each time.
_MESSAGE_COLLECTION = "LogicalDecodingMessageId@"


def is_boundary(value: bytes | None) -> bool:
    """Tell a BEGIN or END without decoding it: Debezium writes `status` first."""
    return value is not None and value.startswith(b'{"status"')


def decode(record: Record) -> Event:
    """Return the event that `record` carries; MalformedRecord if it is not one."""
    if record.value is None:
        return Heartbeat(record.offset)
    try:
        wire = _wire.decode(record.value)
        if marked := _marked(record.value) is not None:
            wire.before, wire.after = _unmark(wire.before), _unmark(wire.after)  # type: ignore[assignment]  # dict is invariant
        return of(wire, record, base64_bytes, marked=marked)
    except UNREADABLE as error:
        raise malformed(record, str(error)) from error


#: What a record that no connector wrote can raise while it is read.
UNREADABLE = (msgspec.MsgspecError, ValueError, KeyError, IndexError, RecursionError)


def of(
    wire: Wire, record: Record, content: Callable[[str], bytes], *, marked: bool = True
) -> Event:
    """Return the event that `wire` says, its rows as they are; ValueError if it is none.

    `content` reads what a logical message holds; `marked` is as in Change.
    """
    if wire.op is not None:
        return _row_or_message(wire, record, content, marked)
    if wire.status is not None:
        return _boundary(wire, record)
    if wire.ts_ms is not None and wire.source is None:
        return Heartbeat(record.offset)
    raise ValueError("it is neither a change event, a transaction boundary nor a heartbeat")


def _row_or_message(
    wire: Wire, record: Record, content: Callable[[str], bytes], marked: bool
) -> Event:
    source = wire.source
    if source is None or source.lsn is None:
        raise ValueError("it has no source.lsn" if wire.op != "r" else _SNAPSHOT)
    order = wire.transaction.total_order if wire.transaction else None
    if wire.op == "m":
        if wire.message is None:
            raise ValueError("a logical message without its content")
        return Message(
            wire.message.prefix, content(wire.message.content),
            source.txId, source.lsn, order, record.offset,
        )  # fmt: skip
    if wire.op == "r":
        raise ValueError(_SNAPSHOT)
    if wire.op not in ("c", "u", "d", "t"):
        raise ValueError(f"unknown operation {wire.op!r}")
    if source.txId is None or order is None:
        raise ValueError("a row without its transaction (provide.transaction.metadata is off?)")
    if (wire.op in ("c", "u") and wire.after is None) or (wire.op == "d" and wire.before is None):
        raise ValueError(f"operation {wire.op!r} without its row image")
    if not source.table or not source.schema:
        raise ValueError("a row without its table")
    return Change(
        wire.op,  # type: ignore[arg-type]  # one of the four, tested above
        _table(source.schema, source.table),
        wire.before,  # type: ignore[arg-type]  # dict is invariant
        wire.after,  # type: ignore[arg-type]  # dict is invariant
        source.txId,
        source.lsn,
        order,
        record.offset,
        len(record.value or b""),
        marked,
    )


_SNAPSHOT = (
    "snapshot events (op r) do not come from commits; fill tables with `cdc bootstrap --table`"
)


#: `int` would read more than Debezium writes: signs, spaces, underscores, other scripts' digits.
_ID = re.compile(r"([0-9]{1,18}):([0-9]{1,18})")


def _boundary(wire: Wire, record: Record) -> Begin | End:
    found = _ID.fullmatch(wire.id or "")
    if found is None:
        raise ValueError("its id is not a transaction number and an LSN")
    txid, lsn = int(found[1]), int(found[2])
    if wire.status == "BEGIN":
        link, origin = _previous(record.link), origins.parse(record.origin)
        return Begin(txid, lsn, link, record.offset, origin, wire.ts_ms)
    if wire.status != "END":
        raise ValueError(f"unknown transaction status {wire.status!r}")
    if wire.event_count is None or wire.ts_ms is None:
        raise ValueError("an END without event_count or time")
    counts = dict[str, int]()
    for c in wire.data_collections or ():
        if _MESSAGE_COLLECTION not in c.data_collection:
            # Two tables may be one text: "a"."b.c" and "a.b"."c".
            counts[c.data_collection] = counts.get(c.data_collection, 0) + c.event_count
    return End(
        txid, lsn, wire.event_count, counts, wire.ts_ms,
        record.offset, record.leader_epoch, record.appended_ms,
    )  # fmt: skip


def _previous(link: bytes | None) -> int | None:
    if link is None:
        return None
    if not link.isdigit():
        raise ValueError(f"its header {LINK} is no place in the log: {link[:20]!r}")
    return int(link)


def base64_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"message content is not base64: {error}") from error


def _unmark(row: dict[str, str | None] | None) -> Row | None:
    """Undo the capture plugin's escape: U+0001 alone means unchanged, one in front is dropped."""
    if row is None:
        return None
    return {
        name: value
        if value is None or value[:1] != "\x01"
        else UNCHANGED
        if value == "\x01"
        else _strip(value)
        for name, value in row.items()
    }


def _strip(value: str) -> str:
    if value[1] != "\x01":
        raise ValueError(
            "a value has a single U+0001 in front, which the capture plugin never writes"
        )
    return value[1:]


def malformed(record: Record, why: str) -> MalformedRecord:
    return MalformedRecord(
        f"a record of the topic cannot be read: {why}",
        safe="nothing of it was applied, and nothing after it; the replica is consistent as of "
        "its position",
        next="run `cdc connectors diff`: the connector must be the shipped one of the configured "
        "profile, and nobody else may write to the topic; then restart, or "
        "`cdc bootstrap --overwrite` if foreign records stay in the topic",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
    )
