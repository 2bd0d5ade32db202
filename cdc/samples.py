"""Samples of the lag, kept on the replica for a week: what `cdc lag history` tells.

The daemon keeps one every ten seconds, in transactions of its own. While the replica does not take
them they wait in memory, up to an hour; a time without any is a gap and shown as one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import NotReady

#: Seconds between two samples, seconds that they are kept, and how many may wait in memory.
EVERY, KEPT, WAITING = 10.0, 7 * 86400.0, 360

#: Twice the time between samples and some slowness: more is a gap.
GAP = 3 * EVERY


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The lag at a moment of the primary's clock (seconds since 1970); None where not known."""

    at: float
    seconds: float | None
    state: str
    backlog: int | None


def keep(stream: str, found: Sequence[Sample]) -> sql.Composed:
    """Return the statement that keeps samples and forgets old ones; it returns one text value."""
    rows = sql.SQL(", ").join(
        sql.SQL("({}, to_timestamp({}), {}, {}, {}::bigint)").format(
            sql.Literal(stream),
            sql.Literal(s.at),
            sql.Literal(s.seconds),
            sql.Literal(s.state),
            sql.Literal(s.backlog),
        )
        for s in found
    )
    return sql.SQL(
        "WITH old AS (DELETE FROM cdc.lag WHERE stream = {stream}"
        " AND at < to_timestamp({oldest})), kept AS (INSERT INTO cdc.lag"
        " (stream, at, seconds, state, backlog) VALUES {rows} ON CONFLICT DO NOTHING RETURNING 1)"
        " SELECT count(*)::text FROM kept"
    ).format(stream=sql.Literal(stream), oldest=sql.Literal(found[-1].at - KEPT), rows=rows)


def read(conn: psycopg.Connection[Any], stream: str, since: float) -> list[Sample]:
    """Return the samples of the last `since` seconds, oldest first; NotReady before `cdc setup`."""
    try:
        rows = conn.execute(
            "SELECT extract(epoch FROM at)::float8, seconds, state, backlog FROM cdc.lag"
            " WHERE stream = %s AND at > clock_timestamp() - make_interval(secs => %s) ORDER BY at",
            [stream, since],
        ).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise NotReady(
            "the schema cdc on the replica is of an older release, or was never made",
            safe="nothing was changed",
            next="run `cdc setup`, which brings it forward",
        ) from None
    return [Sample(*row) for row in rows]


def runs(found: Sequence[Sample]) -> list[list[Sample]]:
    """Return the samples in runs without a gap; what was not known is a gap too."""
    parts: list[list[Sample]] = []
    for sample in found:
        if sample.seconds is None:
            parts.append([])
        elif parts and parts[-1] and sample.at - parts[-1][-1].at <= GAP:
            parts[-1].append(sample)
        else:
            parts.append([sample])
    return [part for part in parts if part]


def csv(found: Sequence[Sample]) -> str:
    """Return the samples as CSV with a header; an unknown lag is an empty field."""
    lines = ["at,lag_seconds,state,backlog_records"]
    for s in found:
        lag = "" if s.seconds is None else f"{s.seconds:.3f}"
        lines.append(f"{moment(s.at)},{lag},{s.state},{'' if s.backlog is None else s.backlog}")
    return "\n".join(lines)


def moment(at: float) -> str:
    """Return a moment in UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
