"""The key space in chunks, and how many rows the next one takes."""

from __future__ import annotations

import dataclasses

Key = tuple[str, ...]

#: Rows of the first chunk, and the least and most a chunk may have.
_FIRST, _LEAST, _MOST = 10_000, 1_000, 250_000

#: Seconds a chunk should take: short enough to hold back nothing, long enough to cost little more
#: per row than one scan. Keys in no order of the table (uuid) make that a matter of size: a page is read
#: for each row of a small chunk and once for all rows of a large one (measured, µs of processor a row:
#: 5.1 at 8,000 rows, 4.2 at 50,000, 3.0 at 100,000, 2.1 at 250,000).
TARGET = 0.5

#: Weight of the newest chunk in the moving average of the rate.
_NEWEST = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Keys above `low` up to and including `high`, as text; None is open."""

    low: Key | None = None
    high: Key | None = None

    @property
    def bounds(self) -> Key:
        """The values of both ends, as many as there are."""
        return (*(self.low or ()), *(self.high or ()))


@dataclasses.dataclass(frozen=True, slots=True)
class Pace:
    """Decides the size of the next chunk.

    `rate` is an exponentially weighted average of the primary's rows per second.
    """

    rate: float | None = None

    @property
    def rows(self) -> int:
        if self.rate is None:
            return _FIRST
        return round(max(_LEAST, min(_MOST, self.rate * TARGET)))

    def after(self, rows: int, seconds: float) -> Pace:
        """Return the pace once a chunk of `rows` took `seconds`."""
        if rows == 0 or seconds <= 0:
            return self
        now = rows / seconds
        rate = now if self.rate is None else (1 - _NEWEST) * self.rate + _NEWEST * now
        return Pace(rate)
