"""The machine's time without its jumps: durations are right also when somebody sets the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds from which on a difference is a jump; less is a clock being slewed.
JUMP = 2.0


class Clock:
    """Seconds since 1970 that go on evenly, until `jump` says that the clock was set."""

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = wall() - steady()

    def now(self) -> float:
        return self._steady() + self._ahead

    def jump(self) -> float:
        """Return by how many seconds the clock was set since the last call, 0 if it was not.

        From then on `now` follows it: what was remembered before must be moved by as much.
        """
        ahead = self._wall() - self._steady()
        jumped, self._ahead = ahead - self._ahead, ahead
        return jumped if abs(jumped) >= JUMP else 0.0
