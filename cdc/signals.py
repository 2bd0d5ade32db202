"""Stopping: the first SIGTERM or SIGINT asks, after a few seconds insists; a second one kills."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

#: Seconds between asking and insisting, and between insisting and doing so again.
GRACE = 3.0


class Insisted(KeyboardInterrupt):
    """Ends whatever the main thread waits for, after it was asked to stop and did not.

    A KeyboardInterrupt, so that a statement under way is canceled on the server too.
    """


class Stop(threading.Event):
    """Set when the program was asked to stop."""

    def __init__(self) -> None:
        super().__init__()
        self._insist = False

    @contextlib.contextmanager
    def insisting(self) -> Iterator[None]:
        """End the body by Insisted when it goes on for too long after the stop was asked for."""
        self._insist = True
        try:
            try:
                yield
            finally:
                self._insist = False  # the alarm may come right before this
        except Insisted:
            pass

    def ask(self, _number: int, _frame: FrameType | None) -> None:
        """Handle the first signal: with the default back in place a second ends the process."""
        self.set()
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, GRACE, GRACE)

    def alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self._insist:
            raise Insisted


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stopping() -> Iterator[Stop]:
    """Give an event that the first SIGTERM or SIGINT sets; old handlers come back at the end."""
    stop = Stop()
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, stop.alarm)
    for number in _SIGNALS:
        signal.signal(number, stop.ask)
    try:
        yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
