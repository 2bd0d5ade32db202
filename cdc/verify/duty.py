"""The share of its time in which the primary works for us, and the rest that is owed for work done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

#: Seconds of idleness, at the whole of a processor, that count as rest taken beforehand.
_IN_HAND = 2.0


class Duty:
    """Keeps what the primary does for us at a `share` of the time, above 0 and up to 1.

    Whatever makes the primary idle is rest: a replica that is read alone, one that is waited for,
    the client's own work. Of rest taken beforehand a little is kept in hand, and never more.
    """

    def __init__(self, share: float, now: float) -> None:
        self.share = share
        self.worked = 0.0
        self._paid = now - _IN_HAND * share  # it has done nothing for us before

    def work(self, seconds: float, now: float) -> None:
        """Count `seconds` of work that have ended `now`."""
        self.worked += seconds
        earliest = now - seconds - _IN_HAND * self.share
        self._paid = max(self._paid, earliest) + seconds / self.share

    def owed(self, now: float) -> float:
        """Return the seconds to rest before there is more to do."""
        return max(0.0, self._paid - now)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Count what happens inside as work."""
        started = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self.work(now - started, now)

    def rest(self) -> None:
        """Rest as long as is owed."""
        time.sleep(self.owed(time.monotonic()))
