"""`cdc wait`: block until a replica has what the primary had."""

from __future__ import annotations

import contextlib
from typing import Any

import click
import psycopg

from cdc import history, marks, position, postgres, waiting
from cdc import lsn as lsns
from cdc.commands.options import Common, Seconds, common, emit
from cdc.config import NOTHING_CHANGED, Config
from cdc.errors import PositionLost, UsageError
from cdc.units import Duration


class _Lsn(click.ParamType[int]):
    """An LSN as PostgreSQL prints it."""

    name = "lsn"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return value if isinstance(value, int) else lsns.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@click.option(
    "--lsn", type=_Lsn(), metavar="LSN", help="Wait for everything that ends at or before it."
)
@click.option("--now", is_flag=True, help="Wait for everything committed on the primary by now.")
@click.option("--timeout", type=Seconds(), default=Duration(30.0), metavar="DURATION",
              show_default="30s", help="Give up after this long.")  # fmt: skip
@common
def wait(said: Common, lsn: int | None, now: bool, timeout: float) -> None:
    """Wait until a replica has what was committed on the primary: read your own writes.

    Exit status 0 when it has, 1 when the time is over.
    """
    if (lsn is None) == (not now):
        raise UsageError(
            "wait for what?", safe=NOTHING_CHANGED, next="give either --lsn LSN or --now"
        )
    config = said.load()
    name = said.one_replica(config)
    application = config.application_name(name, "wait")
    with contextlib.closing(
        postgres.connect(config.replica(name).dsn, application, autocommit=True)
    ) as replica:

        def look() -> waiting.Standing:
            return waiting.standing(replica, config.name, config.application_name(name, "apply"))

        look()  # says what is wrong with a replica that was never filled
        target, timeline = (lsn, 0) if lsn is not None else _mark(config, name, replica)
        seconds = waiting.until(look, target, timeout, name, timeline)
    emit(
        said,
        {"replica": name, "lsn": lsns.show(target), "seconds": round(seconds, 3)},
        f"{name} has reached {lsns.show(target)} after {seconds:.3f} s",
    )


def _mark(config: Config, name: str, replica: psycopg.Connection[Any]) -> tuple[int, int]:
    """Write a barrier; return an LSN above all commits before it and at or below its own END.

    And the timeline that it is on. Raises BrokenStream or PositionLost where the replica holds
    what this primary does not have.
    """
    application = config.application_name(name, "wait")
    at, coverage = position.load(replica, config.name)
    primary = history.read(config.primary.dsn, application)
    history.require(at, position.holds(at.applied_lsn, coverage.values()), primary)
    if at.timeline > primary.timeline:
        raise PositionLost(
            f"the replica follows timeline {at.timeline}, the server that primary.dsn leads to is on "
            f"timeline {primary.timeline}: LSNs of the two cannot be compared",
            safe=NOTHING_CHANGED,
            next="let primary.dsn lead to the primary of today",
            replica=name,
        )
    with contextlib.closing(
        postgres.connect(config.primary.dsn, application, autocommit=True)
    ) as conn:
        # The message ends at mark.lsn and its commit beyond it: an END above mark.lsn will come.
        return marks.emit(conn, config).lsn + 1, primary.timeline
