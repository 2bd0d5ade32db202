"""A server of another version of PostgreSQL than the stack's."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest

from cdc.errors import InstallationError
from cdc.local import artifacts, pgpass, processes
from cdc.local import layout as layouts
from cdc.local.layout import Layout
from cdc.local.postgres_server import PostgresServer, share_programs


def programs(version: str) -> Path:
    """Return the programs of a version that is not the stack's; skips where they cannot be had."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CDC_PG_BIN", raising=False)
        patch.setenv("CDC_PG_VERSION", version)
        try:
            return artifacts.fetch(artifacts.cache_folder(), print).postgres_bin
        except InstallationError as error:
            pytest.skip(f"PostgreSQL {version} cannot be fetched: {error.what}")


@contextlib.contextmanager
def server(folder: Path, version: str) -> Iterator[PostgresServer]:
    """Run a server of its own as `cdc local` runs one."""
    with contextlib.ExitStack() as around:
        # What is of another version than the stack is not where the stack's programs are.
        around.enter_context(pytest.MonkeyPatch.context()).delenv("CDC_PG_BIN", raising=False)
        yield around.enter_context(_running(folder, programs(version)))


@contextlib.contextmanager
def _running(folder: Path, found: Path) -> Iterator[PostgresServer]:
    layout = Layout(folder)
    layout.create()
    folder.parent.chmod(0o755)  # PostgreSQL's user must get through
    state = layouts.new_state(layout, replicas=1, tables=(), exclude=())
    pgpass.complete(layout.pgpass, [state.ports["r1"]])
    share_programs(Path(state.servers), found)
    other = PostgresServer("r1", layout, state, found)
    other.prepare()
    process = processes.start(other.launch(), layout.log("r1"), layout.pid_file("r1"))
    try:
        harness.wait_until(other.ready, "the other server answers", 120)
        other.settle()
        yield other
    finally:
        processes.stop(process, ((signal.SIGQUIT, 60.0),))
        layout.remove(state)
