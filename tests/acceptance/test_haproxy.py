"""The HAProxy that docker/haproxy/ shows, in front of two replicas: none that is stale is read."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
import time
from collections.abc import Iterator

import harness
import psycopg
import pytest
import receivers
from harness import ROOT, Stream, wait_until
from psycopg import conninfo, sql

from cdc import config as configuration

pytestmark = [pytest.mark.stack]

#: What readers bear, and the time between two checks, in seconds.
MAX_LAG, CHECK = 4.0, 2.0


@dataclasses.dataclass(slots=True)
class Readers:
    """New connections through the router, again and again: when each was opened, and to which port."""

    dsn: str
    opened: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    over: threading.Event = dataclasses.field(default_factory=threading.Event)

    def read(self) -> None:
        while not self.over.wait(0.02):
            at = time.time()
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self.dsn, connect_timeout=10) as conn,
            ):
                row = conn.execute("SELECT inet_server_port()").fetchone()
                assert row is not None
                self.opened.append((at, row[0]))

    def since(self, moment: float) -> set[int]:
        """Return the ports that were reached from a moment on."""
        return {port for at, port in self.opened if at >= moment}


@pytest.fixture
def stream(stream: Stream) -> Stream:
    """Give a stream whose two daemons run and serve their freshness."""
    harness.edit(stream, r"^\[connect\]$", '[connect]\nheartbeat = "500ms"')
    text = stream.config.read_text(encoding="utf-8")
    for listen in {str(r.listen) for r in configuration.load(stream.config).replicas.values()}:
        text = text.replace(listen, f"127.0.0.1:{receivers.free_port()}")
    stream.config.write_text(text, encoding="utf-8")
    stream.ready("CREATE TABLE notes (id int PRIMARY KEY)")
    for name in stream.replicas:
        stream.start("run", "-r", name)
    return stream


@contextlib.contextmanager
def router(stream: Stream) -> Iterator[int]:
    """Run HAProxy with the shipped file; give its port."""
    program = receivers.needs("haproxy")
    port, named = receivers.free_port(), dict[str, str]()
    for name, replica in configuration.load(stream.config).replicas.items():
        parts = conninfo.conninfo_to_dict(stream.replicas[name])
        assert replica.listen is not None
        named |= {
            name.upper(): f"{parts['host']}:{parts['port']}",
            f"{name.upper()}_DAEMON": replica.listen.host,
            f"{name.upper()}_LISTEN": str(replica.listen.port),
        }
    with (stream.folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-f", ROOT / "docker/haproxy/haproxy.cfg"],
            env={
                **os.environ,
                "CDC_READS": f"127.0.0.1:{port}",
                "CDC_MAX_LAG": f"{MAX_LAG}s",
                "CDC_CHECK": f"{CHECK:.0f}s",
                **named,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def test_no_new_reader_comes_to_a_stale_replica(stream: Stream) -> None:
    """Two checks after it passed max_lag nobody new reads it, old readers are cut; later it is back."""
    ports = {
        name: int(str(conninfo.conninfo_to_dict(dsn)["port"]))
        for name, dsn in stream.replicas.items()
    }
    with router(stream) as port:
        through = conninfo.make_conninfo(reader(stream), host="127.0.0.1", port=port)
        readers = Readers(through)
        thread = threading.Thread(target=readers.read)
        thread.start()
        try:
            wait_until(lambda: readers.since(0) == set(ports.values()), "both are read", 120)
            with psycopg.connect(stream.replicas["r1"]) as lock:
                lock.execute("LOCK TABLE notes")
                stream.sql("primary", "INSERT INTO notes VALUES (1)")
                committed = time.time()
                reading = held(through, ports["r1"])
                wait_until(lambda: cut(reading), "a reader that was there is cut", 60)
                gone = time.time()
                wait_until(
                    lambda: len([1 for at, _ in readers.opened if at > gone + 2 * CHECK]) > 20,
                    "readers come after that",
                )
                stale = readers.since(committed + MAX_LAG + 2 * CHECK)
            freed = time.time()
            wait_until(lambda: ports["r1"] in readers.since(freed), "it is read again", 60)
        finally:
            readers.over.set()
            thread.join()

    assert {ports["r2"]} == stale
    last = max(at for at, to in readers.opened if to == ports["r1"] and at < freed)
    print(
        f"last new reader {last - committed - MAX_LAG:+.2f} s from max_lag, checks each {CHECK} s"
    )


def reader(stream: Stream) -> str:
    """Return a connection string of a role that both replicas know by the same password."""
    role = f"cdc_{stream.name}_reader"
    names = {"role": sql.Identifier(role), "database": sql.Identifier(stream.name)}
    for name in stream.replicas:
        stream.sql(name, sql.SQL("CREATE ROLE {role} LOGIN PASSWORD 'read-only'").format(**names))
        stream.sql(name, sql.SQL("GRANT CONNECT ON DATABASE {database} TO {role}").format(**names))
    return f"dbname={stream.name} user={role} password=read-only"


def held(dsn: str, port: int) -> psycopg.Connection[tuple[int]]:
    """Return a connection through the router to the server at `port`."""
    while True:
        conn = psycopg.connect(dsn, autocommit=True)
        if conn.execute("SELECT inet_server_port()").fetchone() == (port,):
            return conn
        conn.close()


def cut(conn: psycopg.Connection[tuple[int]]) -> bool:
    try:
        conn.execute("SELECT 1")
    except psycopg.OperationalError:
        return True
    return False
