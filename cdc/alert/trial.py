"""A test alert through each hook, at once, without touching what the watcher remembers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from cdc.alert import courier
from cdc.alert.delivery import NotTaken
from cdc.alert.judgement import Level
from cdc.alert.machine import Kind, Notice
from cdc.alert.payload import Frame
from cdc.alert.settings import Hook


def notice(now: float) -> Notice:
    """Return a notice that is over by itself and speaks of no replica."""
    return Notice(
        id=f"test/{now:.3f}",
        kind=Kind.TEST,
        replica="",
        severity=Level.WARNING,
        reason=None,
        summary="a test of cdc-lag-alert: nothing is wrong, nothing is to be done",
        at=now,
        starts_at=now,
        ends_at=now,
    )


def tried(hooks: Sequence[Hook], frame: Frame, now: float) -> dict[str, str | None]:
    """Return for each hook why it did not take a test alert; None where it did."""
    errands = courier.errands(hooks, frame)
    with ThreadPoolExecutor(max(1, len(errands))) as pool:
        asked = {e.name: pool.submit(_trouble, e, notice(now)) for e in errands}
        return {name: future.result() for name, future in asked.items()}


def _trouble(errand: courier.Errand, test: Notice) -> str | None:
    try:
        errand.try_(test)
    except NotTaken as trouble:
        return f"{trouble} ({trouble.outcome})"
    return None
