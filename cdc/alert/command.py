"""The hook `command`: a program of one's own, started without a shell."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO

from cdc.alert import payload
from cdc.alert.delivery import NotTaken
from cdc.alert.machine import Notice
from cdc.alert.payload import Frame
from cdc.alert.settings import CommandHook

log = logging.getLogger(__name__)

#: Seconds between TERM and KILL.
_GRACE = 5.0

#: Bytes of its output that are logged; the rest is read and dropped.
_OUTPUT = 8192


class Command:
    """Gives the document on standard input and as CDC_* variables; exit code 0 means taken."""

    def __init__(self, name: str, hook: CommandHook, frame: Frame) -> None:
        self.name = name
        self._hook, self._frame = hook, frame

    def tell(self, notice: Notice) -> None:
        program = Path(self._hook.argv[0]).name
        try:
            # A group of its own: what it has started ends with it when its time is over.
            process = subprocess.Popen(
                self._hook.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **payload.environment(self._frame, notice)},
                start_new_session=True,
            )
        except OSError as error:
            raise NotTaken("missing", f"{program} cannot be started: {error.strerror}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        reader = _Reader(process.stdout)
        with contextlib.suppress(BrokenPipeError):  # it need not read
            process.stdin.write(payload.encoded(self._frame, notice))
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            code = process.wait(self._hook.timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            self._log(reader)
            raise NotTaken(
                "timeout", f"{program} did not end within {self._hook.timeout:g} s and was ended"
            ) from None
        self._log(reader)
        if code:
            how = f"was ended by signal {-code}" if code < 0 else f"exited {code}"
            raise NotTaken("failed", f"{program} {how}")

    def _log(self, reader: _Reader) -> None:
        for line in reader.text().splitlines():
            log.info("hook %s: %s", self.name, line)


class _Reader(threading.Thread):
    """Reads all that a program prints, so that it never waits for us, and keeps the beginning."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._pipe = pipe
        self._kept = bytearray()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._pipe:
            while some := os.read(self._pipe.fileno(), 65536):
                self._kept += some[: _OUTPUT - len(self._kept)]

    def text(self) -> str:
        """Return what was printed; something it left behind may go on printing."""
        self.join(1.0)
        return bytes(self._kept).decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and what it has started: asked first, then killed."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what did not heed TERM though its parent did
