"""Lag: how far behind the primary a replica is, in seconds of the primary's clock.

A heartbeat is a transaction of its own that travels between the data (connectors/postgres.json), so
a heartbeat applied proves that everything committed before it is applied. The age of the newest one
applied, less the time that may pass between two, is never less than the truth by more than that.
"""

from __future__ import annotations


def seconds(now: float, heartbeat_at: float | None, period: float) -> float | None:
    """Return the lag at `now`, or None (unknown) where no heartbeat was applied yet.

    All three in seconds; `now` and `heartbeat_at` by the primary's clock. Never negative.
    """
    if heartbeat_at is None:
        return None
    return max(0.0, now - heartbeat_at - period)
