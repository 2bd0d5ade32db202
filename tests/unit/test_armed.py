"""The program that tests start to be killed at a named instant."""

from __future__ import annotations

import signal
import subprocess
import sys

import armed
import harness
import pytest

from cdc import failpoint
from cdc.commands import run


@pytest.mark.parametrize("times", [1, 3])
def test_the_signal_comes_when_the_point_is_reached_so_many_times(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other points and earlier times pass; after it the program goes on if it still lives."""
    sent: list[tuple[int, int]] = []
    step = 0
    monkeypatch.setattr("os.kill", lambda _pid, number: sent.append((step, number)))
    try:
        armed.arm("rows.written", times, signal.SIGKILL)
        while step < 5:
            step += 1
            failpoint.reach("batch.begun")
            failpoint.reach("rows.written")
    finally:
        failpoint.arm(None)

    assert sent == [(times, signal.SIGKILL)]


def test_nothing_is_armed_unless_asked_for() -> None:
    """The program as users start it has no hook, whatever it imports."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import {run.__name__}; print(cdc.failpoint._armed)",
        ],
        env=harness.environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_the_rest_of_the_line_is_given_to_the_program() -> None:
    """What follows the dashes are the program's own arguments; a wrong point is refused."""
    command = [sys.executable, armed.__file__]
    right = subprocess.run(
        [*command, "batch.begun", "1", "KILL", "--", "--version"],
        env=harness.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    wrong = subprocess.run(
        [*command, "batch.ended", "1", "KILL", "--", "--version"],
        env=harness.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (right.returncode, right.stdout[:5]) == (0, "cdc, "), right.stderr
    assert wrong.returncode == 2
