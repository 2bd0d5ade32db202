"""What the watcher exposes to Prometheus, from its memory. cdc/metrics.py has the daemons'."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from cdc.alert.store import Store
from cdc.alert.watcher import Watcher
from cdc.metrics import Name
from cdc.units import Address

log = logging.getLogger(__name__)

LEVEL = Name("cdc_alert_state", "0 ok, 1 warning, 2 critical, 3 unknown.")
FIRING = Name("cdc_alert_firing", "1 while people know of an alert.")
TABLES = Name(
    "cdc_alert_tables_firing", "1 while people know of an alert about a replica's tables."
)
LOOKED = Name("cdc_alert_looked_timestamp_seconds", "When the replicas were last looked at.", ())
RUNS = Name(
    "cdc_alert_hook_runs_total",
    "Tries to tell a hook something: ok, failed, missing, refused, timeout, unreachable.",
    ("hook", "outcome"),
    "counter",
)
FAILURES = Name("cdc_alert_hook_failures", "Failures of a hook in a row.", ("hook",))
WAITING = Name("cdc_alert_hook_waiting", "Notices that a hook has not taken yet.", ("hook",))
DROPPED = Name(
    "cdc_alert_hook_dropped_total", "Notices dropped: a thousand waited.", ("hook",), "counter"
)
UNWRITTEN = Name(
    "cdc_alert_state_write_failures_total", "Tries to keep the state that failed.", (), "counter"
)
PORT = Name(
    "cdc_alert_listen_failures_total", "Tries to open the HTTP port that failed.", (), "counter"
)
JUMPS = Name(
    "cdc_alert_clock_jumps_total", "Times that this machine's clock was set.", (), "counter"
)
RESTARTS = Name("cdc_connector_restarts_total", "Restarts of a failed connector.", (), "counter")


@dataclasses.dataclass(slots=True, eq=False)
class Endpoint(Collector):
    """Serves /metrics as soon as the port lets it; `failures` are the tries so far."""

    listen: Address
    store: Store
    watcher: Watcher
    failures: int = 0
    _open: bool = False
    _said: str = ""

    def open(self) -> None:
        """Open the port, unless it is open; where that cannot be, say so once: watching goes on."""
        if self._open:
            return
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        try:
            start_http_server(self.listen.port, self.listen.host, registry)
        except OSError as error:
            self.failures += 1
            if self._said != str(error):
                self._said = str(error)
                log.warning(
                    "the HTTP port %s cannot be opened: %s; watching goes on, trying again (alert.listen)",
                    self.listen,
                    error.strerror or error,
                )
            return
        self._open = True
        log.info("metrics at http://%s/metrics", self.listen)

    def collect(self) -> Iterable[Metric]:
        state = self.store.state
        replicas, boxes = state.replicas.items(), state.outboxes.items()
        yield LEVEL.family(*(((name,), memory.level) for name, memory in replicas))
        yield FIRING.family(*(((name,), memory.told is not None) for name, memory in replicas))
        yield TABLES.family(
            *(((name,), memory.told is not None) for name, memory in state.tables.items())
        )
        yield LOOKED.family(((), state.seen_at))
        yield RUNS.family(
            *(((name, how), count) for name, box in boxes for how, count in box.runs.items())
        )
        yield FAILURES.family(*(((name,), box.failures) for name, box in boxes))
        yield WAITING.family(*(((name,), len(box.notices)) for name, box in boxes))
        yield DROPPED.family(*(((name,), box.dropped) for name, box in boxes))
        yield UNWRITTEN.family(((), self.store.write_failures))
        yield PORT.family(((), self.failures))
        yield JUMPS.family(((), self.watcher.jumps))
        yield RESTARTS.family(((), self.watcher.restarts))
