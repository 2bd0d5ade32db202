"""How long a commit takes to a replica by this program, by PostgreSQL's own replication, by the JDBC sink.

Run it by `make bench-road`. Each is measured alone, by turns: meanwhile nothing else decodes the primary's log, and
the others apply nothing. What was written in the others' turns is caught up with first.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import contestants
import harness
import servers
import sink
import subscription
from capturing import Connector
from harness import Stack, Stream
from progress import say
from psycopg import conninfo, sql
from ticks import TICKS, Ticks

#: Rows that each applies as fast as it can before its first turn: Java's code is compiled as it runs.
WARM = 20_000

#: Seconds at the rate before each turn, which are not counted.
BEFORE = 2.0

#: Seconds in which one must have caught up.
_MOST = 300.0


class Refused(Exception):  # noqa: N818 -- a finding: it cannot apply these changes
    """A contestant has stopped by itself."""


class Peer(Protocol):
    """One that replicates to the database at `dsn` from `begin` to `end`; `name` is its key in the results."""

    @property
    def name(self) -> str: ...
    @property
    def dsn(self) -> str: ...
    def begin(self) -> None: ...
    def end(self) -> None: ...
    def fault(self) -> str | None: ...


class Ours:
    """The shipped connector and `cdc run`."""

    name = "cdc"

    def __init__(self, stream: Stream) -> None:
        self._stream, self.dsn = stream, stream.dsn("r1")
        self._source = Connector(stream, f"cdc_{stream.name}", stream.topic)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._source.stop()

    def begin(self) -> None:
        self._source.ask("resume")
        self._daemon = self._stream.start("run", "-r", "r1")

    def end(self) -> None:
        assert self._daemon is not None
        self._daemon.terminate()
        self._daemon.wait(60)
        self._source.stop()

    def fault(self) -> str | None:
        assert self._daemon is not None
        return None if self._daemon.poll() is None else self._stream.log(self._daemon)


class Postgres:
    """A subscription."""

    name = "postgresql"

    def __init__(self, stream: Stream) -> None:
        self._stream, self.dsn = stream, _database(stream, f"{stream.name}_pg")
        stream.sql("primary", "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')")
        subscription.create(stream, self.dsn, subscription.from_slot("bench"))

    def begin(self) -> None:
        harness.rows(self.dsn, "ALTER SUBSCRIPTION bench ENABLE")

    def end(self) -> None:
        harness.rows(self.dsn, "ALTER SUBSCRIPTION bench DISABLE")
        subscription.let_go(self._stream, "bench")

    def fault(self) -> None:
        return None


class Sink:
    """Debezium's stock connector and its JDBC sink; `source` is stopped between turns."""

    def __init__(self, source: Connector, sink: contestants.Sink) -> None:
        self.name, self.dsn = sink.name, sink.dsn
        self._source, self._sink = source, sink

    def begin(self) -> None:
        self._source.ask("resume")
        self._sink.follow("ticks")

    def end(self) -> None:
        self._sink.end()
        self._source.stop()

    def fault(self) -> str | None:
        return self._sink.fault()


def latency(stack: Stack, folder: Path, rate: float, seconds: float, runs: int) -> dict[str, Any]:
    """Return the latencies of each at the same load, in each run, and who could not apply it at all."""
    took: dict[str, list[dict[str, float]]] = {}
    refused: dict[str, str] = {}
    with (
        harness.stream(stack, folder) as stream,
        sink.worker(folder, stream.kafka) as worker,
        _peers(stream, worker) as (ticks, peers),
    ):
        for peer in [*peers]:
            try:
                with _alone(stream, peer, ticks):
                    ticks.write(WARM)
                    _caught_up(peer, ticks)
            except Refused as why:
                refused[peer.name] = str(why).partition("\n")[0]
                peers.remove(peer)
                say(peer.name, "refused:", why)
        for run in range(runs):
            turn = run % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                with _alone(stream, peer, ticks):
                    ticks.write(int(rate * BEFORE), rate)
                    one = ticks.measured(peer.dsn, rate, seconds)
                took.setdefault(peer.name, []).append(one)
                say(peer.name, one)
    return {"sink": sink.VERSION, "rate": rate, "runs": took, "refused": refused}


@contextlib.contextmanager
def _peers(stream: Stream, worker: sink.Worker) -> Iterator[tuple[Ticks, list[Peer]]]:
    """Give the table that is written and those who replicate it, each stopped; leave none running."""
    ticks = Ticks(stream)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    stream.cdc("bootstrap", "-r", "r1")
    ours = Ours(stream)
    postgres = Postgres(stream)
    secret = servers.password(stream, "r1")
    try:
        name = contestants.start_source(stream)
        source = Connector(stream, name, f"{name}.public.ticks")
        ticks.write(1)  # makes the topic
        source.drained()
        source.stop()
        sinks = [
            contestants.Sink(
                name, stream, worker, secret,
                settings | {"consumer.override.group.id": name},  # each turn goes on from the last
                parameters,
            )
            for name, (settings, parameters) in sink.SINKS.items()
        ]  # fmt: skip
        _database(stream, sinks[0].database)
        yield ticks, [ours, postgres, *(Sink(source, one) for one in sinks)]
    finally:
        contestants.stop_source(stream)
        subscription.drop(postgres.dsn)


def _database(stream: Stream, name: str) -> str:
    """Make a database with the table on the replica's server; return its DSN."""
    stream.sql("r1", sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    dsn = conninfo.make_conninfo(stream.dsn("r1"), dbname=name)
    harness.rows(dsn, TICKS)
    return dsn


@contextlib.contextmanager
def _alone(stream: Stream, peer: Peer, ticks: Ticks) -> Iterator[None]:
    """Let one replicate, who has caught up when the block begins, and nobody else."""
    peer.begin()
    try:
        ticks.write(1)
        _caught_up(peer, ticks)
        reading = stream.sql("primary", "SELECT slot_name FROM pg_replication_slots WHERE active")
        assert len(reading) == 1, reading
        yield
    finally:
        peer.end()


def _caught_up(peer: Peer, ticks: Ticks) -> None:
    def seen() -> bool:
        if why := peer.fault():
            raise Refused(why)
        return harness.rows(peer.dsn, "SELECT FROM ticks WHERE id = %s", [ticks.last]) != []

    harness.wait_until(seen, f"{peer.name} has caught up", timeout=_MOST)
