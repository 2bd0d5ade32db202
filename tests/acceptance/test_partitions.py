"""Partitions and tables that come, go, are renamed or published otherwise under a running stream."""

from __future__ import annotations

from collections.abc import Iterator

import compare
import pytest
import refusals
from harness import Stack, rows
from psycopg import sql
from refusals import Witness

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.m (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
    CREATE TABLE app.low PARTITION OF app.m FOR VALUES FROM (0) TO (100);
    CREATE TABLE app.mid PARTITION OF app.m FOR VALUES FROM (100) TO (200);
    CREATE TABLE app.t (id int PRIMARY KEY, v text);
    INSERT INTO app.m SELECT i, 'v' FROM generate_series(1, 150) i;
    CREATE TABLE app.u (id int PRIMARY KEY, v text);
    INSERT INTO app.u SELECT i, 'v' FROM generate_series(1, 9) i;
    INSERT INTO app.t SELECT i, 'v' FROM generate_series(1, 9) i;
"""


@pytest.fixture(scope="module")
def witness(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up; r2 is set up only."""
    with refusals.filled(stack, tmp_path_factory.mktemp("partitions"), TABLES) as found:
        yield found


def differences(witness: Witness, *tables: str) -> list[str]:
    ends = {"primary": witness.stream.primary, "r1": witness.stream.dsn("r1")}
    return compare.differences(ends, ["app.m", "app.low", "app.mid", "app.t", *tables])


def test_partitions_that_come_and_go(witness: Witness) -> None:
    """A new partition's first row halts the daemon until it is filled; so is a detached one, as a table."""
    stream = witness.stream
    stream.sql(
        "primary",
        "CREATE TABLE app.high (id int PRIMARY KEY, v text);"
        "INSERT INTO app.high SELECT i, 'before' FROM generate_series(200, 250) i;"
        "ALTER TABLE app.m ATTACH PARTITION app.high FOR VALUES FROM (200) TO (300)",
    )
    stream.sql("primary", "UPDATE app.t SET v = 'first' WHERE id = 1")
    stream.sql("primary", "INSERT INTO app.m VALUES (299, 'new')")
    said = witness.refused("run", "-r", "r1", "--until-caught-up")
    assert "the stream has changes of app.high" in said.what
    assert "table=app.high" in said.at
    assert [("first",)] == stream.sql("r1", "SELECT v FROM app.t WHERE id = 1")
    assert "cdc bootstrap --table app.high" in said.next

    stream.cdc("setup")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.high")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == differences(witness, "app.high")

    for end in ("primary", "r1"):
        stream.sql(end, "ALTER TABLE app.m DETACH PARTITION app.high")
    stream.sql("primary", "UPDATE app.high SET v = 'unseen' WHERE id = 201")  # it is not published
    stream.set_up("r1: app.high is not published any more")
    stream.sql("primary", "UPDATE app.high SET v = 'alone'; DELETE FROM app.high WHERE id = 200")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.high", "--overwrite")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == differences(witness, "app.high")


def test_a_renamed_table(witness: Witness) -> None:
    """A table renamed on the primary halts the daemon; renamed and filled on the replica it goes on."""
    stream = witness.stream
    stream.sql("primary", "ALTER TABLE app.u RENAME TO moved")
    stream.sql("primary", "UPDATE app.moved SET v = 'under another name'")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")
    assert "the stream has changes of app.moved" in said.what
    assert "rename it here first and add --overwrite" in said.next

    stream.sql("r1", "ALTER TABLE app.u RENAME TO moved")
    stream.cdc("setup")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.moved", "--overwrite")
    stream.sql("primary", "DELETE FROM app.moved WHERE id < 5")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == differences(witness, "app.moved")


def test_partitions_published_under_their_root(witness: Witness) -> None:
    """Rows under the root's name halt the daemon; setup takes it back, and a new copy heals it."""
    stream = witness.stream
    publication = sql.Identifier(f"cdc_{stream.name}")
    stream.sql(
        "primary",
        sql.SQL("ALTER PUBLICATION {} SET (publish_via_partition_root = true)").format(publication),
    )
    stream.sql("primary", "UPDATE app.m SET v = 'under the root' WHERE id = 1")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")
    assert "the stream has changes of app.m" in said.what
    assert "`cdc setup`" in said.next
    assert "`cdc bootstrap --overwrite`" in said.next

    stream.cdc("setup")
    assert [(False,)] == rows(stream.primary, "SELECT bool_or(pubviaroot) FROM pg_publication")
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    stream.sql("primary", "TRUNCATE app.mid; UPDATE app.m SET id = id + 99 WHERE id IN (2, 3)")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == differences(witness)
