"""Planned work: replicas of which nobody wants to hear for a while, with a reason and an end.

Kept in a file of their own, because people write them while the watcher holds its state.
"""

from __future__ import annotations

import dataclasses
import fcntl
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from cdc.alert import files
from cdc.errors import CdcError, UsageError

_FILE = "silences.json"

_SAFE = "nothing was changed; alerts are told as before"


@dataclasses.dataclass(frozen=True, slots=True)
class Silence:
    """`replica` None is all of them; times are seconds since 1970."""

    id: str
    replica: str | None
    begins_at: float
    ends_at: float
    reason: str

    def covers(self, replica: str, now: float) -> bool:
        return self.replica in {None, replica} and self.begins_at <= now < self.ends_at


def covered(silences: Iterable[Silence], replica: str, now: float) -> bool:
    """Tell whether nobody wants to hear of `replica` now."""
    return any(silence.covers(replica, now) for silence in silences)


def load(folder: Path) -> tuple[Silence, ...]:
    """Return the silences kept in `folder`; CdcError where they cannot be read."""
    file = folder / _FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=tuple[Silence, ...])
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except (OSError, msgspec.DecodeError) as error:
        raise CdcError(
            f"the silences in {file} cannot be read: {error}",
            safe="no alert is held back",
            next="mend or delete the file, and set the silences again",
        ) from error


def add(folder: Path, silence: Silence) -> None:
    """Keep one more; those that are over are forgotten."""
    _change(folder, lambda kept: (*(s for s in kept if s.ends_at > silence.begins_at), silence))


def end(folder: Path, name: str, now: float) -> Silence:
    """End the silence `name`; UsageError naming the present ones if there is none."""
    found: list[Silence] = []

    def without(kept: tuple[Silence, ...]) -> tuple[Silence, ...]:
        found.extend(s for s in kept if s.id == name)
        if not found:
            present = ", ".join(s.id for s in kept if s.ends_at > now) or "there is none"
            raise UsageError(f"there is no silence {name!r}", safe=_SAFE, next=f"use: {present}")
        return tuple(s for s in kept if s.id != name)

    _change(folder, without)
    return found[0]


def _change(folder: Path, change: Callable[[tuple[Silence, ...]], tuple[Silence, ...]]) -> None:
    """Replace the file under a lock: two people may set one at the same moment."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{_FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            files.replace(folder / _FILE, msgspec.json.encode(change(load(folder))))
    except OSError as error:
        raise CdcError(
            f"the silences in {folder} cannot be written: {error}",
            safe=_SAFE,
            next="check state_dir and who may write there",
        ) from error
