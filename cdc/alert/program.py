"""The `cdc-lag-alert` program: parse, build, call; what is found becomes an exit code."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Sequence
from typing import Any

import click

from cdc import __version__, logs
from cdc.alert import sampling, silences, store, trial, watching
from cdc.alert.judgement import Level, Sample, Thresholds, Trend, Verdict, judge, judge_tables
from cdc.alert.payload import Frame, utc
from cdc.alert.settings import WebhookHook
from cdc.alert.silences import Silence
from cdc.commands import program
from cdc.commands.options import Common, Seconds, common, emit
from cdc.config import Config
from cdc.errors import CdcError
from cdc.signals import stopping


@click.group(context_settings={"help_option_names": ["-h", "--help"], "obj": None})
@click.version_option(__version__, prog_name="cdc-lag-alert")
@common
def cdc_lag_alert(said: Common) -> None:
    """Tell somebody before a replica falls too far behind, whatever has died."""


@cdc_lag_alert.command()
@common
def watch(said: Common) -> None:
    """Watch all replicas and tell the hooks, until stopped.

    Reads primary, replicas, Kafka and Kafka Connect itself, so that it alerts when any of them or a
    daemon is dead. Restarts connector tasks that have failed, each time later. One process per
    state_dir; run it under a supervisor, best on a machine of its own.
    """
    config = said.load()
    _log(said, config)
    with stopping() as stop:
        watching.watch(config, said.some_replicas(config), stop)


@cdc_lag_alert.command()
@click.option("--notify", is_flag=True, help="Tell the hooks too, as one step of watching (cron).")
@common
def once(said: Common, *, notify: bool) -> int:
    """Look once and say how the replicas are, as Nagios wants it.

    Exit code 0: all are within lag.warn and have the primary's tables; 1: warning; 2: critical; 3: unknown, or
    the look failed.
    """
    try:
        config = said.load()
        names = said.some_replicas(config)
        _log(said, config)
        seen = (watching.once_telling if notify else watching.once)(config, names)
    except CdcError as error:
        click.echo(f"CDC UNKNOWN - {error}")
        return int(Level.UNKNOWN)
    thresholds = Thresholds(config.lag.warn, config.lag.target)
    found = sampling.samples(seen)
    verdicts = {name: judge(name, found[name], Trend(), thresholds) for name in names}
    tables = {name: judge_tables(name, found[name]) for name in names}
    worst = _worst([*verdicts.values(), *tables.values()])
    emit(said, _found_json(worst, found, verdicts, tables),
         _nagios(worst, found, verdicts, tables, thresholds))  # fmt: skip
    return int(worst)


@cdc_lag_alert.command()
@common
def test(said: Common) -> int:
    """Send a test alert through each hook and report what came of it.

    Exit code 0: every hook took it; 1: one did not, or there is none.
    """
    config = said.load()
    _log(said, config)
    results = trial.tried(config.alert.hooks, Frame.of(config), time.time())
    lines = [
        f"{name}: {'taken' if trouble is None else f'NOT TAKEN: {trouble}'}"
        for name, trouble in results.items()
    ]
    emit(
        said,
        {"hooks": results},
        "\n".join(lines) or "no hook is configured: add [[alert.hooks]] to the configuration",
    )
    return 0 if results and not any(results.values()) else 1


@cdc_lag_alert.group()
@common
def silence(said: Common) -> None:
    """Hold alerts back during planned work."""


@silence.command("set")
@click.option("--for", "for_", type=Seconds(), required=True, metavar="DURATION", help="How long.")
@click.option("--reason", required=True, help="Why; people read it in the list.")
@common
def set_(said: Common, *, for_: float, reason: str) -> None:
    """Hold back what begins from now on, of the replicas given by -r, or of all.

    What still fires when the time is over is told then. The end of an alert is always told.
    """
    config = said.load()
    now = time.time()
    names: tuple[str | None, ...] = said.some_replicas(config) if said.replicas else (None,)
    made = [Silence(secrets.token_hex(4), name, now, now + for_, reason) for name in names]
    for one in made:
        silences.add(store.folder(config), one)
    emit(said, {"silences": [_silence_json(s) for s in made]}, "\n".join(map(_line, made)))


@silence.command("list")
@common
def list_(said: Common) -> None:
    """Show the silences that are not over."""
    now = time.time()
    found = [s for s in silences.load(store.folder(said.load())) if s.ends_at > now]
    emit(
        said,
        {"silences": [_silence_json(s) for s in found]},
        "\n".join(map(_line, found)) or "nothing is silenced",
    )


@silence.command("end")
@click.argument("name", metavar="ID")
@common
def end(said: Common, *, name: str) -> None:
    """End a silence before its time."""
    over = silences.end(store.folder(said.load()), name, time.time())
    emit(said, {"silences": [_silence_json(over)]}, f"ended: {_line(over)}")


def _log(said: Common, config: Config) -> None:
    """Log as the configuration wants it, without what must not be told."""
    hooks = {h.secret for h in config.alert.hooks if isinstance(h, WebhookHook) and h.secret}
    logs.configure(said.verbose, config.log.format, logs.secrets(config) | hooks)


def _worst(verdicts: Sequence[Verdict]) -> Level:
    """Return the gravest: not to know of one replica hides nothing that is known of another."""
    order = (Level.OK, Level.WARNING, Level.UNKNOWN, Level.CRITICAL)
    return max((v.level for v in verdicts), key=order.index)


def _nagios(
    worst: Level, found: dict[str, Sample], verdicts: dict[str, Verdict], tables: dict[str, Verdict],
    thresholds: Thresholds,
) -> str:  # fmt: skip
    """Return the line that Nagios and its kin show, with what they draw behind the bar."""
    amiss = [v.text for v in tables.values() if v.level is not Level.OK]
    told = "; ".join([*(v.text for v in verdicts.values()), *amiss])
    drawn = " ".join(
        f"{name}={'U' if s.lag is None else f'{s.lag:.3f}s'};{thresholds.warn:g};{thresholds.target:g};0"
        for name, s in found.items()
    )
    return f"CDC {worst.name} - {told.replace('|', '/')} | {drawn}"


def _found_json(
    worst: Level, found: dict[str, Sample], verdicts: dict[str, Verdict], tables: dict[str, Verdict]
) -> dict[str, Any]:
    return {
        "state": worst.name.lower(),
        "replicas": {
            name: {
                "state": verdict.level.name.lower(),
                "reason": verdict.reason,
                "summary": verdict.text,
                "lag_seconds": found[name].lag,
                "applied_lsn": found[name].applied_lsn,
                "tables": {
                    "state": tables[name].level.name.lower(),
                    "reason": tables[name].reason,
                    "summary": tables[name].text,
                },
            }
            for name, verdict in verdicts.items()
        },
    }


def _silence_json(one: Silence) -> dict[str, Any]:
    return {
        **dataclasses.asdict(one),
        "begins_at": utc(one.begins_at),
        "ends_at": utc(one.ends_at),
    }


def _line(one: Silence) -> str:
    return f"{one.id}  {one.replica or 'all replicas'}  until {utc(one.ends_at)}  {one.reason}"


def main() -> None:
    """Run the program and exit with its result."""
    program.run(cdc_lag_alert, "cdc-lag-alert")


if __name__ == "__main__":
    main()
