"""`cdc status`: tell whether the replicas are safe and fresh."""

from __future__ import annotations

import dataclasses
import time

import click

from cdc import status as statuses
from cdc.commands.options import Common, common, emit

#: Seconds between two drawings of --watch.
_WATCH_EVERY = 1.0


@click.command()
@click.option("--watch", is_flag=True, help="Draw it again every second until interrupted.")
@common
def status(said: Common, *, watch: bool) -> int:
    """Show where each replica is; the first line answers "am I safe?".

    Exit code 0: every replica is live, its daemon applies, it is within the lag target, and the
    connector has neither failed nor been stopped; else 1.
    """
    config = said.load()
    names = said.some_replicas(config)
    while True:
        found = statuses.read(config, names)
        line = statuses.headline(config, found)
        if watch:
            click.clear()
        emit(
            said,
            {
                "summary": line,
                "primary": found.primary,
                "standstill": found.standstill,
                "connect": found.connect,
                "replicas": {r.name: dataclasses.asdict(r) for r in found.replicas},
            },
            "\n".join(
                [
                    line,
                    "",
                    statuses.table(found.replicas),
                    *([f"the connector cannot be seen: {found.connect}"] if found.connect else []),
                ]
            ),
        )
        if not watch:
            within = all(
                r.fresh and (r.lag_seconds or 0.0) <= config.lag.target for r in found.replicas
            )
            return 0 if within and found.standstill is None else 1
        time.sleep(_WATCH_EVERY)
