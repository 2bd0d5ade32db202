"""`cdc status`: tell whether the replicas are safe and fresh."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence

import click
import psycopg
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cdc import chart, postgres, samples
from cdc import status as statuses
from cdc.commands.options import Common, common, emit
from cdc.config import Config
from cdc.errors import CdcError
from cdc.observation import Observation, Observer
from cdc.samples import Sample
from cdc.status import WIDTH, Status

#: Seconds between two drawings of --watch, and that its lines of bars go back.
_WATCH_EVERY, _SPAN = 1.0, 600.0

#: Columns of bars: each stands for a little more time than is between two samples.
_BARS = 50


@click.command()
@click.option("--watch", is_flag=True, help="Look again every second until interrupted.")
@common
def status(said: Common, *, watch: bool) -> int:
    """Show where each replica is; the first line answers "am I safe?".

    Exit code 0: every replica is live, its daemon applies, it is within the lag target, lacks no table
    and has none that the primary has not or has anew, and the connector has neither failed nor been
    stopped; else 1.
    """
    config = said.load()
    names = said.some_replicas(config)
    with contextlib.closing(Observer(config, names, _WATCH_EVERY)) as observer:
        if watch and sys.stdout.isatty() and not said.json:
            _live(config, names, observer)
        while True:
            found = statuses.of(config, observer.look(time.time()))
            _print(said, config, found)
            if not watch:
                return 0 if found.safe(config.lag.target) else 1
            time.sleep(_WATCH_EVERY)


def _print(said: Common, config: Config, found: Status) -> None:
    lines = statuses.text(config, found)
    if sys.stdout.isatty():
        lines = statuses.wrapped(lines)
    emit(
        said,
        {
            "summary": statuses.headline(config, found),
            "primary": found.primary,
            "standstill": found.standstill,
            "connect": found.connect,
            "kafka": found.kafka,
            "uncovered": found.uncovered,
            "strays": [
                {
                    "table": str(s.table),
                    "why": s.why,
                    "replicas": s.replicas,
                    "now": None if s.now is None else str(s.now),
                    "fix": s.fix,
                }
                for s in found.strays
            ],
            "notes": found.notes,
            "replicas": {r.name: dataclasses.asdict(r) for r in found.replicas},
        },
        "\n".join(lines).rstrip(),
    )


def _live(config: Config, names: Sequence[str], observer: Observer) -> None:
    """Draw again and again, with the lag of the last minutes as bars, until interrupted."""
    trails = {name: deque(_kept(config, name), maxlen=2000) for name in names}
    with Live(console=Console(width=WIDTH), auto_refresh=False, screen=True) as live:
        while True:
            seen = observer.look(time.time())
            lines = statuses.wrapped(statuses.text(config, statuses.of(config, seen)))
            bars = [bar for name in names for bar in _bars(seen, name, trails[name])]
            live.update(Group(*(Text(line) for line in [*lines, "", *bars])), refresh=True)
            time.sleep(_WATCH_EVERY)


def _bars(seen: Observation, name: str, trail: deque[Sample]) -> Iterator[str]:
    found = seen.lag(name)
    trail.append(Sample(found.at, found.seconds, found.state, found.backlog))
    recent = [s for s in trail if s.at >= found.at - _SPAN]
    most = max((s.seconds or 0.0 for s in recent), default=0.0)
    yield f"{name:<8}{chart.sparkline(recent, found.at, _SPAN, _BARS)} {most:>7.1f} s"
    yield f"{'':<8}{f'{_SPAN / 60:.0f} min ago':<{_BARS - 3}}now    most"


def _kept(config: Config, name: str) -> list[Sample]:
    """Return what the daemon has kept of the last minutes; nothing where it cannot be read."""
    with (
        contextlib.suppress(CdcError, psycopg.Error),
        contextlib.closing(
            postgres.connect(
                config.replica(name).dsn,
                config.application_name(name, "status"),
                autocommit=True,
                connect_timeout=2,
            )
        ) as conn,
    ):
        return samples.read(conn, config.name, _SPAN)
    return []
