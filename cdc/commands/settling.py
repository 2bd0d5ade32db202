"""Waiting until what was asked of a connector is the case."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from cdc import connectors as definitions
from cdc import leaving
from cdc.commands.options import note
from cdc.connect import Connect
from cdc.connectors import Health
from cdc.errors import ConnectRefused, NotReady

#: Seconds a connector has to reach RUNNING: Debezium may wait for running transactions.
START_TIME = 120.0

#: Seconds RUNNING (or FAILED) must last to be believed: after a change the worker shows the old
#: tasks' states for a moment, and Debezium fails a moment after its task has started.
SETTLED = 3.0

#: The same where its slot is seen to be read: it has begun.
STREAMS = 1.0

#: Seconds without offsets until deleted ones are taken for gone. Connect abandons a task that does not
#: end within task.shutdown.graceful.timeout.ms (5 s) and calls it stopped; such a task was seen to
#: write its offsets down again three seconds after they had been deleted.
FORGOTTEN = 10.0


def wait(connect: Connect, name: str, streams: Callable[[], bool] = lambda: False) -> Health:
    """Wait until the connector runs and goes on running, or runs and `streams` says that it reads its slot.

    Raises ConnectRefused with the shortened trace when it fails or does not get there.
    """
    deadline = time.monotonic() + START_TIME
    seen, since = Health((), ()), time.monotonic()
    while time.monotonic() < deadline:
        status = connect.status(name)
        now = definitions.health(status) if status else Health((), ())
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since >= SETTLED and (seen.running or seen.failed):
            break
        if seen.running and time.monotonic() - since >= STREAMS and streams():
            break
        time.sleep(0.2)
    if seen.running:
        return seen
    raise ConnectRefused(
        "\n".join([f"the connector {name} does not run: {seen}", *seen.traces]),
        safe="nothing is lost: the slot keeps the log, and capture goes on from the stored offset",
        next="mend the cause, then `cdc connectors restart`",
    )


def forget(connect: Connect, name: str) -> None:
    """End the connector's tasks and delete its offsets, where there is one of that name."""
    if connect.stop(name):
        wait_stopped(connect, name)
        _delete_offsets(connect, name)


def wait_stopped(connect: Connect, name: str) -> None:
    """Wait until no task of a connector is left; ConnectRefused when one does not end."""
    deadline = time.monotonic() + START_TIME
    while (status := connect.status(name)) and (
        status["connector"]["state"] != "STOPPED" or status["tasks"]
    ):
        if time.monotonic() > deadline:
            raise ConnectRefused(
                f"the connector {name} does not stop: {definitions.health(status)}",
                safe="its offsets were not touched",
                next="see the worker's log, restart the worker, then run this command again",
            )
        time.sleep(0.2)


def wait_released(
    conn: psycopg.Connection[Any], slot: str, *, patience: float, safe: str, again: str
) -> None:
    """Wait until nobody reads from the slot, if there is one; NotReady when somebody goes on reading.

    `safe` says what is left as it was, `again` what is to be run again.
    """
    deadline = time.monotonic() + patience
    while leaving.slot(conn, slot):
        if time.monotonic() > deadline:
            raise NotReady(
                f"somebody still reads from the slot {slot}",
                safe=safe,
                next="find who in pg_replication_slots and pg_stat_activity, end it, then run "
                f"{again} again",
            )
        time.sleep(0.1)


def _delete_offsets(connect: Connect, name: str) -> None:
    """Delete a stopped connector's offsets, again if a task that was abandoned writes them again.

    Raises ConnectRefused when they keep coming back.
    """
    deadline = time.monotonic() + START_TIME
    note(
        f"deleting its offsets, and waiting {FORGOTTEN:.0f} s for an abandoned task to write its own"
    )
    connect.forget(name)
    since = time.monotonic()
    while time.monotonic() - since < FORGOTTEN:
        time.sleep(0.5)
        if connect.offsets(name):
            if time.monotonic() > deadline:
                raise ConnectRefused(
                    f"something keeps writing offsets of the connector {name}, which is stopped",
                    safe="nothing is lost: the slot keeps the log",
                    next="restart the Connect workers, then run this command again",
                )
            connect.forget(name)
            since = time.monotonic()
