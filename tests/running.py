"""Programs of `workload.py`, and others that tell what they do, as processes beside a test."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORKLOAD = Path(__file__).with_name("workload.py")

#: Source transactions per second that a writer aims at; the bar is 200.
RATE = 230


class Program:
    """One of them; it prints what it did as JSON when it ends."""

    def __init__(self, *args: str, script: Path = WORKLOAD) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(script), *args], stdout=subprocess.PIPE, text=True
        )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float) -> bool:
        """Tell whether it ends within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.running

    def line(self) -> dict[str, Any]:
        """Return the next thing it prints."""
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def result(self) -> dict[str, Any]:
        """Wait for its end and return what it did."""
        assert self._process.stdout is not None
        output = self._process.stdout.read()  # as `line` does, which may have read ahead
        assert self._process.wait(600) == 0, output
        return dict(json.loads(output.splitlines()[-1]))

    def stop(self) -> dict[str, Any]:
        """Ask it to end, then return what it did."""
        self._process.terminate()
        return self.result()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def writing(
    dsn: str, transactions: int | None = None, seed: int | None = None, rate: float = RATE
) -> Iterator[Program]:
    """Write so many random transactions to the primary meanwhile; None: until it is stopped."""
    seed = random.randrange(1 << 30) if seed is None else seed
    print(f"workload seed {seed}")
    many = [] if transactions is None else ["--transactions", str(transactions)]
    program = Program("write", "--dsn", dsn, "--rate", str(rate), "--seed", str(seed), *many)
    try:
        assert program.line() == {"writing": True}
        yield program
    finally:
        program.kill()


@contextlib.contextmanager
def watching(dsn: str, *args: str) -> Iterator[Program]:
    """Read the sum over three tables of a replica all the while; it has begun when this returns."""
    program = Program("watch", "--dsn", dsn, *args)
    try:
        assert program.line() == {"watching": True}
        yield program
    finally:
        program.kill()
