"""What a refusal must look like, and that it changes nothing: for tests of bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import select
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

import compare
import harness
import psycopg
from harness import Stack, Stream
from psycopg import conninfo

_MESSAGE = re.compile(
    r"^cdc: (?P<what>.+?)\n(?:  at:   (?P<at>[^\n]+)\n)?  data: (?P<data>[^\n]+)\n"
    r"  next: (?P<next>.+?)\n?\Z",
    re.MULTILINE | re.DOTALL,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """The parts of a message; `at` is empty where no place is named."""

    what: str
    at: str
    data: str
    next: str


def parse(said: str) -> Refusal:
    """Take the message apart; fail unless it ends the output and has its three parts."""
    found = _MESSAGE.search(said)
    assert found, f"not what, data and next:\n{said}"
    assert "Traceback" not in said, said
    parts = {name: text or "" for name, text in found.groupdict().items()}
    return Refusal(**parts)


#: A password that is wrong, and must not be told either.
WRONG = "not-the-pass-word"


class Witness:
    """Runs the program with bad input on a stream and sees that no output tells a secret."""

    def __init__(self, stream: Stream, hidden: Sequence[str]) -> None:
        self.stream = stream
        self.hidden = [*hidden, WRONG]

    def variant(self, *changes: tuple[str, str], more: str = "") -> Path:
        """Write the stream's configuration with each old text replaced by the new one."""
        text = self.stream.config.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = self.stream.folder / f"variant-{len([*self.stream.folder.iterdir()])}.toml"
        path.write_text(text + more, encoding="utf-8")
        return path

    def moved(self, end: str, **parts: Any) -> Path:
        """Write the configuration with other parts in an end's connection strings."""
        written = tomllib.loads(self.stream.config.read_text(encoding="utf-8"))
        found = written["primary"] if end == "primary" else written["replicas"][end]
        dsns = [found[key] for key in ("dsn", "admin_dsn") if key in found]
        return self.variant(*((dsn, conninfo.make_conninfo(dsn, **parts)) for dsn in dsns))

    def topic(self, name: str) -> Path:
        """Write the configuration with another topic."""
        written = self.stream.config.read_text(encoding="utf-8")
        if "[kafka.topic]" in written:
            return self.variant(("[kafka.topic]", f'[kafka.topic]\nname = "{name}"'))
        return self.variant(("topic = {", f'topic = {{ name = "{name}",'))

    def password(self, end: str) -> str:
        """Return the password of the daemon's role on an end, wherever libpq finds it."""
        written = tomllib.loads(self.stream.config.read_text(encoding="utf-8"))
        with psycopg.connect(written["replicas"][end]["dsn"]) as session:
            return session.info.password

    def run(
        self, *args: str | Path, config: Path | None = None, timeout: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit code is."""
        chosen = ("-c", config) if config else ()
        done = self.stream.cdc(*args, *chosen, check=False, timeout=timeout)
        self.keeps_secrets(done.stdout + done.stderr)
        return done

    def refused(
        self, *args: str | Path, config: Path | None = None, code: int = 1, timeout: float = 90
    ) -> Refusal:
        """Run a command that must be refused with `code`; return its message."""
        done = self.run(*args, config=config, timeout=timeout)
        assert (code, "") == (done.returncode, done.stdout), done.stdout + done.stderr
        return parse(done.stderr)

    def halted(self, daemon: subprocess.Popen[bytes]) -> Refusal:
        """Wait until a daemon has halted with exit code 1; return its message."""
        harness.wait_until(lambda: daemon.poll() is not None, "the daemon halts")
        said = self.stream.log(daemon)
        self.keeps_secrets(said)
        assert daemon.returncode == 1, said
        return parse(said)

    def keeps_secrets(self, said: str) -> None:
        for secret in self.hidden:
            assert secret not in said, "a password is told"

    def standing(self, replica: str) -> tuple[list[tuple[Any, ...]], dict[str, compare.Contents]]:
        """Return a replica's position and what its tables hold."""
        dsn = self.stream.replicas[replica]
        tables = harness.rows(
            dsn,
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'app'",
        )
        position = harness.rows(
            dsn, "SELECT to_jsonb(p) - 'updated_at' FROM cdc.position p ORDER BY stream"
        )
        return position, {name: compare.contents(dsn, name) for (name,) in tables}

    @contextlib.contextmanager
    def unmoved(self, replica: str = "r1") -> Iterator[None]:
        """Assert that position and rows of a replica are afterwards what they were before."""
        before = self.standing(replica)
        yield
        assert before == self.standing(replica)


@contextlib.contextmanager
def filled(
    stack: Stack, folder: Path, tables: LiteralString, *, least_roles: bool = False
) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up; r2 is set up only.

    With `least_roles` its roles are its own, else the stack's. Its heartbeats are ten minutes apart: only
    what a test writes moves a position. What is missing is not waited for long: where it comes again, it
    is there when a daemon starts.
    """
    with harness.stream(stack, folder, least_roles=least_roles) as stream:
        text = stream.config.read_text(encoding="utf-8")
        text = text.replace("[connect]\n", '[connect]\nheartbeat = "10m"\n')
        text += '\n[apply]\nmissing_timeout = "1s"\n'
        stream.config.write_text(text, encoding="utf-8")
        stream.sql("primary", tables)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        stream.cdc("bootstrap", "-r", "r1")
        stream.cdc("run", "-r", "r1", "--until-caught-up")
        yield Witness(stream, passwords(stack))


def passwords(stack: Stack) -> list[str]:
    """Return every password the stack was made with."""
    found = []
    for dsn in stack.ends.values():
        parts = conninfo.conninfo_to_dict(dsn)
        if "passfile" in parts:
            lines = Path(str(parts["passfile"])).read_text(encoding="ascii").splitlines()
            found += [line.rpartition(":")[2] for line in lines]
        else:
            found.append(str(parts["password"]))
    reference = re.search(r"\$\{file:([^:}]+):", stack.config.read_text(encoding="utf-8"))
    if reference and Path(reference[1]).exists():
        found.append(Path(reference[1]).read_text(encoding="ascii").strip().partition("=")[2])
    assert len(found) >= 3
    assert all(len(secret) > 10 for secret in found)
    return sorted(set(found))


def closed_port() -> int:
    """Return a loopback port where nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Gate:
    """A loopback port that leads to a PostgreSQL server while it is open."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo.conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(str(parts["port"])))
        self.port = closed_port()
        self._shut = threading.Event()
        self._threads: list[threading.Thread] = []

    def open(self) -> None:
        """Let connections through from now on."""
        self._shut = threading.Event()
        self._start(self._accept, self.listen(), self._shut)

    def listen(self) -> socket.socket:
        """Return the socket on which connections come in."""
        return socket.create_server(("127.0.0.1", self.port))

    def shut(self) -> None:
        """Break every connection and let none in; harmless when shut."""
        self._shut.set()
        while self._threads:
            self._threads.pop().join()

    close = shut

    def passes(self, _block: bytes, *, from_client: bool) -> bool:  # noqa: ARG002 -- for a subclass
        """Tell whether what one side sent gets through; else the connection is broken there."""
        return True

    def _start(self, work: Any, *args: Any) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket, shut: threading.Event) -> None:
        with listener:
            while not shut.is_set():
                if select.select([listener], [], [], 0.05)[0]:
                    self._start(self._carry, listener.accept()[0], shut)

    def _carry(self, client: socket.socket, shut: threading.Event) -> None:
        with client, socket.create_connection(self._target) as server, contextlib.suppress(OSError):
            other = {client: server, server: client}
            while not shut.is_set():
                for ready in select.select([client, server], [], [], 0.05)[0]:
                    block = ready.recv(65536)
                    if not block or not self.passes(block, from_client=ready is client):
                        return
                    other[ready].sendall(block)
