"""Every metric that the programs of this package expose, by its name in Prometheus.

Moments are exported as timestamps, so that `time() - x` keeps growing when the exporter hangs. What
is not known has no sample: never 0, never NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal

from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A metric: what Prometheus calls it, what it says, its labels."""

    name: str
    says: str
    labels: tuple[str, ...] = ("replica",)
    kind: Literal["gauge", "counter", "histogram"] = "gauge"

    def family(self, *samples: tuple[Sequence[str], float | None]) -> Metric:
        """Return the samples, each (label values, value); those that are None are left out."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        made = make(self.name, self.says, labels=self.labels)
        for labels, value in samples:
            if value is not None:
                made.add_metric(labels, value)
        return made


LAG = Name("cdc_replica_lag_seconds", "How far the replica is behind, by the primary's clock.")
TARGET = Name("cdc_lag_target_seconds", "How far a replica may be behind (lag.target).", ())
APPLIED = Name(
    "cdc_applied_commit_timestamp_seconds", "When the last applied transaction committed."
)
HEARTBEAT = Name("cdc_heartbeat_applied_timestamp_seconds", "When the last applied heartbeat was written.")  # fmt: skip
FRESHNESS = Name(
    "cdc_freshness_seconds_total",
    "Seconds within the target (good), beyond it (bad), or not known.",
    ("replica", "state"),
    "counter",
)
STATE = Name("cdc_replica_state", "1 for the state that the replica is in.", ("replica", "state"))
BACKLOG = Name("cdc_backlog_records", "Records in the topic that are not applied.")
SKEW = Name("cdc_clock_skew_seconds", "A server's clock less this machine's.", ("side",))
SLOT_RETAINED = Name("cdc_slot_retained_bytes", "Log that the connector's slot retains.", ())
SLOT_LOST_IN = Name("cdc_slot_lost_in_seconds", "Until the slot is lost at the present rate.", ())
SLOT_ACTIVE = Name("cdc_slot_active", "1 while the connector reads from its slot.", ())
CONNECTOR_RUNNING = Name("cdc_connector_running", "1 while connector and task say RUNNING.", ())
UNCOVERED = Name("cdc_uncovered_tables", "Tables that match the patterns and are not replicated.", ("replica",))  # fmt: skip
STRAYS = Name(
    "cdc_stray_tables",
    "Tables that primary and replica do not share as they should, by what is wrong.",
    ("replica", "why"),
)
OLDEST = Name("cdc_primary_oldest_transaction_seconds", "Age of the oldest open transaction that writes.", ())  # fmt: skip
TRANSACTIONS = Name(
    "cdc_applied_transactions_total", "Source transactions applied.", kind="counter"
)
ROWS = Name("cdc_applied_rows_total", "Rows written.", kind="counter")
BATCHES = Name("cdc_applied_batches_total", "Transactions of ours on the replica.", kind="counter")
UNMATCHED = Name(
    "cdc_apply_unmatched_total",
    "Changes that found no row: above 0 somebody else changed the replica.",
    ("replica", "op"),
    "counter",
)
LISTEN_FAILURES = Name("cdc_listen_failures_total", "Tries to open the HTTP port that failed.", kind="counter")  # fmt: skip
VERIFY_SUCCESS = Name(
    "cdc_verify_last_success_timestamp_seconds",
    "As of when cdc-verify last proved every table equal.",
)
VERIFY_OLDEST = Name(
    "cdc_verify_oldest_verified_timestamp_seconds",
    "As of when that table was proven equal which has not been for the longest time.",
)
DIVERGENT = Name(
    "cdc_verify_divergent_rows",
    "Rows that differed when their table was last compared, and were not mended.",
    ("replica", "kind"),
)
SAMPLES_LOST = Name("cdc_lag_samples_lost_total", "Samples that could not be kept on the replica.", kind="counter")  # fmt: skip


STAGE = Name(
    "cdc_stage_seconds",
    "Of each batch's last transaction: commit to topic (capture), to the daemon (transport), to the"
    " replica (apply).",
    ("replica", "stage"),
    "histogram",
)


class Stages:
    """How long the last transaction of each batch took in each stage, in seconds."""

    def __init__(self, replica: str) -> None:
        # A series more per stage, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # its signature is not typed
        self.registry = CollectorRegistry()
        histogram = Histogram(
            STAGE.name,
            STAGE.says,
            STAGE.labels,
            buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
            registry=self.registry,
        )
        self._stages = [
            histogram.labels(replica, stage) for stage in ("capture", "transport", "apply")
        ]

    def observe(self, *seconds: float) -> None:
        """Take capture, transport and apply; clocks that differ must not make one negative."""
        for stage, value in zip(self._stages, seconds, strict=True):
            stage.observe(max(0.0, value))

    def families(self) -> Iterable[Metric]:
        return self.registry.collect()
