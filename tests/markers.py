"""The truth about lag, by other means than the product's: rows with the time they were written.

Everything runs on one machine here, so all clocks are one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psycopg

TABLE = "CREATE TABLE marker (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz)"

#: Seconds between two rows.
EVERY = 0.1


class Markers:
    """Writes rows on the primary, and tells when the newest one that a replica shows was written."""

    def __init__(self, primary: str, replica: str) -> None:
        self.frozen = False  # the replica is stopped or dead: what it shows does not change
        self.committed = 0.0  # when the newest row was written that is known to be committed
        self._primary, self._replica = primary, replica
        self._reader: psycopg.Connection[tuple[float]] | None = None
        self._newest = 0.0
        self._end, self._pause = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def shown(self) -> float:
        """Return when the newest row on the replica was written."""
        if self.frozen:
            return self._newest
        if self._reader is None or self._reader.closed:
            self._reader = psycopg.connect(self._replica, autocommit=True)
        try:
            row = self._reader.execute(
                "SELECT extract(epoch FROM max(at))::float8 FROM marker"
            ).fetchone()
        except psycopg.OperationalError:  # the session of a server that was killed
            self._reader.close()
            return self.shown()
        self._newest = (row and row[0]) or self._newest
        return self._newest

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Write nothing meanwhile."""
        self._pause.set()
        try:
            yield
        finally:
            self._pause.clear()

    def close(self) -> None:
        self._end.set()
        if self._reader is not None:
            self._reader.close()

    def _write(self) -> None:
        while not self._end.wait(EVERY):
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self._primary, autocommit=True, connect_timeout=5) as conn,
            ):
                while not self._end.wait(EVERY):
                    if not self._pause.is_set():
                        row = conn.execute(
                            "INSERT INTO marker (at) VALUES (clock_timestamp())"
                            " RETURNING extract(epoch FROM at)::float8"
                        ).fetchone()
                        self.committed = row[0] if row else self.committed


def now() -> float:
    return time.time()
