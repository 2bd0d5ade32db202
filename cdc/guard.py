"""The daemon's look at its connector: what was captured with lossy settings is not applied.

A connector without the capture plugin, or one that writes a column's default where NULL was, puts
records into the topic that look right. Only its settings tell, so they are compared before
anything is applied and every minute from then on. Kafka Connect is not needed to apply what the
topic holds: where it does not answer, the daemon goes on and looks again.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterable, Sequence

from cdc import connectors
from cdc.config import Config
from cdc.connect import Connect
from cdc.connectors import Change, Health
from cdc.errors import CdcError, ConnectRefused, Unreachable

log = logging.getLogger(__name__)

#: Seconds between two looks.
EVERY = 60.0

#: Seconds Kafka Connect has to answer: the first look holds replication up for no longer.
_TIMEOUT = 5.0


#: Another class stores offsets from which rows may be missing, and the plugin does not go on there.
_OTHER_CLASS = (
    "run `cdc connectors delete --offsets` and `cdc connectors apply`, then fill every replica "
    "anew: `cdc bootstrap --overwrite`"
)


class Guard:
    """Compares the connector's settings at first and every minute."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._connect = Connect(config.connect, patience=0, timeout=_TIMEOUT)
        self._looked_at: float | None = None
        self._found: tuple[Change, ...] = ()
        self._doubt: str | None = None
        self._standstill: str | None = None

    def first(self) -> None:
        """Look before a session applies anything; a look less than a minute old will do.

        Raises ConnectRefused naming each lossy setting.
        """
        now = time.monotonic()
        if self._due(now):
            self._looked_at = now
            self._look()
        self._judge()

    def again(self) -> None:
        """Raise what the last look found; start another in the background when one is due.

        Judged first: a look must not take back what the one before it found.
        """
        self._judge()
        now = time.monotonic()
        if self._due(now):
            self._looked_at = now
            threading.Thread(target=self._look, name="guard", daemon=True).start()

    def holdup(self) -> str | None:
        """Ask now why the connector sends nothing, or why it cannot be told; None where it runs."""
        name = self._config.connector
        try:
            found = self._health()
        except (Unreachable, ConnectRefused) as error:
            return error.what
        if found is None:
            return self._absent
        if found.running:
            return None
        return found.standstill(name) or f"the connector {name} does not run yet: {found}"

    @property
    def _absent(self) -> str:
        return f"Kafka Connect at {self._connect.shown} has no connector {self._config.connector}"

    def _health(self) -> Health | None:
        status = self._connect.status(self._config.connector)
        return None if status is None else connectors.health(status)

    def _due(self, now: float) -> bool:
        return self._looked_at is None or now - self._looked_at >= EVERY

    def _judge(self) -> None:
        if self._found:
            raise refusal(self._config, self._found)

    def _look(self) -> None:
        name = self._config.connector
        try:
            stored = self._connect.config(name)
        except (Unreachable, ConnectRefused) as error:
            self._say(error.what)
            return
        if stored is None:
            self._say(self._absent)
            return
        self._found = connectors.losing(self._config, stored)
        if self._doubt is not None:
            self._doubt = None
            log.info("the connector's settings can be seen now")
        self._say_standstill()

    def _say_standstill(self) -> None:
        """Say that nothing new can come, and that it can again; what is there is applied anyway."""
        try:
            health = self._health()
        except (Unreachable, ConnectRefused):
            return  # said already where it lasts: the settings cannot be seen then either
        name = self._config.connector
        found = self._absent if health is None else health.standstill(name)
        if found is not None and found != self._standstill:
            log.warning("%s; applying what the topic holds", found)
        if found is None and self._standstill is not None:
            log.info("the connector runs again")
        self._standstill = found

    def _say(self, doubt: str) -> None:
        if doubt != self._doubt:
            self._doubt = doubt
            log.warning(
                "the connector's settings cannot be checked: %s; applying what the topic holds, "
                "looking again every %.0f s",
                doubt,
                EVERY,
            )


@dataclasses.dataclass(slots=True)
class Patience:
    """How long what is missing in the topic is waited for: `limit` seconds of a running connector.

    One that has failed sends it again once somebody has mended what it failed of, however late; one
    that runs will have sent it by then, or never.
    """

    limit: float
    _running_since: float | None = None

    def spent(self, holdup: str | None, now: float) -> bool:
        """Tell whether the connector, held up by `holdup` at `now`, has had its time."""
        if holdup is not None:
            self._running_since = None
            return False
        if self._running_since is None:
            self._running_since = now
        return now - self._running_since >= self.limit


def acceptance(names: Iterable[str]) -> str:
    """Return how a person accepts findings by their names."""
    quoted = ", ".join(f'"{name}"' for name in dict.fromkeys(names))
    return f"accept what is lost by it, in check.accept: [check] accept = [{quoted}]"


def refusal(config: Config, found: Sequence[Change]) -> CdcError:
    """Return the error for a connector with settings that lose rows or values."""
    lines = [f"  {change}" for change in found]
    return ConnectRefused(
        "\n".join(
            [f"the connector {config.connector} loses rows or values with its settings:", *lines]
        ),
        safe="nothing is applied from here on; the replica is as of its position, but what the "
        "connector wrote with these settings may be incomplete or altered",
        next=(
            _OTHER_CLASS
            if any(change.key == "connector.class" for change in found)
            else "run `cdc connectors apply`; if anything was captured with these settings, fill the "
            "replica anew: `cdc bootstrap --overwrite`; else start again"
        )
        + f". Or {acceptance(connectors.finding(change.key) for change in found)}",
        topic=config.topic,
    )
