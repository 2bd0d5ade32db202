"""Who holds the lock that a write waits for: looked up on another session while it waits.

Afterwards it cannot be known any more: PostgreSQL's error only says that the wait was too long.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from cdc import postgres
from cdc.errors import Unreachable

log = logging.getLogger(__name__)

#: Seconds that a write may take before it is looked whether it waits, and between two looks.
_PATIENCE = 3.0
_EVERY = 1.0

_BLOCKERS = """
SELECT p.pid, coalesce(nullif(a.application_name, ''), 'no application name'),
       coalesce(a.usename::text, '?'), to_char(a.xact_start AT TIME ZONE 'UTC', 'HH24:MI:SS'),
       a.state, (SELECT to_char(min(waitstart) AT TIME ZONE 'UTC', 'HH24:MI:SS') FROM pg_locks
                  WHERE pid = %(pid)s AND NOT granted)
  FROM unnest(pg_blocking_pids(%(pid)s)) AS p (pid) LEFT JOIN pg_stat_activity a USING (pid)
"""


class Blockers:
    """Watches the writes of one daemon's sessions, in a thread of its own until closed."""

    def __init__(self, dsn: str, application: str) -> None:
        self._dsn, self._application = dsn, application
        self._write: tuple[int, float] | None = None
        self._seen: tuple[tuple[int, float], str] | None = None
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def watching(self, conn: psycopg.Connection[Any]) -> Iterator[None]:
        """Look, while the body takes long, for what `conn` waits for; its error then tells."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="blockers", daemon=True)
            self._thread.start()
        write = self._write = (conn.info.backend_pid, time.monotonic())
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            if self._seen is not None and self._seen[0] == write:
                error.add_note(self._seen[1])
            raise
        finally:
            self._write = None

    def close(self) -> None:
        """Let the thread end; a look under way is not waited for."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_EVERY):
            write = self._write
            if write is None or time.monotonic() - write[1] < _PATIENCE:
                continue
            with contextlib.suppress(psycopg.Error, Unreachable):
                found = look(self._dsn, self._application, write[0])
                if found is not None and (write, found) != self._seen:
                    self._seen = (write, found)
                    log.warning("waiting for %s", found)


def look(dsn: str, application: str, pid: int) -> str | None:
    """Say who holds the lock that server process `pid` waits for, None when it waits for none."""
    with contextlib.closing(postgres.connect(dsn, application, autocommit=True)) as conn:
        found = conn.execute(_BLOCKERS, {"pid": pid}).fetchall()
    if not found:
        return None
    since = f", since {found[0][-1]} UTC" if found[0][-1] else ""
    return "a lock held by " + " and ".join(_one(*row[:-1]) for row in found) + since


def _one(pid: int, application: str, role: str, since: str | None, state: str | None) -> str:
    if pid == 0:
        return "a prepared transaction (pg_prepared_xacts)"
    # Without pg_read_all_stats the times of other roles' sessions cannot be seen.
    began = f", in a transaction since {since} UTC" if since else ""
    return (
        f"server process {pid} ({application}, role {role}{began}{', ' + state if state else ''})"
    )
