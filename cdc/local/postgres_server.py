"""One PostgreSQL server: the primary or a replica."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from cdc.errors import InstallationError
from cdc.local import layout as layouts
from cdc.local import pgpass, processes
from cdc.local.layout import Layout, State
from cdc.local.processes import Launch

DATABASE = "app"

#: Seconds that whoever adopted a killed server may take to reap it.
_REAPED_WITHIN = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server, as `cdc local` starts, asks and stops it; `name` is `primary` or a replica's."""

    name: str
    layout: Layout
    state: State
    programs: Path

    #: Fast shutdown, then immediate: a committed transaction is safe with either.
    stop_signals = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

    @property
    def port(self) -> int:
        return self.state.ports[self.name]

    @property
    def data(self) -> Path:
        return Path(self.state.servers) / self.name

    def dsn(self, user: str) -> str:
        """Return the connection string of `user`; its password stands in the stack's pgpass."""
        return psycopg.conninfo.make_conninfo(
            "",
            host="127.0.0.1",
            port=self.port,
            dbname=DATABASE,
            user=user,
            passfile=str(self.layout.pgpass),
        )

    def prepare(self) -> None:
        """Initialise the data directory once; write the settings; end what a killed server left."""
        self.stopped()
        lock = self.data / "postmaster.pid"
        if lock.exists():
            # PostgreSQL takes a killed server that is not reaped yet for one that runs.
            processes.reaped(int(lock.read_text().split()[0]), _REAPED_WITHIN)
        if not (self.data / "global/pg_control").exists():
            self._initialise()
        for name, text in (("postgresql.conf", self._settings()), ("pg_hba.conf", _HBA)):
            self._give(self.data / name, text)

    def launch(self) -> Launch:
        return Launch(
            (str(self._programs() / "postgres"), "-D", str(self.data)),
            self.data,
            _PLAIN,
            layouts.owner(),
        )

    def ready(self) -> bool:
        """Tell whether our server (the one that knows our password) takes connections."""
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def settle(self) -> None:
        """Make the role and database where they are absent."""
        with self._connect("postgres") as server:
            if _none(server, "SELECT 1 FROM pg_roles WHERE rolname = 'cdc'"):
                # The verifier is computed here: the password itself never reaches a log.
                verifier = server.pgconn.encrypt_password(
                    pgpass.password(self.layout.pgpass, self.port, "cdc").encode(),
                    b"cdc",
                    b"scram-sha-256",
                ).decode()
                rights = "REPLICATION" if self.name == "primary" else "NOREPLICATION"
                server.execute(
                    sql.SQL("CREATE ROLE cdc LOGIN {} PASSWORD {}").format(
                        sql.SQL(rights), verifier
                    )
                )
            if self.name != "primary" and server.info.server_version >= 150_000:
                server.execute("GRANT SET ON PARAMETER session_replication_role TO cdc")
            if _none(server, "SELECT 1 FROM pg_database WHERE datname = 'app'"):
                owner = sql.Identifier("postgres" if self.name == "primary" else "cdc")
                server.execute(sql.SQL("CREATE DATABASE app OWNER {}").format(owner))

    def stopped(self) -> None:
        """End the children that outlived a killed server: they hold its shared memory."""
        left = (
            []
            if processes.recorded(self.layout.pid_file(self.name))
            else processes.working_in(self.data, "postgres")
        )
        for process in left:
            processes.stop(process, ((signal.SIGQUIT, 5.0),))

    def _connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            self.dsn("postgres"),
            dbname=database,
            autocommit=True,
            connect_timeout=3,
            application_name="cdc-local",
        )

    def _programs(self) -> Path:
        """Return the programs, copied beside the data when PostgreSQL's user cannot run them."""
        if layouts.usable_by(self.programs / "postgres", layouts.owner()):
            return self.programs
        if "CDC_PG_BIN" in os.environ:
            raise InstallationError(
                f"the user PostgreSQL runs as cannot run {self.programs}/postgres",
                safe="nothing was started",
                next="set CDC_PG_BIN to a folder that every user may enter",
            )
        wheel = self.programs.parents[2]
        return Path(self.state.servers) / "programs" / self.programs.relative_to(wheel)

    def _initialise(self) -> None:
        user = layouts.owner()
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(mode=0o700)
        secret = self.data.with_name(f"{self.name}.initdb")
        self._give(secret, pgpass.password(self.layout.pgpass, self.port, "postgres"))
        if user:
            os.chown(self.data, user.uid, user.gid)
        try:
            done = subprocess.run(
                [
                    self._programs() / "initdb",
                    "-D",
                    self.data,
                    "-U",
                    "postgres",
                    "--pwfile",
                    secret,
                    "-A",
                    "scram-sha-256",
                    "-E",
                    "UTF8",
                    "--no-locale",
                    "--no-sync",
                    "--no-instructions",
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd="/",
                env={**os.environ, **_PLAIN},
                check=False,
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        finally:
            secret.unlink()
        if done.returncode:
            shutil.rmtree(self.data, ignore_errors=True)
            raise InstallationError(
                f"initdb failed for {self.name}:\n{done.stdout[-2000:]}",
                safe="no data existed yet",
                next="see the lines above; then `cdc local up` again",
            )

    def _give(self, path: Path, text: str) -> None:
        """Write a file that only PostgreSQL's user reads."""
        path.unlink(missing_ok=True)
        with open(
            path, "x", encoding="utf-8", opener=lambda p, flags: os.open(p, flags, 0o600)
        ) as file:
            if user := layouts.owner():
                os.fchown(file.fileno(), user.uid, user.gid)
            file.write(text)

    def _settings(self) -> str:
        return f"""\
# Written by each `cdc local up`; your own settings belong in custom.conf beside this file.
listen_addresses = '127.0.0.1'
port = {self.port}
unix_socket_directories = ''    # the path of a socket may not be longer than 107 bytes
max_connections = 300
shared_buffers = 128MB
password_encryption = 'scram-sha-256'
wal_level = logical
max_wal_senders = 60
max_replication_slots = 60
max_prepared_transactions = 20
max_wal_size = 1GB
fsync = on
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%a %u@%d '
include_if_exists = 'custom.conf'
"""


_HBA = """\
# TYPE  DATABASE     USER  ADDRESS        METHOD
host    all          all   127.0.0.1/32   scram-sha-256
host    replication  all   127.0.0.1/32   scram-sha-256
"""

#: Messages in English, and nothing of the caller's PostgreSQL settings.
_PLAIN = {"LC_ALL": "C", "PGOPTIONS": "", "PGPASSWORD": "", "PGDATA": ""}


def share_programs(servers: Path, programs: Path) -> None:
    """Copy the programs beside the data directories if PostgreSQL's user cannot run them."""
    target = servers / "programs"
    if (
        layouts.usable_by(programs / "postgres", layouts.owner())
        or "CDC_PG_BIN" in os.environ
        or (target / "complete").exists()
    ):
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(programs.parents[2], target, symlinks=True)
    (target / "complete").touch()


def _none(server: psycopg.Connection[tuple[Any, ...]], query: str) -> bool:
    return server.execute(query.encode()).fetchone() is None
