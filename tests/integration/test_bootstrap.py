"""Filling replicas on the real stack: under load, interrupted, again, for single tables."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import threading
from collections.abc import Iterator
from typing import LiteralString

import compare
import harness
import least
import psycopg
import pytest
from harness import Stream, edit, wait_until

pytestmark = pytest.mark.stack

#: Whether replicas get the primary's foreign keys: not where triggers cannot be silenced.
KEYS = least.TRIGGERS == "session"

#: One of each: quoted names, identity, serial and generated columns, an enum, a domain, partitions,
#: a foreign key, an inheritance child, an empty table, wide values, a trigger that must not fire.
KINDS: LiteralString = """
    CREATE SCHEMA "Mixed Case";
    CREATE TYPE "Mixed Case".mood AS ENUM ('a', 'b');
    CREATE DOMAIN positive AS int CHECK (value > 0);
    CREATE TABLE par (id int PRIMARY KEY, m "Mixed Case".mood);
    CREATE TABLE kid (x positive, PRIMARY KEY (id)) INHERITS (par);
    CREATE TABLE "Mixed Case"."T 1" (
        "Id" int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial,
        g int GENERATED ALWAYS AS (p * 2) STORED, p int REFERENCES par, "t.""x" text CHECK ("t.""x" <> '')
    );
    CREATE INDEX "i x" ON "Mixed Case"."T 1" ("t.""x");
    CREATE TABLE ev (id int, d date, note text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
    CREATE TABLE ev1 PARTITION OF ev FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE ev2 PARTITION OF ev FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
    CREATE INDEX evi ON ev (note);
    CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN new.x = new.x + 1; RETURN new; END';
    CREATE TABLE empty (id int PRIMARY KEY);
    CREATE TABLE wide (id int PRIMARY KEY, b bytea);
    CREATE TABLE big (id int PRIMARY KEY, n int, t text);
    INSERT INTO par SELECT i, 'a' FROM generate_series(1, 100) i;
    INSERT INTO kid SELECT -i, 'b', i FROM generate_series(1, 50) i;
    CREATE TRIGGER spoiling BEFORE INSERT ON kid FOR EACH ROW EXECUTE FUNCTION spoil();
    INSERT INTO "Mixed Case"."T 1" (p, "t.""x") SELECT i, E'a\\tb\\\\N' FROM generate_series(1, 100) i;
    INSERT INTO ev SELECT i, date '2020-01-01' + i, NULL FROM generate_series(1, 700) i;
    INSERT INTO wide SELECT i, decode(repeat(md5(i::text), 60000), 'hex') FROM generate_series(1, 4) i;
    INSERT INTO big SELECT i, i, repeat(md5(i::text), 8) FROM generate_series(1, 500000) i;
"""
TABLES = ["par", "kid", '"Mixed Case"."T 1"', "ev", "ev1", "ev2", "empty", "wide", "big"]

PAIR: LiteralString = """
    CREATE TABLE a (id int PRIMARY KEY, n int);
    CREATE TABLE b (id int PRIMARY KEY, n int);
    INSERT INTO a SELECT i, 0 FROM generate_series(1, 1000) i;
    INSERT INTO b SELECT i, 0 FROM generate_series(1, 1000) i;
"""


def prepared(stream: Stream, tables: LiteralString) -> Stream:
    """Bring a stream to the point before bootstrap."""
    stream.sql("primary", tables)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    return stream


def state(stream: Stream, end: str = "r1") -> dict[str, tuple[str, str | None, int | None]]:
    """Return state, snapshot LSN and rows of each recorded table."""
    found = stream.sql(
        end, "SELECT table_name, state, snapshot_lsn::text, rows FROM cdc.tables ORDER BY 1"
    )
    return {name: tuple(rest) for name, *rest in found}


def caught_up(stream: Stream, end: str = "r1") -> None:
    stream.cdc("run", "-r", end, "--until-caught-up")


@contextlib.contextmanager
def writing(dsn: str) -> Iterator[None]:
    """Change rows of all kinds at random until the block ends, and fail if that fails."""

    def write(stop: threading.Event) -> None:
        chance = random.Random(1)
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not stop.is_set():
                with conn.transaction():
                    for _ in range(chance.randint(1, 5)):
                        key = chance.randint(1, 600_000)
                        conn.execute(chance.choice(CHANGES), {"k": key, "s": key % 700 + 1})

    with harness.meanwhile(write):
        yield


CHANGES: list[LiteralString] = [
    "INSERT INTO big VALUES (%(k)s, 1, 'new') ON CONFLICT (id) DO UPDATE SET n = big.n + 1",
    "DELETE FROM big WHERE id = %(k)s",
    "UPDATE big SET id = id + 1000000 WHERE id = %(k)s",
    "INSERT INTO ONLY_PAR".replace("ONLY_PAR", "par")
    + " VALUES (%(k)s + 1000, 'a') ON CONFLICT DO NOTHING",
    'INSERT INTO "Mixed Case"."T 1" (p, "t.""x") SELECT id, \'q\' FROM ONLY par ORDER BY id DESC LIMIT 1',
    "UPDATE ev SET note = %(k)s::text WHERE id = %(s)s",
    "UPDATE kid SET m = 'a' WHERE id = -%(s)s",
    "INSERT INTO empty VALUES (%(k)s) ON CONFLICT DO NOTHING",
]


def test_filled_under_live_writes_equals_the_primary(stream: Stream) -> None:
    """A replica filled while rows of every kind change equals the primary once it caught up."""
    prepared(stream, KINDS)
    with writing(stream.primary):
        done = stream.cdc("bootstrap", "-r", "r1", "--jobs", "3", "--json")
    caught_up(stream)

    assert compare.differences({"primary": stream.primary, "r1": stream.dsn("r1")}, TABLES) == []
    report = json.loads(done.stdout)
    assert report["rows"] > 500_000
    assert report["foreign_keys"]["pending"] == []
    assert set(report["filled"]) == {f"public.{t}" for t in TABLES if t[0] != '"' and t != "ev"} | {
        '"Mixed Case"."T 1"'
    }
    # Inheritance children are copied once, as themselves.
    assert stream.sql("r1", "SELECT count(*) FROM ONLY kid") == [(50,)]
    # Indexes, constraints, triggers and partitions came with the schema.
    shape: LiteralString = (
        "SELECT (SELECT json_agg(pg_get_indexdef(indexrelid) ORDER BY indexrelid::regclass::text)"
        " FROM pg_index WHERE indrelid >= 16384 AND indisvalid AND indrelid::regclass::text !~ '^cdc'"
        "  AND indrelid::regclass::text !~ '^pg_toast'),"
        " (SELECT json_agg(pg_get_constraintdef(c.oid) ORDER BY conrelid::regclass::text, conname)"
        "  FROM pg_constraint c WHERE conrelid >= 16384 AND conrelid::regclass::text !~ '^cdc'"
        "  AND (%s OR contype <> 'f')),"
        " (SELECT json_agg(tgname) FROM pg_trigger WHERE NOT tgisinternal),"
        " (SELECT json_agg(inhrelid::regclass::text ORDER BY 1) FROM pg_inherits"
        "  WHERE inhrelid::regclass::text ~ 'ev.$')"
    )
    assert stream.sql("r1", shape, [KEYS]) == stream.sql("primary", shape, [KEYS])
    # New rows on the replica, once promoted, do not reuse keys.
    last: LiteralString = 'SELECT last_value > 100 FROM "Mixed Case"."T 1_Id_seq"'
    assert stream.sql("r1", last) == [(True,)]


def test_second_run_changes_nothing(stream: Stream) -> None:
    """Running bootstrap on a filled replica reports so and touches neither rows nor position."""
    prepared(stream, PAIR)
    stream.cdc("bootstrap", "-r", "r1")
    before = (
        stream.sql("r1", "SELECT * FROM cdc.position"),
        stream.sql("r1", "SELECT xmin::text, * FROM cdc.tables"),
        stream.sql("r1", "SELECT xmin::text, * FROM a"),
    )

    again = stream.cdc("bootstrap", "-r", "r1")

    assert "all 2 tables were filled already" in again.stdout
    assert before == (
        stream.sql("r1", "SELECT * FROM cdc.position"),
        stream.sql("r1", "SELECT xmin::text, * FROM cdc.tables"),
        stream.sql("r1", "SELECT xmin::text, * FROM a"),
    )


@contextlib.contextmanager
def b_stuck(stream: Stream) -> Iterator[None]:
    """Make the copy of table b on r1 wait as long as the block lasts."""
    stream.sql(
        "r1", f"CREATE TABLE b (id int PRIMARY KEY, n int); ALTER TABLE b OWNER TO {stream.role}"
    )
    # A constraint, because a trigger that fires for replicated rows is refused.
    stream.sql(
        "r1",
        "CREATE FUNCTION wait() RETURNS bool LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN true; END'",
    )
    stream.sql("r1", "ALTER TABLE b ADD CONSTRAINT wait CHECK (wait())")
    with psycopg.connect(stream.dsn("r1"), autocommit=True) as lock:
        lock.execute("SELECT pg_advisory_lock(77)")
        yield
    stream.sql("r1", "ALTER TABLE b DROP CONSTRAINT wait")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_interrupted_bootstrap_continues(stream: Stream, number: signal.Signals) -> None:
    """Stopped in the middle and run again, it keeps what was whole and copies the rest anew."""
    prepared(stream, PAIR)
    with b_stuck(stream):
        first = stream.start("bootstrap", "-r", "r1")
        wait_until(lambda: state(stream).get("a", ("",))[0] == "copied", "table a is copied")
        first.send_signal(number)
        status = first.wait(30)
        assert state(stream)["b"][0] == "copying"
    if number == signal.SIGTERM:
        assert status == 1
        assert "stopped by SIGTERM" in stream.log(first)
        assert "run `cdc bootstrap` again: it continues" in stream.log(first)
    before = state(stream)
    position = stream.sql("r1", "SELECT next_offset, applied_lsn FROM cdc.position")
    stream.sql("primary", "UPDATE a SET n = n + 1 WHERE id < 10")
    stream.sql("primary", "UPDATE b SET n = n + 1 WHERE id < 10")

    stream.cdc("bootstrap", "-r", "r1")

    after = state(stream)
    assert after["a"] == before["a"]
    assert after["b"][0] == "copied"
    assert after["b"][2] == 1000
    later: LiteralString = (
        "SELECT max(snapshot_lsn) FILTER (WHERE table_name = 'b')"
        " > max(snapshot_lsn) FILTER (WHERE table_name = 'a') FROM cdc.tables"
    )
    assert stream.sql("r1", later) == [(True,)]
    assert stream.sql("r1", "SELECT next_offset, applied_lsn FROM cdc.position") == position
    stream.sql("primary", "UPDATE b SET n = n + 1 WHERE id < 20")
    caught_up(stream)
    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["a", "b"]) == []


@pytest.mark.skipif(not KEYS, reason="replicas get no foreign keys")
def test_foreign_key_waits_for_tables_of_different_moments(stream: Stream) -> None:
    """A foreign key that cannot hold before the replica caught up is left and made by a later run."""
    prepared(stream, PAIR)
    stream.sql("primary", "ALTER TABLE b ADD FOREIGN KEY (n) REFERENCES a DEFERRABLE NOT VALID")
    stream.sql("primary", "ALTER TABLE b DROP CONSTRAINT b_n_fkey; UPDATE b SET n = id")
    stream.sql("primary", "ALTER TABLE b ADD FOREIGN KEY (n) REFERENCES a")
    with b_stuck(stream):
        first = stream.start("bootstrap", "-r", "r1")
        wait_until(lambda: state(stream).get("a", ("",))[0] == "copied", "table a is copied")
        first.kill()
        first.wait()
    stream.sql("primary", "INSERT INTO a VALUES (5000, 0)")
    stream.sql("primary", "INSERT INTO b VALUES (5000, 5000)")
    exists: LiteralString = "SELECT count(*) FROM pg_constraint WHERE conname = 'b_n_fkey'"

    second = stream.cdc("bootstrap", "-r", "r1")
    assert "b_n_fkey" in second.stdout
    assert "again when the replica has caught up" in second.stdout
    assert stream.sql("r1", exists) == [(0,)]
    caught_up(stream)
    stream.cdc("bootstrap", "-r", "r1")

    assert stream.sql("r1", exists) == [(1,)]


def test_rows_on_the_replica_are_never_overwritten_unasked(stream: Stream) -> None:
    """A table with rows is refused by name and kept; --overwrite empties the listed table only."""
    prepared(stream, PAIR)
    stream.sql(
        "r1", f"CREATE TABLE a (id int PRIMARY KEY, n int); ALTER TABLE a OWNER TO {stream.role}"
    )
    stream.sql("r1", "CREATE TABLE mine (id int PRIMARY KEY); INSERT INTO mine VALUES (1)")
    stream.sql("r1", "INSERT INTO a VALUES (7777, 1)")

    refused = stream.cdc("bootstrap", "-r", "r1", check=False)

    assert refused.returncode == 1
    assert "have rows already: public.a" in refused.stderr
    assert "--overwrite" in refused.stderr
    assert stream.sql("r1", "SELECT * FROM a") == [(7777, 1)]
    assert state(stream) == {}
    planned = stream.cdc("bootstrap", "-r", "r1", "--overwrite", "--dry-run")
    assert "public.a: empty it, then fill it" in planned.stdout
    assert "public.b: fill it" in planned.stdout
    assert stream.sql("r1", "SELECT * FROM a") == [(7777, 1)]

    stream.cdc("bootstrap", "-r", "r1", "--overwrite")

    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["a", "b"]) == []
    assert stream.sql("r1", "SELECT * FROM mine") == [(1,)]


def test_one_table_is_filled_anew_while_the_daemon_runs(stream: Stream) -> None:
    """Re-syncing a damaged table under writes and a running daemon makes it right, and only it moves."""
    prepared(stream, PAIR)
    stream.cdc("bootstrap", "-r", "r1")
    untouched = state(stream)["b"]
    stream.start("run", "-r", "r1")
    stream.cdc("wait", "-r", "r1", "--now")
    stream.sql("r1", "UPDATE a SET n = 99 WHERE id = 500; DELETE FROM a WHERE id = 501")
    stop = threading.Event()

    def write() -> None:
        with psycopg.connect(stream.primary, autocommit=True) as conn:
            while not stop.wait(0.02):
                with conn.transaction():
                    conn.execute("UPDATE a SET n = n + 1 WHERE id <= 100")
                    conn.execute("UPDATE b SET n = n + 1 WHERE id <= 100")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        stream.cdc("bootstrap", "-r", "r1", "--table", "public.a", "--overwrite")
    finally:
        stop.set()
        writer.join()
    stream.cdc("wait", "-r", "r1", "--now")

    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["a", "b"]) == []
    assert state(stream)["b"] == untouched


def test_a_new_table_joins_a_running_stream(stream: Stream) -> None:
    """A table created later comes with its type, sequence, partitions and rows; others stay."""
    prepared(stream, PAIR)
    stream.cdc("bootstrap", "-r", "r1")
    stream.start("run", "-r", "r1")
    before = state(stream)
    stream.sql("primary", "CREATE TYPE colour AS ENUM ('red')")
    stream.sql("primary", "CREATE TABLE stray (id int)")
    stream.sql(
        "primary",
        "CREATE TABLE late (id serial, c colour, PRIMARY KEY (id)) PARTITION BY HASH (id);"
        " CREATE TABLE late0 PARTITION OF late FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        " CREATE TABLE late1 PARTITION OF late FOR VALUES WITH (MODULUS 2, REMAINDER 1);"
        " INSERT INTO late (c) SELECT 'red' FROM generate_series(1, 100)",
    )
    text = stream.config.read_text(encoding="utf-8")
    stream.config.write_text(
        text.replace("exclude = []", 'exclude = ["public.stray"]'), encoding="utf-8"
    )
    stream.cdc("setup")

    stream.cdc("bootstrap", "-r", "r1")
    stream.sql("primary", "INSERT INTO late (c) VALUES ('red')")
    stream.cdc("wait", "-r", "r1", "--now")

    after = state(stream)
    assert {n: after[n] for n in before} == before
    assert set(after) == {"a", "b", "late0", "late1"}
    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["late", "a"]) == []
    assert stream.sql("r1", "SELECT to_regclass('public.stray')") == [(None,)]
    assert stream.sql("r1", "SELECT last_value FROM late_id_seq") == [(100,)]


def test_only_one_bootstrap_of_a_replica_at_a_time(stream: Stream) -> None:
    """While one bootstrap runs, another one for the same replica refuses to begin."""
    prepared(stream, PAIR)
    with b_stuck(stream):
        first = stream.start("bootstrap", "-r", "r1")
        wait_until(lambda: state(stream).get("a", ("",))[0] == "copied", "table a is copied")
        second = stream.cdc("bootstrap", "-r", "r1", check=False)
    assert second.returncode == 1
    assert "another `cdc bootstrap`" in second.stderr
    assert first.wait(60) == 0, stream.log(first)


def test_triggers_disabled_without_the_privilege(stream: Stream) -> None:
    """Without the right to switch triggers off per session, rows come unspoilt, foreign keys stay away."""
    prepared(stream, PAIR)
    stream.sql("primary", "ALTER TABLE b ADD FOREIGN KEY (n) REFERENCES a NOT VALID")
    stream.sql(
        "primary",
        "CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN new.n = -1; RETURN new; END'",
    )
    stream.sql(
        "primary", "CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION spoil()"
    )
    if KEYS:
        edit(stream, r"^\[replicas.r1\]$", '[replicas.r1]\ntriggers = "disabled"')

    stream.cdc("bootstrap", "-r", "r1")
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")

    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["a", "b"]) == []
    assert stream.sql("r1", "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 't'") == [("D",)]
    assert stream.sql("r1", "SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == [(0,)]


def test_only_what_the_tables_need(stream: Stream) -> None:
    """With schema = "tables" the replica gets the tables, their types and sequences, nothing else."""
    stream.sql("primary", KINDS)
    text = stream.config.read_text(encoding="utf-8")
    text = text.replace('tables = ["*.*"]', 'tables = ["\\"Mixed Case\\".*", "public.par"]')
    stream.config.write_text(f'{text}\n[bootstrap]\nschema = "tables"\n', encoding="utf-8")
    stream.cdc("setup")
    stream.cdc("connectors", "apply")

    stream.cdc("bootstrap", "-r", "r1")

    there: LiteralString = (
        "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'p', 'S', 'v') AND nspname IN ('public', 'Mixed Case') ORDER BY 1"
    )
    assert [name for (name,) in stream.sql("r1", there)] == [
        "T 1",
        "T 1_Id_seq",
        "T 1_s_seq",
        "par",
    ]
    keys: LiteralString = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'"
    assert stream.sql("r1", keys) == [(1 if KEYS else 0,)]
    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, TABLES[2:3]) == []
    assert stream.sql("r1", "SELECT count(*) FROM par") == [(100,)]
