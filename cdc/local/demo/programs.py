"""The commands of the demo: shown, then run as a user would run them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cdc.errors import InstallationError
from cdc.local import processes
from cdc.local.demo.screen import Screen
from cdc.local.processes import Launch, Process

_STOP = ((signal.SIGTERM, 20.0),)


@dataclasses.dataclass(slots=True)
class Programs:
    """Runs commands in the stack's folder, whose cdc.toml is then the default."""

    folder: Path
    screen: Screen
    daemons: dict[str, Process] = dataclasses.field(default_factory=dict)

    def run(
        self, *words: str, quiet: bool = False, skip: Callable[[str], bool] = lambda _: False
    ) -> None:
        """Show `cdc WORDS`, run it and show what it prints, but lines to `skip`.

        `quiet` shows only its last line. Raises InstallationError with the whole output when it
        fails.
        """
        self.screen.command(shlex.join(["cdc", *words]))
        began = time.monotonic()

        def show(line: str) -> None:
            if not quiet and not skip(line):
                self.screen.output(line)

        lines, code = self._execute([*_cdc(), *words], show)
        if code:
            raise failed(f"`{shlex.join(['cdc', *words])}` ended with exit code {code}", lines)
        if quiet and lines:
            self.screen.output(f"{lines[-1]}  ({time.monotonic() - began:.1f} s)")

    def verify(self, *words: str, expect: int, show: Callable[[str], bool]) -> list[str]:
        """Show `cdc-verify WORDS`, run it and show those of its lines; return them.

        Raises InstallationError with the whole output when it does not end with `expect`.
        """
        command = shlex.join(["cdc-verify", *words])
        self.screen.command(command)
        told = []

        def one(line: str) -> None:
            if show(line):
                told.append(line)
                self.screen.output(line)

        lines, code = self._execute([sys.executable, "-m", "cdc.verify", *words], one)
        if code != expect:
            raise failed(f"`{command}` ended with exit code {code}, not {expect}", lines)
        return told

    def ask(self, argv: list[str], show: Callable[[str], None]) -> bool:
        """Run another program and show each line; tell whether it ended with 0, not 1."""
        lines, code = self._execute(argv, show)
        if code not in (0, 1):
            raise failed(f"{argv[0]} ended with exit code {code}", lines)
        return code == 0

    def _execute(self, argv: list[str], show: Callable[[str], None]) -> tuple[list[str], int]:
        child = subprocess.Popen(
            argv,
            cwd=self.folder,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C reaches only this program, which then ends what it has started, in order.
            start_new_session=True,
        )
        lines = []
        try:
            assert child.stdout is not None
            for line in child.stdout:
                lines.append(line.rstrip())
                show(lines[-1])
            return lines, child.wait()
        except BaseException:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(60)
            child.kill()
            child.wait()
            raise

    def log(self, replica: str) -> Path:
        return self.folder / "logs" / f"daemon-{replica}.log"

    def start_daemon(self, replica: str) -> None:
        """Show and start `cdc run`; it goes on in the background, its output in a log."""
        self.screen.command(f"cdc run -r {replica} &")
        launch = Launch((*_cdc(), "run", "-r", replica), self.folder, _environment())
        pid_file = self.folder / "run" / f"daemon-{replica}.pid"
        self.daemons[replica] = processes.start(launch, self.log(replica), pid_file)

    def check_daemons(self) -> None:
        """Raise InstallationError with the end of the log of a daemon that has ended."""
        for replica, process in self.daemons.items():
            if not process.alive():
                raise failed(f"the daemon of {replica} has ended", self._tail(replica))

    def _tail(self, replica: str) -> list[str]:
        return processes.tail(self.log(replica), 15).splitlines()

    def kill(self, process: Process, shown: str) -> None:
        """Show and do `kill -9`; return when the process is gone."""
        self.screen.command(f"kill -9 {process.pid}{shown}")
        processes.stop(process, ((signal.SIGKILL, 10.0),))

    def stop_daemons(self) -> None:
        for process in self.daemons.values():
            process.send(signal.SIGTERM)
        for process in self.daemons.values():
            processes.stop(process, _STOP)
        self.daemons.clear()


def failed(what: str, lines: list[str]) -> InstallationError:
    """Return the error that ends the demo, with the last lines of what went wrong."""
    told = "\n".join(f"    {line}" for line in lines[-25:])
    return InstallationError(
        f"{what}:\n{told}" if told else what,
        safe="the demo uses its own servers only; all of it is taken down again",
        next="the lines above say what was wrong; mend it and run the demo again",
    )


def _cdc() -> list[str]:
    return [sys.executable, "-m", "cdc"]


def _environment() -> dict[str, str]:
    """Return the environment without what would lead commands to another database or file."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PG") and k != "CDC_CONFIG"}
    return kept | {"PYTHONUNBUFFERED": "1"}
