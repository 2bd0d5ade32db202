"""Watching: again and again, or once for cron."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import msgspec

from cdc.alert import courier, metrics, store
from cdc.alert.clock import Clock
from cdc.alert.courier import Errand
from cdc.alert.judgement import Sample
from cdc.alert.payload import Frame
from cdc.alert.store import Store
from cdc.alert.watcher import Watcher
from cdc.config import Config
from cdc.observation import STALE, Observation, Observer
from cdc.signals import Stop
from cdc.units import Duration

log = logging.getLogger(__name__)

#: Seconds at least that a look may take; each server has two of them to answer.
_PATIENCE = 15.0


@contextlib.contextmanager
def observing(config: Config, replicas: Sequence[str]) -> Iterator[Callable[[float], Observation]]:
    """Give what looks at the replicas; its sessions end afterwards."""
    observer = Observer(config, replicas, config.alert.interval)
    try:
        yield observer.look
    finally:
        observer.close()


def watch(config: Config, replicas: Sequence[str], stop: Stop) -> None:
    """Watch until `stop` is set. CdcError where another one watches with this state."""
    clock, where = Clock(), store.folder(config)
    errands = courier.errands(config.alert.hooks, Frame.of(config))
    with store.only_one(where):
        kept = Store(where)
        watcher = Watcher(config, replicas, kept, clock, errands)
        log.info(
            "watching %s every %g s; state in %s; hooks: %s",
            ", ".join(replicas),
            config.alert.interval,
            where,
            ", ".join(errand.name for errand in errands) or "none: nobody is told anything",
        )
        listen = config.alert.listen
        endpoint = None if listen is None else metrics.Endpoint(listen, kept, watcher)
        # Only looking is broken off when it takes too long: what is being told is told to its end.
        with observing(config, replicas) as look, watcher.telling(), stop.insisting():
            looking = Looking(look, max(STALE * config.alert.interval, _PATIENCE))
            while not stop.is_set():
                if endpoint is not None:
                    endpoint.open()
                seen = looking.look(clock.now())
                if isinstance(seen, str):
                    watcher.judge({name: Sample(None, seen) for name in replicas})
                else:
                    watcher.saw(seen)
                stop.wait(config.alert.interval)


class Looking:
    """Looks in a thread, so that a look that never ends, or fails by a defect, is told as well."""

    def __init__(self, look: Callable[[float], Observation], patience: float) -> None:
        self._look, self._patience = look, patience
        self._pool = ThreadPoolExecutor(1, "looking")
        self._under_way: Future[Observation] | None = None

    def look(self, now: float) -> Observation | str:
        """Return what is seen, or why nothing is."""
        if self._under_way is None:
            self._under_way = self._pool.submit(self._look, now)
        done, _ = wait([self._under_way], self._patience)
        if not done:
            return f"looking at it has not ended within {self._patience:.0f} s"
        under_way, self._under_way = self._under_way, None
        try:
            return under_way.result()
        except Exception as defect:
            # It must not end the watching: nobody would be told any more.
            log.exception("a look failed by a defect of this program")
            return f"looking at it failed by a defect of this program ({type(defect).__name__})"


def once(config: Config, replicas: Sequence[str]) -> Observation:
    """Look once and tell nobody."""
    with observing(config, replicas) as look:
        return look(Clock().now())


def once_telling(config: Config, replicas: Sequence[str]) -> Observation:
    """Look once, as one step of watching, and let each hook be told what is due.

    What a hook does not take is told with the next call. There is no grace: between two calls of cron
    lies more time than that.
    """
    alert = msgspec.structs.replace(config.alert, grace=Duration(0))
    config = msgspec.structs.replace(config, alert=alert)
    clock, where = Clock(), store.folder(config)
    errands = courier.errands(config.alert.hooks, Frame.of(config))
    with store.only_one(where), observing(config, replicas) as look:
        kept = Store(where)
        watcher = Watcher(config, replicas, kept, clock, errands)
        seen = look(clock.now())
        watcher.saw(seen)
        run(errands, kept, clock)
        return seen


def run(errands: Sequence[Errand], kept: Store, clock: Clock) -> None:
    """Run all errands at once, to their end."""
    with ThreadPoolExecutor(max(1, len(errands))) as pool:
        for done in [pool.submit(errand.run, kept, clock) for errand in errands]:
            done.result()
