"""Wait until a replica holds everything that was committed before a point on the primary."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc import lsn as lsns
from cdc.errors import NotReady, WaitTimeout

Connection = psycopg.Connection[Any]

#: Seconds between looks at the position: soon at first, since most waits are short.
_PAUSES = (0.005, 0.01, 0.02, 0.05, 0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where a replica is; `unfilled` tables are registered or being copied.

    `complete_at` is the greatest LSN a table was copied at; `daemon` tells whether one runs.
    """

    applied_lsn: int
    complete_at: int
    unfilled: int
    system_id: str
    timeline: int
    daemon: bool

    def reached(self, lsn: int, timeline: int = 0) -> bool:
        """Tell whether everything that ends at or below `lsn` is there, in every table.

        Before it has followed the primary to `timeline`, its LSNs are not the primary's.
        """
        there = self.unfilled == 0 and self.timeline >= timeline
        return there and self.applied_lsn >= max(lsn, self.complete_at)


def standing(replica: Connection, stream: str, daemon_name: str) -> Standing:
    """Read where the replica is; NotReady when it was not set up or not filled."""
    try:
        row = replica.execute(
            "SELECT p.applied_lsn - '0/0', coalesce(max(t.snapshot_lsn) - '0/0', 0),"
            " count(*) FILTER (WHERE t.state <> 'copied'), p.system_id, p.timeline,"
            " EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %s"
            " AND datname = current_database())"
            " FROM cdc.position p LEFT JOIN cdc.tables t ON t.stream = p.stream"
            " WHERE p.stream = %s GROUP BY p.stream",
            [daemon_name, stream],
        ).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        row = None
    if row is None:
        raise NotReady(
            "the replica was not filled yet",
            safe="nothing was changed",
            next="run `cdc setup`, then `cdc bootstrap`",
        )
    return Standing(int(row[0]), int(row[1]), row[2], row[3], row[4], row[5])


def until(
    look: Callable[[], Standing], lsn: int, timeout: float, replica: str, timeline: int = 0
) -> float:
    """Look until everything up to `lsn` of `timeline` is there; return the seconds it took.

    Raises WaitTimeout saying where the replica is and whether its daemon runs.
    """
    started = time.monotonic()
    looks = 0
    while not (seen := look()).reached(lsn, timeline):
        waited = time.monotonic() - started
        if waited >= timeout:
            raise _timeout(seen, lsn, timeout, replica)
        time.sleep(min(_PAUSES[min(looks // 4, len(_PAUSES) - 1)], max(0.0, timeout - waited)))
        looks += 1
    return time.monotonic() - started


def _timeout(seen: Standing, lsn: int, timeout: float, replica: str) -> WaitTimeout:
    if seen.unfilled:
        why = f"{seen.unfilled} of its tables are not filled yet"
        step = "let `cdc bootstrap` finish (running it again continues)"
    elif seen.daemon:
        why = "its daemon is connected"
        step = "wait longer (--timeout); `cdc status` tells how fast it catches up and what it says"
    else:
        why = "no daemon is connected"
        step = f"start one: `cdc run -r {replica}`"
    return WaitTimeout(
        f"{replica} did not reach {lsns.show(lsn)} within {timeout:g} s: it is at "
        f"{lsns.show(seen.applied_lsn)}, {why}",
        safe="nothing was changed; what the replica holds is consistent as of its position",
        next=step,
        replica=replica,
        lsn=seen.applied_lsn,
    )
