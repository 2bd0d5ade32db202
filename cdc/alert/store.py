"""What the watcher remembers, in one file, so that a restart tells nobody anything twice.

A notice and the change that caused it are written together, before anybody is told: a watcher that is
killed in between tells it when it comes back. One killed after a hook was told and before that was
written tells it again, with the same id.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from cdc.alert import files
from cdc.alert.judgement import About, Level, Reason
from cdc.alert.machine import Memory
from cdc.alert.outbox import Outbox
from cdc.config import Config
from cdc.errors import CdcError

log = logging.getLogger(__name__)

_FILE = "alerts.json"
_LOCK = "alerts.lock"

#: Raised when the file's form changes.
VERSION = 1

#: Seconds a second watcher waits for the first one to end, as when a supervisor restarts it.
_PATIENCE = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """An alert as an Alertmanager knows it: one of each replica, subject and severity."""

    replica: str
    severity: Level
    reason: Reason | None
    summary: str
    starts_at: float
    ends_at: float
    about: About = About.LAG


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Everything the watcher remembers. Times are seconds since 1970.

    `seen_at` is when it last looked, `begun_at` when it first did after a pause. `over` is what ended
    lately, which an Alertmanager is told for some minutes. `replicas` has each one's lag, `tables` its tables.
    """

    version: int = VERSION
    seen_at: float = 0.0
    begun_at: float = 0.0
    replicas: dict[str, Memory] = dataclasses.field(default_factory=dict)
    tables: dict[str, Memory] = dataclasses.field(default_factory=dict)
    outboxes: dict[str, Outbox] = dataclasses.field(default_factory=dict)
    over: tuple[Told, ...] = ()

    def memories(self, about: About) -> dict[str, Memory]:
        return self.tables if about is About.TABLES else self.replicas

    def moved(self, seconds: float) -> State:
        """Return it as seen by a clock that was set forward by so many seconds."""
        return dataclasses.replace(
            self,
            seen_at=self.seen_at + seconds,
            begun_at=self.begun_at + seconds,
            replicas={name: kept.moved(seconds) for name, kept in self.replicas.items()},
            tables={name: kept.moved(seconds) for name, kept in self.tables.items()},
            outboxes={name: kept.moved(seconds) for name, kept in self.outboxes.items()},
            over=tuple(
                dataclasses.replace(o, starts_at=o.starts_at + seconds, ends_at=o.ends_at + seconds)
                for o in self.over
            ),
        )


def folder(config: Config) -> Path:
    """Return where the watcher keeps its state: state_dir, $STATE_DIRECTORY, or the XDG folder."""
    if config.state_dir is not None:
        return config.state_dir
    # systemd gives several, separated by colons, where a unit asks for several.
    if given := os.environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(home) / "cdc" / config.name


class Store:
    """The present state, kept on disk after every change. Its methods may be called by any thread."""

    def __init__(self, where: Path) -> None:
        self.folder = where
        self._file = where / _FILE
        self._guard = threading.Lock()
        self._unwritten: str | None = None
        self.write_failures = 0
        self.state = self._read()

    @property
    def unwritten(self) -> str | None:
        """Why the state cannot be kept on disk, None while it is."""
        return self._unwritten

    def change(self, change: Callable[[State], State]) -> State:
        """Replace the state by what `change` makes of it, and keep it.

        Where the disk does not take it the state lives on in memory: watching goes on.
        """
        with self._guard:
            self.state = change(self.state)
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                files.replace(self._file, msgspec.json.encode(self.state))
            except OSError as error:
                self.write_failures += 1
                if self._unwritten != str(error):
                    log.error(  # noqa: TRY400 -- the reason is in the line; a traceback tells no more
                        "the state cannot be kept in %s: %s; watching goes on, but what was told "
                        "before may be told again after a restart: check state_dir",
                        self._file.parent,
                        error,
                    )
                self._unwritten = str(error)
            else:
                if self._unwritten is not None:
                    log.info("the state is kept in %s again", self._file.parent)
                self._unwritten = None
            return self.state

    def _read(self) -> State:
        """Return what was kept; a damaged file is put aside, said, and begun anew."""
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=State)
            if found.version == VERSION:
                return found
            trouble = f"it has version {found.version}, this program knows {VERSION}"
        except (FileNotFoundError, NotADirectoryError):
            return State()
        except OSError as error:
            trouble = str(error)
        except msgspec.DecodeError as error:
            trouble = f"it is damaged: {error}"
        aside = self._file.with_name(f"{self._file.name}.damaged-{time.time():.0f}")
        kept = f"; it is kept as {aside.name}"
        try:
            self._file.rename(aside)
        except OSError:
            kept = ""
        log.error(
            "the state in %s cannot be used: %s%s; watching begins anew: what fires is told again, "
            "what was over meanwhile is not",
            self._file,
            trouble,
            kept,
        )
        return State()


@contextlib.contextmanager
def only_one(where: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Keep other watchers of the same state away meanwhile; two would tell everything twice.

    Raises CdcError naming the other's process where it does not end. Where the folder cannot be
    written nobody can be kept away: that is said, and watching goes on.
    """
    with contextlib.ExitStack() as held:
        try:
            where.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((where / _LOCK).open("a+", encoding="ascii"))
            _take(lock, where, patience)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
        except OSError as error:
            log.error(  # noqa: TRY400 -- the reason is in the line; a traceback tells no more
                "no lock can be taken in %s: %s; a second watcher would tell everything twice: "
                "check state_dir",
                where,
                error,
            )
        yield


def _take(lock: IO[str], where: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.seek(0)
                raise CdcError(
                    f"another cdc-lag-alert (process {lock.read().strip() or 'unknown'}) watches "
                    f"with the state in {where}",
                    safe="it goes on alerting; this one told nobody anything",
                    next="end that one first, or give this one a state_dir of its own",
                ) from None
            time.sleep(0.1)
        else:
            return
