"""The size of chunks follows the speed of the primary, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdc.verify.ranges import TARGET, Pace


@given(st.lists(st.tuples(st.integers(0, 100_000), st.floats(0, 100)), max_size=20))
def test_a_chunk_is_never_tiny_nor_huge(chunks: list[tuple[int, float]]) -> None:
    """Whatever was measured, the next chunk has 1,000 to 50,000 rows."""
    pace = Pace()
    for rows, seconds in chunks:
        pace = pace.after(rows, seconds)

    assert 1_000 <= pace.rows <= 50_000


def test_a_chunk_takes_about_the_target_time() -> None:
    """At a steady rate the size becomes what that rate reads in the target time."""
    pace = Pace()
    for _ in range(30):
        pace = pace.after(pace.rows, pace.rows / 80_000)

    assert round(80_000 * TARGET) == pace.rows


def test_the_share_of_time_is_kept() -> None:
    """With 25 percent, three times as long as a chunk took is rested, beside the replicas' time."""
    assert 3.0 == Pace(0.25).pause(1.0)
    assert 1.0 == Pace(0.25).pause(1.0, 2.0)
    assert 0.0 == Pace(0.25).pause(1.0, 4.0)
    assert 0.0 == Pace(1.0).pause(1.0)
