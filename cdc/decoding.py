"""From records to events, in each profile: what of the log may be handed on to the ledger."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import psycopg

from cdc import barrier, columns, connectors, events, stock
from cdc.config import Config
from cdc.events import Event, Record
from cdc.names import TableName
from cdc.position import RING, Position
from cdc.runs import Runs
from cdc.source import Source

Decode = Callable[[Record], Iterable[Event]]

#: Records looked at first for the run that was applied last, and by how many more each time.
_WINDOW, _MORE = 256, 16


def decoder(
    config: Config,
    conn: psycopg.Connection[Any],
    at: Position,
    tables: Iterable[TableName],
    source: Source,
    *,
    skip_to: int | None,
) -> Decode:
    """Return what reads the log from a position on, or from `skip_to`, where a run begins.

    Raises SchemaMismatch where a column of `tables` cannot be carried exactly.
    """
    modes = connectors.modes_of(config)
    if modes is None:
        return lambda record: [events.decode(record)]
    known = columns.carried(columns.read(conn, tables), modes)
    run = None
    if skip_to is None:
        run = _run_before(source, barrier.bounds(config)[0], at.next_offset)
    done = deque((txid for txid, _ in at.ring), RING)
    runs = Runs(at.applied_lsn if at.ring else None, run, done)
    return lambda record: runs.accept(stock.decode(record, modes, known.get))


def _run_before(source: Source, first: int, offset: int) -> bytes | None:
    """Return which run the last row before `offset` is of; None where the log, from `first`, has none."""
    window = _WINDOW
    while True:
        start, found = max(first, offset - window), None
        for record in itertools.takewhile(lambda r: r.offset < offset, source.ahead(start)):
            found = record.run or found
        if found is not None or start == first:
            return found
        window *= _MORE
