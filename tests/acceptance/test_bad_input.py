"""Bad input, on the real stack: wrong configuration, servers, rights, tables and topics.

Each case is refused with what happened, whether data is safe and what to do, and changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import compare
import harness
import least
import pytest
import refusals
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Stack
from psycopg import sql
from refusals import Gate, Witness

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.t (id int PRIMARY KEY, v text);
    CREATE TABLE app.u (id int PRIMARY KEY, v text);
    INSERT INTO app.t SELECT i, 'row ' || i FROM generate_series(1, 9) i;
"""


@pytest.fixture(scope="module")
def witness(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up; r2 is set up only."""
    with refusals.filled(stack, tmp_path_factory.mktemp("bad"), TABLES) as found:
        yield found


@pytest.mark.parametrize(
    ("change", "key", "closest"),
    [
        (("bootstrap_servers", "bootstrap_server"), "kafka.bootstrap_server", "bootstrap_servers"),
        (("[replicas.r1]", "[replicas.r1]\ndns = ''"), "replicas.r1.dns", "replicas.r1.dsn"),
        (("[connect]", "[aply]\n[connect]"), "aply", "apply"),
    ],
)
def test_an_unknown_key_is_named_with_the_closest_known_one(
    witness: Witness, change: tuple[str, str], key: str, closest: str
) -> None:
    """A key the configuration does not know ends every command before it looks at anything."""
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", config=witness.variant(change), code=2)

    assert said.what.endswith(f"unknown key {key}")
    assert closest in said.next
    assert said.data == "nothing was read or written"


@pytest.mark.parametrize(
    "command", [["setup"], ["bootstrap", "-r", "r1"], ["run", "-r", "r1", "--until-caught-up"]]
)
def test_an_unreachable_primary_is_named(witness: Witness, command: list[str]) -> None:
    """A command that needs the primary says which address does not answer."""
    port = refusals.closed_port()
    with witness.unmoved():
        said = witness.refused(*command, config=witness.moved("primary", port=port))

    assert f"cannot connect to PostgreSQL at 127.0.0.1:{port}/" in said.what
    assert said.data == "nothing was changed"
    assert "psql" in said.next


@pytest.mark.parametrize("command", ["setup", "bootstrap"])
def test_an_unreachable_replica_is_named(witness: Witness, command: str) -> None:
    """A command that needs a replica says which address does not answer."""
    port = refusals.closed_port()
    with witness.unmoved():
        said = witness.refused(command, "-r", "r1", config=witness.moved("r1", port=port))

    assert f"cannot connect to PostgreSQL at 127.0.0.1:{port}/" in said.what
    assert said.data == "nothing was changed"
    assert "check that the server runs" in said.next


@pytest.mark.parametrize("end", ["primary", "r1"])
def test_status_names_the_server_that_does_not_answer(witness: Witness, end: str) -> None:
    """Status tells what it cannot see instead of failing, and does not call it safe."""
    port = refusals.closed_port()
    done = witness.run("status", "-r", "r1", config=witness.moved(end, port=port))

    assert done.returncode == 1
    assert f"cannot connect to PostgreSQL at 127.0.0.1:{port}/" in done.stdout


def test_an_unreachable_kafka_is_named(witness: Witness) -> None:
    """Setup says that Kafka does not answer and what it has done; the daemon waits for Kafka."""
    dead = f"127.0.0.1:{refusals.closed_port()}"
    config, stream = witness.variant((witness.stream.kafka, dead)), witness.stream
    with witness.unmoved():
        daemon = stream.start("run", "-r", "r1", "-c", config)
        said = witness.refused("setup", config=config)
        waiting = f"Kafka at {dead} does not answer"
        harness.wait_until(lambda: waiting in stream.log(daemon), "the daemon says it waits")
        daemon.terminate()
        assert daemon.wait(30) == 0

    assert said.what.splitlines()[-1].startswith(f"Kafka at {dead} does not answer")
    assert said.data == "what was told above is done; nothing else was changed"
    assert "kafka.bootstrap_servers" in said.next


@pytest.mark.parametrize("command", [["connectors", "apply"], ["bootstrap", "-r", "r1"]])
def test_an_unreachable_connect_is_named(witness: Witness, command: list[str]) -> None:
    """A command that needs Kafka Connect says so, without the password in its address."""
    at = f"127.0.0.1:{refusals.closed_port()}"
    config = witness.variant((witness.stream.connect, f"http://someone:{refusals.WRONG}@{at}"))
    with witness.unmoved():
        said = witness.refused(*command, config=config)

    assert said.what == f"Kafka Connect at http://{at} does not answer (ConnectionError)"
    assert "nothing was" in said.data
    assert "connect.url" in said.next


def test_the_daemon_waits_for_its_replica(witness: Witness) -> None:
    """A daemon whose replica is down says what it waits for and goes on when it is back."""
    stream = witness.stream
    gate = Gate(stream.replicas["r1"])
    config = witness.moved("r1", port=gate.port, password=witness.password("r1"))
    waiting = f"cannot connect to PostgreSQL at 127.0.0.1:{gate.port}/{stream.name}"
    with witness.unmoved():
        daemon = stream.start("run", "-r", "r1", "-c", config)
        harness.wait_until(lambda: waiting in stream.log(daemon), "the daemon says it waits")
    with contextlib.closing(gate):
        gate.open()
        stream.sql("primary", "INSERT INTO app.t VALUES (100, 'while it was down')")
        harness.wait_until(lambda: bool(_v(witness, 100)), "the row arrives")
        gate.shut()
        told = stream.log(daemon).count("trying again in")
        stream.sql("primary", "INSERT INTO app.t VALUES (101, 'broken in between')")
        harness.wait_until(
            lambda: stream.log(daemon).count("trying again in") > told, "the daemon tries again"
        )
        gate.open()
        harness.wait_until(lambda: bool(_v(witness, 101)), "the row arrives")
        daemon.terminate()
        assert daemon.wait(30) == 0
    witness.keeps_secrets(stream.log(daemon))


def test_a_wrong_password_is_told_without_it(witness: Witness) -> None:
    """A refused login names user and address on both ends, and the password nowhere."""
    for end in ("primary", "r1"):
        config = witness.moved(end, password=refusals.WRONG)
        with witness.unmoved():
            said = witness.refused("bootstrap", "-r", "r1", config=config)
        assert f'password authentication failed for user "{witness.stream.role}"' in said.what
        assert said.data == "nothing was changed"
        assert "password" in said.next
        status = witness.run("status", "-r", "r1", config=config)
        assert (1, True) == (status.returncode, "password authentication failed" in status.stdout)


def test_a_wrong_password_of_the_connector_is_told_without_it(witness: Witness) -> None:
    """Connect's refusal names the role whose login fails, and the running connector stays."""
    text = witness.stream.config.read_text(encoding="utf-8")
    found = re.search(r"\$\{file:([^:}]+):password\}", text)
    assert found
    if not Path(found[1]).exists():
        pytest.skip("the Connect worker's files are on another machine (containers)")
    wrong = witness.stream.folder / "wrong.properties"
    wrong.write_text(f"password={refusals.WRONG}\n", encoding="ascii")
    with witness.unmoved():
        said = witness.refused(
            "connectors", "apply", config=witness.variant((found[1], str(wrong)))
        )

    assert f'password authentication failed for user "cdc_{witness.stream.name}_' in said.what
    assert said.data == "nothing was changed"
    assert "`cdc connectors apply`" in said.next
    assert "RUNNING" in witness.stream.cdc("connectors", "status").stdout


@pytest.mark.administrator
def test_a_role_that_may_not_set_up_is_told_who_may(witness: Witness) -> None:
    """Setup without an administrator's rights names the role and changes nothing."""
    witness.stream.sql("primary", "CREATE TABLE app.extra (id int PRIMARY KEY)")
    admin = harness.rows(witness.stream.primary, "SELECT current_user")[0][0]
    before = harness.rows(witness.stream.primary, "SELECT * FROM pg_publication_tables")
    with witness.unmoved():
        said = witness.refused("setup", config=witness.variant((f"user={admin}", "user=cdc")))

    assert said.what.startswith("primary: PostgreSQL refuses this from cdc: ")
    assert "sqlstate=42501" in said.at
    assert said.data == "nothing was changed on that server"
    assert "--admin-dsn" in said.next
    assert before == harness.rows(witness.stream.primary, "SELECT * FROM pg_publication_tables")


def test_a_table_absent_at_the_replica_is_named(witness: Witness) -> None:
    """Bootstrap that must not make tables names the one the replica lacks."""
    witness.stream.sql("primary", "CREATE TABLE IF NOT EXISTS app.extra (id int PRIMARY KEY)")
    witness.stream.cdc("setup")
    with witness.unmoved():
        said = witness.refused(
            "bootstrap", "-r", "r1", config=witness.variant(more='\n[bootstrap]\nschema = "none"\n')
        )

    assert said.what == 'the replica lacks app.extra, and bootstrap.schema is "none"'
    assert "replica=r1 table=app.extra" in said.at
    assert said.data == "nothing was read or written"
    assert 'bootstrap.schema = "tables"' in said.next
    witness.stream.sql("primary", "DROP TABLE app.extra")
    witness.stream.cdc("setup")


def test_a_table_dropped_under_the_daemon_halts_it(witness: Witness) -> None:
    """A daemon that meets an event of a table its replica lost halts, says so, and can be mended."""
    stream = witness.stream
    daemon = stream.start("run", "-r", "r1")
    stream.sql("primary", "INSERT INTO app.u VALUES (1, 'seen')")
    stream.cdc("wait", "-r", "r1", "--now")
    stream.sql("r1", "DROP TABLE app.u")
    with witness.unmoved():
        stream.sql("primary", "INSERT INTO app.u VALUES (2, 'not to be lost')")
        said = witness.halted(daemon)
        again = witness.refused("run", "-r", "r1")
        logged = witness.run("run", "-r", "r1", "--log", "json").stderr

    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    (halted,) = (line for line in lines if line.get("event.action") == "halted")
    assert "app.u" in said.what + said.at
    assert again.what in halted["message"]
    assert again.next in halted["error.message"]
    assert again.what == "the replica has no table app.u"
    assert f"topic={stream.topic} partition=0 offset=" in again.at
    assert again.data.startswith("nothing of this batch was applied")
    assert "cdc bootstrap --table app.u" in again.next
    assert again.what in witness.run("status", "-r", "r1").stdout
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.u", "--overwrite")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == _differences(witness)


def test_bootstrap_without_the_right_to_read_is_refused(witness: Witness) -> None:
    """A table that may not be read is named, and the replica's rows of it stay."""
    witness.stream.sql("primary", f"REVOKE SELECT ON app.t FROM {witness.stream.role}")
    with witness.unmoved():
        said = witness.refused("bootstrap", "-r", "r1", "--table", "app.t", "--overwrite")

    assert said.what == f"the role {witness.stream.role} may not read app.t on the primary"
    assert "table=app.t" in said.at
    assert said.data == "nothing was read or written"
    assert "cdc setup" in said.next
    witness.stream.cdc("setup")


def test_a_daemon_without_the_right_to_write_halts(witness: Witness) -> None:
    """A table that may not be written halts the daemon at its first event, and nothing is skipped."""
    stream = witness.stream
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    stream.sql(
        "r1", f"ALTER TABLE app.t OWNER TO CURRENT_USER; GRANT SELECT ON app.t TO {stream.role}"
    )
    stream.sql("primary", "INSERT INTO app.t VALUES (200, 'not to be lost')")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")

    assert said.what == "the replica refused a change: permission denied for table t"
    place = f"topic={stream.topic} partition=0 offset="
    for part in ("replica=r1", "table=app.t", "key=id='200'", place, "lsn=", "sqlstate=42501"):
        assert part in said.at
    assert said.data.startswith("nothing of this batch was applied")
    assert "permission denied for table t" in witness.run("status", "-r", "r1").stdout
    stream.sql("r1", f"ALTER TABLE app.t OWNER TO {stream.role}")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == _differences(witness)


@pytest.mark.skipif(least.TRIGGERS == "disabled", reason="replicas need no right to silence them")
def test_a_daemon_that_may_not_silence_triggers_halts(witness: Witness) -> None:
    """A role without SET on session_replication_role is told how to get it."""
    stream, weak = witness.stream, f"cdc_{witness.stream.name}_weak"
    role = sql.Identifier(weak)
    stream.sql("r1", sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, refusals.WRONG))
    database = sql.Identifier(stream.name)
    stream.sql("r1", sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    stream.sql("r1", sql.SQL("GRANT USAGE ON SCHEMA cdc TO {}").format(role))
    stream.sql("r1", sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA cdc TO {}").format(role))
    with witness.unmoved():
        said = witness.refused(
            "run", "-r", "r1", config=witness.moved("r1", user=weak, password=refusals.WRONG)
        )

    assert 'permission denied to set parameter "session_replication_role"' in said.what
    assert "replica=r1" in said.at
    assert "the replica is consistent as of its position" in said.data
    assert "cdc setup" in said.next


def test_a_primary_whose_log_lacks_row_changes_is_refused(
    witness: Witness, plain_server: str
) -> None:
    """Setup refuses a primary with wal_level = replica and says the statement that mends it."""
    admin = harness.rows(witness.stream.primary, "SELECT current_user")[0][0]
    text = f'\n[primary]\ndsn = "{plain_server}"\n'
    whole = witness.stream.config.read_text(encoding="utf-8")
    section = whole[whole.index("[primary]") : whole.index("[kafka]")]
    config = witness.variant((section, text.lstrip()))
    with witness.unmoved():
        said = witness.refused("setup", config=config)

    assert admin == "postgres"
    assert said.what.startswith("the primary runs with wal_level = replica")
    assert said.data == "nothing was changed"
    assert "ALTER SYSTEM SET wal_level = logical" in said.next
    assert [] == harness.rows(plain_server, "SELECT pubname FROM pg_publication")


def test_a_replica_with_rows_is_not_filled(witness: Witness) -> None:
    """Bootstrap names the tables that have rows and fills them only with --overwrite."""
    stream = witness.stream
    stream.sql("r2", f"CREATE SCHEMA app AUTHORIZATION {stream.role}")
    stream.sql("r2", "CREATE TABLE app.t (id int PRIMARY KEY, v text)")
    stream.sql("r2", f"ALTER TABLE app.t OWNER TO {stream.role}")
    stream.sql("r2", "INSERT INTO app.t VALUES (1, 'somebody''s')")
    with witness.unmoved("r2"):
        said = witness.refused("bootstrap", "-r", "r2")

    assert said.what == "these tables of the replica have rows already: app.t"
    assert "replica=r2 table=app.t" in said.at
    assert said.data == "nothing was read or written"
    assert "--overwrite" in said.next
    stream.cdc("bootstrap", "-r", "r2", "--overwrite")
    stream.cdc("run", "-r", "r2", "--until-caught-up")
    assert [] == _differences(witness, "r2")


def test_a_topic_with_two_partitions_is_refused(witness: Witness) -> None:
    """Setup, connectors apply and bootstrap refuse a topic that does not keep the order of commits."""
    stream, name = witness.stream, f"{witness.stream.topic}-two"
    kafka = AdminClient({"bootstrap.servers": stream.kafka})
    kafka.create_topics([NewTopic(name, 2, 1)])[name].result(30)
    config = witness.topic(name)
    try:
        for command in (["setup"], ["connectors", "apply"], ["bootstrap", "-r", "r1"]):
            with witness.unmoved():
                said = witness.refused(*command, config=config)
            assert f"the topic {name} has 2 partitions" in said.what
            assert f"topic={name}" in said.at
            assert "changed" in said.data or said.data == "nothing was read or written"
            assert "cdc setup" in said.next
    finally:
        kafka.delete_topics([name])[name].result(30)


@pytest.fixture
def plain_server(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """Give a PostgreSQL server as initdb makes it, with wal_level = replica."""
    ((home,),) = harness.rows(stack.primary, "SHOW data_directory")
    ((programs,),) = harness.rows(
        stack.primary, "SELECT setting FROM pg_config WHERE name = 'BINDIR'"
    )
    if not Path(home).exists():
        pytest.skip("the servers run on another machine (containers)")
    owner = Path(home).stat()
    # Beside the stack's own: its user may not enter a folder of pytest's.
    data = Path(home).with_name(f"plain-{os.getpid()}")
    data.mkdir(mode=0o700)
    os.chown(data, owner.st_uid, owner.st_gid)
    port = refusals.closed_port()
    user, group = (owner.st_uid, owner.st_gid) if os.getuid() == 0 else (None, None)
    try:
        subprocess.run(
            [
                f"{programs}/initdb",
                "-D",
                data,
                *["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
            ],
            check=True,
            capture_output=True,
            cwd="/",
            user=user,
            group=group,
        )
        with (tmp_path / "plain.log").open("wb") as log:
            server = subprocess.Popen(
                [
                    f"{programs}/postgres",
                    "-D",
                    data,
                    "-p",
                    str(port),
                    "-c",
                    "unix_socket_directories=",
                ],
                cwd="/",
                stdout=log,
                stderr=log,
                user=user,
                group=group,
            )
        dsn = f"host=127.0.0.1 port={port} dbname=postgres user=postgres"
        try:
            harness.wait_until(lambda: harness.answers_sql(dsn), "the server answers")
            yield dsn
        finally:
            server.terminate()
            server.wait(30)
    finally:
        shutil.rmtree(data)


def _v(witness: Witness, key: int) -> list[tuple[str]]:
    return witness.stream.sql("r1", "SELECT v FROM app.t WHERE id = %s", [key])


def _differences(witness: Witness, replica: str = "r1") -> list[str]:
    nodes = {"primary": witness.stream.primary, replica: witness.stream.replicas[replica]}
    return compare.differences(nodes, ["app.t", "app.u"])
