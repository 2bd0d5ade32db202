"""The size of chunks follows the speed of the primary, within bounds, and so does its rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc.verify.duty import Duty
from cdc.verify.ranges import LINED, SCATTERED, Order, Pace

ORDERS = pytest.mark.parametrize("order", [LINED, SCATTERED], ids=["lined", "scattered"])


@pytest.mark.parametrize(
    ("order", "least", "most"), [(LINED, 1_000, 250_000), (SCATTERED, 10_000, 1_000_000)]
)
@given(chunks=st.lists(st.tuples(st.integers(0, 1_000_000), st.floats(0, 100)), max_size=20))
def test_a_chunk_is_never_tiny_nor_huge(
    order: Order, least: int, most: int, chunks: list[tuple[int, float]]
) -> None:
    """Whatever was measured, the next chunk has 1,000 to 250,000 rows, or 10,000 to a million."""
    pace = Pace(order)
    for rows, seconds in chunks:
        pace = pace.after(rows, seconds)

    assert least <= pace.rows <= most


@ORDERS
def test_a_chunk_takes_about_the_target_time(order: Order) -> None:
    """At a steady rate the size becomes what that rate reads in the target time."""
    pace = Pace(order)
    for _ in range(30):
        pace = pace.after(pace.rows, pace.rows / 80_000)

    assert round(80_000 * order.target) == pace.rows


@given(
    st.floats(0.01, 1),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), min_size=1, max_size=50),
)
def test_the_share_of_time_is_kept(share: float, steps: list[tuple[float, float]]) -> None:
    """Over any time the work is its share and a little at most, however idle the primary was before."""
    duty, now, done, ends = Duty(share, 0.0), 0.0, 0.0, list[tuple[float, float]]()
    for seconds, idle in steps:
        now += duty.owed(now) + seconds
        duty.work(seconds, now)
        ends.append((now - seconds, done))
        done += seconds
        # Since the beginning of any step: what was done, its last step apart, which was begun in time.
        for began, before in ends:
            assert (
                done - seconds - before <= share * (now - seconds - began) + 2.0 * share**2 + 1e-6
            )
        now += idle


def test_idleness_of_any_cause_is_rest() -> None:
    """With a quarter, three times the work is rested, beside what was idle meanwhile or just before."""
    duty = Duty(0.25, 100.0)
    duty.work(1.0, 101.0)
    assert 2.5 == duty.owed(101.0)
    assert 0.5 == duty.owed(103.0)
    duty.work(1.0, 112.0)
    # Seven seconds were idle, half a second of it counts.
    assert 2.5 == duty.owed(112.0)
    assert 0.0 == Duty(1.0, 0.0).owed(0.0)
