"""Random damage to real streams (tests/fuzz.py): a thousand cases here, a hundred thousand by make fuzz."""

from __future__ import annotations

import threading

import fuzz
import pytest
from mutants import mutant
from world import World

from cdc import reading
from cdc.ledger import Ledger


def test_damaged_streams_are_applied_exactly_or_halt() -> None:
    """Whatever is dropped, doubled, swapped, cut or altered, no row is lost, doubled or torn."""
    outcomes = fuzz.attempts(range(1000))

    assert 1000 == outcomes.total()
    assert {"all applied", "not all came", "BrokenStream", "MalformedRecord"} <= set(outcomes)


def test_reading_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that reads ahead of the loop at every turn comes to the same outcome in each case."""
    numbers = range(1000, 1300)
    expected = [fuzz.attempt(number) for number in numbers]
    ahead = set[str]()
    stop = World.idle

    def idle(world: World) -> None:
        ahead.add(threading.current_thread().name)
        if threading.current_thread() is threading.main_thread():
            stop(world)

    monkeypatch.setattr(reading, "_RECORDS", 2)
    monkeypatch.setattr(World, "idle", idle)

    assert expected == [fuzz.attempt(number) for number in numbers]
    assert {"reading", "MainThread"} == ahead


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        pytest.param("_count", "if order != opened.total", "if False", id="numbers are not compared"),
        pytest.param(
            "_verdict", "if previous == self.applied and not others", "if not others",
            id="the chain is not followed",
        ),
    ],
)  # fmt: skip
def test_the_fuzzer_finds(name: str, old: str, new: str) -> None:
    """A ledger without one of its checks is found out."""
    with mutant(Ledger, name, old, new), pytest.raises(AssertionError):
        fuzz.attempts(range(1000))
