"""Random damage to real streams (tests/fuzz.py): a thousand cases here, a hundred thousand by make fuzz."""

from __future__ import annotations

import fuzz
import pytest
from mutants import mutant

from cdc import reading
from cdc.ledger import Ledger


def test_damaged_streams_are_applied_exactly_or_halt() -> None:
    """Whatever is dropped, doubled, swapped, cut or altered, no row is lost, doubled or torn."""
    outcomes = fuzz.attempts(range(1000))

    assert 1000 == outcomes.total()
    assert {"all applied", "not all came", "BrokenStream", "MalformedRecord"} <= set(outcomes)


def test_how_much_is_read_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read two records at a time, each case has the outcome that it has read by hundreds."""
    numbers = range(1000, 1300)
    expected = [fuzz.attempt(number) for number in numbers]

    monkeypatch.setattr(reading, "_RECORDS", 2)

    assert expected == [fuzz.attempt(number) for number in numbers]


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
