"""A pass over a table finds the rows that differ, and no others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.verify import scan
from cdc.verify.duty import Duty
from cdc.verify.ranges import Key, Order, Range
from cdc.verify.reading import Checksum, Reader

#: Few keys, so that the ends have many in common; values that cancel each other out in a sum.
TABLE = st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=40)
POOL = ThreadPoolExecutor(2)


class Rows:
    """A table by its key; a row's part is its key's last digit, the way it was read is kept."""

    def __init__(self, rows: dict[int, int]) -> None:
        self.rows = rows
        self.listed = 0

    def _within(self, within: Range) -> list[int]:
        low, high = (None if key is None else int(key[0]) for key in (within.low, within.high))
        return [
            k for k in sorted(self.rows) if (low is None or k > low) and (high is None or k <= high)
        ]

    def order(self) -> Order:
        """Let chunks have seven rows: a small table has several."""
        return Order(7, 7, 7, 1.0, ahead=False)

    def prepare(self, order: Order) -> None:
        """Memory lies as it does."""

    def next_key(self, low: Key | None, rows: int) -> Key | None:
        above = self._within(Range(low))
        return (str(above[rows - 1]),) if len(above) >= rows else None

    def _sum(self, keys: Sequence[int]) -> Checksum:
        xor = 0
        for key in keys:
            xor ^= hash((key, self.rows[key]))
        return Checksum(len(keys), xor)

    def checksum(self, within: Range) -> Checksum:
        return self._sum(self._within(within))

    def parts(self, within: Range) -> dict[int, Checksum]:
        keys = self._within(within)
        return {p: self._sum([k for k in keys if k % 10 == p]) for p in {k % 10 for k in keys}}

    def hashes(self, within: Range, parts: Sequence[int]) -> dict[Key, int]:
        found: dict[Key, int] = {
            (str(k),): hash((k, self.rows[k])) for k in self._within(within) if k % 10 in parts
        }
        self.listed += len(found)
        return found


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two rows be listed at once."""
    monkeypatch.setattr(scan, "_LISTED", 2)


@given(TABLE, TABLE, st.sampled_from([1.0, 0.5]))
def test_what_differs_is_found_and_nothing_else(
    ours: dict[int, int], theirs: dict[int, int], share: float
) -> None:
    """Missing, extra and different rows become candidates, each once, on the replica that has them."""
    primary = Rows(ours)
    replicas = {"r1": Rows(theirs), "r2": Rows(dict(ours))}
    duty = Duty(share, time.monotonic())
    chunks = list(
        scan.keyed(cast("Reader", primary), cast("dict[str, Any]", replicas), duty, POOL, None)
    )
    found = [int(key) for chunk in chunks for (key,) in chunk.candidates.get("r1", [])]

    assert sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)) == sorted(found)
    assert not any(chunk.candidates.get("r2") for chunk in chunks)
    assert (len(ours), [True]) == (
        sum(chunk.rows for chunk in chunks),
        [chunk.last for chunk in chunks if chunk.last],
    )
    assert 0 == replicas["r2"].listed
