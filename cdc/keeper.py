"""A replica's own slot on the primary, in the stock profile: it keeps what may have to come again.

Debezium's slot moves on with what Kafka has, torn or not. This one follows what the replica has
applied; nobody streams from it. `cdc connectors rewind` gives the connector a copy of it where the
connector's own slot is past the place to begin at.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg import sql

from cdc import lsn as lsns
from cdc import postgres
from cdc.config import Config
from cdc.errors import Unreachable
from cdc.steps import Step

log = logging.getLogger(__name__)

#: Seconds between two moves of the slot.
EVERY = 10.0


def slot(config: Config, replica: str) -> str:
    """Return the name of the slot of `replica`; slots have lower-case names."""
    return f"{config.slot}_{re.sub('[^a-z0-9_]', '_', replica.lower())}_keep"[:63]


def removal(conn: psycopg.Connection[Any], config: Config, replicas: Iterable[str]) -> list[Step]:
    """Drop the slots of `replicas` that are there."""
    names = [slot(config, replica) for replica in replicas]
    found = conn.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name = ANY (%s)", [names]
    )
    drop = sql.SQL("SELECT pg_drop_replication_slot({})")
    return [Step(f"slot {name}: dropped", drop.format(name)) for (name,) in found]


def hold(conn: psycopg.Connection[Any], config: Config, replica: str) -> None:
    """Make the slot before the replica is filled, so that it keeps all from the first commit on."""
    if config.connect.profile == "stock":
        follow(conn, slot(config, replica), 0)


class Keeper:
    """Makes the slot of `replica` and moves it on, in the background."""

    def __init__(self, config: Config, replica: str) -> None:
        self._config = config
        self._slot = slot(config, replica)
        self._application = config.application_name(replica, "keep")
        self._moved_at: float | None = None
        self._thread: threading.Thread | None = None
        self._trouble: str | None = None

    def again(self, applied: int) -> None:
        """Let the slot follow to the commit `applied`, when it is time and the last move has ended."""
        now = time.monotonic()
        if self._config.connect.profile != "stock" or (
            self._moved_at is not None and now - self._moved_at < EVERY
        ):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        self._moved_at = now
        self._thread = threading.Thread(
            target=self._move, args=(applied,), name="keeper", daemon=True
        )
        self._thread.start()

    def _move(self, applied: int) -> None:
        try:
            with contextlib.closing(
                postgres.connect(self._config.primary.dsn, self._application, autocommit=True)
            ) as conn:
                follow(conn, self._slot, applied)
            self._trouble = None
        except (Unreachable, psycopg.Error) as error:
            what = error.what if isinstance(error, Unreachable) else postgres.first_line(error)
            if what != self._trouble:
                log.warning("the slot %s does not follow: %s", self._slot, what)
            self._trouble = what


def follow(conn: psycopg.Connection[Any], name: str, applied: int) -> None:
    """Make the slot where there is none, else move it on to `applied`; psycopg.Error."""
    found = conn.execute(
        "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [name]
    ).fetchone()
    if found is None:
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
    elif found[0] is not None and int(found[0]) < applied:
        conn.execute(
            "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)", [name, lsns.show(applied)]
        )
