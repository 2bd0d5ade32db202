"""What one hook still has to be told, and when it is tried again; pure."""

from __future__ import annotations

import dataclasses

from cdc.alert.machine import Kind, Notice

#: Seconds between two tries: doubled each time, up to the last.
_FIRST, _LAST = 1.0, 60.0

#: Notices kept for a hook that does not take them: months of ordinary trouble.
_MOST = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Outbox:
    """Notices in order, oldest first, and how the hook has done so far.

    A notice goes only when the hook has taken it, so that one that was away hears both that an alert
    fired and that it was over. `failures` are those in a row, `runs` how often it came to each outcome.
    """

    notices: tuple[Notice, ...] = ()
    failures: int = 0
    next_try_at: float = 0.0
    last_error: str | None = None
    runs: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped: int = 0

    def with_(self, notice: Notice) -> Outbox:
        """Return it with one more; a reminder only where nothing of that alert waits already."""
        waiting = {(kept.replica, kept.about) for kept in self.notices}
        if notice.kind is Kind.REPEATED and (notice.replica, notice.about) in waiting:
            return self
        notices = (*self.notices, notice)
        over = max(0, len(notices) - _MOST)
        return dataclasses.replace(self, notices=notices[over:], dropped=self.dropped + over)

    def due(self, now: float) -> Notice | None:
        """Return what is to be sent now."""
        return self.notices[0] if self.notices and now >= self.next_try_at else None

    def taken(self, notice: Notice | None = None) -> Outbox:
        """Return it after the hook has taken a notice, or what it is told in another way."""
        return dataclasses.replace(
            self._ran("ok"),
            notices=tuple(kept for kept in self.notices if notice is None or kept.id != notice.id),
            failures=0,
            next_try_at=0.0,
            last_error=None,
        )

    def refused(self, outcome: str, error: str, now: float, jitter: float) -> Outbox:
        """Return it after a try that failed; `jitter`, 0.5 to 1, keeps many senders apart."""
        failures = self.failures + 1
        pause = min(_LAST, _FIRST * 2.0 ** min(failures - 1, 10)) * jitter
        return dataclasses.replace(
            self._ran(outcome), failures=failures, next_try_at=now + pause, last_error=error
        )

    def _ran(self, outcome: str) -> Outbox:
        return dataclasses.replace(self, runs={**self.runs, outcome: self.runs.get(outcome, 0) + 1})

    def moved(self, seconds: float) -> Outbox:
        """Return it as seen by a clock that was set forward by so many seconds."""
        return dataclasses.replace(self, next_try_at=self.next_try_at + seconds)
