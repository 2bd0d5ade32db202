"""`cdc check`: each finding provoked on real servers, found, and gone when it is mended."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, LiteralString

import harness
import jsonschema
import msgspec
import other_version
import psycopg
import pytest
import requests
import spare as spares
from confluent_kafka.admin import AdminClient, NewTopic
from harness import ROOT, Stack, Stream, answers_sql, edit, rows, wait_until
from psycopg import conninfo, sql
from spare import Spare

from cdc import config as configs
from cdc import connectors
from cdc import topic as topics
from cdc.check import audit, registry
from cdc.config import Config
from cdc.units import Duration

pytestmark = pytest.mark.stack

TABLES = """
CREATE SCHEMA app;
CREATE TABLE app.t (id int PRIMARY KEY, v text);
CREATE TABLE app.other (id int PRIMARY KEY);
"""

SCHEMA = json.loads((ROOT / "schemas/check.json").read_text(encoding="utf-8"))

Change = Callable[[Stream, Config], AbstractContextManager[Config]]


@pytest.fixture(scope="module")
def whole(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream with everything in order."""
    with harness.stream(stack, tmp_path_factory.mktemp("check")) as stream:
        stream.ready(TABLES)
        yield stream


def names(config: Config, *wanted: str) -> dict[str, list[str]]:
    """Return what is found by the looks that judge `wanted`, each with what was found."""
    looks = [look for look in registry.LOOKS if any(f.name in wanted for f in look.findings)]
    seen = audit.take(config, looks, ["r1"])
    assert () == seen.unread
    found: dict[str, list[str]] = {}
    for one in seen.found:
        found.setdefault(one.name, []).append(one.what)
    return found


def runs(end: str, provoke: LiteralString, mend: LiteralString) -> Change:
    """Provoke by statements on an end, mend by others; {role}, {database} … are filled in."""

    @contextlib.contextmanager
    def change(stream: Stream, config: Config) -> Iterator[Config]:
        parts = {
            "role": sql.Identifier(config.connector_role),
            "daemon": sql.Identifier(stream.role),
            "database": sql.Identifier(stream.name),
            "publication": sql.Identifier(config.publication),
            "name": sql.Literal(f"{stream.name}_check"),
        }
        for statement in provoke.split(";"):
            stream.sql(end, sql.SQL(statement).format(**parts))
        try:
            yield config
        finally:
            for statement in mend.split(";"):
                stream.sql(end, sql.SQL(statement).format(**parts))

    return change


def configured(made: Callable[[Config], Config]) -> Change:
    """Provoke by another configuration."""

    @contextlib.contextmanager
    def change(_stream: Stream, config: Config) -> Iterator[Config]:
        yield made(config)

    return change


def both(first: Change, second: Change) -> Change:
    @contextlib.contextmanager
    def change(stream: Stream, config: Config) -> Iterator[Config]:
        with first(stream, config) as one, second(stream, one) as two:
            yield two

    return change


def primary(**other: Any) -> Callable[[Config], Config]:
    return lambda c: msgspec.structs.replace(c, primary=msgspec.structs.replace(c.primary, **other))


def impatient(config: Config) -> Config:
    """Return a configuration whose lag target is so small that everything takes too long."""
    return msgspec.structs.replace(config, lag=configs.Lag(Duration(0.001), Duration(0.0005)))


@contextlib.contextmanager
def writing(stream: Stream, config: Config) -> Iterator[Config]:
    """Hold a transaction open that has written."""
    with psycopg.connect(stream.primary) as conn:
        conn.execute("SELECT pg_current_xact_id()")
        yield impatient(config)
        conn.rollback()


@contextlib.contextmanager
def prepared(stream: Stream, config: Config) -> Iterator[Config]:
    """Prepare a transaction that has written."""
    with psycopg.connect(stream.primary, autocommit=True) as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT pg_current_xact_id()")
        conn.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(stream.name)))
        try:
            yield impatient(config)
        finally:
            conn.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(stream.name)))


SLOT = "SELECT pg_create_logical_replication_slot({name}, 'pgoutput')"
PHYSICAL = "SELECT pg_create_physical_replication_slot({name})"
DROPPED = "SELECT pg_drop_replication_slot({name})"


@contextlib.contextmanager
def named(stream: Stream, config: Config) -> Iterator[Config]:
    """Take the slot that a case has made for the connector's."""
    yield primary(slot=f"{stream.name}_check")(config)


CASES: dict[str, Change] = {
    "table-refused": runs("primary", "CREATE TABLE app.x (v int)", "DROP TABLE app.x"),
    "table-not-logged": runs("primary", "CREATE UNLOGGED TABLE app.x (id int PRIMARY KEY)", "DROP TABLE app.x"),
    "pattern-idle": configured(primary(tables=("app.*", "shop.*"))),
    "connector-role": runs("primary", "ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN"),
    "connector-session": runs("primary", "ALTER ROLE {role} IN DATABASE {database} SET bytea_output = 'escape'",
                              "ALTER ROLE {role} IN DATABASE {database} SET bytea_output = 'hex'"),
    "connector-rights": runs("primary", "REVOKE EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) FROM PUBLIC",
                             "GRANT EXECUTE ON FUNCTION pg_walfile_name(pg_lsn) TO PUBLIC"),
    "daemon-rights": runs("primary", "ALTER TABLE app.t ENABLE ROW LEVEL SECURITY", "ALTER TABLE app.t DISABLE ROW LEVEL SECURITY"),
    "slot-absent": configured(primary(slot="nowhere")),
    "slot-foreign": both(runs("primary", PHYSICAL, DROPPED), named),
    "slot-inactive": both(runs("primary", SLOT, DROPPED), named),
    "failover-slots": runs("primary", PHYSICAL, DROPPED),
    "transaction-long": writing,
    "prepared-old": prepared,
    "publication-absent": configured(primary(publication="nowhere")),
    "publication-tables": runs("primary", "ALTER PUBLICATION {publication} DROP TABLE app.t", "ALTER PUBLICATION {publication} ADD TABLE app.t"),
    "publication-filter": runs("primary", "ALTER PUBLICATION {publication} SET TABLE app.other, app.t (id)",
                               "ALTER PUBLICATION {publication} SET TABLE app.other, app.t"),
    "publication-operations": runs("primary", "ALTER PUBLICATION {publication} SET (publish = 'insert')",
                                   "ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate')"),
    "publication-root": runs("primary", "ALTER PUBLICATION {publication} SET (publish_via_partition_root = true)",
                             "ALTER PUBLICATION {publication} SET (publish_via_partition_root = false)"),
    "publication-more": configured(primary(exclude=("app.other",))),
    "collation-version": runs("r1", "CREATE COLLATION app.aged (provider = libc, locale = 'en_US.utf8', version = '1')",
                              "DROP COLLATION app.aged"),
    "plugin": configured(lambda c: c),
    "plugin-proof": configured(lambda c: msgspec.structs.replace(  # nothing is tried where the worker cannot log in
        c, connect=msgspec.structs.replace(c.connect, database=msgspec.structs.replace(c.connect.database, port=1)))),
    "connector-absent": configured(lambda c: msgspec.structs.replace(
        c, connect=msgspec.structs.replace(c.connect, connector="nowhere"))),
    "topic-absent": configured(lambda c: topic(c, name="nowhere")),
    "topic-unasked": configured(lambda c: c),
    "topic-copies": configured(lambda c: topic(c, replication_factor=2)),
    "replica-schema": runs("r1", "INSERT INTO cdc.version (version) VALUES (99)", "DELETE FROM cdc.version WHERE version = 99"),
    "replica-rights": runs("r1", "REVOKE DELETE ON app.t FROM {daemon}", "GRANT DELETE ON app.t TO {daemon}"),
    "replica-trigger": runs("r1", "CREATE TRIGGER x BEFORE UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();"
                            "ALTER TABLE app.t ENABLE ALWAYS TRIGGER x", "DROP TRIGGER x ON app.t"),
    "replica-rule": runs("r1", "CREATE RULE x AS ON DELETE TO app.t DO INSTEAD NOTHING; ALTER TABLE app.t ENABLE ALWAYS RULE x",
                         "DROP RULE x ON app.t"),
    "replica-row-security": runs("r1", "ALTER TABLE app.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
                                 "ALTER TABLE app.t DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"),
    "replica-table": runs("r1", "ALTER TABLE app.t ADD COLUMN more int", "ALTER TABLE app.t DROP COLUMN more"),
    "replica-constraint": runs("r1", "ALTER TABLE app.t ADD CONSTRAINT x CHECK (id > 0)", "ALTER TABLE app.t DROP CONSTRAINT x"),
    "replica-domain": both(
        runs("primary", "CREATE DOMAIN app.d AS int; ALTER TABLE app.t ADD COLUMN d app.d[]", "DROP DOMAIN app.d CASCADE"),
        runs("r1", "CREATE DOMAIN app.d AS int CHECK (VALUE > 0); ALTER TABLE app.t ADD COLUMN d app.d[]", "DROP DOMAIN app.d CASCADE")),
    "replica-collation": both(
        runs("primary", "CREATE COLLATION app.c (provider = libc, locale = 'C'); ALTER TABLE app.t ADD COLUMN c text COLLATE app.c",
             "DROP COLLATION app.c CASCADE"),
        runs("r1", "CREATE COLLATION app.c (provider = libc, locale = 'POSIX'); ALTER TABLE app.t ADD COLUMN c text COLLATE app.c",
             "DROP COLLATION app.c CASCADE")),
    "replica-uncovered": runs("primary", "CREATE TABLE app.later (id int PRIMARY KEY)", "DROP TABLE app.later"),
    "replica-stray": runs("primary", "ALTER TABLE app.other RENAME TO others", "ALTER TABLE app.others RENAME TO other"),
    "replica-unlogged": runs("r1", "ALTER TABLE app.t SET UNLOGGED", "ALTER TABLE app.t SET LOGGED"),
    "replica-writers": runs("r1", "GRANT INSERT ON app.t TO PUBLIC", "REVOKE INSERT ON app.t FROM PUBLIC"),
}  # fmt: skip

#: Provoked together, by the tests named like them.
SPARE = {"encoding", "standby", "wal-level", "slots-left", "senders-left", "fsync", "slot-limit", "wal-compression"}  # fmt: skip
FULL = {"slot-short", "slot-lost", "slot-outage"}
OLDER = {"replica-older"}
KEPT = {"topic-partitions", "topic-compacted", "topic-retention", "topic-size", "topic-unclean", "topic-in-sync", "topic-few-copies"}  # fmt: skip
FOREIGN = {
    "connector-class", "connector-values", "connector-transforms", "connector-filters",
    "connector-errors", "connector-source", "connector-producer", "connector-database",
    "connector-heartbeat", "connector-stopped", "connector-drift",
}  # fmt: skip
POOLED = {"pooler"}

#: Why a finding is not provoked here.
NOT_HERE = {
    "version": "no server older than the oldest supported one runs here",
    "slot-idle-timeout": "a setting of PostgreSQL 18, read like the others",
    "stock-values": "of the stock profile, whose stream is in test_stock.py",
}


def topic(config: Config, **other: Any) -> Config:
    kept = msgspec.structs.replace(config.kafka.topic, **other)
    return msgspec.structs.replace(config, kafka=msgspec.structs.replace(config.kafka, topic=kept))


def test_every_finding_is_provoked() -> None:
    """No finding is without a test that shows it on a real server, or a reason why there is none."""
    provoked = CASES.keys() | SPARE | FULL | OLDER | KEPT | FOREIGN | POOLED

    assert registry.findings().keys() == provoked | NOT_HERE.keys()


def test_nothing_is_found_where_all_is_well(whole: Stream) -> None:
    """Only advice, exit code 0, lines of 80 columns; as JSON it is what schemas/check.json says."""
    told = whole.cdc("check", "--json")
    seen = json.loads(told.stdout)

    jsonschema.Draft202012Validator(SCHEMA).validate(seen)
    assert {"wal-compression", "topic-few-copies"} == {f["name"] for f in seen["findings"]}
    assert ["advice"] == sorted({f["severity"] for f in seen["findings"]})
    people = whole.cdc("check").stdout
    assert "2 may be better\n" in people
    assert 80 >= max(map(len, people.splitlines()))


@pytest.mark.parametrize("name", CASES)
def test_it_is_found_until_it_is_mended(
    whole: Stream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finding is there as long as what provokes it is, and no longer."""
    config = configs.load(whole.config)
    if name == "collation-version" and "en_US.utf8" not in locales():
        pytest.skip("the locale en_US.utf8 is not installed (`make test` installs it)")
    with CASES[name](whole, config) as changed:
        if name == "plugin":
            monkeypatch.setattr(connectors, "PLUGIN", "99.0")
        if (
            name == "topic-unasked"
        ):  # set where a broker starts: another setting of it stands for that one
            monkeypatch.setattr(topics, "AUTO_CREATE", "log.cleaner.enable")
        assert name in names(changed, name)
        monkeypatch.undo()

    assert name not in names(config, name)


def test_setup_takes_the_right_to_write_from_others(whole: Stream) -> None:
    """Who was granted it, in whatever way, writes no more and reads as before; the stream goes on."""
    config, app = configs.load(whole.config), f"cdc_{whole.name}_app"
    names_ = {
        "app": sql.Identifier(app), "daemon": sql.Identifier(whole.role),
        "database": sql.Identifier(whole.name), "password": sql.Literal(app),
    }  # fmt: skip
    granted: tuple[LiteralString, ...] = (
        "CREATE ROLE {app} LOGIN PASSWORD {password}",
        "GRANT CONNECT ON DATABASE {database} TO {app}",
        "GRANT USAGE ON SCHEMA app TO {app}",
        "GRANT SELECT, INSERT, TRUNCATE ON app.t TO {app}",
        "GRANT INSERT (id), SELECT ON app.other TO {app}",
        "GRANT UPDATE ON app.other TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {daemon} GRANT SELECT, DELETE ON TABLES TO {app}",
    )
    for statement in granted:
        whole.sql("r1", sql.SQL(statement).format(**names_))
    writes = ("INSERT INTO app.t VALUES (-1)", "TRUNCATE app.t", "INSERT INTO app.other VALUES (-1)",
              "UPDATE app.other SET id = -1")  # fmt: skip
    dsn = conninfo.make_conninfo(whole.dsn("r1"), user=app, password=app)

    def refused() -> list[bool]:
        """Tell which of the writes the other role may not do; nothing is left of those it may."""
        found = []
        for statement in writes:
            with psycopg.connect(dsn) as conn:
                try:
                    conn.execute(statement)
                except psycopg.errors.InsufficientPrivilege:
                    found.append(True)
                else:
                    found.append(False)
                conn.rollback()
        return found

    assert {app, "PUBLIC"} == {what.split()[0] for what in names(config, "replica-writers")["replica-writers"]}  # fmt: skip
    whole.cdc("setup", "-r", "r1", "--no-lock")
    assert [False] * 4 == refused()
    told = whole.cdc("setup", "-r", "r1")
    assert [True] * 4 == refused()
    assert "replica-writers" not in names(config, "replica-writers")
    if not whole.least:  # else the DBA has done it
        assert f"r1: tables locked: {app} may no longer write app.other and 1 more" in told.stderr
    whole.sql("r1", sql.SQL("SET ROLE {daemon}; CREATE TABLE app.born (id int)").format(**names_))
    assert [("SELECT",)] == whole.sql(
        "r1", "SELECT a.privilege_type FROM pg_class, aclexplode(relacl) a WHERE relname = 'born'"
        " AND a.grantee <> relowner"
    )  # fmt: skip
    whole.sql("r1", "DROP TABLE app.born")
    whole.sql("primary", "INSERT INTO app.t VALUES (7, 'seen')")
    whole.cdc("run", "-r", "r1", "--until-caught-up")
    assert [(7, "seen")] == rows(dsn, "SELECT * FROM app.t WHERE id = 7")


def locales() -> list[str]:
    return subprocess.run(
        ["locale", "-a"], capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.fixture(scope="module")
def spare(stack: Stack) -> Iterator[Spare]:
    """Give one more PostgreSQL server, which is in no good state at all."""
    with spares.server(stack, "-E", "SQL_ASCII", "--locale=C") as server:
        yield server


def test_a_slot_runs_out_of_log(whole: Stream, spare: Spare) -> None:
    """That it will not outlast Kafka's retention is told, then that it is short, and at last lost."""
    spare.start("wal_level=logical", "max_wal_senders=0", "max_slot_wal_keep_size=1MB")
    config = primary(dsn=spare.dsn, slot="short")(configs.load(whole.config))
    rows(spare.dsn, "SELECT pg_create_logical_replication_slot('short', 'pgoutput')")
    for _ in range(3):
        rows(
            spare.dsn,
            "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000000)), pg_switch_wal()",
        )
    try:
        assert "slot-outage" in names(config, "slot-outage")
        assert "slot-short" in names(config, "slot-short")
        rows(spare.dsn, "CHECKPOINT")
        found = names(config, "slot-lost")
        assert "slot-lost" in found
        assert "slot-short" not in found
    finally:
        rows(spare.dsn, "SELECT pg_drop_replication_slot('short')")


def test_a_server_that_will_not_do(whole: Stream, spare: Spare) -> None:
    """Everything that is wrong with a server is told at once, of a replica what matters there."""
    spare.start("max_wal_senders=0")
    spare.stop()
    (spare.folder / "data" / "standby.signal").touch()
    spare.start("max_wal_senders=0", "max_replication_slots=1", "fsync=off", "max_slot_wal_keep_size=1GB")  # fmt: skip
    config = primary(dsn=spare.dsn)(configs.load(whole.config))

    assert SPARE == names(config, "wal-level").keys()


def test_a_replica_older_than_its_primary(whole: Stream, tmp_path: Path) -> None:
    """Whichever of two servers is the newer, it is told where that one is the primary, and only there."""
    ((ours,),) = whole.sql("primary", "SHOW server_version_num")
    version = "16" if int(ours) >= 180_000 else "18"
    config = configs.load(whole.config)
    with other_version.server(tmp_path / "other", version) as other:
        dsn = other.dsn("postgres")
        replica = msgspec.structs.replace(config.replica("r1"), dsn=dsn)
        below = msgspec.structs.replace(config, replicas={"r1": replica})
        above = primary(dsn=dsn)(config)
        older, newer = (below, above) if int(ours) >= 180_000 else (above, below)

        assert "replica-older" in names(older, "replica-older")
        assert "replica-older" not in names(newer, "replica-older")


def test_a_topic_that_keeps_too_little(whole: Stream) -> None:
    """Every setting of a topic by which commits can be lost, or stop coming, is told."""
    name = f"{whole.topic}.check"
    kafka = AdminClient({"bootstrap.servers": whole.kafka})
    bad = {
        "cleanup.policy": "compact,delete", "retention.ms": "3600000", "retention.bytes": "1000000000",
        "max.message.bytes": "1000000", "unclean.leader.election.enable": "true",
        "min.insync.replicas": "2",
    }  # fmt: skip
    new = NewTopic(name, num_partitions=2, replication_factor=1, config=bad)
    kafka.create_topics([new])[name].result(timeout=30)
    try:
        assert KEPT == names(topic(configs.load(whole.config), name=name), "topic-size").keys()
    finally:
        kafka.delete_topics([name])[name].result(timeout=30)


def test_a_connector_that_somebody_else_made(whole: Stream) -> None:
    """Of a connector past the files everything is told that it loses, and that it does not run."""
    config = configs.load(whole.config)
    stored = requests.get(
        f"{whole.connect}/connectors/{config.connector}/config", timeout=30
    ).json()
    name = f"{config.connector}_check"
    exact = {
        k: v for k, v in stored.items() if not k.startswith(("converters", "exact.", "transforms"))
    }
    foreign = exact | {
        "name": name,
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.dbname": conninfo.conninfo_to_dict(whole.stack.primary)["dbname"],
        "heartbeat.interval.ms": "0",
        "errors.tolerance": "all",
        "skipped.operations": "t",
        "snapshot.mode": "when_needed",
        "producer.override.acks": "1",
        "poll.interval.ms": "99",
    }
    made = requests.post(
        f"{whole.connect}/connectors",
        json={"name": name, "config": foreign, "initial_state": "STOPPED"},
        timeout=60,
    )
    made.raise_for_status()
    try:
        other = msgspec.structs.replace(
            config, connect=msgspec.structs.replace(config.connect, connector=name)
        )
        wait_until(
            lambda: "connector-stopped" in names(other, "connector-stopped"), "it is stopped"
        )
        assert FOREIGN == names(other, "connector-class").keys()
    finally:
        requests.delete(f"{whole.connect}/connectors/{name}", timeout=60).raise_for_status()


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="PgBouncer is not installed")
def test_a_pooler_in_between(whole: Stream) -> None:
    """A dsn that leads through PgBouncer, which pools by transactions, is told and not run with."""
    config = configs.load(whole.config)
    given = conninfo.conninfo_to_dict(config.replica("r1").dsn)
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    with psycopg.connect(config.replica("r1").dsn) as session:
        password = session.info.password
    target = " ".join(f"{k}={given[k]}" for k in ("host", "port", "user")) + f" password={password}"
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{whole.name} = dbname={whole.name} {target}\n[pgbouncer]\n"
        f"listen_addr =\nunix_socket_dir = {folder}\nauth_type = any\npool_mode = transaction\n"
        "ignore_startup_parameters = extra_float_digits, options\n",
        encoding="utf-8",
    )
    owner = os.geteuid() or pwd.getpwnam("nobody").pw_uid  # PgBouncer refuses to be root
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner, -1)
    pooler = subprocess.Popen(
        ["pgbouncer", "-q", folder / "pgbouncer.ini"], user=owner, cwd=folder,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    before = whole.config.read_text(encoding="utf-8")
    through = f"host={folder} port=6432 dbname={whole.name} user={whole.role}"
    try:
        wait_until(lambda: answers_sql(through), "PgBouncer takes connections")
        edit(whole, r"(?<=\[replicas.r1\]\n)dsn = .*$", f"dsn = {json.dumps(through)}")
        assert "pooler" in names(configs.load(whole.config), "pooler")
        refused = whole.cdc("run", "-r", "r1", check=False)
    finally:
        whole.config.write_text(before, encoding="utf-8")
        pooler.terminate()
        pooler.wait()
        shutil.rmtree(folder)

    assert 1 == refused.returncode
    assert "pooler: the dsn leads to a connection pooler" in refused.stderr
    assert "pooler" not in names(config, "pooler")


def test_what_cannot_be_read_is_never_well(whole: Stream) -> None:
    """Without Kafka Connect the exit code is 2, and what was not checked is named."""
    before = whole.config.read_text(encoding="utf-8")
    try:
        edit(whole, r"^url = .*$", 'url = "http://127.0.0.1:1"')
        told = whole.cdc("check", "-r", "r1", check=False)
    finally:
        whole.config.write_text(before, encoding="utf-8")

    assert 2 == told.returncode, told.stdout
    assert "NOT EVERYTHING COULD BE CHECKED: connect" in told.stdout.splitlines()[0]
    assert "not checked: plugin, connector-absent" in told.stdout


def test_the_daemon_does_not_start_on_what_loses_data(whole: Stream) -> None:
    """It names the finding and the way out; accepted by name it starts, says so, and so does status."""
    before = whole.config.read_text(encoding="utf-8")
    whole.sql("r1", "ALTER TABLE app.t SET UNLOGGED")
    try:
        refused = whole.cdc("run", "-r", "r1", "--until-caught-up", check=False)
        assert 1 == whole.cdc("check", "-r", "r1", check=False).returncode
        whole.config.write_text(before + '\n[check]\naccept = ["replica-unlogged"]\n', "utf-8")
        assert 0 == whole.cdc("check", "-r", "r1").returncode
        started = whole.cdc("run", "-r", "r1", "--until-caught-up")
        status = whole.cdc("status", check=False)
    finally:
        whole.config.write_text(before, encoding="utf-8")
        whole.sql("r1", "ALTER TABLE app.t SET LOGGED")

    assert 1 == refused.returncode
    for part in ("replica-unlogged: app.t is unlogged", "ALTER TABLE app.t SET LOGGED", "accept"):
        assert part in refused.stderr
    for said in (started.stderr, status.stdout):
        assert "accepted although data may be lost by it: replica-unlogged" in said


def test_a_name_that_is_none_is_refused(whole: Stream) -> None:
    """What cannot be accepted because there is no such finding is an error of the configuration."""
    before = whole.config.read_text(encoding="utf-8")
    whole.config.write_text(before + '\n[check]\naccept = ["replica-unloged"]\n', "utf-8")
    try:
        told = whole.cdc("check", check=False)
    finally:
        whole.config.write_text(before, encoding="utf-8")

    assert 2 == told.returncode
    assert "did you mean replica-unlogged?" in told.stderr
