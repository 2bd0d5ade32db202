"""A mark in the primary's log, that what follows it can be waited for."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any

import psycopg
from psycopg import sql

from cdc import lsn as lsns
from cdc.config import Config
from cdc.events import BARRIER_PREFIX
from cdc.stock import BEAT


@dataclasses.dataclass(frozen=True, slots=True)
class Mark:
    """A barrier on the primary: its transaction's END lies above `lsn`.

    So does the END of every transaction that commits later, while all that had committed before
    the barrier was written end at or below `lsn`. `at` is the primary's clock then, in seconds
    since 1970.
    """

    token: str
    lsn: int
    at: float


def emit(primary: psycopg.Connection[Any], config: Config) -> Mark:
    """Write a barrier in a transaction of its own; `primary` must not be inside one."""
    token = secrets.token_hex(16)
    stock_ = config.connect.profile == "stock"
    beat = sql.SQL("UPDATE {} SET beat = beat + 1").format(BEAT.sql)
    with primary.transaction():
        if stock_:
            primary.execute(beat)
        row = primary.execute(
            "SELECT pg_logical_emit_message(true, %s, %s),"
            " extract(epoch FROM clock_timestamp())::float8",
            [BARRIER_PREFIX, token],
        ).fetchone()
    assert row is not None
    if stock_:
        # Only a later row proves its END (`cdc.runs`).
        primary.execute(beat)
    return Mark(token, lsns.parse(row[0]), row[1])
