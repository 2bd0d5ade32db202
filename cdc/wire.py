"""The fields of Debezium's JSON that are read, of every kind of record; others are tolerated."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: PostgreSQL has 64 bits for a transaction number or LSN; its timestamps end before 2**53 ms.
_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Source(msgspec.Struct, gc=False):
    schema: str = ""
    table: str = ""
    txId: _Number | None = None  # noqa: N815 -- Debezium's field name
    lsn: _Number | None = None


class _Block(msgspec.Struct, gc=False):
    total_order: _Number


class _Logical(msgspec.Struct):
    prefix: str
    content: str


class _Count(msgspec.Struct):
    data_collection: str
    event_count: _Number


class Wire(msgspec.Struct, gc=False):
    """A record: a change or message (`op`), a boundary (`status`), or a heartbeat (neither)."""

    op: str | None = None
    before: dict[str, str | None] | None = None
    after: dict[str, str | None] | None = None
    source: Source | None = None
    transaction: _Block | None = None
    message: _Logical | None = None
    status: str | None = None
    id: str | None = None
    event_count: _Number | None = None
    data_collections: list[_Count] | None = None
    ts_ms: _Milliseconds | None = None
