"""The daemon's own measurement, in threads beside its loop: nothing here holds replication up.

One thread looks at all ends from outside every few seconds, as `cdc status` does, and keeps samples on
the replica. The other reads the loop's gauge twice a second, for those who ask over HTTP.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections import deque

import psycopg

from cdc import freshness, policy, postgres, samples
from cdc.config import Config
from cdc.errors import CdcError
from cdc.freshness import Fresh, Gate, Look
from cdc.gauge import Gauge
from cdc.observation import STALE, Observation, Observer
from cdc.readings import PATIENCE
from cdc.samples import Sample
from cdc.strays import Stray

log = logging.getLogger(__name__)

#: Seconds between two looks from outside, and between two samples of the gauge.
INTERVAL, _TICK = 5.0, 0.5

#: Limits that are watched at once; somebody who asks for ever new ones pushes out the oldest.
_GATES = 16


class Measuring:
    """Measures one replica while its daemon runs; `seen` is the last look, None before the first."""

    def __init__(self, config: Config, replica: str, gauge: Gauge) -> None:
        self.config = config
        self.replica = replica
        self.gauge = gauge
        self.seen: Observation | None = None
        self.spent = dict.fromkeys(("good", "bad", "unknown"), 0.0)  # seconds
        self.lost = 0  # samples that were not kept
        self._look: Look | None = None
        self._gates: dict[float, Gate] = {}
        self._lock = threading.Lock()
        self._waiting: deque[Sample] = deque()
        self._trouble: str | None = None
        self._strays: frozenset[Stray] = frozenset()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=run, name=name, daemon=True)
            for run, name in ((self._looks, "look"), (self._ticks, "gauge"))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let the threads end; a look that hangs is waited for no longer than it may take."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)

    def current(self) -> Fresh:
        """Return how fresh the replica is now."""
        period = self.config.connect.heartbeat
        return freshness.current(self.gauge, self._look, time.monotonic(), period, STALE * INTERVAL)

    def open(self, limit: float) -> bool:
        """Tell whether the replica is in for a limit, with hysteresis from the first question on."""
        with self._lock:
            gate = self._gates.get(limit)
            if gate is None:
                gate = Gate.first(limit, self.current().seconds)
                if len(self._gates) >= _GATES:
                    del self._gates[next(iter(self._gates))]
                self._gates[limit] = gate
            return gate.open

    def _ticks(self) -> None:
        at, sampled = time.monotonic(), 0.0
        while not self._stop.wait(_TICK):
            before, at = at, time.monotonic()
            found = self.current()
            with self._lock:
                for limit, gate in self._gates.items():
                    self._gates[limit] = gate.after(found.seconds)
            late = found.seconds is not None and found.seconds > self.config.lag.target
            kind = "unknown" if found.seconds is None else "bad" if late else "good"
            self.spent[kind] += at - before
            if at - sampled >= samples.EVERY and self.gauge.doing != "standing by" and self._look:
                sampled = at
                self._keep_later(found)

    def _keep_later(self, found: Fresh) -> None:
        if len(self._waiting) >= samples.WAITING:
            self._waiting.popleft()
            self.lost += 1
        backlog = None if self.seen is None else self.seen.lag(self.replica).backlog
        self._waiting.append(Sample(found.at, found.seconds, found.state, backlog))

    def _looks(self) -> None:
        with contextlib.closing(Observer(self.config, [self.replica], INTERVAL)) as observer:
            while not self._stop.is_set():
                began = time.monotonic()
                try:
                    self._take(observer.look(time.time()), began)
                    self._keep(observer)
                except Exception:
                    # Replication goes on without; freshness is unknown until a look succeeds.
                    log.exception("a look at the lag failed, which is a defect of cdc")
                self._stop.wait(max(0.0, INTERVAL - (time.monotonic() - began)))

    def _take(self, seen: Observation, began: float) -> None:
        """Take a look begun at `began`; where the replica could not be read what it said before counts."""
        before, said = self._look, seen.readings.get(self.replica)
        place = None if said is None else said.position
        found = Look(
            seen.lag(self.replica),
            None if said is None else said.heartbeat_at,
            None if place is None or place.applied_ms is None else place.applied_ms / 1000,
            seen.at - time.monotonic(),
            began,
        )
        if said is None and before is not None:
            found = dataclasses.replace(
                found,
                heartbeat_at=before.heartbeat_at,
                applied_at=before.applied_at,
                looked_at=before.looked_at,
            )
        self.seen, self._look = seen, found
        for stray in seen.strays:
            if stray not in self._strays:
                log.warning("%s %s; %s", stray.table, stray.what, stray.fix)
        self._strays = frozenset(seen.strays)

    def _keep(self, observer: Observer) -> None:
        """Write the samples that wait; where the replica does not take them they wait on."""
        found = list(self._waiting)
        if not found:
            return
        try:
            observer.ask(self.replica, samples.keep(self.config.name, found))
        except CdcError:
            return  # it cannot be reached: the loop says so
        except psycopg.Error as error:
            said = postgres.first_line(error)
            if said != self._trouble and not policy.transient(error):
                self._trouble = said
                log.warning("samples of the lag cannot be kept on the replica yet: %s", said)
            return
        self._trouble = None
        for sample in found:
            if self._waiting and self._waiting[0] is sample:
                self._waiting.popleft()
