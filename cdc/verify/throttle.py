"""Hold the scan while a replica is behind: it has other work, and rows on their way are read twice."""

from __future__ import annotations

import collections
import time

from cdc.errors import WaitTimeout
from cdc.verify.ends import Primary, Replica

#: Seconds between two marks by which the lag is measured.
_EVERY = 1.0


class Throttle:
    """Measures each replica's lag by marks in the log; `limit` seconds of it hold the scan."""

    def __init__(self, primary: Primary, limit: float) -> None:
        self._primary, self._limit = primary, limit
        self._marks: collections.deque[tuple[float, int]] = collections.deque()

    def hold(self, replica: Replica) -> None:
        """Return at once, or when a replica too far behind has passed the newest mark.

        It is waited for no longer than its patience lasts: then the scan goes on without waiting
        for it again. May raise psycopg.Error.
        """
        now = time.monotonic()
        if not self._marks or now - self._marks[-1][0] >= _EVERY:
            self._marks.append((now, self._primary.mark()))
        while len(self._marks) > 1 and now - self._marks[1][0] >= self._limit:
            self._marks.popleft()
        written, lsn = self._marks[0]
        if now - written < self._limit or replica.passed(lsn):
            return
        try:
            replica.reach(self._marks[-1][1])
        except WaitTimeout:
            return
