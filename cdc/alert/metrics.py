"""What the watcher does, for Prometheus; the names are lag.md's."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator

from prometheus_client import start_http_server
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cdc.alert.store import Store
from cdc.alert.watcher import Watcher

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Watched(Collector):
    """Reads the watcher's state when it is asked for; nothing is counted twice."""

    store: Store
    watcher: Watcher

    def collect(self) -> Iterator[Metric]:
        state = self.store.state
        level = GaugeMetricFamily(
            "cdc_alert_state", "0 ok, 1 warning, 2 critical, 3 unknown.", labels=["replica"]
        )
        firing = GaugeMetricFamily(
            "cdc_alert_firing", "1 while people know of an alert.", labels=["replica"]
        )
        for name, memory in state.replicas.items():
            level.add_metric([name], memory.level)
            firing.add_metric([name], float(memory.told is not None))
        runs = CounterMetricFamily(
            "cdc_alert_hook_runs", "Tries to tell a hook something.", labels=["hook", "outcome"]
        )
        waiting = GaugeMetricFamily(
            "cdc_alert_hook_waiting", "Notices that a hook has not taken yet.", labels=["hook"]
        )
        failing = GaugeMetricFamily(
            "cdc_alert_hook_failures", "Failures of a hook in a row.", labels=["hook"]
        )
        dropped = CounterMetricFamily(
            "cdc_alert_hook_dropped", "Notices dropped because too many waited.", labels=["hook"]
        )
        for name, box in state.outboxes.items():
            for outcome, count in box.runs.items():
                runs.add_metric([name, outcome], count)
            waiting.add_metric([name], len(box.notices))
            failing.add_metric([name], box.failures)
            dropped.add_metric([name], box.dropped)
        yield from (level, firing, runs, waiting, failing, dropped)
        yield GaugeMetricFamily(
            "cdc_alert_looked_timestamp_seconds",
            "When the replicas were last looked at.",
            state.seen_at,
        )
        for name, help_text, count in (
            ("cdc_alert_state_write_errors", "State not kept on disk.", self.store.write_errors),
            ("cdc_alert_clock_jumps", "Times this machine's clock was set.", self.watcher.jumps),
            ("cdc_connector_restarts", "Restarts of a failed connector.", self.watcher.restarts),
        ):
            yield CounterMetricFamily(name, help_text, count)


def serve(listen: str, store: Store, watcher: Watcher) -> None:
    """Serve /metrics at `listen`; where that cannot be, say so: watching goes on."""
    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Watched(store, watcher))
    try:
        start_http_server(int(port), host.strip("[]"), registry)
    except (OSError, OverflowError) as error:
        log.error(  # noqa: TRY400 -- the reason is in the line; a traceback tells no more
            "no metrics are served at %s: %s; watching goes on: give alert.listen another port",
            listen,
            error,
        )
    else:
        log.info("metrics at http://%s/metrics", listen)
