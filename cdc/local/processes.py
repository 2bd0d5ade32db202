"""Background processes: started detached, known again by pid and start time, stopped for sure."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PROC = Path("/proc")


@dataclasses.dataclass(frozen=True, slots=True)
class Owner:
    """The system user a process runs as; given only when we are root."""

    uid: int
    gid: int


@dataclasses.dataclass(frozen=True, slots=True)
class Launch:
    """How a process is started. Secrets never stand in `argv`: everyone can read it."""

    argv: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    owner: Owner | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """A running process; a pid alone may have been given to another one since."""

    pid: int
    started: str

    def alive(self) -> bool:
        with contextlib.suppress(ChildProcessError):  # reap it if it is our own child
            os.waitpid(self.pid, os.WNOHANG)
        return _started(self.pid) == self.started

    def send(self, signal_number: int) -> None:
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)


def start(launch: Launch, log: Path, pid_file: Path) -> Process:
    """Start a process in a session of its own, its output appended to `log`."""
    owner = launch.owner
    with log.open("ab") as output:
        child = subprocess.Popen(
            launch.argv,
            cwd=launch.cwd,
            env={**os.environ, **launch.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=owner.uid if owner else None,
            group=owner.gid if owner else None,
            extra_groups=[] if owner else None,
        )
    child.returncode = 0  # it outlives us on purpose; Process.alive reaps it if it ends earlier
    process = Process(child.pid, _started(child.pid) or "")
    fresh = pid_file.with_suffix(".new")
    fresh.write_text(f"{process.pid} {process.started}\n", encoding="ascii")
    fresh.replace(pid_file)
    return process


def recorded(pid_file: Path) -> Process | None:
    """Return the process a pid file speaks of, if it is still that one and runs."""
    try:
        pid, _, started = pid_file.read_text(encoding="ascii").strip().partition(" ")
    except FileNotFoundError:
        return None
    process = Process(int(pid), started)
    return process if started and process.alive() else None


def stop(process: Process, signals: Sequence[tuple[int, float]]) -> None:
    """Send each signal and wait its seconds for the end; SIGKILL when none was enough."""
    for number, seconds in (*signals, (signal.SIGKILL, 10.0)):
        process.send(number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not process.alive():
                return
            time.sleep(0.02)


def reaped(pid: int, seconds: float) -> bool:
    """Wait until an ended process is gone from the process table; tell whether it is.

    Until its parent has looked, others take its pid for a running process. True at once for one
    that runs: it is not ended.
    """
    deadline = time.monotonic() + seconds
    while _exists(pid) and _started(pid) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def working_in(folder: Path, program: str) -> list[Process]:
    """Return what runs `program` with `folder` as working directory (Linux; elsewhere nothing).

    A PostgreSQL server's children are in its data directory: so those that outlived a killed
    server are found.
    """
    found = []
    for entry in _PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            there = (entry / "cwd").readlink() == folder.resolve()
            ours = there and (entry / "exe").readlink().name == program
            if ours and (born := _started(int(entry.name))):
                found.append(Process(int(entry.name), born))
    return found


def tail(log: Path, lines: int, since: int = 0) -> str:
    """Return the last `lines` lines of `log` written after byte `since`."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(since, size - 1_000_000))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    return ""


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def _started(pid: int) -> str | None:
    """Return what tells this process from any other with its pid; None once it has ended."""
    if _PROC.joinpath("self/stat").exists():
        try:
            # The name in parentheses may hold spaces; state is the field after it, start the 20th.
            fields = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in "ZX" else fields[19]
    said = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split()
    return None if not said or said[0].startswith("Z") else "_".join(said[1:])
