"""Restarts of FAILED connector tasks, each later than the one before; pure.

Most causes pass (the primary restarts, the network is away); Debezium gives up on some of them. A
restart loses nothing: the task goes on from its stored offset.
"""

from __future__ import annotations

import dataclasses

#: Seconds before the first restart, doubled with each one, up to the last.
_FIRST, _LAST = 5.0, 600.0

#: Seconds without a failure after which the next one is the first again.
_FORGOTTEN = 600.0


@dataclasses.dataclass(frozen=True, slots=True)
class Healing:
    """`tries` restarts so far, the next not before `next_at`; `failed_at` is when it last failed."""

    tries: int = 0
    next_at: float | None = None
    failed_at: float = 0.0

    def after(self, failed: bool, now: float) -> Healing:
        """Return it after a look at the connector."""
        if failed:
            first = now + _FIRST if self.next_at is None else self.next_at
            return dataclasses.replace(self, next_at=first, failed_at=now)
        if now - self.failed_at >= _FORGOTTEN:
            return Healing()
        return self

    def due(self, now: float) -> bool:
        """Tell whether what has failed, as just seen, is to be restarted now."""
        return self.next_at is not None and self.failed_at == now and now >= self.next_at

    def tried(self, now: float) -> Healing:
        """Return it after a restart."""
        pause = min(_LAST, _FIRST * 2.0 ** (min(self.tries, 10) + 1))
        return dataclasses.replace(self, tries=self.tries + 1, next_at=now + pause)

    def __str__(self) -> str:
        if not self.tries:
            return "not restarted yet"
        return f"restarted {self.tries} {'time' if self.tries == 1 else 'times'}"
