"""Commits on their way: in the log, so perhaps applied on a replica, but not yet visible.

A commit reaches the log, then waits (for a synchronous standby, or only for the processor), then
becomes visible to others. Until then it holds the lock on its own transaction id, which is how it
is seen here; a snapshot does not tell it from one that has not begun to commit.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from typing import Any

import psycopg

#: Sessions idle inside a transaction have not begun to commit. What other roles' sessions do is
#: hidden from a role without pg_read_all_stats: then they count as committing.
_LOCKS = """
SELECT l.transactionid::text::bigint, coalesce(l.pid, 0),
       a.state IS NULL OR a.wait_event IS NOT DISTINCT FROM 'SyncRep'
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
   AND l.pid IS DISTINCT FROM pg_backend_pid()
   AND coalesce(a.state, 'active') NOT LIKE 'idle in transaction%'
"""


@dataclasses.dataclass(frozen=True, slots=True)
class _Commit:
    txid: int
    pid: int
    waits: bool


def settle(
    primary: psycopg.Connection[Any], limit: float, applied: Collection[int]
) -> tuple[int, ...]:
    """Wait until every transaction that may be committing now is visible or gone.

    Returns () then. After `limit` seconds, the server process ids (0 for a prepared transaction)
    of those that wait for a standby, whose state is hidden, or that a replica has `applied` (its
    last txids): their rows cannot be judged. Any other has run a statement for longer than `limit`
    since, which a commit never does.
    """
    pending = {commit.txid: commit for commit in _running(primary)}
    until = time.monotonic() + limit
    pause = 0.001
    while pending and time.monotonic() < until:
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
        running = {commit.txid: commit for commit in _running(primary)}
        pending = {txid: running[txid] for txid in pending if txid in running}
    seen = {txid % (1 << 32) for txid in applied}
    return tuple(sorted({c.pid for c in pending.values() if c.waits or c.txid in seen}))


def told(pids: Collection[int]) -> str:
    """Return what is said of commits that do not end."""
    return (
        "commits on the primary do not become visible (a synchronous standby does not answer?): "
        f"server processes {', '.join(map(str, pids))}"
    )


def _running(primary: psycopg.Connection[Any]) -> list[_Commit]:
    return [_Commit(*row) for row in primary.execute(_LOCKS)]
