"""One hook taking one notice: what all kinds have in common."""

from __future__ import annotations

from typing import Protocol

from cdc.alert.machine import Notice


class NotTaken(Exception):  # noqa: N818 -- named by what is the case
    """A hook did not take a notice; `outcome` is one word for counting. No secret is in the text."""

    def __init__(self, outcome: str, what: str) -> None:
        super().__init__(what)
        self.outcome = outcome


class Hook(Protocol):
    """A hook that is told notices one by one; `name` tells it from the others."""

    name: str

    def tell(self, notice: Notice) -> None:
        """Tell it; NotTaken where it could not be told for certain."""
