"""What bootstrap refuses, on the real stack: exit status, the three parts, nothing changed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import compare
import harness
import least
import psycopg
import pytest
import requests
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from harness import Stack, Stream, wait_until
from psycopg import conninfo

from cdc import barrier, config, marks, snapshot
from cdc.errors import NotReady, SchemaMismatch
from cdc.names import TableName

pytestmark = pytest.mark.stack

ONE = "CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a SELECT i, 0 FROM generate_series(1, 1000) i"


@pytest.fixture(scope="module")
def prepared_once(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream before its bootstrap to tests that leave it as it was."""
    with harness.stream(stack, tmp_path_factory.mktemp("refusals")) as made:
        yield prepared(made)


@pytest.fixture
def unfilled(prepared_once: Stream) -> Iterator[Stream]:
    """Give the shared stream; see afterwards that nothing was recorded, and mend its files."""
    text = prepared_once.config.read_text(encoding="utf-8")
    yield prepared_once
    prepared_once.config.write_text(text, encoding="utf-8")
    prepared_once.sql("r1", "DROP TABLE IF EXISTS public.a")
    assert records(prepared_once) == []


def prepared(stream: Stream) -> Stream:
    stream.sql("primary", ONE)
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    return stream


def refused(stream: Stream, *args: str, status: int = 1) -> str:
    """Run bootstrap, which must refuse with all parts of a message; return what it said."""
    done = stream.cdc("bootstrap", "-r", "r1", *args, check=False)
    _assert_parts(done, status)
    return done.stderr


def _assert_parts(done: CompletedProcess[str], status: int) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    for part in ("cdc: ", "\n  data: ", "\n  next: "):
        assert part in f"\n{done.stderr}"


def records(stream: Stream) -> list[tuple[object, ...]]:
    return stream.sql("r1", "SELECT table_name, state, snapshot_lsn::text FROM cdc.tables")


def with_setting(stream: Stream, old: str, new: str, *, first: bool = False) -> None:
    text = stream.config.read_text(encoding="utf-8")
    assert old in text
    stream.config.write_text(text.replace(old, new, 1 if first else -1), encoding="utf-8")


def with_section(stream: Stream, section: str) -> None:
    text = stream.config.read_text(encoding="utf-8")
    stream.config.write_text(f"{text}\n{section}\n", encoding="utf-8")


def test_without_setup_of_the_replica(stream: Stream) -> None:
    """A replica without the schema cdc is refused and pointed to `cdc setup`."""
    prepared(stream)
    stream.sql("r1", "DROP SCHEMA cdc CASCADE")

    assert "run `cdc setup`" in refused(stream)


def test_without_a_connector(stream: Stream) -> None:
    """A stream without its connector is refused before anything waits for a barrier."""
    stream.sql("primary", ONE)
    stream.cdc("setup")

    assert "run `cdc connectors apply`" in refused(stream)
    assert records(stream) == []


def test_unknown_table(unfilled: Stream) -> None:
    """--table with a table that is not replicated is a usage error naming those that are."""
    assert "public.a" in refused(unfilled, "--table", "public.b", status=2)
    assert "write --table schema.table" in refused(unfilled, "--table", "b", status=2)


def test_table_outside_the_publication(unfilled: Stream) -> None:
    """A table whose changes would never arrive is refused until setup publishes it."""
    unfilled.sql("primary", "CREATE TABLE late (id int PRIMARY KEY)")

    said = refused(unfilled)

    unfilled.sql("primary", "DROP TABLE late")
    assert "lacks public.late" in said


def test_table_absent_at_the_replica(unfilled: Stream) -> None:
    """With schema = "none" a table that the replica lacks is named."""
    with_section(unfilled, '[bootstrap]\nschema = "none"')

    assert "the replica lacks public.a" in refused(unfilled)


def test_table_of_another_shape(unfilled: Stream) -> None:
    """A table that exists on the replica with another column type is refused and stays as it was."""
    unfilled.sql(
        "r1", f"CREATE TABLE a (id int PRIMARY KEY, n text); ALTER TABLE a OWNER TO {unfilled.role}"
    )

    assert "the column n is text, not integer" in refused(unfilled)
    assert unfilled.sql("r1", "SELECT count(*) FROM a") == [(0,)]


def test_a_long_transaction_is_named(stream: Stream) -> None:
    """When the snapshot cannot be had in time, the sessions in the way are named by pid."""
    prepared(stream)
    with_section(stream, '[bootstrap]\nslot_timeout = "3s"')
    with psycopg.connect(stream.primary, application_name="night report") as blocker:
        blocker.execute("CREATE TABLE has_an_xid ()")
        said = refused(stream)
        pid = blocker.info.backend_pid
        blocker.rollback()

    assert f"pid {pid} (postgres, night report, idle in transaction" in said
    assert "bootstrap.slot_timeout" in said
    # The registration was taken back: a running daemon does not wait for a table nobody fills.
    assert records(stream) == []
    slots = "SELECT count(*) FROM pg_replication_slots WHERE temporary AND database = %s"
    wait_until(lambda: stream.sql("primary", slots, [stream.name]) == [(0,)], "the slot is gone")
    # Transactions of other tests on this server may be open for longer than that.
    harness.edit(stream, 'slot_timeout = "3s"', 'slot_timeout = "120s"')
    stream.cdc("bootstrap", "-r", "r1")


def test_a_rewritten_table_is_noticed(stream: Stream) -> None:
    """A table rewritten after the snapshot, which reads as empty inside it, is never copied."""
    stream.sql("primary", ONE)
    stream.cdc("setup")
    settings = config.load(stream.config)
    with snapshot.exported(settings.primary.dsn, "test", 30, lambda _line: None) as taken:
        stream.sql("primary", "ALTER TABLE a ALTER n TYPE bigint")
        assert taken.keeper.execute("SELECT count(*) FROM public.a").fetchone() == (0,)
        with pytest.raises(SchemaMismatch, match="was rewritten"):
            snapshot.hold(taken.keeper, [TableName("public", "a")])
        taken.keeper.rollback()


def test_a_held_table_cannot_be_rewritten(stream: Stream) -> None:
    """While a snapshot holds a table, nobody can rewrite it."""
    stream.sql("primary", ONE)
    stream.cdc("setup")
    settings = config.load(stream.config)
    with snapshot.exported(settings.primary.dsn, "test", 30, lambda _line: None) as taken:
        snapshot.hold(taken.keeper, [TableName("public", "a")])
        with (
            psycopg.connect(stream.primary, options="-c lock_timeout=200ms") as other,
            pytest.raises(psycopg.errors.LockNotAvailable),
        ):
            other.execute("ALTER TABLE a ALTER n TYPE bigint")


def test_snapshot_is_exact_under_concurrent_commits(stream: Stream) -> None:
    """A snapshot's LSN divides commits: rows seen are exactly those committed at or below it."""
    stream.sql("primary", "CREATE TABLE log (id serial PRIMARY KEY, ended pg_lsn)")
    stream.cdc("setup")
    settings = config.load(stream.config)
    with psycopg.connect(stream.primary, autocommit=True) as writer:
        for round_ in range(20):
            writer.execute("INSERT INTO log DEFAULT VALUES")
            before = writer.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
            with snapshot.exported(settings.primary.dsn, "test", 30, lambda _line: None) as taken:
                writer.execute("INSERT INTO log DEFAULT VALUES")
                after = writer.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
                seen = taken.keeper.execute("SELECT count(*) FROM public.log").fetchone()
                taken.keeper.rollback()
            assert seen == (2 * round_ + 1,)
            assert before is not None
            assert after is not None
            assert before[0] <= taken.lsn < after[0]


def test_topic_made_anew(stream: Stream) -> None:
    """After the topic was lost, filling goes on only by --overwrite, which starts the stream over."""
    prepared(stream)
    stream.cdc("bootstrap", "-r", "r1")
    requests.put(
        f"{stream.connect}/connectors/cdc_{stream.name}/pause", timeout=30
    ).raise_for_status()
    admin = AdminClient({"bootstrap.servers": stream.kafka})
    admin.delete_topics([stream.topic])[stream.topic].result(timeout=30)
    wait_until(
        lambda: stream.topic not in admin.list_topics(timeout=30).topics, "the topic is gone"
    )
    assert "run `cdc setup`" in refused(stream)
    stream.cdc("setup")
    requests.put(
        f"{stream.connect}/connectors/cdc_{stream.name}/resume", timeout=30
    ).raise_for_status()
    before = stream.sql("r1", "SELECT * FROM cdc.position")

    assert "the topic was deleted and made anew" in refused(stream)
    assert stream.sql("r1", "SELECT * FROM cdc.position") == before
    stream.sql("primary", "UPDATE a SET n = 1 WHERE id = 1")
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert stream.sql("r1", "SELECT n FROM a WHERE id = 1") == [(1,)]


def test_a_barrier_that_does_not_come_is_explained(stream: Stream) -> None:
    """With a paused connector the message says what Kafka Connect says of it."""
    prepared(stream)
    url = f"{stream.connect}/connectors/cdc_{stream.name}"
    requests.put(f"{url}/pause", timeout=30).raise_for_status()
    wait_until(
        lambda: requests.get(f"{url}/status", timeout=30).json()["tasks"][0]["state"] == "PAUSED",
        "the task is paused",
    )
    settings = config.load(stream.config)
    with (
        contextlib.closing(psycopg.connect(stream.primary, autocommit=True)) as primary,
        contextlib.closing(barrier.Watch(settings)) as watch,
        pytest.raises(NotReady) as silent,
    ):
        watch.until(marks.emit(primary, settings), lambda _line: None, silence=2.0)

    assert "PAUSED" in silent.value.what
    assert settings.slot in silent.value.next


@pytest.mark.administrator
def test_passwords_are_in_no_command_line(stream: Stream, tmp_path: Path) -> None:
    """The programs bootstrap starts get the password by environment, never as an argument."""
    prepared(stream)
    programs = tmp_path / "bin"
    programs.mkdir()
    real = _real_programs(stream)
    for name in ("pg_dump", "pg_restore"):
        (programs / name).write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$0 $*" >> {tmp_path}/started\nexec {real}/{name} "$@"\n'
        )
        (programs / name).chmod(0o755)
    settings = config.load(stream.config)
    stream.sql(
        "primary",
        "CREATE ROLE cdc_x LOGIN SUPERUSER PASSWORD 'hush-hush'".replace(
            "cdc_x", f"cdc_{stream.name}_x"
        ),
    )
    dsn = conninfo.make_conninfo(
        settings.primary.dsn, user=f"cdc_{stream.name}_x", password="hush-hush", passfile=""
    )
    with_setting(stream, "admin_dsn = ", "#", first=True)
    with_setting(stream, "[primary]", f'[primary]\nadmin_dsn = "{dsn}"')

    stream.cdc("bootstrap", "-r", "r1", env={"CDC_PG_BIN": str(programs)})

    started = (tmp_path / "started").read_text()
    assert "pg_dump --dbname" in started
    assert "/pg_restore --no-owner" in started
    assert "hush" not in started


def _real_programs(stream: Stream) -> Path:
    from cdc import clients

    with psycopg.connect(stream.primary) as conn:
        return clients.find(conn.info.server_version).pg_dump.parent


def test_the_primary_is_never_filled(unfilled: Stream) -> None:
    """A replica whose dsn leads to the primary's database is refused, whatever was set up there."""
    settings = config.load(unfilled.config)
    text = unfilled.config.read_text(encoding="utf-8")
    ports = [
        conninfo.conninfo_to_dict(d)["port"]
        for d in (settings.replicas["r1"].dsn, settings.primary.dsn)
    ]
    unfilled.config.write_text(
        re.sub(rf"port={ports[0]}\b", f"port={ports[1]}", text), encoding="utf-8"
    )

    assert "is the primary itself" in refused(unfilled, "--overwrite")
    assert unfilled.sql("primary", "SELECT count(*) FROM a") == [(1000,)]


@pytest.mark.skipif(least.TRIGGERS == "disabled", reason="replicas need no right to silence them")
def test_without_the_right_to_silence_triggers(unfilled: Stream) -> None:
    """A role that may not set session_replication_role is refused before any table is emptied."""
    settings = config.load(unfilled.config)
    role = f"cdc_{unfilled.name}_plain"
    unfilled.sql("r1", "CREATE ROLE {} LOGIN PASSWORD 'x'".replace("{}", role))
    unfilled.sql(
        "r1",
        f"GRANT CONNECT ON DATABASE {unfilled.name} TO {role}; GRANT ALL ON SCHEMA cdc TO {role};"
        f"GRANT ALL ON ALL TABLES IN SCHEMA cdc TO {role}",
    )
    dsn = conninfo.make_conninfo(
        settings.replicas["r1"].dsn, user=role, password="x", passfile="/nowhere"
    )
    text = unfilled.config.read_text(encoding="utf-8")
    head, mark, tail = text.partition("[replicas.r1]")
    unfilled.config.write_text(
        head + mark + tail.replace("dsn = ", f'dsn = "{dsn}"\n#', 1), encoding="utf-8"
    )

    said = refused(unfilled)

    assert "may not set session_replication_role" in said
    assert 'triggers = "disabled"' in said


def test_a_topic_cut_past_the_position(stream: Stream) -> None:
    """A replica whose next record was deleted from the topic is filled again only by --overwrite."""
    prepared(stream)
    stream.cdc("bootstrap", "-r", "r1")
    stream.sql("primary", "INSERT INTO a VALUES (5000, 1)")
    admin = AdminClient({"bootstrap.servers": stream.kafka})
    settings = config.load(stream.config)
    wait_until(
        lambda: (
            barrier.bounds(settings)[1]
            > stream.sql("r1", "SELECT next_offset FROM cdc.position")[0][0] + 3
        ),
        "records came",
    )
    end = TopicPartition(stream.topic, 0, barrier.bounds(settings)[1])
    next(iter(admin.delete_records([end]).values())).result(timeout=30)
    before = stream.sql("r1", "SELECT * FROM cdc.position")

    assert "the topic holds offsets" in refused(stream)
    assert stream.sql("r1", "SELECT * FROM cdc.position") == before
    stream.sql("r1", "DELETE FROM cdc.position")
    assert "its position is missing" in refused(stream)
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    assert compare.differences({"p": stream.primary, "r1": stream.dsn("r1")}, ["a"]) == []
