"""`cdc-verify` on the real stack: under writes, against injected faults, and what it mends."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
from harness import Stack, Stream
from verifying import told, verified

pytestmark = pytest.mark.stack

TABLES: LiteralString = """
    CREATE TABLE orders (
        id bigint PRIMARY KEY, n numeric(12, 2), c char(3), at timestamptz, note text, doc jsonb,
        f float8, tags text[], twice numeric GENERATED ALWAYS AS (n * 2) STORED
    );
    INSERT INTO orders
    SELECT g, g, 'ab', '2024-02-29 12:00+00'::timestamptz + g * interval '1 s', 'note ' || g,
           jsonb_build_object('a', g), g, ARRAY['x', NULL, g::text]
      FROM generate_series(1, 30000) AS g;
    CREATE TABLE pairs (a text, b int, v text UNIQUE, PRIMARY KEY (a, b));
    INSERT INTO pairs SELECT 'k' || g % 7, g, 'v' || g FROM generate_series(1, 2000) AS g;
    CREATE TABLE lines (a int, b text);
    ALTER TABLE lines REPLICA IDENTITY FULL;
    INSERT INTO lines SELECT g % 50, 'same' FROM generate_series(1, 500) AS g;
    CREATE TABLE counter (id int PRIMARY KEY, n bigint);
    INSERT INTO counter VALUES (1, 0);
    CREATE TABLE "Odd.name" ("a%b" int PRIMARY KEY, "select" text);
    INSERT INTO "Odd.name" VALUES (1, 'x');
"""

TABLE_NAMES = ["orders", "pairs", "lines", "counter", '"Odd.name"']


@pytest.fixture(scope="module")
def pair(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give one stream with two running daemons to all tests of this module."""
    with harness.stream(stack, tmp_path_factory.mktemp("verify")) as stream:
        stream.running(TABLES)
        yield stream


def equal(stream: Stream) -> None:
    """Find the same rows everywhere, without our own program."""
    nodes = {"primary": stream.primary, **stream.replicas}
    assert compare.differences(nodes, TABLE_NAMES) == []


#: What a writer does at random to a row of its own.
WRITES: tuple[LiteralString, ...] = (
    "DELETE FROM orders WHERE id = %(id)s",
    "INSERT INTO orders (id, n) VALUES (%(id)s, 1) ON CONFLICT DO NOTHING",
    "UPDATE orders SET n = n + 1 WHERE id = %(id)s",
    "UPDATE orders SET note = note || '.' WHERE id = %(id)s",
    "INSERT INTO lines VALUES (%(writer)s, 'new')",
    "DELETE FROM lines WHERE ctid = (SELECT min(ctid) FROM lines WHERE (a, b) = (%(writer)s, 'new'))",
)


@contextlib.contextmanager
def writing(dsn: str) -> Iterator[None]:
    """Write all over the tables, one row of them a hundred times a second.

    Slowly enough for every machine to keep up: what a replica has not yet applied is not judged.
    """
    stop = threading.Event()

    def anywhere(writer: int) -> None:
        chance = random.Random(writer)
        with psycopg.connect(dsn) as conn:
            while not stop.wait(0.01):
                for statement in chance.choices(WRITES, k=chance.randrange(1, 4)):
                    # Every writer has ids of its own, so that they do not deadlock.
                    given = {"id": chance.randrange(100, 10_000) * 3 + writer, "writer": writer}
                    conn.execute(statement, given)
                conn.commit()

    def one_row() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.wait(0.01):
                conn.execute("UPDATE counter SET n = n + 1 WHERE id = 1")

    threads = [threading.Thread(target=anywhere, args=(writer,)) for writer in range(3)]
    threads.append(threading.Thread(target=one_row))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_replicas_are_proven_equal_under_writes(pair: Stream) -> None:
    """While rows are written all over, a sound replica is never accused of anything."""
    with writing(pair.primary):
        for _ in range(2):
            code, report = verified(pair)
            found = {
                (t["table"], t["missing"], t["extra"], t["different"])
                for replica in report["replicas"]
                for t in replica["tables"]
            }
            assert {(table, 0, 0, 0) for table, *_ in found} == found
            assert [] == report["findings"]
            # A row written without end may stay undecided; it is never called different.
            assert code in (0, 3), report

    assert (0, []) == (verified(pair)[0], verified(pair)[1]["uncovered"])


#: Each changes r2 behind the daemon's back; what is to be found, with its key.
FAULTS: dict[str, tuple[LiteralString, str, str, dict[str, str]]] = {
    "first row missing": ("DELETE FROM orders WHERE id = 1", "missing", "orders", {"id": "1"}),
    "last row missing": ("DELETE FROM orders WHERE id = 30000", "missing", "orders", {"id": "30000"}),
    "row below the first": ("INSERT INTO orders (id) VALUES (-5)", "extra", "orders", {"id": "-5"}),
    "row above the last": ("INSERT INTO orders (id) VALUES (99999)", "extra", "orders", {"id": "99999"}),
    "trailing space": ("UPDATE orders SET note = note || ' ' WHERE id = 7", "different", "orders", {"id": "7"}),
    "empty for NULL": ("UPDATE orders SET note = NULL WHERE id = 8", "different", "orders", {"id": "8"}),
    "a cent": ("UPDATE orders SET n = n + 0.01 WHERE id = 9", "different", "orders", {"id": "9"}),
    "a microsecond": ("UPDATE orders SET at = at + interval '1 us' WHERE id = 10", "different", "orders", {"id": "10"}),
    "a key of a document": ("UPDATE orders SET doc = doc || '{\"b\": 1}' WHERE id = 11", "different", "orders", {"id": "11"}),
    "an element": ("UPDATE orders SET tags[2] = '' WHERE id = 12", "different", "orders", {"id": "12"}),
    "negative zero": ("UPDATE orders SET f = '-0' WHERE id = 13", "different", "orders", {"id": "13"}),
    "one of two keys": ("DELETE FROM pairs WHERE (a, b) = ('k3', 3)", "missing", "pairs", {"a": "k3", "b": "3"}),
    "a row too many of several": ("INSERT INTO lines VALUES (5, 'same')", "extra", "lines", {"a": "5", "b": "same"}),
    "a row too few of several": (
        "DELETE FROM lines WHERE ctid = (SELECT min(ctid) FROM lines WHERE a = 6 AND b = 'same')",
        "missing", "lines", {"a": "6", "b": "same"},
    ),
    "a name that needs quoting": ('DELETE FROM "Odd.name"', "missing", '"Odd.name"', {"a%b": "1"}),
}  # fmt: skip


#: Two rows exchange a unique value.
SWAP: tuple[LiteralString, ...] = (
    "UPDATE pairs SET v = 'none' WHERE b = 15",
    "UPDATE pairs SET v = 'v15' WHERE b = 16",
    "UPDATE pairs SET v = 'v16' WHERE b = 15",
)


def spoil(stream: Stream, statement: LiteralString) -> None:
    """Change r2 as somebody might who should not."""
    with psycopg.connect(stream.dsn("r2"), autocommit=True) as conn:
        conn.execute("SET session_replication_role = replica")
        assert conn.execute(statement).rowcount == 1


def test_every_fault_is_named_and_mended(pair: Stream) -> None:
    """Each injected fault is found with key and kind and no other; --repair=apply mends them."""
    for statement, *_ in FAULTS.values():
        spoil(pair, statement)
    for swap in SWAP:
        spoil(pair, swap)
    expected = {(kind, f"public.{table}", *key.items()) for _, kind, table, key in FAULTS.values()}
    expected |= {("different", "public.pairs", ("a", f"k{n % 7}"), ("b", str(n))) for n in (15, 16)}

    with writing(pair.primary):
        code, report = verified(pair, "--findings", "findings.jsonl")
        lines = (pair.folder / "findings.jsonl").read_text(encoding="utf-8").splitlines()
        found = {(f["kind"], f["table"], *f["key"].items()) for f in map(json.loads, lines)}
        assert (1, {"r2"}) == (code, {f["replica"] for f in report["findings"]})
        assert expected == found
        pair.verify("--repair", "apply")

    assert 0 == pair.verify("--repair", "apply").returncode
    pair.caught_up()
    equal(pair)


def test_the_plan_mends_as_it_says(pair: Stream) -> None:
    """The statements that --repair-sql writes mend the replica and do nothing a second time."""
    for statement, *_ in FAULTS.values():
        spoil(pair, statement)

    assert 1 == pair.verify("--repair-sql", "mend.sql").returncode
    script = (pair.folder / "mend.sql").read_text(encoding="utf-8")
    with psycopg.connect(pair.dsn("r2"), autocommit=True) as conn:
        conn.execute(script.encode())

    assert 0 == pair.verify().returncode
    equal(pair)


def test_a_replica_that_stands_still_is_not_accused(pair: Stream) -> None:
    """With its daemon stopped, what differs is undecided, exit 3, and what is waited for is said."""
    stopped = pair.daemons[0]
    stopped.send_signal(signal.SIGSTOP)
    try:
        pair.sql(
            "primary", "UPDATE orders SET note = 'while it stands' WHERE id BETWEEN 100 AND 109"
        )
        code, report = verified(pair, "-r", "r1", "--timeout", "1s")
    finally:
        stopped.send_signal(signal.SIGCONT)
    (orders,) = (t for t in report["replicas"][0]["tables"] if t["table"] == "public.orders")

    assert (3, 10, 0) == (code, orders["unverified"], orders["different"])
    assert "r1 did not reach" in orders["undecided"][0]["reason"]
    pair.caught_up()


def test_what_cannot_be_read_is_trouble_and_the_rest_is_told(pair: Stream) -> None:
    """A replica that is down, or a table nobody lets us read, is exit 2; the others are proven."""
    text = pair.config.read_text(encoding="utf-8")
    broken: Path = pair.folder / "broken.toml"
    before, after = text.split("[replicas.r2]")
    broken.write_text(
        f"{before}[replicas.r2]\n{after.replace('port=', 'port=1', 1)}", encoding="utf-8"
    )
    done = pair.verify("-c", str(broken))

    assert 2 == done.returncode, done.stdout
    assert "r2: not compared: cannot connect" in done.stdout
    assert "r1: 5 tables" in done.stdout

    with allowed(pair, "r2", "pairs"):
        code, report = verified(pair)
    (pairs,) = (t for t in report["replicas"][1]["tables"] if t["table"] == "public.pairs")
    assert (2, False) == (code, pairs["proven"])
    assert "permission denied" in pairs["trouble"]
    assert all(t["proven"] for t in report["replicas"][0]["tables"])


@contextlib.contextmanager
def allowed(stream: Stream, end: str, table: LiteralString) -> Iterator[None]:
    """Take from the daemon's role what it needs to read a table, for a while."""
    stream.sql(end, f"ALTER TABLE {table} OWNER TO postgres")
    try:
        yield
    finally:
        stream.sql(end, f"ALTER TABLE {table} OWNER TO {stream.role}")


def test_a_table_that_is_otherwise_is_said_to_be(pair: Stream) -> None:
    """Columns, types and keys are compared first, each with the statement that mends it."""
    pair.sql("r2", "ALTER TABLE orders ADD COLUMN surplus int")
    try:
        code, report = verified(pair, "--table", "public.orders")
    finally:
        pair.sql("r2", "ALTER TABLE orders DROP COLUMN surplus")
    (ours, theirs) = (replica["tables"][0] for replica in report["replicas"])

    assert (1, True, False) == (code, ours["proven"], theirs["proven"])
    assert ["ALTER TABLE public.orders DROP COLUMN surplus"] == [
        m["mend"] for m in theirs["mismatches"]
    ]


def test_a_table_that_is_not_covered_is_never_proven(pair: Stream) -> None:
    """A table that the patterns match and no replica was filled with is exit 3, by name."""
    pair.sql("primary", "CREATE TABLE late (id int PRIMARY KEY)")
    try:
        done: subprocess.CompletedProcess[str] = pair.verify()
    finally:
        pair.sql("primary", "DROP TABLE late")

    assert 3 == done.returncode
    assert "not covered: public.late" in done.stdout


CHUNKS: LiteralString = "SELECT coalesce(sum(chunks), 0)::int FROM cdc.verified"


def remembered(stream: Stream, more_than: int) -> bool:
    return bool(stream.sql("r2", CHUNKS)[0][0] > more_than)


ORDERS = ("--table", "public.orders")


def slowly(stream: Stream, *args: str) -> subprocess.Popen[bytes]:
    """Start a run whose pauses between chunks are longer than what is done meanwhile."""
    return stream.start(*ORDERS, "--max-cpu", "1", *args, name="cdc-verify")


def test_a_run_that_goes_on_is_not_resumed_beside(pair: Stream) -> None:
    """--resume is exit 2 while the run has not ended, which is not hurt; once it is dead, it goes on."""
    running = slowly(pair)
    try:
        harness.wait_until(partial(remembered, pair, more_than=0), "a chunk is remembered")
        running.send_signal(signal.SIGSTOP)
        seen = pair.sql("r2", CHUNKS)
        beside = pair.verify(*ORDERS, "--resume")
        kept = pair.sql("r2", CHUNKS)
    finally:
        running.kill()
        running.wait()
    code, report, said = told(pair, *ORDERS, "--resume")

    assert 2 == beside.returncode, beside.stdout
    assert "has not ended: its session on r1 is alive" in beside.stderr
    assert seen == kept
    assert (0, True) == (code, "going on with the run of" in said), report


def test_a_killed_run_goes_on(pair: Stream) -> None:
    """Killed after any chunk and resumed, a run tells what it would have told; history has both."""
    spoil(pair, "UPDATE orders SET note = 'spoilt' WHERE id = 77")
    spoil(pair, "UPDATE orders SET note = 'spoilt' WHERE id = 30000")
    seen = 0
    for _ in range(3):
        resume = ["--resume"] if seen else []
        killed = slowly(pair, *resume)
        harness.wait_until(partial(remembered, pair, more_than=seen), "another chunk is remembered")
        killed.kill()
        killed.wait()
        seen = pair.sql("r2", CHUNKS)[0][0]
    code, report = verified(pair, *ORDERS, "--resume", "--repair", "apply")
    (orders,) = (t for t in report["replicas"][1]["tables"] if t["table"] == "public.orders")
    lines = pair.verify("-r", "r2", "--history").stdout.splitlines()

    assert (0, 2, 2, True) == (code, orders["different"], orders["mended"], orders["proven"])
    assert [(orders["rows"],)] == pair.sql("primary", "SELECT count(*) FROM orders")
    assert "exit 0" in lines[0]
    assert 0 == verified(pair)[0]
