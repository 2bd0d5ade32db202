"""The failure policy: what is tried again and what stops replication, decided by SQLSTATE."""

from __future__ import annotations

import random
from typing import NoReturn

import psycopg

from cdc import postgres
from cdc.errors import NotReady, Unreachable

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


def refuse(error: psycopg.Error) -> NoReturn:
    """Raise for what the replica refuses outside of rows: rights, a read-only server."""
    if error.sqlstate is None:  # not the server's word: a defect of ours
        raise error
    raise NotReady(
        f"the replica refuses what replication needs: {postgres.first_line(error)}",
        safe="the open batch was rolled back; the replica is consistent as of its position",
        next="run `cdc setup`: it gives the daemon's role its rights and says what it cannot give",
        sqlstate=error.sqlstate,
    ) from error


def told(error: Exception) -> str:
    """Return what is waited for, on one line."""
    if isinstance(error, Unreachable):
        return error.what
    state = getattr(error, "sqlstate", None)
    message = isinstance(error, psycopg.Error) and error.diag.message_primary
    said = f"the replica: {message or str(error).partition(chr(10))[0]}"
    said += f" ({state})" if state else ""
    return "; ".join([said, *getattr(error, "__notes__", ())])
