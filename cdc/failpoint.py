"""Failpoints: named instants at which a test may stop, kill or fail the program.

They are in the daemon's loop and in a bootstrap that fills tables beside it.

Inert: nothing is armed unless a program imports this module and calls `arm`, which no module of
the package does and no setting can. Tests start the daemon through such a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

#: In the order of one batch. `copy.open`: rows are sent, COPY has not ended; `stage.filled`: the
#: staging table holds the rows, no statement has used them; `batch.committed`: not yet told Kafka.
Point = Literal[
    "session.locked",
    "batch.begun",
    "copy.open",
    "stage.filled",
    "rows.written",
    "position.moved",
    "batch.committed",
    "batch.acknowledged",
]

#: In the order of a table that is filled beside the running stream. `fill.copied`: all rows of the
#: snapshot are there; `fill.followed`: so is what came since; `fill.locked`: the daemon waits;
#: `fill.merged`: the table is right, nothing is committed.
FillPoint = Literal[
    "fill.marked",
    "fill.copied",
    "fill.followed",
    "fill.locked",
    "fill.merged",
    "fill.joined",
]

_armed: Callable[[Point | FillPoint], None] | None = None


def arm(hook: Callable[[Point | FillPoint], None] | None) -> None:
    """Call `hook` at every failpoint from now on; None disarms."""
    global _armed  # noqa: PLW0603 -- one switch per process is the point of it
    _armed = hook


def reach(point: Point | FillPoint) -> None:
    """Tell an armed hook that `point` is reached."""
    if _armed is not None:
        _armed(point)
