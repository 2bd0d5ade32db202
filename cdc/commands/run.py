"""`cdc run`: the replication daemon of one replica."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

import click
import psycopg

from cdc import daemon, logs, marks, memory, position, postgres
from cdc.check import start
from cdc.commands.options import Common, common
from cdc.config import Config
from cdc.errors import CdcError, Halt
from cdc.gauge import Gauge
from cdc.measuring import Measuring
from cdc.replicator import Replicator
from cdc.serving import Serving
from cdc.signals import stopping
from cdc.source import PARTITION

log = logging.getLogger(__name__)

#: Seconds to wait for the lock of our own session, which has just been closed.
_LOCK_WAIT = 5.0


@click.command()
@click.option(
    "--until-caught-up",
    is_flag=True,
    help="Stop when everything is applied that was committed on the primary when this began.",
)
@click.option(
    "--log",
    "form",
    type=click.Choice(["console", "json"]),
    help="How to log; log.format of the configuration otherwise.",
)
@common
def run(said: Common, *, until_caught_up: bool, form: logs.Format | None) -> None:
    """Apply the stream to a replica, until stopped.

    SIGTERM or SIGINT ends it at a transaction boundary with exit code 0; what takes longer than a
    few seconds is broken off, and comes again. A second signal kills it.
    Exit code 1: halted, a person is needed; the message says what happened and what to do.
    """
    config = said.load()
    replica = said.one_replica(config)
    form = form or config.log.format
    logs.configure(said.verbose, form, logs.secrets(config))
    until = _committed_now(config) if until_caught_up else None
    memory.give_back()
    state, error = "stopped", None
    gauge = Gauge(replica)
    with stopping() as stop, _beside(config, replica, gauge):
        try:
            with stop.insisting():
                start.look(config, replica)
                Replicator(config, replica, stop, gauge).run(until)
        except Halt as halt:
            halt.at(replica=replica)
            if halt.place.offset is not None:
                halt.at(topic=config.topic, partition=PARTITION)
            state, error = "halted", str(halt)
            if form == "json":  # for people the same is said at the end
                told = {"event.action": "halted", "error.message": error, "cdc.replica": replica}
                log.exception("halted: %s", halt.what, extra=told)
            raise
        finally:
            _record(config, replica, state, error)


@contextlib.contextmanager
def _beside(config: Config, replica: str, gauge: Gauge) -> Iterator[None]:
    """Measure, and answer over HTTP where a port is configured, while the body runs."""
    measuring, listen = Measuring(config, replica, gauge), config.replica(replica).listen
    serving = None if listen is None else Serving(listen, measuring)
    measuring.start()
    if serving is not None:
        serving.start()
    try:
        yield
    finally:
        measuring.stop()
        if serving is not None:
            serving.stop()


def _committed_now(config: Config) -> int:
    """Return an LSN at or after every commit so far, and before that of a barrier just written."""
    application = config.application_name("primary", "barrier")
    with contextlib.closing(
        postgres.connect(config.primary.dsn, application, autocommit=True)
    ) as conn:
        return marks.emit(conn, config).lsn


def _record(config: Config, replica: str, state: str, error: str | None) -> None:
    """Leave the last state on the replica for `cdc status`; the log has it in any case.

    Under the writer's lock: another daemon that holds it has its own say. Our session's lock goes
    only when the server has noticed that we closed it.
    """
    patience = _LOCK_WAIT if state == "halted" else _LOCK_WAIT / 5
    with (
        contextlib.suppress(CdcError, psycopg.Error),
        contextlib.closing(
            postgres.connect(
                config.replica(replica).dsn,
                config.application_name(replica, "state"),
                autocommit=True,
                connect_timeout=3,
            )
        ) as conn,
    ):
        deadline = time.monotonic() + patience
        while not position.try_lock(conn, config.name):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        daemon.record(conn, config.name, state, error)
