"""Transactions: in two phases, several at once, with logical messages in them, with very large rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
from psycopg import sql
from road import Road, given

Session = psycopg.Connection[tuple[object, ...]]


@contextlib.contextmanager
def sessions(road: Road, count: int) -> Iterator[list[Session]]:
    """Open sessions on the primary that commit when they are told to; r1 sees one batch of it all."""
    options = f"-c search_path={road.schema}"
    with contextlib.ExitStack() as stack:
        stack.enter_context(road.frozen("r1"))
        yield [
            stack.enter_context(
                contextlib.closing(
                    psycopg.connect(road.stream.primary, autocommit=True, options=options)
                )
            )
            for _ in range(count)
        ]


@given("""
    CREATE TABLE t (id int PRIMARY KEY, v text);
    CREATE TABLE bare (v text); ALTER TABLE bare REPLICA IDENTITY FULL;
    INSERT INTO t SELECT i, 'v' FROM generate_series(1, 20) i; INSERT INTO bare VALUES ('x'), ('x')
""")
def test_two_phase_commit(road: Road) -> None:
    """A prepared transaction counts from COMMIT PREPARED on; one that is rolled back never does."""
    kept, dropped = (sql.Literal(f"{road.stream.name} {what}") for what in ("kept", "dropped"))
    before = road.digest()
    with sessions(road, 2) as (one, two):
        one.execute(
            "BEGIN; UPDATE t SET v = 'kept' WHERE id < 4; INSERT INTO t VALUES (21, 'kept')"
        )
        one.execute("DELETE FROM bare WHERE ctid = (SELECT min(ctid) FROM bare)")
        one.execute(sql.SQL("PREPARE TRANSACTION {}").format(kept))
        two.execute("BEGIN; DELETE FROM t WHERE id > 10; UPDATE t SET id = -id WHERE id = 10")
        two.execute(sql.SQL("PREPARE TRANSACTION {}").format(dropped))
        two.execute("UPDATE t SET v = 'between' WHERE id = 9; INSERT INTO t VALUES (22, 'between')")
        two.execute(sql.SQL("COMMIT PREPARED {}").format(kept))
        one.execute("UPDATE t SET v = v || '!' WHERE id = 21; DELETE FROM t WHERE id = 1")
        two.execute(sql.SQL("ROLLBACK PREPARED {}").format(dropped))

    assert before != road.digest()
    road.equal()


@given("""
    CREATE TABLE t (id int PRIMARY KEY, n int UNIQUE, v text);
    INSERT INTO t SELECT i, i, 'v' FROM generate_series(1, 300) i
""")
def test_transactions_that_overlap(road: Road) -> None:
    """Transactions that were open at the same time are applied in the order of their commits."""
    before = road.digest()
    with sessions(road, 3) as (slow, quick, other):
        slow.execute("BEGIN; UPDATE t SET v = 'slow' WHERE id <= 100")
        slow.execute("SAVEPOINT s; DELETE FROM t WHERE id = 300; ROLLBACK TO s")
        other.execute("BEGIN; UPDATE t SET n = -1 WHERE id = 200")
        for i in range(101, 131):
            quick.execute("UPDATE t SET v = 'quick' WHERE id = %s", [i])
        other.execute("UPDATE t SET id = 1000 WHERE id = 200; UPDATE t SET n = 200 WHERE id = 199")
        slow.execute("UPDATE t SET v = v || v WHERE id <= 50; INSERT INTO t VALUES (301, 301, 's')")
        other.execute("COMMIT")
        quick.execute("UPDATE t SET n = 199 WHERE id = 1000; INSERT INTO t VALUES (200, 302, 'q')")
        slow.execute("DELETE FROM t WHERE id = 101; COMMIT")

    assert before != road.digest()
    road.equal()


@given("CREATE TABLE t (id int PRIMARY KEY, v text)")
def test_logical_messages_anywhere(road: Road) -> None:
    """Messages of any prefix and content, within transactions or beside them, change no row and break nothing."""
    emit = "SELECT pg_logical_emit_message(%s, %s, %s::bytea)"
    contents = [b"", b"\x00\xff\xfe", b'{"op": "d"}', b"\x01", bytes(range(256)), b"x" * 300_000]
    before = road.digest()
    with sessions(road, 2) as (one, two):
        for i, content in enumerate(contents):
            prefix = ("", "other.app", "cdc.other", "ünï \"q'", "{", "cdc.barrier.x")[i]
            one.execute("BEGIN")
            one.execute(emit, [False, prefix, content])
            one.execute("INSERT INTO t VALUES (%s, 'first')", [i])
            one.execute(emit, [True, prefix, content])
            two.execute(emit, [False, prefix, content])
            two.execute("INSERT INTO t VALUES (%s, 'between')", [100 + i])
            one.execute("SAVEPOINT s")
            one.execute(emit, [True, prefix, content])
            one.execute("ROLLBACK TO s; UPDATE t SET v = 'last' WHERE id = %s" % i)  # noqa: UP031 -- several statements take no parameter
            one.execute("COMMIT")
            two.execute(emit, [True, prefix, content])
            two.execute("BEGIN; DELETE FROM t")
            two.execute(emit, [False, prefix, content])
            two.execute("ROLLBACK")

    assert before != road.digest()
    road.equal()


@given("""
    CREATE TABLE t (id int PRIMARY KEY, v text, b bytea, n int);
    ALTER TABLE t ALTER v SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
    CREATE TABLE whole (id int PRIMARY KEY, v text, n int);
    ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER v SET STORAGE EXTERNAL;
    INSERT INTO t VALUES (1, 'small', '', 0); INSERT INTO whole VALUES (1, repeat('0123456789', 950000), 0)
""")
def test_rows_of_ten_megabytes(road: Road) -> None:
    """A row of ten megabytes arrives with what a stack has by default, and its value stays when it is left alone."""
    road.replay(
        "UPDATE t SET v = repeat('ten bytes!', 1048576) WHERE id = 1; INSERT INTO t VALUES (2, repeat('🐘', 1600000), NULL, 1)",
        "UPDATE t SET n = 5 WHERE id = 1; UPDATE t SET id = 10 WHERE id = 1; DELETE FROM t WHERE id = 2",
        "INSERT INTO t VALUES (3, '', decode(repeat('00ff', 4900000), 'hex'), 1); UPDATE t SET n = 2 WHERE id = 3",
        "UPDATE whole SET n = 1; UPDATE whole SET id = 2",
    )


@given("""
    CREATE TABLE t (id int PRIMARY KEY, big text, v text);
    ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
    INSERT INTO t SELECT i, repeat(md5(i::text), 200), 'v' || i FROM generate_series(1, 12) i;
    CREATE TABLE seats (room int, during int4range, id int PRIMARY KEY,
        EXCLUDE USING gist (during WITH &&) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO seats SELECT 1, int4range(i * 10, i * 10 + 10), i FROM generate_series(1, 6) i
""")
def test_keys_and_large_values_pass_on(road: Road) -> None:
    """Rows that swap keys, or take a key deleted and inserted before, bring their own large values along."""
    road.replay(
        "UPDATE t SET id = -1 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = -1",
        "DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (3, 'new', 'three'); UPDATE t SET id = 33 WHERE id = 3; INSERT INTO t VALUES (3, 'newer', 'x')",
        "UPDATE t SET id = 44, v = 'moved' WHERE id = 4; INSERT INTO t VALUES (4, repeat('again', 2000), 'y'); UPDATE t SET v = 'z' WHERE id IN (4, 44)",
        "UPDATE t SET id = id + 100 WHERE id IN (5, 6, 7); UPDATE t SET id = id - 99 WHERE id IN (105, 106); DELETE FROM t WHERE id = 107",
        "UPDATE t SET big = repeat('changed', 2000) WHERE id = 8; UPDATE t SET id = 88 WHERE id = 8; UPDATE t SET id = 8 WHERE id = 88",
        "UPDATE seats SET during = int4range((7 - id) * 10, (7 - id) * 10 + 10)",
    )
