"""A real stack shared by a run, and streams of their own upon it.

Everything goes through the installed program, as a user would: `CDC_TEST_CDC` names it, the
default is this checkout's.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, LiteralString

import least
import leftovers
import psycopg
import requests
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg import conninfo, sql

ROOT = Path(__file__).parents[1]

#: What to run in this checkout for each installed program.
_MODULES = {"cdc": "cdc", "cdc-verify": "cdc.verify", "cdc-lag-alert": "cdc.alert"}


def program(name: str = "cdc") -> list[str]:
    """Return the command that starts the `cdc` under test, or another program beside it."""
    if installed := shlex.split(os.environ.get("CDC_TEST_CDC", "")):
        return [*installed[:-1], str(Path(installed[-1]).with_name(name))]
    return [sys.executable, "-m", _MODULES[name]]


def environment() -> dict[str, str]:
    """Return the environment for the program: the caller's, with nothing that steers it."""
    keep = {"CDC_CACHE", "CDC_PG_BIN", "CDC_PG_VERSION"}
    kept = {k: v for k, v in os.environ.items() if k in keep or not k.startswith(("CDC_", "PG"))}
    return kept if "CDC_TEST_CDC" in os.environ else kept | {"PYTHONPATH": str(ROOT)}


def run(
    *args: str | Path,
    cwd: Path,
    check: bool = True,
    timeout: float = 180,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    name: str = "cdc",
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end; with `check`, fail with its whole output unless it exits 0."""
    done = subprocess.run(
        [*program(name), *map(str, args)],
        cwd=cwd,
        env={**environment(), **(env or {})},
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(
            f"{name} {shlex.join(map(str, args))} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Wait for `condition`; fail naming `what` was waited for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain until {what}")
        time.sleep(0.05)


def rows(
    dsn: str, statement: LiteralString | sql.Composed, params: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    """Execute one statement by itself and return its rows."""
    with psycopg.connect(dsn, autocommit=True) as server:
        cursor = server.execute(statement, params or None)
        return cursor.fetchall() if cursor.description is not None else []


@contextlib.contextmanager
def meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run `work` beside the block until it sees the event, which comes at the block's end; fail if it fails."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 -- raised by the test's own thread
            failed.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed


def drop_slots(dsn: str, database: str) -> None:
    """Drop a database's replication slots; a task that Connect has abandoned may still read one."""

    def dropped() -> bool:
        with contextlib.suppress(psycopg.errors.ObjectInUse):
            rows(
                dsn,
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE database = %s",
                [database],
            )
            return True
        return False

    wait_until(dropped, f"the slots in {database} are dropped", timeout=120)


def answers(url: str) -> bool:
    """Tell whether an HTTP server says 200."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def answers_sql(dsn: str) -> bool:
    """Tell whether a PostgreSQL server takes connections."""
    try:
        return bool(rows(dsn, "SELECT 1"))
    except psycopg.OperationalError:
        return False


@dataclasses.dataclass(frozen=True, slots=True)
class Stack:
    """Where a running stack is; the DSNs are the superuser's."""

    config: Path
    primary: str
    replicas: dict[str, str]
    kafka: str
    connect: str

    @classmethod
    def at(cls, folder: Path) -> Stack:
        """Return the stack that `cdc local` runs in `folder`."""
        found = json.loads(
            run("local", "status", "--json", "--dir", folder, cwd=folder.parent).stdout
        )
        return cls(
            Path(found["config"]),
            found["primary"],
            found["replicas"],
            found["kafka"],
            found["connect"],
        )

    @property
    def ends(self) -> dict[str, str]:
        return {"primary": self.primary, **self.replicas}


@dataclasses.dataclass(slots=True)
class Stream:
    """A stream of its own on the shared stack: databases, topic, connector, slot, roles.

    `least`: its roles are no superuser's, and nobody is its administrator (`least.py`).
    """

    stack: Stack
    folder: Path
    name: str = dataclasses.field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    daemons: list[subprocess.Popen[bytes]] = dataclasses.field(default_factory=list)
    least: bool = least.LEAST

    @property
    def role(self) -> str:
        """The role of the daemon and the commands, on every end."""
        return least.role(self.name) if self.least else "cdc"

    @property
    def config(self) -> Path:
        return self.folder / "cdc.toml"

    @property
    def topic(self) -> str:
        return f"cdc.{self.name}"

    @property
    def kafka(self) -> str:
        return self.stack.kafka

    @property
    def connect(self) -> str:
        return self.stack.connect

    @property
    def primary(self) -> str:
        return self.dsn("primary")

    @property
    def replicas(self) -> dict[str, str]:
        return {name: self.dsn(name) for name in self.stack.replicas}

    def dsn(self, end: str) -> str:
        """Return the superuser's connection string to this stream's database on `end`."""
        return conninfo.make_conninfo(self.stack.ends[end], dbname=self.name)

    def set_up(self, *told: str) -> None:
        """Run `cdc setup`, which tells these steps; where roles are the least, a DBA has done them before."""
        said = self.cdc("setup").stderr
        for step in told:
            assert self.least or step in said, said

    def cdc(
        self,
        *args: str | Path,
        check: bool = True,
        timeout: float = 180,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the program with this stream's configuration.

        Where roles are the least, a DBA comes before `cdc setup`.
        """
        if self.least and args[0] == "setup" and "--print" not in args:
            self.administered(*args)
        return run(
            "-c",
            self.config,
            *args,
            cwd=self.folder,
            check=check,
            timeout=timeout,
            stdin=stdin,
            env=env,
        )

    def administered(self, *args: str | Path) -> None:
        """Let a DBA carry out what `cdc setup`, with these arguments, prints for him."""
        asked = list(args)
        given = self.config
        if "-c" in asked:
            given = Path(asked.pop(asked.index("-c") + 1))
            asked.remove("-c")
        theirs = self.folder / "dba.toml"
        text = given.read_text(encoding="utf-8")
        ends = {end: self.dsn(end) for end in self.stack.ends}
        theirs.write_text(least.administered(text, ends), encoding="utf-8")

        def administer() -> None:
            printed = run("-c", theirs, *asked, "--print", cwd=self.folder, check=False)
            if printed.returncode == 0:  # else `cdc setup` is refused, which a test may be about
                self.carry_out(printed.stdout)

        alone(administer)

    def carry_out(self, printed: str) -> None:
        """Execute as a DBA what a command has printed for him."""
        ends = {end: self.dsn(end) for end in self.stack.ends}
        known = least.passwords(self.folder, self.stack.config.parent, self.name)
        ((version,),) = self.sql("primary", "SELECT current_setting('server_version_num')::int")
        least.carry_out(printed, self.folder, ends, known, version)

    def verify(self, *args: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `cdc-verify` with this stream's configuration, whatever it exits with."""
        return run(
            "-c", self.config, *args, cwd=self.folder, check=False, timeout=600, name="cdc-verify"
        )

    def start(
        self,
        *args: str | Path,
        armed: Sequence[str] = (),
        before: Sequence[str] = (),
        name: str = "cdc",
    ) -> subprocess.Popen[bytes]:
        """Start a daemon, or another program; its output goes to daemon-<n>.log in the folder.

        `armed` are the first arguments of `armed.py`: failpoint, how often, signal. `before` is a
        command that starts commands.
        """
        command = (
            [sys.executable, str(ROOT / "tests/armed.py"), *armed, "--"] if armed else program(name)
        )
        with (self.folder / f"daemon-{len(self.daemons)}.log").open("wb") as log:
            daemon = subprocess.Popen(
                [*before, *command, "-c", str(self.config), *map(str, args)],
                cwd=self.folder,
                # What a killed program leaves behind goes with the test's folder.
                env=environment() | {"TMPDIR": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.daemons.append(daemon)
        return daemon

    def log(self, daemon: subprocess.Popen[bytes]) -> str:
        """Return what a daemon has said so far."""
        return (self.folder / f"daemon-{self.daemons.index(daemon)}.log").read_text(
            errors="replace"
        )

    def records(self) -> int:
        """Return how many records the topic has."""
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": "none"})
        try:
            return int(consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=30)[1])
        finally:
            consumer.close()

    def sql(
        self, end: str, statement: LiteralString | sql.Composed, params: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Execute a statement as superuser on `primary`, `r1` …; return its rows."""
        return rows(self.dsn(end), statement, params)

    def ready(self, tables: LiteralString, timeout: float = 180) -> None:
        """Create `tables` on the primary and bring every replica to the point where it can run."""
        self.sql("primary", tables)
        self.cdc("setup", timeout=timeout)
        self.cdc("connectors", "apply", timeout=timeout)
        for replica in self.replicas:
            self.cdc("bootstrap", "-r", replica, timeout=timeout)

    def running(self, tables: LiteralString) -> None:
        """Bring every replica so far, start its daemon and wait until it has caught up."""
        self.ready(tables)
        for replica in self.replicas:
            self.start("run", "-r", replica)
        self.caught_up()

    def caught_up(self) -> None:
        """Wait until every replica has what the primary has now."""
        for replica in self.replicas:
            self.cdc("wait", "-r", replica, "--now", "--timeout", "120s", timeout=150)

    def create(self) -> None:
        """Create the databases and the configuration, which is the stack's under another name."""
        for end, dsn in self.stack.ends.items():
            ours = self.least or end == "primary"
            owner = sql.Identifier("postgres" if ours else "cdc")
            database = sql.Identifier(self.name)
            rows(dsn, sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
            if self.least:  # whoever is to come in is let in by what is printed
                rows(dsn, sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        text = self.stack.config.read_text(encoding="utf-8")
        text = re.sub(r'^name = "app"$', f'name = "{self.name}"', text, flags=re.MULTILINE)
        text = re.sub(r"^state_dir = .*$", 'state_dir = "state"', text, flags=re.MULTILINE)
        text = text.replace("dbname=app ", f"dbname={self.name} ")
        if self.least:
            text = least.configured(text, self.folder, self.name)
        self.config.write_text(text, encoding="utf-8")

    def remove(self) -> None:
        """Take everything of this stream away, whatever a test did to it."""
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        requests.delete(f"{self.connect}/connectors/cdc_{self.name}", timeout=60)
        drop_slots(self.stack.primary, self.name)
        for dsn in self.stack.ends.values():
            rows(
                dsn,
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(
                    sql.Identifier(self.name)
                ),
            )
            for (role,) in rows(
                dsn, "SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [f"cdc\\_{self.name}%"]
            ):
                drop = sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role))
                alone(functools.partial(rows, dsn, drop))
        # The client must outlive the answer: a future of a client that is gone is never done.
        kafka = AdminClient({"bootstrap.servers": self.kafka})
        for removed in kafka.delete_topics([self.topic]).values():
            with contextlib.suppress(KafkaException):  # a test that made no topic
                removed.result(timeout=30)


def alone(action: Callable[[], object]) -> None:
    """Do what alters a server's own catalogs, again where somebody else did so at the same moment (XX000)."""
    for _ in range(5):
        try:
            action()
        except (AssertionError, psycopg.errors.InternalError_) as error:
            if "tuple concurrently updated" not in str(error):
                raise
        else:
            return
    raise AssertionError("somebody else alters the same row of a catalog again and again")


def edit(stream: Stream, pattern: str, replacement: str) -> None:
    """Change the stream's configuration; the pattern must be there."""
    text = stream.config.read_text(encoding="utf-8")
    assert re.search(pattern, text, re.MULTILINE), pattern
    stream.config.write_text(
        re.sub(pattern, lambda _: replacement, text, flags=re.MULTILINE), encoding="utf-8"
    )


@contextlib.contextmanager
def stream(stack: Stack, folder: Path, *, least_roles: bool = False) -> Iterator[Stream]:
    """Give a fresh stream and take it away afterwards; with `least_roles` whatever the run is."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Stream(stack, folder, least=least_roles or least.LEAST)
    with leftovers.listed("stream", folder):
        try:
            fresh.create()
            yield fresh
        finally:
            fresh.remove()


@contextlib.contextmanager
def own_stack(folder: Path, *options: str) -> Iterator[Stack]:
    """Run a stack in `folder` and leave nothing of it.

    What is interrupted while it takes the stack down does so once more as it exits.
    """
    folder.parent.chmod(0o755)  # PostgreSQL's user must get through
    down = functools.partial(take_down, folder)
    atexit.register(down)
    with leftovers.listed("stack", folder):
        try:
            run("local", "up", "--dir", folder, *options, cwd=folder.parent, timeout=600)
            yield Stack.at(folder)
        finally:
            down()
            atexit.unregister(down)


def take_down(folder: Path) -> None:
    if folder.exists():
        run("local", "down", "--purge", "--dir", folder, cwd=folder.parent, check=False)
