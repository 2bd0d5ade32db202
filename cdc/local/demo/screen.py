"""How the demo looks: captions, commands, the live table; plain lines where there is no terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import textwrap
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cdc.local.demo.gauges import Reading

WIDTH = 79
_PLAIN_EVERY = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Rates:
    """One line of the live table; None where there is nothing to tell."""

    name: str
    commits: float
    rows: float | None
    behind: float | None
    backlog: int | None
    state: str


class Screen:
    """Writes to stdout, in colour on a terminal only."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        return self._console.is_terminal

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph, wrapped."""
        for line in textwrap.wrap(" ".join(text.split()), WIDTH):
            self._console.print(Text(line, style))

    def blank(self) -> None:
        self._console.print()

    def act(self, number: int, name: str, caption: str) -> None:
        head = f"── {number} of 6 · {name} "
        self.blank()
        self._console.print(Text(head + "─" * (WIDTH - len(head)), "bold cyan"))
        self.say(caption)
        self.blank()

    def command(self, text: str) -> None:
        self._console.print(Text.assemble(("  $ ", "dim"), (text, "bold")))

    def output(self, line: str) -> None:
        """Print a line of a command's output; one too long is folded."""
        for part in textwrap.wrap(line, WIDTH - 4, subsequent_indent="  ", break_on_hyphens=False):
            self._console.print(Text("    " + part, "dim"))

    def fact(self, text: str, *, good: bool = True) -> None:
        mark = Text("  ✓ " if good else "  ✗ ", "bold green" if good else "bold red")
        lines = textwrap.wrap(" ".join(text.split()), WIDTH - 4)
        self._console.print(mark + Text(lines[0]))
        for line in lines[1:]:
            self._console.print(Text("    " + line))

    def verdict(self, line: str) -> None:
        """Print a line of the comparison."""
        style = "bold red" if "DIFFERS" in line else "dim" if line.startswith("table") else ""
        self._console.print(Text("    " + line, style))

    @contextlib.contextmanager
    def table(self, *, keep: bool) -> Iterator[Callable[[list[Rates]], None]]:
        """Give a function that shows the newest rates: in place, or as lines every two seconds.

        Without `keep` the table is gone at the end.
        """
        if self.live:
            with Live(console=self._console, auto_refresh=False, transient=not keep) as live:
                yield lambda rates: live.update(_drawn(rates), refresh=True)
            return
        began = time.monotonic()
        said = began

        def plain(rates: list[Rates]) -> None:
            nonlocal said
            if time.monotonic() - said >= _PLAIN_EVERY:
                said = time.monotonic()
                for line in _lines(rates, said - began):
                    self._console.print(Text(line))

        yield plain


def _drawn(rates: list[Rates]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    table.add_column(" " * 14)
    for heading, width in (("commits/s", 9), ("rows/s", 9), ("lag, ms", 10), ("backlog", 10)):
        table.add_column(heading, justify="right", min_width=width)
    table.add_column("", min_width=16, no_wrap=True)
    for r in rates:
        table.add_row(
            Text("    " + r.name, "bold"),
            f"{r.commits:,.0f}",
            "" if r.rows is None else f"{r.rows:,.0f}",
            "" if r.behind is None else _coloured(r.behind),
            "" if r.backlog is None else f"{r.backlog:,}",
            Text(r.state, "bold red" if "kill" in r.state else "dim"),
        )
    return table


def _coloured(behind: float) -> Text:
    style = "green" if behind < 1 else "yellow" if behind < 10 else "red"
    return Text(f"{behind * 1000:,.0f}", style)


def _lines(rates: list[Rates], seconds: float) -> list[str]:
    lines = []
    for r in rates:
        line = f"  {seconds:3.0f} s {r.name:<7}{r.commits:6,.0f} tx/s"
        if r.rows is not None and r.behind is not None and r.backlog is not None:
            line += f"{r.rows:7,.0f} rows/s  lag {r.behind * 1000:,.0f} ms  backlog {r.backlog:,}"
        lines.append(f"{line}  {r.state}".rstrip())
    return lines


class Watch:
    """Turns readings into rates over the last second or so."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int, dict[str, Reading]]] = []

    def rates(
        self, commits: int, readings: dict[str, Reading], states: dict[str, str]
    ) -> list[Rates]:
        """Return a line for the primary and each replica; `commits` is the load's counter."""
        now = time.monotonic()
        self._seen = [s for s in self._seen if now - s[0] < 1.5] + [(now, commits, readings)]
        then, commits_then, readings_then = self._seen[0]
        span = max(now - then, 0.001)
        primary = Rates("primary", (commits - commits_then) / span, None, None, None, "")
        return [
            primary,
            *(
                Rates(
                    name,
                    (r.transactions - readings_then[name].transactions) / span,
                    (r.rows - readings_then[name].rows) / span,
                    r.behind,
                    r.backlog,
                    states.get(name, ""),
                )
                for name, r in readings.items()
            ),
        ]
