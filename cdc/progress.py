"""How far a long copy is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Work shorter than this shows nothing at all.
QUIET_SECONDS = 2.0

#: Seconds between two plain lines.
_LINE_EVERY = 5.0

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclasses.dataclass(frozen=True, slots=True)
class Tally:
    """What was copied: `bytes` as sent in COPY's text form, `weight` as stored on the primary."""

    rows: int = 0
    bytes: int = 0
    weight: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rows + other.rows, self.bytes + other.bytes, self.weight + other.weight)


def amount(size: float) -> str:
    """Return a number of bytes for people."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def span(seconds: float) -> str:
    """Return a number of seconds for people."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe(done: Tally, total_weight: int, seconds: float) -> str:
    """Return rows, bytes, rate and time left after `seconds` of work."""
    rate = done.bytes / seconds if seconds > 0 else 0.0
    rows = done.rows / seconds if seconds > 0 else 0.0
    said = f"{done.rows:,} rows, {amount(done.bytes)}, {rows:,.0f} rows/s, {amount(rate)}/s"
    if 0 < done.weight < total_weight:
        said += f", {span(seconds * (total_weight - done.weight) / done.weight)} left"
    return said


class CopyProgress:
    """Counts what several threads copy and shows it; use as a context manager.

    `say` puts what is done, the total weight and the seconds so far into words.
    """

    def __init__(
        self,
        label: str,
        total_weight: int,
        say: Callable[[Tally, int, float], str] = describe,
    ) -> None:
        self._label = label
        self._say = say
        self._total = total_weight
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._said_at = self._started
        self._bar: tuple[Progress, TaskID] | None = None
        self.done = Tally()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            if self._bar is not None:
                self._show()
                self._bar[0].stop()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def add(self, more: Tally) -> None:
        """Count what one thread has copied."""
        with self._lock:
            self.done += more
            if self.seconds >= QUIET_SECONDS:
                self._show()

    def _show(self) -> None:
        said = self._say(self.done, self._total, self.seconds)
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = self._begun(said)
            bar, task = self._bar
            bar.update(task, completed=self.done.weight, said=said)
            return
        now = time.monotonic()
        if now - self._said_at >= _LINE_EVERY:
            self._said_at = now
            share = 100 * self.done.weight // max(1, self._total)
            print(f"{self._label}: {share} %, {said}", file=sys.stderr, flush=True)

    def _begun(self, said: str) -> tuple[Progress, TaskID]:
        # Every daemon imports this module, and none has a terminal: rich would take 5 MiB of each.
        from rich.console import Console  # noqa: PLC0415 -- as said
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 -- as said

        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[said]}"), console=Console(stderr=True),
        )  # fmt: skip
        task = bar.add_task(self._label, total=max(1, self._total), said=said)
        bar.start()
        return bar, task
