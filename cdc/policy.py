"""The failure policy: what is tried again and what stops replication, decided by SQLSTATE."""

from __future__ import annotations

import random

import psycopg

#: Classes and codes where the same statement may succeed later (PostgreSQL manual, appendix A):
#: connection exceptions, operator intervention, insufficient resources, and single codes for
#: serialization failure, deadlock, lock not available, idle-in-transaction and transaction timeout, query canceled.
_CLASSES = ("08", "57", "53", "58")
_CODES = frozenset({"40001", "40P01", "55P03", "25P03", "25P04", "57014"})

#: Seconds between tries: doubled each time, up to the last.
_FIRST, _LAST = 0.2, 15.0


def transient(error: psycopg.Error) -> bool:
    """Tell whether waiting may help; a lost connection has no SQLSTATE."""
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state in _CODES or state[:2] in _CLASSES


def pause(failures: int) -> float:
    """Return the seconds to wait after `failures` failures in a row, with jitter."""
    wait = min(_LAST, _FIRST * 2.0 ** min(failures - 1, 10))
    return wait * random.uniform(0.5, 1.0)  # noqa: S311 -- spreads retries, guards no secret
