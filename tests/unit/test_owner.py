"""What may be taken off a server, and who must confirm what."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cdc import leaving
from cdc.commands import confirmed
from cdc.errors import UsageError
from cdc.leaving import Owner

MADE = Owner("c", made=True, owns=0, elsewhere=0, sessions=0, ours=False)


def test_a_role_that_setup_made_goes_with_its_rights() -> None:
    """Its rights are revoked with it, so that nothing of it is left."""
    (step,) = leaving.role_steps(MADE, "c")

    assert step.statement is not None
    assert 'DROP OWNED BY "c";\nDROP ROLE "c"' == step.statement.as_string()


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"made": False}, "it was there before `cdc setup`"),
        ({"ours": True}, "it is who asks"),
        ({"owns": 3}, "it owns 3 objects"),
        ({"elsewhere": 1}, "in other databases"),
        ({"sessions": 2}, "2 sessions are logged in"),
    ],
)
def test_any_other_role_stays_with_a_reason(other: dict[str, Any], says: str) -> None:
    """What was there before, owns something or is in use is never dropped."""
    (step,) = leaving.role_steps(dataclasses.replace(MADE, **other), "c")

    assert step.statement is None
    assert says in step.what


def test_another_may_drop_the_role_that_asks() -> None:
    """What is printed for a DBA has the daemon's own role too, which that role cannot drop itself."""
    asks = dataclasses.replace(MADE, ours=True)

    assert [None, True] == [
        step.statement and True
        for by_another in (False, True)
        for step in leaving.role_steps(asks, "c", by_another=by_another)
    ]


def test_only_the_name_confirms(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes is listed in any case; another name, or nobody to type it, is an error."""
    confirmed.by_name("to go", "app", ["this", "that"], "app")
    for given, says in (("App", "is not app"), (None, "nobody is there")):
        with pytest.raises(UsageError, match=says):
            confirmed.by_name("to go", "app", ["this"], given)

    assert "to go:\n  this\n  that\n" in capsys.readouterr().err
