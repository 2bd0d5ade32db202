"""One table filled again while everything goes on: what readers see, what survives, and kills on the way."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString, Self

import compare
import harness
import psycopg
import pytest
from harness import Stream, wait_until

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES: LiteralString = """
    CREATE SCHEMA app;
    CREATE TABLE app.orders (id int PRIMARY KEY, code text UNIQUE, n int, big text,
                             twice int GENERATED ALWAYS AS (n * 2) STORED CHECK (n >= 0));
    ALTER TABLE app.orders ALTER big SET STORAGE EXTERNAL;
    CREATE INDEX orders_n ON app.orders (n);
    CREATE TABLE app.lines (id int PRIMARY KEY, o int REFERENCES app.orders);
    CREATE VIEW app.sums AS SELECT count(*), sum(n) FROM app.orders;
    CREATE TABLE app.keyless (a int, b text);
    ALTER TABLE app.keyless REPLICA IDENTITY FULL;
    INSERT INTO app.orders SELECT i, 'c' || i, i, CASE i % 40 WHEN 0 THEN repeat('x', 3000) END
      FROM generate_series(1, 12000) i;
    INSERT INTO app.lines SELECT i, i FROM generate_series(1, 500) i;
    INSERT INTO app.keyless SELECT i % 50, 'b' FROM generate_series(1, 1000) i;
"""

#: What somebody has done to the replica: three rows too many, five too few, seven altered.
DAMAGE: LiteralString = """
    INSERT INTO app.orders SELECT -i, 'ghost' || i, 0, '' FROM generate_series(1, 3) i;
    DELETE FROM app.orders WHERE id BETWEEN 1001 AND 1005;
    UPDATE app.orders SET n = 1000000 WHERE id BETWEEN 1011 AND 1017;
    INSERT INTO app.keyless VALUES (7, 'b'), (-7, 'b');
    DELETE FROM app.keyless WHERE a = 8
"""

#: Of each, for a reader; and all rows that no writer touches.
SEEN: LiteralString = """
    SELECT count(*) FILTER (WHERE id < 0), count(*) FILTER (WHERE id BETWEEN 1001 AND 1005),
           count(*) FILTER (WHERE n = 1000000), count(*) FILTER (WHERE id BETWEEN 1 AND 9000)
      FROM app.orders
"""
WRONG, RIGHT = (3, 0, 7, 8995), (0, 5, 0, 9000)

#: Whatever depends on the table, by object number: made anew it would have another.
HANGING: LiteralString = """
    SELECT 'app.orders'::regclass::oid, relacl::text,
           ARRAY(SELECT indexrelid FROM pg_index WHERE indrelid = c.oid ORDER BY 1),
           ARRAY(SELECT oid FROM pg_constraint WHERE c.oid IN (conrelid, confrelid) ORDER BY 1),
           ARRAY(SELECT ev_class::regclass::text FROM pg_rewrite r JOIN pg_depend d ON d.objid = r.oid
                  WHERE d.refobjid = c.oid ORDER BY 1)
      FROM pg_class c WHERE oid = 'app.orders'::regclass
"""

#: Kills at a failpoint of the fill; then at random.
POINTS = [
    "fill.marked",
    "fill.copied",
    "fill.followed",
    "fill.locked",
    "fill.merged",
    "copy.open",
]


@contextlib.contextmanager
def writing(stream: Stream) -> Iterator[None]:
    """Insert, update, delete and change keys of rows above 10000 on the primary meanwhile."""

    def write(stop: threading.Event) -> None:
        chance = random.Random(7)
        new = itertools.count(30_000)
        with psycopg.connect(stream.primary, autocommit=True) as conn:
            while not stop.wait(0.01):
                key = chance.randint(10_000, 12_000)
                with conn.transaction():
                    conn.execute("UPDATE app.orders SET n = n + 1 WHERE id = %s", [key])
                    conn.execute("DELETE FROM app.orders WHERE id = %s", [key + 1])
                    conn.execute("UPDATE app.orders SET id = id + 100000 WHERE id = %s", [key + 2])
                    conn.execute(
                        "INSERT INTO app.orders VALUES (%s, 'n' || %s, 1)",
                        [number := next(new), number],
                    )
                    conn.execute("INSERT INTO app.lines VALUES (%s, %s)", [number, number])
                    conn.execute(
                        "UPDATE app.keyless SET b = 'c' WHERE a = %s AND a <> 8", [key % 50]
                    )

    with harness.meanwhile(write):
        yield


class Reader(threading.Thread):
    """Reads the table of a replica all the while; keeps each answer that differs from the last."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.seen: list[tuple[Any, ...]] = []
        self.reads = 0
        self._dsn = dsn
        self._end = threading.Event()

    def run(self) -> None:
        # A lock on the table would end the reader, and be seen so.
        with psycopg.connect(self._dsn, autocommit=True, options="-c lock_timeout=2s") as conn:
            while not self._end.is_set():
                found = conn.execute(SEEN).fetchone()
                assert found is not None
                self.reads += 1
                if self.seen[-1:] != [found]:
                    self.seen.append(found)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()


def state_of(process: subprocess.Popen[bytes]) -> str:
    """Return the state of a process as the kernel calls it: T where it is stopped."""
    return (
        Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    )


def left(stream: Stream) -> list[tuple[Any, ...]]:
    """Return what a bootstrap has left on the replica r1."""
    return stream.sql(
        "r1",
        "SELECT table_name FROM cdc.filling UNION ALL"
        " SELECT relname FROM pg_class WHERE relname LIKE 'refill%'",
    )


def test_a_table_filled_again_is_never_seen_empty_and_survives_ten_kills(stream: Stream) -> None:
    """Readers see all old rows, then all new; ten SIGKILLs later the tables are equal and nothing is left."""
    stream.sql("primary", TABLES)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    stream.cdc("bootstrap", "-r", "r1")
    daemon = stream.start("run", "-r", "r1")
    stream.cdc("wait", "-r", "r1", "--now")
    stream.sql("r1", "GRANT SELECT ON app.orders TO PUBLIC; GRANT pg_read_all_data TO cdc")
    stream.sql("r1", "SET session_replication_role = replica; " + DAMAGE)
    before = stream.sql("r1", HANGING)
    fill = [
        "bootstrap",
        "-r",
        "r1",
        "--table",
        "app.orders",
        "--table",
        "app.keyless",
        "--overwrite",
    ]
    chance = random.Random(11)
    with (
        Reader(stream.dsn("r1")) as reader,
        psycopg.connect(stream.dsn("r1")) as old,
        writing(stream),
    ):
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT count(*) FROM app.lines")  # its snapshot is of now
        for number in range(10):
            if number < len(POINTS):
                victim = stream.start(*fill, armed=[POINTS[number], "1", "KILL"])
                with contextlib.suppress(subprocess.TimeoutExpired):
                    victim.wait(90)
                assert victim.poll() == -signal.SIGKILL, stream.log(victim)
            else:
                victim = stream.start(*fill)
                with contextlib.suppress(Exception):
                    victim.wait(chance.uniform(0.5, 2.5))
                victim.kill()
                victim.wait()
            if reader.seen[-1] == RIGHT:  # one that was killed at random may have come to its end
                stream.sql("r1", "SET session_replication_role = replica; " + DAMAGE)
        assert daemon.poll() is None, stream.log(daemon)

        stream.cdc(*fill)

        assert WRONG == old.execute(SEEN).fetchone(), "a reader's snapshot lost its rows"
        wait_until(lambda: reader.seen[-1] == RIGHT, "the reader sees the new rows", 5)
    stream.cdc("wait", "-r", "r1", "--now")
    assert set(reader.seen) == {WRONG, RIGHT}
    assert reader.reads > 100
    tables = ["app.orders", "app.keyless", "app.lines"]
    assert [] == compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, tables)
    assert before == stream.sql("r1", HANGING)
    assert [] == left(stream)

    # A change that does not fit the wrong rows is waited with, not halted at, while new ones are in the making.
    stream.sql("r1", "SET session_replication_role = replica; DELETE FROM app.keyless WHERE a = 8")
    victim = stream.start(*fill, armed=["fill.copied", "1", "STOP"])
    wait_until(lambda: "T" in state_of(victim), "the copy is done")
    stream.sql("primary", "INSERT INTO app.lines VALUES (-1, 1)")  # behind the snapshot
    stream.sql("primary", "UPDATE app.keyless SET b = 'z' WHERE a = 8")
    wait_until(lambda: "waiting for the copy of app.keyless" in stream.log(daemon), "it waits")
    victim.send_signal(signal.SIGCONT)
    assert victim.wait(90) == 0, stream.log(victim)
    stream.cdc("wait", "-r", "r1", "--now")
    assert [] == compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, tables)
    assert daemon.poll() is None, stream.log(daemon)
