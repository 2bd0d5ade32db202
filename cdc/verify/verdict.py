"""What readings of a key at both ends, before and after a barrier, prove about it.

`R1` is read on the replica, then the commits on their way become visible, then `S` is read on the
primary, then the replica passes a barrier written after that, then `R2` is read, again the commits
on their way, then `S2`. So the replica had applied nothing at R1 that S does not see, and had
applied everything at R2 that S saw. The proof stands in docs/verify.md.
"""

from __future__ import annotations

import dataclasses
import enum

from cdc.verify.reading import Image


class Verdict(enum.Enum):
    SAME = "same"
    MISSING = "missing"
    EXTRA = "extra"
    DIFFERENT = "different"
    OPEN = "written meanwhile"


@dataclasses.dataclass(frozen=True, slots=True)
class Readings:
    """The four readings of one key; None where there was no row."""

    r1: Image | None
    s: Image | None
    r2: Image | None
    s2: Image | None


def judge(seen: Readings) -> Verdict:
    """Decide one key; OPEN where it was written between the readings."""
    if _equal(seen.s, seen.r1) or _equal(seen.s, seen.r2) or _equal(seen.s2, seen.r2):
        return Verdict.SAME
    # The same version before and after: no event of the key took effect on the replica, so this
    # was its value at the very cut that S saw.
    if seen.r1 is not None and seen.r1 == seen.r2:
        return Verdict.EXTRA if seen.s is None else Verdict.DIFFERENT
    # The same version on the primary: nothing was written, so the replica had to have it at R2.
    if seen.s is not None and seen.s == seen.s2:
        return Verdict.MISSING if seen.r2 is None else Verdict.DIFFERENT
    return Verdict.OPEN


def judge_set(seen: Readings) -> Verdict:
    """Decide the rows of one content in a table without key, by their number and versions.

    Rows have no identity across the ends, so both ends must have kept the same versions: then the
    replica had at S what it has. Equal numbers alone prove nothing: a row that it lacks may be one
    that is being deleted, and its event takes another one away. An image's `hash` is the number of
    rows here.
    """
    if seen.r1 != seen.r2 or seen.s != seen.s2:
        return Verdict.OPEN
    here, there = _count(seen.s), _count(seen.r2)
    if here == there:
        return Verdict.SAME
    return Verdict.MISSING if here > there else Verdict.EXTRA


def _equal(first: Image | None, second: Image | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.hash == second.hash


def _count(image: Image | None) -> int:
    return 0 if image is None else image.hash
