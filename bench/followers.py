"""What each further replica costs the primary: with this program, and with PostgreSQL's own subscriptions.

Run it by `make bench-growth`. One stack has as many replicas as the largest number asked for; the same steady load
is written to the primary while some of them follow, by turns. Whoever is not measured is stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

import compare
import contestants
import harness
import psycopg
import servers
import subscription
from capturing import Connector
from harness import Stack, Stream
from progress import say
from psycopg import conninfo, sql
from servers import Server

TABLE: LiteralString = """
    CREATE TABLE steady (id bigint PRIMARY KEY, account int NOT NULL, amount numeric(12,2) NOT NULL,
                         note text, changed timestamptz NOT NULL)
"""

#: Transactions of `size` rows, `rate` a second as long as the server keeps up with it.
WRITE: LiteralString = """
    CREATE PROCEDURE steadily(base bigint, number bigint, size bigint, rate float8) LANGUAGE plpgsql AS $$
    DECLARE began CONSTANT timestamptz := clock_timestamp(); early float8;
    BEGIN
        FOR i IN 1 .. number LOOP
            INSERT INTO steady
              SELECT n, n % 50000, n % 100000 / 7.0, 'note ' || n, clock_timestamp()
              FROM generate_series(base + (i - 1) * size + 1, base + i * size) n;
            COMMIT;
            early := i / rate - extract(epoch FROM clock_timestamp() - began);
            IF early > 0 THEN PERFORM pg_sleep(early); END IF;
        END LOOP;
    END $$
"""

#: Who reads the primary's log for the stream: slots in use, processes that send.
_READERS: LiteralString = """
    SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = %s AND active),
           (SELECT count(*) FROM pg_stat_replication)
"""

_LOG: LiteralString = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"


@dataclasses.dataclass(frozen=True, slots=True)
class Load:
    """Transactions a second, rows of each, and for how many seconds."""

    rate: float
    size: int
    seconds: float


class Steady:
    """A stream to all replicas, a database beside it on each for PostgreSQL's subscriptions, and the load."""

    def __init__(self, stream: Stream, load: Load) -> None:
        self.stream, self._load = stream, load
        self._written = 0
        self.connector = Connector(stream, f"cdc_{stream.name}", stream.topic)
        self._primary = Server(stream.stack.primary)
        self._replicas = {name: Server(dsn) for name, dsn in stream.stack.replicas.items()}
        self._jvms = {name: contestants.pid(stream, name) for name in ("kafka", "connect")}

    def build(self) -> None:
        """Bring all replicas so far that they can follow, and stop the connector."""
        self.stream.ready(TABLE)
        self.stream.sql("primary", WRITE)
        for name in self._replicas:
            self.stream.sql(
                name, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"{self.stream.name}_pg"))
            )
            harness.rows(self.beside(name), TABLE)
        self.connector.stop()

    def measured(self, way: str, number: int) -> dict[str, Any]:
        """Write the load while `number` replicas follow; return what that took of whom."""
        names = list(self._replicas)[:number]
        where = self.beside if way == "postgresql" else self.stream.dsn
        with _WAYS[way](self, names) as daemons:
            for end in ("primary", *names):
                self.stream.sql(end, "CHECKPOINT")
            before, ((log,),) = self._used(daemons), self.stream.sql("primary", _LOG)
            base, rows, began = (
                self._written,
                self._transactions * self._load.size,
                time.monotonic(),
            )
            with psycopg.connect(self.stream.primary, autocommit=True) as conn:
                conn.execute(
                    "CALL steadily(%s, %s, %s, %s)",
                    [base, self._transactions, self._load.size, self._load.rate],
                )
            written = time.monotonic() - began
            ((slots, senders),) = self.stream.sql("primary", _READERS, [self.stream.name])
            self._written += rows
            for name in names:
                _all_there(where(name), base, rows)
            took = time.monotonic() - began
            ((after,),) = self.stream.sql("primary", _LOG)
            used = {who: round(now - before[who], 2) for who, now in self._used(daemons).items()}
        return {
            "seconds": round(took, 2), "written": round(written, 2), "wal": after - log,
            "slots": slots, "senders": senders, "cpu": used,
            "daemons": [used[f"daemon {pid}"] for pid in daemons],
        }  # fmt: skip

    def equal(self) -> None:
        """Let all replicas catch up and see that they hold what the primary holds."""
        with _ours(self, list(self._replicas)):
            found = compare.differences(
                {"primary": self.stream.primary, **self.stream.replicas}, ["steady"]
            )
        assert found == [], found

    @property
    def _transactions(self) -> int:
        return round(self._load.rate * self._load.seconds)

    def _used(self, daemons: Sequence[int]) -> dict[str, float]:
        """Return the seconds of processor that each has used so far."""
        return {
            "primary": self._primary.cpu(),
            "replicas": sum(server.cpu() for server in self._replicas.values()),
            **{name: servers.cpu(pid) for name, pid in self._jvms.items()},
            **{f"daemon {pid}": servers.cpu(pid) for pid in daemons},
        }

    def beside(self, replica: str) -> str:
        return conninfo.make_conninfo(self.stream.dsn(replica), dbname=f"{self.stream.name}_pg")


def _all_there(dsn: str, base: int, rows: int) -> None:
    """Wait for a load's last row, then see that all of it came."""
    last: LiteralString = "SELECT FROM steady WHERE id = %s"
    harness.wait_until(lambda: bool(harness.rows(dsn, last, [base + rows])), "all is there", 300)
    assert harness.rows(dsn, "SELECT count(*) FROM steady WHERE id > %s", [base]) == [(rows,)]


@contextlib.contextmanager
def _nobody(steady: Steady, replicas: Sequence[str]) -> Iterator[list[int]]:  # noqa: ARG001 -- one of three ways
    """Let the load be by itself."""
    yield []


@contextlib.contextmanager
def _ours(steady: Steady, replicas: Sequence[str]) -> Iterator[list[int]]:
    """Let the connector and a daemon for each replica run; gives the daemons' processes."""
    stream, daemons = steady.stream, []
    steady.connector.ask("resume")
    try:
        daemons = [stream.start("run", "-r", name) for name in replicas]
        for name in replicas:
            stream.cdc("wait", "-r", name, "--now", "--timeout", "300s", timeout=330)
        yield [daemon.pid for daemon in daemons]
    finally:
        for daemon in daemons:
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(60)
        steady.connector.stop()


@contextlib.contextmanager
def _subscribed(steady: Steady, replicas: Sequence[str]) -> Iterator[list[int]]:
    """Let a subscription on each replica's server follow from now on."""
    stream, made = steady.stream, []
    active: LiteralString = (
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'bench\\_%%' AND active"
    )
    try:
        for name in replicas:
            slot = subscription.from_now(f"bench_{name}")
            subscription.create(stream, steady.beside(name), slot)
            made.append(name)
        harness.wait_until(
            lambda: stream.sql("primary", active) == [(len(made),)], "all subscriptions stream"
        )
        yield []
    finally:
        for name in made:  # drops its slot as well
            harness.rows(steady.beside(name), "DROP SUBSCRIPTION bench")


_WAYS: dict[
    str, Callable[[Steady, Sequence[str]], contextlib.AbstractContextManager[list[int]]]
] = {
    "nobody": _nobody,
    "cdc": _ours,
    "postgresql": _subscribed,
}


def followers(
    stack: Stack, folder: Path, counts: Sequence[int], runs: int, load: Load
) -> dict[str, Any]:
    """Measure the load alone, and with so many replicas, by turns."""
    turns = [("nobody", 0), *(("cdc", n) for n in counts), *(("postgresql", n) for n in counts)]
    found: dict[tuple[str, int], list[dict[str, Any]]] = {turn: [] for turn in turns}
    with harness.stream(stack, folder) as stream:
        steady = Steady(stream, load)
        steady.build()
        for run in range(runs):
            turn = run * len(turns) // runs  # no way is always after the same one
            for way, number in turns[turn:] + turns[:turn]:
                one = steady.measured(way, number)
                found[way, number].append(one)
                say(f"replicas: {way} {number}: {one}")
        steady.equal()
    return {
        **dataclasses.asdict(load),
        "ways": [{"way": way, "replicas": n, "runs": its} for (way, n), its in found.items()],
    }  # fmt: skip
