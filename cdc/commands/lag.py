"""`cdc lag history`: how far a replica was behind."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import click

from cdc import chart, postgres, samples
from cdc.commands.options import Common, Seconds, common, emit, note
from cdc.config import NOTHING_CHANGED
from cdc.errors import UsageError
from cdc.samples import Sample
from cdc.status import ago
from cdc.units import Duration

#: Lines that a person is shown; each then stands for a stretch of time.
_LINES = 40


@click.group()
def lag() -> None:
    """How far replicas are behind: see also `cdc status`."""


@lag.command()
@click.option("--since", type=Seconds(), default=Duration(3600.0), metavar="DURATION",
              show_default="1h", help="How far back; a week is kept.")  # fmt: skip
@click.option("--csv", "as_csv", is_flag=True, help="Every sample as a line of CSV.")
@click.option("--png", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Draw it into a picture; needs the extra `plot`.")  # fmt: skip
@common
def history(said: Common, *, since: float, as_csv: bool, png: Path | None) -> None:
    """Show how far a replica was behind, from the samples its daemon keeps there every ten seconds.

    Times are UTC, by the primary's clock. A time without samples is a gap and shown as one: no daemon
    ran, or it was not known.
    """
    if as_csv and png is not None:
        raise UsageError(
            "--csv or --png?", safe=NOTHING_CHANGED, next="give one of them, or run it twice"
        )
    config = said.load()
    name = said.one_replica(config)
    application = config.application_name(name, "history")
    with contextlib.closing(
        postgres.connect(config.replica(name).dsn, application, autocommit=True)
    ) as conn:
        found = samples.read(conn, config.name, since)
    if png is not None:
        chart.png(png, name, found, config.lag.target, config.lag.warn)
        note(f"{len(found)} samples drawn into {png}")
    elif as_csv:
        click.echo(samples.csv(found))
    else:
        emit(
            said,
            {"replica": name, "samples": [dataclasses.asdict(s) for s in found]},
            "\n".join(_lines(name, found, since)),
        )


def _lines(name: str, found: list[Sample], since: float) -> list[str]:
    known = [s.seconds for s in found if s.seconds is not None]
    if not known:
        return [f"{name}: nothing is known of the last {ago(since)}: no daemon kept a sample"]
    gaps = len(samples.runs(found)) - 1
    most = f"at most {max(known):.1f} s behind in the last {ago(since)}"
    lines = [f"{name}: {most}, {len(found)} samples, {gaps} gap{'s'[: gaps != 1]}", ""]
    stretch = max(samples.EVERY, since / _LINES)
    top, before = max(1.0, *known), None
    for start in sorted({int(s.at // stretch) for s in found}):
        inside = [s for s in found if int(s.at // stretch) == start]
        if before is not None and start > before + 1 + samples.GAP / stretch:
            lines.append(f"{'':22}…")
        peak = max((s.seconds for s in inside if s.seconds is not None), default=None)
        told = "unknown" if peak is None else f"{peak:.1f} s"
        bar = "" if peak is None else "█" * round(peak / top * 40)
        lines.append(f"{samples.moment(inside[0].at):<22}{told:>9}  {bar}".rstrip())
        before = start
    return lines
