"""A thread for each hook, so that none delays the measuring or another hook."""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from cdc.alert import alertmanager, payload, webhook
from cdc.alert.clock import Clock
from cdc.alert.command import Command
from cdc.alert.delivery import Hook, NotTaken
from cdc.alert.machine import Notice
from cdc.alert.outbox import Outbox
from cdc.alert.payload import Frame
from cdc.alert.settings import AlertmanagerHook, CommandHook
from cdc.alert.settings import Hook as Setting
from cdc.alert.store import State, Store
from cdc.alert.webhook import Webhook

log = logging.getLogger(__name__)

#: Seconds after which a thread looks even if nobody has woken it.
_LOOK = 1.0


class Errand(Protocol):
    """What one thread does again and again."""

    name: str

    #: Whether it is told notices one by one, or the whole state again and again.
    notices: bool

    def run(self, store: Store, clock: Clock) -> None:
        """Tell the hook what is due now, if anything is, and put down how that went."""

    def try_(self, test: Notice) -> None:
        """Tell it a test alert; NotTaken where it did not take it."""


class Telling:
    """Tells a hook the notices of its outbox, one after the other."""

    notices = True

    def __init__(self, hook: Hook) -> None:
        self.name = hook.name
        self._hook = hook

    def run(self, store: Store, clock: Clock) -> None:
        while (notice := _box(store.state, self.name).due(clock.now())) is not None:
            if not attempt(store, self.name, clock, partial(self._hook.tell, notice), notice):
                return
            log.info("hook %s was told: %s", self.name, notice.summary)

    def try_(self, test: Notice) -> None:
        self._hook.tell(test)


class Resending:
    """Tells one instance of Alertmanager what fires and what is over, again and again."""

    notices = False

    def __init__(self, name: str, url: str, hook: AlertmanagerHook, frame: Frame) -> None:
        self.name = name
        self._url, self._hook, self._frame = url, hook, frame
        self._sent_at = 0.0
        self._sent: list[object] = []

    def run(self, store: Store, clock: Clock) -> None:
        now, state = clock.now(), store.state
        if now < _box(state, self.name).next_try_at:
            return
        found = alertmanager.alerts(state, self._frame, now, self._hook.resend)
        identity = [(a["labels"], a["startsAt"], a["endsAt"] > payload.utc(now)) for a in found]
        if not found or (identity == self._sent and now - self._sent_at < self._hook.resend):
            return
        if attempt(
            store, self.name, clock, lambda: alertmanager.send(self._url, found, self._hook.timeout)
        ):
            self._sent_at, self._sent = now, list(identity)

    def try_(self, test: Notice) -> None:
        found = alertmanager.trial(test, self._frame)
        alertmanager.send(self._url, [found], self._hook.timeout)


def errands(hooks: Sequence[Setting], frame: Frame) -> list[Errand]:
    """Return what there is to do for the configured hooks; each gets a name of its own."""
    taken: dict[str, int] = {}

    def named(what: str) -> str:
        taken[what] = taken.get(what, 0) + 1
        return what if taken[what] == 1 else f"{what} #{taken[what]}"

    made: list[Errand] = []
    for hook in hooks:
        if isinstance(hook, CommandHook):
            name = named(f"command {hook.argv[0].rpartition('/')[2]}")
            made.append(Telling(Command(name, hook, frame)))
        elif isinstance(hook, AlertmanagerHook):
            made += [
                Resending(named(f"alertmanager {webhook.host(url)}"), url, hook, frame)
                for url in hook.urls
            ]
        else:
            made.append(Telling(Webhook(named(f"webhook {webhook.host(hook.url)}"), hook, frame)))
    return made


def attempt(
    store: Store,
    name: str,
    clock: Clock,
    tell: Callable[[], None],
    notice: Notice | None = None,
) -> bool:
    """Try to tell a hook something, put down how that went, and return whether it took it."""
    try:
        tell()
    except NotTaken as trouble:
        outcome, error = trouble.outcome, str(trouble)
    except Exception as defect:
        # It must not end the thread: nobody would be told any more.
        log.exception("hook %s: a defect of this program", name)
        outcome, error = "failed", f"a defect of this program ({type(defect).__name__})"
    else:
        store.change(lambda state: _with(state, name, _box(state, name).taken(notice)))
        return True
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 -- spreads retries, guards no secret
    state = store.change(
        lambda state: _with(
            state, name, _box(state, name).refused(outcome, error, clock.now(), jitter)
        )
    )
    box = _box(state, name)
    log.warning(
        "hook %s: %s; %s, trying again in %.0f s (%d in a row)",
        name,
        error,
        f"{len(box.notices)} waiting" if box.notices else "it is told again what fires",
        max(0.0, box.next_try_at - clock.now()),
        box.failures,
    )
    return False


def _box(state: State, name: str) -> Outbox:
    return state.outboxes.get(name) or Outbox()


def _with(state: State, name: str, box: Outbox) -> State:
    return dataclasses.replace(state, outboxes={**state.outboxes, name: box})


class Courier(threading.Thread):
    """Runs one errand until it is told to stop."""

    def __init__(self, errand: Errand, store: Store, clock: Clock) -> None:
        # A daemon thread: a hook that hangs must not hold up the end of the program for ever.
        super().__init__(name=errand.name, daemon=True)
        self._errand, self._store, self._clock = errand, store, clock
        self._woken, self._over = threading.Event(), False

    def run(self) -> None:
        while not self._over:
            self._errand.run(self._store, self._clock)
            self._woken.wait(_LOOK)
            self._woken.clear()

    def wake(self) -> None:
        """Let it look at once."""
        self._woken.set()

    def stop(self) -> None:
        """Let it end after what it is telling now."""
        self._over = True
        self._woken.set()
