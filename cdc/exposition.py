"""What the daemon exposes to Prometheus, from its memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable
from typing import get_args

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from cdc import lag, metrics, strays
from cdc.measuring import Measuring
from cdc.observation import Observation
from cdc.verify import gauges


@dataclasses.dataclass(frozen=True, slots=True)
class Exposition(Collector):
    """Collects when it is scraped; `failures` tells how often the port could not be opened."""

    measured: Measuring
    failures: Callable[[], int]

    def collect(self) -> Iterable[Metric]:
        yield from self._loop()
        yield from self._lag()
        if (seen := self.measured.seen) is not None:
            yield from self._stream(seen)

    def _loop(self) -> Iterable[Metric]:
        gauge, r = self.measured.gauge, self.measured.replica
        yield metrics.APPLIED.family(((r,), gauge.applied_at))
        yield metrics.HEARTBEAT.family(((r,), gauge.heartbeat_at))
        yield metrics.TRANSACTIONS.family(((r,), gauge.transactions))
        yield metrics.ROWS.family(((r,), gauge.total.rows))
        yield metrics.BATCHES.family(((r,), gauge.batches))
        yield metrics.UNMATCHED.family(
            ((r, "update"), gauge.total.unmatched_updates),
            ((r, "delete"), gauge.total.unmatched_deletes),
        )
        yield from gauge.stages.families()

    def _lag(self) -> Iterable[Metric]:
        measured, r = self.measured, self.measured.replica
        found = measured.current()
        yield metrics.LAG.family(((r,), found.seconds))
        yield metrics.TARGET.family(((), measured.config.lag.target))
        yield metrics.STATE.family(
            *(((r, state), float(state == found.state)) for state in get_args(lag.State))
        )
        yield metrics.FRESHNESS.family(*(((r, kind), s) for kind, s in measured.spent.items()))
        yield metrics.SAMPLES_LOST.family(((r,), measured.lost))
        yield metrics.LISTEN_FAILURES.family(((r,), self.failures()))

    def _stream(self, seen: Observation) -> Iterable[Metric]:
        r, slot = self.measured.replica, seen.slot
        yield metrics.BACKLOG.family(((r,), seen.lag(r).backlog))
        yield metrics.SKEW.family(*(((side,), value) for side, value in seen.skew.items()))
        reasons = Counter(stray.why for stray in seen.strays)
        yield metrics.UNCOVERED.family(((r,), sum(reasons[why] for why in strays.LACKING)))
        yield metrics.STRAYS.family(*(((r, why), reasons[why]) for why in strays.WHYS))
        yield metrics.OLDEST.family(((), seen.oldest_transaction))
        if (said := seen.readings.get(r)) is not None:
            yield from gauges.collected({r: said.verified})
        if slot is not None:
            yield metrics.SLOT_ACTIVE.family(((), slot.active))
            yield metrics.SLOT_RETAINED.family(((), slot.retained))
            yield metrics.SLOT_LOST_IN.family(((), slot.lost_in))
        if seen.capture is not None:
            yield metrics.CONNECTOR_RUNNING.family(((), seen.capture.running))
