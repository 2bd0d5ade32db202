"""Without a superuser: everything a stream does, by roles that the printed SQL made and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
from harness import Stack, Stream
from psycopg import sql

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES: LiteralString = """
    CREATE SCHEMA shop;
    CREATE TYPE shop.mood AS ENUM ('fine', 'bad');
    CREATE TABLE shop.customer (id bigserial PRIMARY KEY, mood shop.mood, note text);
    CREATE TABLE shop.purchase (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        customer bigint REFERENCES shop.customer, amount numeric(12, 2) CHECK (amount > 0)
    );
    CREATE INDEX ON shop.purchase (customer);
    CREATE TABLE shop.part (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE shop.part_1 PARTITION OF shop.part FOR VALUES FROM (0) TO (1000);
    INSERT INTO shop.customer (mood, note) SELECT 'fine', 'n' || g FROM generate_series(1, 100) g;
    INSERT INTO shop.purchase (customer, amount) SELECT g, g FROM generate_series(1, 100) g;
    INSERT INTO shop.part SELECT generate_series(1, 10);
"""

NAMES = ("shop.customer", "shop.purchase", "shop.part_1")


@pytest.fixture(scope="module")
def plain(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream that a DBA has prepared, whose servers write down who does what from then on."""
    with harness.stream(stack, tmp_path_factory.mktemp("least"), least_roles=True) as stream:
        stream.sql("primary", TABLES)
        stream.administered("setup")
        for dsn in stack.ends.values():
            harness.rows(
                dsn,
                sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(
                    sql.Identifier(stream.name)
                ),
            )
        yield stream


def equal(stream: Stream) -> bool:
    return not compare.differences({"primary": stream.primary, **stream.replicas}, [*NAMES])


def at_work(stream: Stream, end: str) -> set[tuple[str, str]]:
    """Return who was at work in the stream's database according to the server's log: program, role."""
    log = stream.stack.config.parent / "logs" / f"{end}.log"
    line = re.compile(rf"^\S+ \S+ \S+ \[\d+\] (.*) (\S+)@{stream.name} LOG:", re.MULTILINE)
    return set(line.findall(log.read_text(encoding="utf-8", errors="replace")))


def test_no_superuser_is_needed_once_a_dba_was_there(plain: Stream) -> None:
    """From setup to teardown no session is a superuser's, says the servers' log, and all works."""
    stream = plain
    unprivileged = ("-c", stream.config)
    told = harness.run(*unprivileged, "setup", cwd=stream.folder)
    assert 1 == len(re.findall("created", told.stderr)), told.stderr  # the topic
    stream.cdc("connectors", "apply")
    for replica in stream.replicas:
        stream.cdc("bootstrap", "-r", replica)
    daemons = [stream.start("run", "-r", replica) for replica in stream.replicas]
    stream.caught_up()
    with psycopg.connect(stream.primary) as primary:
        primary.execute("INSERT INTO shop.customer (mood) VALUES ('bad')")
        primary.execute("UPDATE shop.purchase SET amount = amount + 1")
        primary.execute("DELETE FROM shop.part WHERE id = 3")
    stream.caught_up()
    assert equal(stream)
    assert 0 == stream.cdc("status").returncode
    assert 0 == stream.cdc("check").returncode
    assert 0 == stream.cdc("connectors", "diff").returncode
    assert 0 == stream.cdc("connectors", "restart").returncode
    stream.sql("r1", "UPDATE shop.customer SET note = 'spoilt' WHERE id = 7")
    stream.sql("r1", "DELETE FROM shop.purchase WHERE id = 5")
    assert 0 == stream.verify("--repair=apply").returncode
    assert equal(stream)
    stream.cdc("bootstrap", "-r", "r1", "--table", "shop.purchase", "--overwrite")
    stream.caught_up()
    assert equal(stream)
    _streams(stream)
    for daemon in daemons:
        daemon.terminate()
        assert 0 == daemon.wait(60)
    for replica in stream.replicas:
        stream.cdc("remove", "-r", replica, "--yes", replica)
        assert [] == stream.sql(replica, "SELECT FROM pg_namespace WHERE nspname = 'cdc'")

    left = stream.cdc("teardown", "--yes", stream.name, check=False)
    printed = stream.cdc("teardown", "--print").stdout

    assert 1 == left.returncode
    assert "let a DBA execute what `cdc teardown --print` prints" in left.stderr
    for end in stream.stack.ends:
        # What this test does by itself, as a superuser, bears no name.
        seen = {(program, role) for program, role in at_work(stream, end) if program != "[unknown]"}
        assert {role for _, role in seen} <= {stream.role, f"cdc_{stream.name}_connector"}, seen
        assert any(program.startswith(f"cdc-{stream.name}/") for program, _ in seen), seen
        assert any(program.startswith("cdc-verify/") for program, _ in seen), seen
        supers = stream.sql(end, "SELECT rolname FROM pg_roles WHERE rolsuper")
        assert not {role for _, role in seen} & {name for (name,) in supers}
    stream.carry_out(printed)
    assert [] == stream.sql("primary", "SELECT pubname FROM pg_publication")
    assert [] == stream.sql("primary", "SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")  # fmt: skip
    assert [] == stream.sql("primary", "SELECT rolname FROM pg_roles WHERE rolname LIKE %s",
                            [f"cdc\\_{stream.name}%"])  # fmt: skip


def _streams(stream: Stream) -> None:
    """Assert that those who stream and write just now are no superusers."""
    for end in stream.stack.ends:
        now = stream.sql(
            end,
            "SELECT DISTINCT a.usename, r.rolsuper FROM pg_stat_activity a"
            " JOIN pg_roles r ON r.oid = a.usesysid"
            " WHERE a.datname = current_database() AND a.pid <> pg_backend_pid()",
        )
        expected = {f"cdc_{stream.name}_connector"} if end == "primary" else {stream.role}
        assert {(name, False) for name in expected} <= set(now), now
        assert not any(superuser for _, superuser in now), now
