"""Processes are known again by more than their pid, and ports by more than luck."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cdc.local import layout, processes
from cdc.local.processes import Launch, Process

_SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = processes.start(Launch(_SLEEPER, tmp_path), tmp_path / "log", tmp_path / "pid")
    yield process
    processes.stop(process, ())


def test_a_started_process_is_found_by_its_pid_file(sleeper: Process, tmp_path: Path) -> None:
    """The pid file leads back to the process as long as it runs, and no longer."""
    found = processes.recorded(tmp_path / "pid")
    processes.stop(sleeper, ((signal.SIGTERM, 5.0),))

    assert (sleeper, None) == (found, processes.recorded(tmp_path / "pid"))


def test_a_pid_that_now_belongs_to_another_process_is_left_alone(
    sleeper: Process, tmp_path: Path
) -> None:
    """A process with the recorded pid but another start time is neither reported nor killed."""
    stranger = Process(sleeper.pid, "1")
    (tmp_path / "stale").write_text(f"{stranger.pid} {stranger.started}\n")

    processes.stop(stranger, ((signal.SIGKILL, 1.0),))

    assert processes.recorded(tmp_path / "stale") is None
    assert sleeper.alive()


def test_a_process_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    """When no signal helps within its time, SIGKILL does."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    deaf = processes.start(
        Launch((sys.executable, "-c", code), tmp_path), tmp_path / "log", tmp_path / "pid"
    )
    while "deaf" not in processes.tail(tmp_path / "log", 1):
        assert deaf.alive()

    processes.stop(deaf, ((signal.SIGTERM, 0.2),))

    assert not deaf.alive()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_program_working_in_a_folder_is_found(sleeper: Process, tmp_path: Path) -> None:
    """Children that outlived their server are found; a shell that happens to be there is not."""
    python = Path(sys.executable).resolve().name

    assert [sleeper] == processes.working_in(tmp_path, python)
    assert [] == processes.working_in(tmp_path, "postgres")


def test_a_process_that_ended_is_waited_for_until_it_is_reaped() -> None:
    """A pid is free only when the parent has looked; one that runs is not waited for."""
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert not processes.reaped(child.pid, 0.1)
    child.wait()
    assert processes.reaped(child.pid, 0.1)
    assert processes.reaped(os.getpid(), 0.1)


def test_the_tail_of_a_log_begins_where_this_start_began(tmp_path: Path) -> None:
    """Lines of an earlier run are not shown as the cause of this failure."""
    log = tmp_path / "log"
    log.write_text("old trouble\n")
    since = log.stat().st_size
    log.write_text("old trouble\nnew\nnewer\nnewest\n")

    assert processes.tail(log, 2, since) == "newer\nnewest"
    assert "old" not in processes.tail(log, 10, since)


def test_chosen_ports_differ_and_avoid_those_taken() -> None:
    """Every component gets its own free port, also beside those chosen before."""
    first = layout.free_ports(["a", "b", "c"], taken=())
    second = layout.free_ports(["d", "e"], taken=tuple(first.values()))

    assert len({*first.values(), *second.values()}) == 5


def test_a_process_runs_in_a_session_of_its_own(sleeper: Process) -> None:
    """Ctrl-C in the terminal that ran `up` does not reach the stack."""
    assert sleeper.pid == os.getsid(sleeper.pid)
