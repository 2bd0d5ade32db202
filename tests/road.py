"""One stream that many tests of the daemon share, each with a schema of its own.

Replica r1's daemon is frozen while a test writes, so that everything arrives in one batch; r2's
writes in pieces of two rows. What one does well the other may not.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import LiteralString, TypeVar

import compare
import harness
import psycopg
from harness import Stack, Stream
from psycopg import sql

Test = TypeVar("Test", bound=Callable[..., None])

#: Schema and statements of every test that was collected; made before the replicas are filled.
_GIVEN: dict[str, LiteralString] = {}


def schema_of(name: str) -> str:
    """Return the schema of the test `name`."""
    return name.removeprefix("test_")[:40]


def given(ddl: LiteralString) -> Callable[[Test], Test]:
    """Create tables and rows, in the schema of the test, before the replicas are filled."""

    def register(test: Test) -> Test:
        schema = schema_of(test.__name__)
        assert schema not in _GIVEN, f"two tests share the schema {schema}"
        _GIVEN[schema] = ddl
        return test

    return register


class Road:
    """The shared stream as one test sees it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.schema = ""
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def nodes(self) -> dict[str, str]:
        return {"primary": self.stream.primary, **self.stream.replicas}

    def build(self) -> None:
        """Create what the tests asked for and fill the replicas."""
        for schema, ddl in _GIVEN.items():
            with psycopg.connect(self.stream.primary) as primary:
                _enter(primary, schema, create=True)
                primary.execute(ddl)
        pieces = self.stream.folder / "pieces.toml"
        whole = self.stream.config.read_text(encoding="utf-8")
        self.stream.ready("SELECT")
        pieces.write_text(f"{whole}\n[apply]\nmax_batch_rows = 2\n", encoding="utf-8")

    def heal(self) -> None:
        """Start the daemons; one that the test before has halted, on a replica filled anew."""
        for replica in self.stream.replicas:
            daemon = self._daemons.get(replica)
            if daemon is not None and daemon.poll() is None:
                continue
            if daemon is not None:
                self.stream.cdc("bootstrap", "-r", replica, "--overwrite")
            file = "cdc.toml" if replica == "r1" else "pieces.toml"
            self._daemons[replica] = self.stream.start("-c", file, "run", "-r", replica)

    def tables(self) -> list[str]:
        """Return the tables of the test that hold rows."""
        found = self.stream.sql(
            "primary",
            "SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND (n.nspname = %s OR n.nspname LIKE %s)",
            [self.schema, f"{self.schema}:%"],
        )
        return [table for (table,) in found]

    def replay(self, *transactions: LiteralString) -> None:
        """Run each on the primary as one transaction, then find the same rows on every replica."""
        before = self.digest()
        with self.frozen("r1"):
            for statements in transactions:
                with psycopg.connect(self.stream.primary) as primary:
                    _enter(primary, self.schema)
                    primary.execute(statements)
        assert self.digest() != before, "the transactions changed nothing, so they prove nothing"
        self.equal()

    def equal(self) -> None:
        """Wait until every replica is as far as the primary is now, then compare all tables."""
        waiting = {replica: self._wait(replica) for replica in self.stream.replicas}
        for replica, process in waiting.items():
            daemon = self._daemons[replica]
            while process.poll() is None and daemon.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
            process.kill()
            output, _ = process.communicate()
            assert process.returncode == 0, output.decode() + self.log(replica)[-3000:]
        assert compare.differences(self.nodes, self.tables()) == []

    def digest(self) -> str:
        """Return what the tables of the test hold on the primary."""
        tables = self.tables()
        assert tables
        contents = [compare.contents(self.stream.primary, table) for table in sorted(tables)]
        return hashlib.sha256(repr(contents).encode()).hexdigest()

    @contextlib.contextmanager
    def frozen(self, replica: str) -> Iterator[None]:
        """Stop the replica's daemon in its tracks for a while."""
        daemon = self._daemons[replica]
        daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            daemon.send_signal(signal.SIGCONT)

    def log(self, replica: str) -> str:
        return self.stream.log(self._daemons[replica])

    def _wait(self, replica: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *harness.program(),
                "-c",
                str(self.stream.config),
                "wait",
                "-r",
                replica,
                "--now",
                "--timeout",
                "120s",
            ],
            env=harness.environment(),
            cwd=self.stream.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def _enter(
    primary: psycopg.Connection[tuple[object, ...]], schema: str, create: bool = False
) -> None:
    assert re.fullmatch("[a-z_0-9]+", schema)
    if create:
        primary.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    primary.execute(sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))


@contextlib.contextmanager
def built(stack: Stack, folder: Path) -> Iterator[Road]:
    """Give the road with everything that collected tests asked for."""
    with harness.stream(stack, folder) as stream:
        road = Road(stream)
        road.build()
        yield road
