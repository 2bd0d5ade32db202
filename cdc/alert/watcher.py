"""What follows from a look: it is judged, remembered and told; what has failed is restarted."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cdc.alert import machine, sampling, silences
from cdc.alert.alertmanager import OVER_FOR
from cdc.alert.clock import Clock
from cdc.alert.courier import Courier, Errand
from cdc.alert.healing import Healing
from cdc.alert.judgement import About, Sample, Thresholds
from cdc.alert.machine import Kind, Memory, Notice, Phase, Rules
from cdc.alert.outbox import Outbox
from cdc.alert.silences import Silence
from cdc.alert.store import State, Store, Told
from cdc.config import Config
from cdc.connect import Connect
from cdc.errors import CdcError
from cdc.observation import Observation

log = logging.getLogger(__name__)

#: Seconds Kafka Connect has to answer a restart; a thread of its own waits for it.
_CONNECT_TIMEOUT = 10.0

#: Seconds that what is being told has to end when the program is stopped, beyond its own limit.
_LAST_WORDS = 10.0


_STEPS: Final = {About.LAG: machine.step, About.TABLES: machine.step_tables}


def rules(config: Config) -> Rules:
    return Rules(
        Thresholds(config.lag.warn, config.lag.target),
        config.alert.for_,
        config.alert.clear_for,
        config.alert.repeat,
    )


def advance(
    state: State,
    samples: Mapping[str, Sample],
    now: float,
    by: Rules,
    *,
    quiet: frozenset[str] = frozenset(),
    boxes: Sequence[str] = (),
) -> tuple[State, list[Notice]]:
    """Return the state after a look, with what is to be told in the outboxes named `boxes`; pure.

    `quiet` are the replicas of which nobody wants to hear now.
    """
    kept: dict[About, dict[str, Memory]] = {About.LAG: {}, About.TABLES: {}}
    notices: list[Notice] = []
    over = [o for o in state.over if now - o.ends_at < OVER_FOR]
    for name, sample in samples.items():
        for about, step in _STEPS.items():
            before = state.memories(about).get(name, Memory())
            kept[about][name], notice = step(name, before, sample, now, by, quiet=name in quiet)
            if notice is None:
                continue
            notices.append(notice)
            if notice.kind in {Kind.ESCALATED, Kind.RESOLVED} and before.told is not None:
                over.append(
                    Told(
                        name,
                        before.told,
                        notice.reason,
                        notice.summary,
                        notice.starts_at,
                        now,
                        about,
                    )
                )
    outboxes = dict(state.outboxes)
    for box in boxes:
        for notice in notices:
            outboxes[box] = outboxes.get(box, Outbox()).with_(notice)
    return (
        dataclasses.replace(
            state,
            seen_at=now,
            replicas=kept[About.LAG],
            tables=kept[About.TABLES],
            outboxes=outboxes,
            over=tuple(over),
        ),
        notices,
    )


def begun(
    state: State, now: float, config: Config, replicas: Sequence[str], errands: Sequence[Errand]
) -> State:
    """Return the state with which watching begins.

    After a pause longer than the grace everything may just be starting; a mere restart of the watcher
    gives no grace, else one that is restarted again and again would never tell anybody.
    """
    if state.seen_at > now:  # the clock was set back while nobody watched
        state = state.moved(now - state.seen_at)
    if now - state.seen_at > max(config.alert.grace, 3 * config.alert.interval):
        state = dataclasses.replace(state, begun_at=now)
    names = {errand.name for errand in errands}
    for gone in state.outboxes.keys() - names:
        if waiting := len(state.outboxes[gone].notices):
            log.warning(
                "hook %s is configured no more; %d notices to it are dropped", gone, waiting
            )
    for gone in state.replicas.keys() - set(replicas):
        if any(gone in known and known[gone].told for known in (state.replicas, state.tables)):
            log.warning("%s is watched no more: nobody will be told that its alert is over", gone)
    return dataclasses.replace(
        state,
        outboxes={name: state.outboxes.get(name, Outbox()) for name in sorted(names)},
        replicas={name: kept for name, kept in state.replicas.items() if name in replicas},
        tables={name: kept for name, kept in state.tables.items() if name in replicas},
    )


class Watcher:
    """Looks once per call and tells the hooks through their threads."""

    def __init__(
        self,
        config: Config,
        replicas: Sequence[str],
        kept: Store,
        clock: Clock,
        errands: Sequence[Errand],
    ) -> None:
        self._config, self._store, self._clock = config, kept, clock
        self._rules = rules(config)
        self._boxes = [errand.name for errand in errands if errand.notices]
        self._couriers = [Courier(errand, kept, clock) for errand in errands]
        self._connect = Connect(config.connect, patience=0, timeout=_CONNECT_TIMEOUT)
        self._silences: tuple[Silence, ...] = ()
        self._trouble: str | None = None
        self.healing = Healing()
        self.restarts = 0
        self.jumps = 0
        kept.change(lambda state: begun(state, clock.now(), config, replicas, errands))

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Run the hooks' threads meanwhile; what is being told at the end is told to the end."""
        for one in self._couriers:
            one.start()
        try:
            yield
        finally:
            for one in self._couriers:
                one.stop()
            longest = max((h.timeout for h in self._config.alert.hooks), default=0.0)
            for one in self._couriers:
                one.join(longest + _LAST_WORDS)

    def saw(self, seen: Observation) -> None:
        """Take a look: restart what has failed, judge the replicas, and let the hooks tell it."""
        self._heal(sampling.failed(seen))
        self.judge(sampling.samples(seen))

    def judge(self, samples: Mapping[str, Sample]) -> None:
        """Judge a sample of each replica, keep what follows from it, and let the hooks tell it."""
        self._follow_clock()
        now = self._clock.now()
        found = {name: self._with_healing(sample) for name, sample in samples.items()}
        quiet = self._quiet(found, now)
        before = self._store.state
        told: list[Notice] = []

        def change(state: State) -> State:
            after, notices = advance(state, found, now, self._rules, quiet=quiet, boxes=self._boxes)
            told.extend(notices)
            return after

        after = self._store.change(change)
        for about in About:
            for name, memory in after.memories(about).items():
                _say(name, before.memories(about).get(name, Memory()), memory, quiet)
        if told:
            for one in self._couriers:
                one.wake()

    def _follow_clock(self) -> None:
        if jump := self._clock.jump():
            self.jumps += 1
            log.warning(
                "this machine's clock was set %s by %.0f s; times are kept, nothing fires or ends by it",
                "forward" if jump > 0 else "back",
                abs(jump),
            )
            self._store.change(lambda state: state.moved(jump))

    def _quiet(self, names: Mapping[str, Sample], now: float) -> frozenset[str]:
        try:
            self._silences, self._trouble = silences.load(self._store.folder), None
        except CdcError as error:
            if self._trouble != error.what:
                log.warning("%s", error)
            self._silences, self._trouble = (), error.what
        if now - self._store.state.begun_at < self._config.alert.grace:
            return frozenset(names)
        return frozenset(n for n in names if silences.covered(self._silences, n, now))

    def _heal(self, failed: bool) -> None:
        """Restart what has failed of the connector, when its time has come."""
        now = time.monotonic()
        self.healing = self.healing.after(failed, now)
        if not self.healing.due(now):
            return
        self.healing = self.healing.tried(now)
        self.restarts += 1
        log.warning(
            "the connector %s has failed: restarting its failed tasks (%s)",
            self._config.connector,
            self.healing,
        )
        # In a thread of its own: a Connect that hangs must not hold up the next look.
        threading.Thread(target=self._restart, name="restart", daemon=True).start()

    def _restart(self) -> None:
        try:
            self._connect.restart(self._config.connector, only_failed=True)
        except CdcError as error:
            log.warning(
                "the connector %s was not restarted: %s", self._config.connector, error.what
            )

    def _with_healing(self, sample: Sample) -> Sample:
        if sample.stopped is None or not self.healing.tries:
            return sample
        return dataclasses.replace(sample, stopped=f"{sample.stopped} ({self.healing})")


def _say(name: str, before: Memory, after: Memory, quiet: frozenset[str]) -> None:
    """Log what has changed of a replica."""
    if (before.phase, before.level) == (after.phase, after.level):
        return
    level = logging.INFO if after.phase is Phase.OK else logging.WARNING
    unheard = "" if after.told is not None or name not in quiet else "; nobody is told for now"
    log.log(level, "%s: %s%s", after.phase, after.summary, unheard)
