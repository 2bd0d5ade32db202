"""The files that bring the schema cdc forward keep the rules that running daemons rely on."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from cdc import resources, state

NUMBERS = range(1, state.VERSION + 1)


def _text(number: int) -> str:
    return resources.text(state._file(number))


def _oldest(number: int) -> int:
    """Return which programs a version lets write beside it, by the row it leaves."""
    rows = re.findall(r"^INSERT INTO cdc\.version \(version(, oldest)?\) VALUES \((.+)\);$",
                      _text(number), re.MULTILINE)  # fmt: skip
    assert 1 == len(rows), f"version {number} must leave one row"
    values = [int(value) for value in rows[0][1].split(",")]
    assert number == values[0]
    return values[1] if rows[0][0] else 1


def test_every_version_has_one_file() -> None:
    """The program works with the newest file there is, and each tells its own number."""
    files = [path.name for path in Path(resources.path("schemas")).glob("replica*.sql")]

    assert sorted(files) == sorted(Path(state._file(number)).name for number in NUMBERS)
    assert all(_oldest(number) <= number for number in NUMBERS)


def test_only_what_fences_running_daemons_may_shut_them_out() -> None:
    """A version that older programs may not write beside ends what they have open, in the same transaction."""
    fence = "UPDATE cdc.position SET generation = generation + 1;"

    for before, number in itertools.pairwise(NUMBERS):
        assert _oldest(number) >= _oldest(before)
        assert (_oldest(number) > _oldest(before)) == (fence in _text(number)), number
