"""What may be mended, and what is left to its own events."""

from __future__ import annotations

import dataclasses

import pytest

from cdc.names import TableName
from cdc.verify.findings import Finding, Kind
from cdc.verify.reading import Image, Row
from cdc.verify.repair import unmoved

OURS = Row(Image(1, "p1"), ("7", "x"))
THEIRS = Image(2, "r1")
FOUND = Finding("r1", TableName("s", "t"), "different", {"id": "7"}, {}, ("7",), OURS, THEIRS)


@pytest.mark.parametrize(
    ("kind", "found", "ours", "theirs", "mended"),
    [
        ("different", THEIRS, OURS, THEIRS, True),
        ("different", THEIRS, OURS, Image(2, "r2"), False),
        ("different", THEIRS, OURS, None, False),
        ("different", THEIRS, None, THEIRS, False),
        ("missing", None, OURS, None, True),
        ("missing", None, None, None, False),
        ("missing", None, OURS, THEIRS, False),
        ("extra", THEIRS, None, THEIRS, True),
        ("extra", THEIRS, OURS, THEIRS, False),
        ("extra", THEIRS, None, None, False),
    ],
)
def test_a_row_that_moved_is_left_alone(
    kind: Kind, found: Image | None, ours: Row | None, theirs: Image | None, *, mended: bool
) -> None:
    """A finding is mended only while the replica has that very row and the primary has, or lacks, one."""
    assert mended == unmoved(dataclasses.replace(FOUND, kind=kind, theirs=found), ours, theirs)


def test_rows_without_key_are_counted_under_the_lock() -> None:
    """Without a key it matters only that the replica has the rows that were found."""
    found = dataclasses.replace(FOUND, kind="missing", keyed=False)

    assert unmoved(found, None, THEIRS)
    assert not unmoved(found, OURS, Image(3, "r2"))
