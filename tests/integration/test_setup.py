"""`cdc setup` on real servers: what it makes, mends, prints and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import spare as spares
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from harness import Stack, Stream, edit, rows, wait_until
from psycopg import conninfo, sql

from cdc import config as configs
from cdc import keeper, provision, state, steps
from cdc.errors import NotReady
from cdc.steps import Step

pytestmark = [pytest.mark.stack, pytest.mark.administrator]

TABLES = """
CREATE SCHEMA app;
CREATE TABLE app.a (id int PRIMARY KEY);
CREATE TABLE app."B" (id int PRIMARY KEY);
CREATE SEQUENCE app.s;
"""


@pytest.fixture
def made(stream: Stream) -> Stream:
    """Give a stream whose primary has tables."""
    stream.sql("primary", TABLES)
    return stream


def refused(done: subprocess.CompletedProcess[str], *says: str, code: int = 1) -> None:
    """Assert that a command gave up with a message in three parts that says all of `says`."""
    assert code == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("cdc: ") :]
    for part in ("\n  data: ", "\n  next: ", *says):
        assert part in message, message


def footprint(stream: Stream) -> dict[str, Any]:
    """Return what of this stream is on the servers and in Kafka."""
    roles = "SELECT count(*) FROM pg_roles WHERE rolname = %s"
    state = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'"
    topics = AdminClient({"bootstrap.servers": stream.kafka}).list_topics(timeout=15).topics
    return {
        "role": stream.sql("primary", roles, [f"cdc_{stream.name}_connector"])[0][0],
        "publication": [row[0] for row in stream.sql("primary", "SELECT pubname FROM pg_publication")],
        "states": [stream.sql(replica, state)[0][0] for replica in stream.replicas],
        "topic": stream.topic in topics,
    }  # fmt: skip


def published(stream: Stream) -> list[tuple[Any, ...]]:
    return stream.sql(
        "primary", "SELECT schemaname, tablename FROM pg_publication_tables ORDER BY 1, 2"
    )


def connector_password(stream: Stream) -> str:
    secrets = (stream.stack.config.parent / "connect-secrets.properties").read_text("ascii")
    return secrets.strip().removeprefix("password=")


def as_connector(stream: Stream) -> psycopg.Connection[Any]:
    return psycopg.connect(
        conninfo.make_conninfo(
            stream.primary,
            user=f"cdc_{stream.name}_connector",
            password=connector_password(stream),
        )
    )


def without_admin(stream: Stream) -> None:
    """Take the superuser's DSNs out of the configuration."""
    edit(stream, r"^admin_dsn = .*$", "")


def test_setup_prepares_every_end(made: Stream) -> None:
    """Roles, publication, topic and state are there afterwards, each told by a line."""
    done = made.cdc("setup")

    assert [("app", "B"), ("app", "a")] == published(made)
    assert {
        "role": 1, "publication": [f"cdc_{made.name}"], "states": [1, 1], "topic": True,
    } == footprint(made)  # fmt: skip
    for line in (f"role cdc_{made.name}_connector: created", "publication", "r1: schema cdc"):
        assert line in done.stderr
    assert [("cdc",)] == made.sql("r1", "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'cdc'")  # fmt: skip
    assert [(n,) for n in range(1, state.VERSION + 1)] == made.sql(
        "r1", "SELECT version FROM cdc.version ORDER BY version"
    )


def test_the_second_run_changes_nothing(made: Stream) -> None:
    """Run again, every step says that it is there already, and nothing is written."""
    made.cdc("setup")
    before = made.sql("primary", "SELECT xmin, oid FROM pg_publication")

    again = made.cdc("setup").stderr.splitlines()

    assert all("already there" in line or "read back" in line for line in again), again
    assert before == made.sql("primary", "SELECT xmin, oid FROM pg_publication")


def test_the_connector_may_capture_and_nothing_else(made: Stream) -> None:
    """Its role logs in with pinned settings and can emit messages, but reads no table."""
    made.sql("primary", sql.SQL("ALTER DATABASE {} SET intervalstyle = 'sql_standard'").format(
        sql.Identifier(made.name)))  # fmt: skip
    made.cdc("setup")

    with as_connector(made) as session:
        shown = {name: session.execute(f"SHOW {name}").fetchone() for name in (
            "intervalstyle", "extra_float_digits", "bytea_output", "lc_monetary", "search_path",
            "synchronous_commit",
        )}  # fmt: skip
        assert {
            "intervalstyle": ("postgres",), "extra_float_digits": ("1",), "bytea_output": ("hex",),
            "lc_monetary": ("C",), "search_path": ("pg_catalog",), "synchronous_commit": ("local",),
        } == shown  # fmt: skip
        session.execute("SELECT pg_logical_emit_message(true, 'x', 'y')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM app.a")


def test_the_password_never_reaches_the_servers_log(made: Stream) -> None:
    """PostgreSQL gets a verifier: with every statement logged the password is not in the log."""
    made.sql("primary", sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(
        sql.Identifier(made.name)))  # fmt: skip

    made.cdc("setup")

    log = (made.stack.config.parent / "logs" / "primary.log").read_text(errors="replace")
    assert f'ALTER ROLE "cdc_{made.name}_connector" PASSWORD' in log
    assert connector_password(made) not in log


def test_print_changes_nothing_and_is_complete(made: Stream) -> None:
    """What is printed, executed by somebody else, leaves setup nothing to do without an admin."""
    script = made.cdc("setup", "--print").stdout

    assert {"role": 0, "publication": [], "states": [0, 0], "topic": False} == footprint(made)
    assert connector_password(made) not in script
    assert "SCRAM-SHA-256" not in script
    ends = re.split(r"^-- (primary|r1|r2): database .*$", script, flags=re.MULTILINE)
    parts = dict(zip(ends[1::2], ends[2::2], strict=True))
    plain = {end: re.sub(r"^\\.*$", "", part, flags=re.MULTILINE) for end, part in parts.items()}
    with pytest.raises(psycopg.errors.RaiseException, match="for another database: r1"):
        made.sql("primary", plain["r1"])
    alone = made.cdc("setup", "--print", "--primary").stdout
    assert alone.startswith("-- primary: ")
    assert parts["primary"].strip() in alone
    assert "-- topic, " in alone
    assert "-- r1: " not in alone
    for end, statements in plain.items():
        made.sql(end, statements)
    made.sql("primary", sql.SQL("ALTER ROLE {} PASSWORD {}").format(
        sql.Identifier(f"cdc_{made.name}_connector"), connector_password(made)))  # fmt: skip
    without_admin(made)
    done = made.cdc("setup")
    assert f"topic {made.topic}: created" in done.stderr
    assert 1 == len(re.findall("created", done.stderr)), done.stderr


def test_drift_is_mended(made: Stream) -> None:
    """What somebody changed on the servers and in Kafka is as it was after the next run."""
    made.cdc("setup")
    role = sql.Identifier(f"cdc_{made.name}_connector")
    made.sql("primary", sql.SQL("ALTER ROLE {} NOREPLICATION").format(role))
    made.sql("primary", sql.SQL("ALTER ROLE {} IN DATABASE {} SET bytea_output = 'escape'").format(
        role, sql.Identifier(made.name)))  # fmt: skip
    made.sql("primary", sql.SQL("ALTER PUBLICATION {} SET TABLE app.a WHERE (id > 5)").format(
        sql.Identifier(f"cdc_{made.name}")))  # fmt: skip
    made.sql("primary", "CREATE TABLE app.later (id int PRIMARY KEY)")
    made.sql("primary", "REVOKE SELECT ON app.a FROM cdc")
    edit(made, r"^\[kafka.topic\]$", '[kafka.topic]\nretention = "2d"')

    told = made.cdc("setup").stderr

    assert [("app", "B"), ("app", "a"), ("app", "later")] == published(made)
    assert [(None,)] == made.sql("primary", "SELECT DISTINCT prqual FROM pg_publication_rel")
    for line in ("given REPLICATION", "bytea_output = hex", "granted SELECT on 2 tables",
                 "dropped app.a", 'added app."B", app.a, app.later',
                 "retention.ms was 604800000, now 172800000"):  # fmt: skip
        assert line in told
    resource = ConfigResource(ResourceType.TOPIC, made.topic)
    admin = AdminClient({"bootstrap.servers": made.kafka})
    entries = admin.describe_configs([resource])[resource].result()
    assert "172800000" == entries["retention.ms"].value


def test_a_table_no_longer_configured_leaves_the_publication(made: Stream) -> None:
    """Excluding a table takes it out, with a line that says so."""
    made.cdc("setup")
    edit(made, r"^exclude = .*$", "exclude = ['app.\"B\"']")

    assert 'dropped app."B"' in made.cdc("setup").stderr
    assert [("app", "a")] == published(made)


def test_one_replica_can_be_prepared_by_itself(made: Stream) -> None:
    """With -r only that replica is touched."""
    made.cdc("setup", "-r", "r2")

    assert {"role": 0, "publication": [], "states": [0, 1], "topic": False} == footprint(made)


def test_a_missing_role_is_made_with_the_password_of_its_dsn(made: Stream) -> None:
    """The role a replica's dsn names is created if need be, so that the dsn works."""
    name = f"cdc_{made.name}_writer"
    dsn = conninfo.make_conninfo(made.dsn("r1"), user=name, password="Pa ss'w")
    edit(made, r"(?<=\[replicas.r1\]\n)dsn = .*$", f"dsn = {json.dumps(dsn)}")

    made.cdc("setup", "-r", "r1")

    with psycopg.connect(dsn) as session:
        session.execute("SET session_replication_role = replica")
        session.execute("SELECT * FROM cdc.position")
        session.execute("CREATE SCHEMA made_by_restore")
        session.execute("CREATE TABLE public.made_by_restore (id int)")


@pytest.fixture
def plain_server(stack: Stack) -> Iterator[str]:
    """Give the DSN of one more PostgreSQL server, with the wal_level it has by default."""
    with spares.server(stack) as server:
        server.start()
        yield server.dsn


def test_wrong_wal_level(made: Stream, plain_server: str) -> None:
    """A primary whose log holds no row changes is refused with the statement that mends it."""
    done = made.cdc("setup", "--admin-dsn", plain_server, check=False)

    refused(done, "wal_level = replica", "ALTER SYSTEM SET wal_level = logical")
    assert [0, 0] == footprint(made)["states"]


def test_slots_that_stay_need_room(made: Stream, stack: Stack) -> None:
    """In the stock profile a slot of each replica's is to come; those that are there need no other."""
    edit(made, r'^profile = "exact"$', 'profile = "stock"')
    config = configs.load(made.config)
    with spares.server(stack) as server:
        server.start("wal_level=logical", "max_replication_slots=4")
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("SELECT pg_create_physical_replication_slot('other')")
            with pytest.raises(NotReady, match="3 replication slots left"):
                provision.check_server(provision.server(conn, config), where="it", primary=True)
            conn.execute("SELECT pg_drop_replication_slot('other')")
            for replica in config.replicas:
                keeper.hold(conn, config, replica)
            provision.check_server(provision.server(conn, config), where="it", primary=True)


def test_missing_privilege(made: Stream) -> None:
    """Without an administrator nothing is done by halves, and the way out is named."""
    without_admin(made)

    refused(made.cdc("setup", check=False), "refuses this from cdc", "--print", "sqlstate=42501")
    assert {"role": 0, "publication": [], "states": [0, 0], "topic": False} == footprint(made)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wr0ng", "passfile": ""}, "password authentication failed"),
        ({"port": "1"}, "refused"),
        ({"host": "nowhere.invalid"}, "nowhere.invalid"),
    ],
)
def test_unreachable(made: Stream, change: dict[str, str], says: str) -> None:
    """A server that does not let us in is named, without the password."""
    dsn = conninfo.make_conninfo(made.primary, **change)

    done = made.cdc("setup", "--admin-dsn", dsn, check=False)

    refused(done, "cannot connect", says)
    assert "wr0ng" not in done.stderr


def test_kafka_unreachable(made: Stream) -> None:
    """A broker that does not answer is named."""
    edit(made, r"^bootstrap_servers = .*$", 'bootstrap_servers = "127.0.0.1:1"')

    refused(made.cdc("setup", check=False), "Kafka at 127.0.0.1:1 does not answer")


def test_a_topic_with_two_partitions_is_refused(made: Stream) -> None:
    """Such a topic keeps no order of commits; it is neither used nor changed."""
    admin = AdminClient({"bootstrap.servers": made.kafka})
    admin.create_topics([NewTopic(made.topic, num_partitions=2)])[made.topic].result()

    refused(made.cdc("setup", check=False), "has 2 partitions", f"topic={made.topic}", "bootstrap")


def test_too_many_copies_wanted(made: Stream) -> None:
    """A cluster that is too small for the configured replication factor says which key to set."""
    edit(made, r"^replication_factor = .*$", "replication_factor = 3")

    refused(made.cdc("setup", check=False), "kafka.topic.replication_factor")
    assert not footprint(made)["topic"]


def test_tables_that_cannot_be_carried_are_named(made: Stream) -> None:
    """Every such table is listed with its fix; unlogged ones are only left out."""
    made.sql(
        "primary",
        """
        CREATE TABLE app.no_key (v text);
        CREATE TABLE app.nothing (id int PRIMARY KEY);
        ALTER TABLE app.nothing REPLICA IDENTITY NOTHING;
        CREATE UNLOGGED TABLE app.fleeting (id int PRIMARY KEY);
        """,
    )

    done = made.cdc("setup", check=False)

    refused(done, "app.no_key has no primary key", "app.nothing has REPLICA IDENTITY NOTHING")
    assert "warning: app.fleeting is unlogged" in done.stderr
    assert [] == footprint(made)["publication"]
    made.sql("primary", "DROP TABLE app.no_key, app.nothing")
    made.cdc("setup")
    assert [("app", "B"), ("app", "a")] == published(made)


def test_partitions_come_with_their_root(made: Stream) -> None:
    """The publication names the root; its leaves of today and tomorrow are published."""
    made.sql(
        "primary",
        """
        CREATE TABLE app.p (id int PRIMARY KEY) PARTITION BY LIST (id);
        CREATE TABLE app.p1 PARTITION OF app.p FOR VALUES IN (1);
        """,
    )
    made.cdc("setup")
    made.sql("primary", "CREATE TABLE app.p2 PARTITION OF app.p FOR VALUES IN (2)")

    assert {("app", "p1"), ("app", "p2")} <= set(published(made))
    assert "already there with 3 tables" in made.cdc("setup").stderr


def test_no_table_at_all(stream: Stream) -> None:
    """Patterns that match nothing are an error, not an empty publication."""
    edit(stream, r"^tables = .*$", 'tables = ["shop.*"]')

    refused(stream.cdc("setup", check=False), "no table of the primary matches shop.*")


def test_the_primary_is_no_replica(made: Stream) -> None:
    """A dsn pasted twice does not make the primary write upon itself."""
    edit(made, r"(?<=\[replicas.r1\]\n)dsn = .*\nadmin_dsn = .*$", f'dsn = "{made.primary}"')

    refused(made.cdc("setup", "-r", "r1", check=False), "is the primary itself", "replica=r1")


def test_a_foreign_schema_cdc_is_not_touched(made: Stream) -> None:
    """A schema of that name which is not ours is refused."""
    made.sql("r1", "CREATE SCHEMA cdc; CREATE TABLE cdc.theirs (x int)")

    refused(made.cdc("setup", "-r", "r1", check=False), "is not this program's", "replica=r1")
    assert [("theirs",)] == made.sql("r1", "SELECT tablename FROM pg_tables WHERE schemaname = 'cdc'")  # fmt: skip


def test_a_newer_state_is_not_touched(made: Stream) -> None:
    """A schema that a later release has migrated is refused."""
    made.cdc("setup")
    made.sql("r1", "INSERT INTO cdc.version (version) VALUES (99)")

    refused(made.cdc("setup", check=False), "version 99", "newer release")


def test_another_encoding_is_refused(made: Stream) -> None:
    """Text would not arrive unchanged in a database that is not UTF8."""
    name, server = sql.Identifier(made.name), made.stack.replicas["r1"]
    rows(server, sql.SQL("DROP DATABASE {}").format(name))
    rows(server, sql.SQL(
        "CREATE DATABASE {} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0").format(name))  # fmt: skip

    refused(made.cdc("setup", "-r", "r1", check=False), "encoding SQL_ASCII", "replica=r1")


class Entangled(list[Step]):
    """Steps that lock `a` and then `b`, while another session has `b` and waits for `a`."""

    def __init__(self, dsn: str) -> None:
        super().__init__(Step(t, sql.SQL("LOCK TABLE {}").format(sql.Identifier(t))) for t in "ab")
        self.tries = 0
        self._dsn = dsn
        self._other = psycopg.connect(dsn)
        self._other.execute("SET deadlock_timeout = '60s'")  # the other is not the one to be ended
        self._other.execute("LOCK TABLE b")
        self._thread = threading.Thread(target=self._want_a)

    def _want_a(self) -> None:
        with self._other as other:
            other.execute("LOCK TABLE a")

    def _waits(self) -> bool:
        return bool(rows(self._dsn, "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s",
                         [self._other.info.backend_pid]))  # fmt: skip

    def __iter__(self) -> Iterator[Step]:
        self.tries += 1
        first, second = super().__iter__()
        yield first
        if self.tries == 1:
            self._thread.start()
            wait_until(self._waits, "the other session waits for a")
        yield second

    def end(self) -> None:
        self._thread.join()


def test_a_deadlock_is_tried_again(made: Stream) -> None:
    """When PostgreSQL ends setup's transaction as a deadlock's victim, setup does it again."""
    made.sql("primary", "CREATE TABLE a (); CREATE TABLE b ()")
    entangled = Entangled(made.primary)
    with psycopg.connect(made.primary, autocommit=True) as conn:
        steps.execute(conn, entangled, "primary")
    entangled.end()

    assert 2 == entangled.tries
