"""The schedule of blows: the same for a seed, and nothing left out."""

from __future__ import annotations

import itertools

import schedule


def test_a_seed_says_everything() -> None:
    """The same seed gives the same rounds, another one others."""
    first, again, other = (list(itertools.islice(schedule.rounds(seed), 100)) for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_the_first_rounds_strike_everything_once() -> None:
    """A short run leaves nothing out: every victim in every way, daemons at every point."""
    for seed in range(20):
        first = [one.blows[0] for one in itertools.islice(schedule.rounds(seed), schedule.DECK)]

        assert set(schedule.WEIGHTS) == {(blow.target, blow.how) for blow in first}
        assert set(schedule.POINTS) == {blow.point for blow in first if blow.point}


def test_a_thousand_rounds_strike_everything() -> None:
    """Every victim in every way, daemons at every point, two victims at once in about a tenth."""
    for seed in range(5):
        rounds = list(itertools.islice(schedule.rounds(seed), 1000))
        blows = [blow for one in rounds for blow in one.blows]

        assert set(schedule.WEIGHTS) == {(blow.target, blow.how) for blow in blows}
        assert set(schedule.POINTS) == {blow.point for blow in blows if blow.point}
        assert 60 < sum(len(one.blows) == 2 for one in rounds) < 150
        assert all(len({blow.target for blow in one.blows}) == len(one.blows) for one in rounds)
