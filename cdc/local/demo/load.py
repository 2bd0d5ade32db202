"""Writes to the primary, steadily, until told to stop."""

from __future__ import annotations

import random
import threading
import time
from types import TracebackType
from typing import Self

import psycopg

from cdc.local.demo import shop

#: Source transactions per second, over all writers.
RATE = 200.0
WRITERS = 3


class Load:
    """A context in which the shop is busy; `commits` counts what was committed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._counts = [0] * WRITERS
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._write, args=[number], daemon=True)
            for number in range(WRITERS)
        ]

    @property
    def commits(self) -> int:
        return sum(self._counts)

    def check(self) -> None:
        """Raise what has ended a writer, if anything has."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the writers after their current transaction; raise what has ended one before."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.check()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        dice = random.Random(number)  # noqa: S311 -- which order is shipped is no secret
        pause = WRITERS / RATE
        try:
            with psycopg.connect(self._dsn, autocommit=True) as conn:
                due = time.monotonic()
                while not self._stop.is_set():
                    shop.visit(conn, dice)
                    self._counts[number] += 1
                    # After a stall it goes on at the same rate and does not make up for it.
                    due = max(due + pause, time.monotonic() - pause)
                    self._stop.wait(max(0.0, due - time.monotonic()))
        except BaseException as error:  # noqa: BLE001 -- raised again in the main thread
            self._error = error
