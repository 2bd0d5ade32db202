"""The processes that are struck, and how each is brought back: as its supervisor would."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

import harness
from harness import Stack, Stream
from schedule import Blow

#: Seconds in which an armed daemon must have come to its failpoint.
_REACHED_WITHIN = 120.0


class Components:
    """Servers, broker and worker of a local stack; `cdc local up` restarts what is dead."""

    def __init__(self, stack: Stack) -> None:
        self._folder = stack.config.parent
        self._pids: dict[str, int] = {}
        self._stopped: dict[str, list[int]] = {}
        self._look()

    def strike(self, blow: Blow) -> int:
        """Send the blow's signal; return the pid that got it."""
        pid = self._pids[blow.target]
        match blow.how:
            case "stop":
                # The parent first: what is stopped starts no children.
                os.kill(pid, signal.SIGSTOP)
                self._stopped[blow.target] = [pid, *_children(pid)]
                _send(self._stopped[blow.target][1:], signal.SIGSTOP)
            case "crash":
                harness.wait_until(lambda: bool(_children(pid)), f"{blow.target} has sessions")
                pid = (found := _children(pid))[int(blow.seconds * 1000) % len(found)]
                _send([pid], signal.SIGKILL)
            case _:
                os.kill(pid, signal.SIGKILL)
        return pid

    def restore(self, blows: Iterable[Blow]) -> None:
        """Let what was stopped go on; start what was killed."""
        killed = False
        for blow in blows:
            _send(reversed(self._stopped.pop(blow.target, [])), signal.SIGCONT)
            killed |= blow.how == "kill"
        if killed:
            self._start()

    def mend(self) -> list[str]:
        """Start servers that ended because they were struck while they recovered; return them."""
        dead = [name for name, pid in self._pids.items() if not _runs(pid)]
        assert not {"connect", "kafka"} & set(dead), f"{dead} ended by themselves"
        if dead:
            self._start()
        return dead

    def release(self) -> None:
        """Let everything go on, whatever happened."""
        for pids in self._stopped.values():
            _send(pids, signal.SIGCONT)
        self._stopped.clear()

    def log(self, name: str) -> str:
        """Return the end of a component's log."""
        log = self._folder / "logs" / f"{name}.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else f"no {log}"

    def _start(self) -> None:
        harness.run("local", "up", "--dir", self._folder, cwd=self._folder.parent, timeout=400)
        self._look()

    def _look(self) -> None:
        said = harness.run(
            "local", "status", "--json", "--dir", self._folder, cwd=self._folder.parent
        ).stdout
        self._pids = json.loads(said)["pids"]


class Daemons:
    """One daemon per replica; whatever ends one without having been told to is a finding."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._running = {name: stream.start("run", "-r", name) for name in stream.replicas}

    def strike(self, blow: Blow) -> int:
        """Send the blow's signal, or replace the daemon by one that will send it to itself."""
        replica = blow.target.removeprefix("daemon ")
        daemon = self._running[replica]
        match blow.how:
            case "stop":
                daemon.send_signal(signal.SIGSTOP)
            case "kill":
                daemon.kill()
            case _:
                assert blow.point is not None
                daemon.terminate()
                # Ended in order, or by the signal itself where it had only begun to start.
                assert daemon.wait(120) in (0, -signal.SIGTERM), self.log(replica)
                self._running[replica] = self._stream.start(
                    "run", "-r", replica, armed=(blow.point, str(blow.times), "KILL")
                )
        return self._running[replica].pid

    def restore(self, blow: Blow) -> bool:
        """Bring the daemon back; tell whether it was struck where it was aimed at."""
        replica = blow.target.removeprefix("daemon ")
        daemon = self._running[replica]
        hit = True
        if blow.how == "stop":
            daemon.send_signal(signal.SIGCONT)
            return True
        if blow.how == "point":
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(_REACHED_WITHIN)
            hit = daemon.poll() is not None
            daemon.kill()
        assert daemon.wait(10) == -signal.SIGKILL, self.log(replica)
        self._running[replica] = self._stream.start("run", "-r", replica)
        return hit

    def again(self, replica: str) -> None:
        """Start a daemon that has halted again, as a person would."""
        if self._running[replica].poll() == 1:
            self._running[replica] = self._stream.start("run", "-r", replica)

    def alive(self) -> None:
        """Fail with the log of a daemon that has ended by itself."""
        for replica, daemon in self._running.items():
            assert daemon.poll() is None, (
                f"the daemon of {replica} exited {daemon.returncode}\n{self.log(replica)}"
            )

    def log(self, replica: str) -> str:
        """Return the end of what the replica's daemon said."""
        return self._stream.log(self._running[replica])[-4000:]


def _children(pid: int) -> list[int]:
    """Return the processes that a server has started (Linux)."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(child) for child in found]


def _runs(pid: int) -> bool:
    """Tell whether the process has not ended yet, be it reaped or not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # a session that has ended meanwhile
            os.kill(pid, number)
