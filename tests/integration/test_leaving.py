"""`cdc teardown` and `cdc remove` on real servers: what was made goes, what was there stays."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any, LiteralString

import harness
import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from harness import Stream, edit
from psycopg import conninfo, sql

from cdc import clients, locking

pytestmark = pytest.mark.stack

#: Everything that setup could have touched in the database and beside it, as it is meant: rights
#: never granted and rights granted and taken again look different in the catalog and are the same.
_TRACES = {
    "roles": "SELECT rolname, rolsuper, rolcanlogin, rolreplication, rolbypassrls FROM pg_roles ORDER BY 1",
    "settings": "SELECT setrole::regrole::text, setconfig FROM pg_db_role_setting WHERE setrole <> 0 ORDER BY 1, 2",
    "members": "SELECT roleid::regrole::text, member::regrole::text FROM pg_auth_members ORDER BY 1, 2",
    "publications": "SELECT pubname FROM pg_publication ORDER BY 1",
    "slots": "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1",
    "event triggers": "SELECT evtname FROM pg_event_trigger ORDER BY 1",
    "schemas": "SELECT nspname, a.* FROM pg_namespace, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) a"
               " WHERE nspname !~ '^pg_(toast_)?temp' ORDER BY 1, 2, 3, 4",
    "functions": "SELECT p.oid, a.* FROM pg_proc p, aclexplode(coalesce(proacl, acldefault('f', proowner))) a ORDER BY 1, 2, 3, 4",
    "databases": "SELECT datname, a.* FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba))) a"
                 " WHERE datname = current_database() ORDER BY 1, 2, 3, 4",
    "relations": "SELECT c.oid, a.* FROM pg_class c, aclexplode(coalesce(relacl, acldefault('r', relowner))) a"
                 " WHERE relkind <> 'S' AND c.oid >= 16384 AND relkind IN ('r', 'p', 'v') ORDER BY 1, 2, 3, 4",
    "parameters": "SELECT parname, paracl FROM pg_parameter_acl ORDER BY 1",
}  # fmt: skip


def traces(stream: Stream) -> dict[str, Any]:
    """Return the primary's schema as pg_dump writes it, and its catalogs as far as they tell more.

    Of what belongs to the whole server, only what names this stream: others are at work beside it.
    """
    found: dict[str, Any] = {}
    for what, query in _TRACES.items():
        rows = harness.rows(stream.primary, query)
        found[what] = [row for row in rows if _ours(stream, what, row)]
    ((version,),) = stream.sql("primary", "SELECT current_setting('server_version_num')::int")
    dump = subprocess.run(
        [clients.find(version).pg_dump, "--schema-only", "-d", stream.primary],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found["dump"] = re.sub(r"^\\(un)?restrict .*$", "", dump, flags=re.MULTILINE)
    return found


def _ours(stream: Stream, what: str, row: tuple[Any, ...]) -> bool:
    return what not in {"roles", "settings", "members", "parameters"} or stream.name in str(row)


@pytest.fixture
def made(stream: Stream) -> Stream:
    """Give a stream that is set up by a role of its own on the primary, captured and filled."""
    role = f"cdc_{stream.name}_daemon"
    given = conninfo.conninfo_to_dict(stream.primary)
    dsn = conninfo.make_conninfo("", **(given | {"user": role, "password": "Pa ss'w"}))
    edit(stream, r"(?<=\[primary\]\n)dsn = .*$", f"dsn = {json.dumps(dsn)}")
    return stream


@pytest.mark.administrator
def test_teardown_leaves_the_primary_as_it_was(made: Stream) -> None:
    """Dry runs and wrong names change nothing; then nothing is left, and a second run finds that."""
    made.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    before = traces(made)
    made.cdc("setup")
    made.cdc("connectors", "apply")
    made.cdc("bootstrap", "-r", "r1")
    whole = traces(made)
    assert before != whole

    dry = made.cdc("teardown", "--dry-run").stdout
    unconfirmed = made.cdc("teardown", check=False)
    wrong = made.cdc("teardown", "--yes", "app", check=False)
    assert [2, 2] == [unconfirmed.returncode, wrong.returncode]
    assert whole == traces(made)
    done = made.cdc("teardown", "--yes", made.name)

    assert dry == done.stdout
    for part in (
        "connector",
        "slot",
        "publication",
        "connector: dropped with",
        "daemon: dropped with",
        "topic",
    ):
        assert part in done.stdout
    assert before == traces(made)
    assert (
        made.topic
        not in AdminClient({"bootstrap.servers": made.kafka}).list_topics(timeout=15).topics
    )
    again = made.cdc("teardown", "--yes", made.name).stdout.splitlines()
    assert all(line.endswith("not there") for line in again), again


def test_a_replica_goes_its_own_way(stream: Stream) -> None:
    """While a daemon applies nothing goes; then the schema cdc goes, the tables and the role stay."""
    stream.ready("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
    stream.sql("r1", "CREATE VIEW seen AS SELECT * FROM cdc.freshness")
    daemon = stream.start("run", "-r", "r1")
    stream.cdc("wait", "-r", "r1", "--now")

    held = stream.cdc("remove", "-r", "r1", "--yes", "r1", check=False)
    daemon.terminate()
    daemon.wait()
    done = stream.cdc("remove", "-r", "r1", "--yes", "r1")

    assert 1 == held.returncode
    assert "a daemon applies to this replica" in held.stderr
    assert "and what reads it: view public.seen" in done.stdout
    stays = "it is who asks for this" if stream.least else "it was there before"
    assert f"role {stream.role}: stays, {stays}" in done.stdout
    assert f"consumer group cdc-{stream.name}-r1: its offsets deleted" in done.stdout
    assert [(1,)] == stream.sql("r1", "SELECT id FROM t")
    assert [(0,)] == stream.sql("r1", "SELECT count(*) FROM pg_namespace WHERE nspname = 'cdc'")
    assert [(1,)] == stream.sql("r2", "SELECT count(*) FROM cdc.position")


#: Who may write what beside the daemon: on tables, on columns, and on what the daemon's role will make.
_WRITERS = """
SELECT c.relname::text, NULL, a.grantee::regrole::text, a.privilege_type, a.is_grantable
  FROM pg_class c, aclexplode(c.relacl) AS a
 WHERE c.relname IN ('t', 'u') AND a.grantee <> c.relowner
UNION ALL
SELECT attrelid::regclass::text, attname::text, a.grantee::regrole::text, a.privilege_type, a.is_grantable
  FROM pg_attribute, aclexplode(attacl) AS a WHERE attrelid IN ('t'::regclass, 'u'::regclass)
UNION ALL
SELECT 'default', defaclnamespace::regnamespace::text, a.grantee::regrole::text, a.privilege_type, a.is_grantable
  FROM pg_default_acl, aclexplode(defaclacl) AS a WHERE defaclrole = %s::regrole AND a.grantee <> defaclrole
 ORDER BY 1, 2, 3, 4
"""


@pytest.fixture
def written(stream: Stream) -> Stream:
    """Give a stream whose replica r1 others were granted to write, in whatever way."""
    stream.ready("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    names = {"app": sql.Identifier(_app(stream)), "daemon": sql.Identifier(stream.role)}
    granted: tuple[LiteralString, ...] = (
        "CREATE ROLE {app}",
        "GRANT SELECT, INSERT, TRUNCATE ON t TO {app}",
        "GRANT UPDATE ON t TO {app} WITH GRANT OPTION",
        "GRANT INSERT (id), UPDATE (id), SELECT, DELETE ON u TO {app}",
        "GRANT UPDATE ON u TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {daemon} GRANT SELECT, DELETE ON TABLES TO {app}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {daemon} IN SCHEMA public GRANT INSERT ON TABLES TO PUBLIC",
    )
    for statement in granted:
        stream.sql("r1", sql.SQL(statement).format(**names))
    return stream


def _app(stream: Stream) -> str:
    return f"cdc_{stream.name}_app"


def _writers(stream: Stream) -> list[tuple[Any, ...]]:
    return [
        row for row in stream.sql("r1", _WRITERS, [stream.role]) if row[3] != "SELECT"
    ]  # fmt: skip


@pytest.mark.parametrize("printed", [False, True])
def test_who_could_write_a_replica_may_again(written: Stream, printed: bool) -> None:
    """What `cdc setup` took, by itself or by what it prints, is given back, and the plan tells it."""
    before = _writers(written)
    if printed:
        script = written.cdc("setup", "--print", "-r", "r1").stdout
        ((version,),) = written.sql("r1", "SELECT current_setting('server_version_num')::int")
        subprocess.run(
            [clients.find(version).pg_dump.with_name("psql"), "-X", "-q", "-d", written.dsn("r1")],
            input=script, capture_output=True, text=True, check=True,
        )  # fmt: skip
    written.cdc("setup", "-r", "r1")
    assert [] == _writers(written)
    written.cdc("setup", "-r", "r1")

    dry = written.cdc("remove", "-r", "r1", "--dry-run").stdout
    assert [] == _writers(written)
    written.cdc("remove", "-r", "r1", "--yes", "r1")

    app = _app(written)
    assert (
        f"tables unlocked: {app} may write public.t, public.u, what {written.role} makes again"
        in dry
    )
    assert f"tables unlocked: PUBLIC may write public.u, what {written.role} makes again" in dry
    assert before == _writers(written)


def test_nothing_is_given_back_that_was_not_taken(written: Stream) -> None:
    """With --no-lock nothing was; what was granted since stays."""
    before = _writers(written)
    written.cdc("setup", "-r", "r1", "--no-lock")

    done = written.cdc("remove", "-r", "r1", "--yes", "r1")

    assert "unlocked" not in done.stdout
    assert before == _writers(written)


def test_what_cannot_be_given_back_is_told(written: Stream) -> None:
    """Who may not give it says what a DBA would; what is gone hinders nothing."""
    written.cdc("setup", "-r", "r1")
    written.sql("r1", "ALTER TABLE t OWNER TO CURRENT_USER; DROP TABLE u")
    with psycopg.connect(written.dsn("r1")) as conn:
        conn.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(written.role)))
        told = {s.what: s.statement for s in locking.unlock_steps(conn, written.name, written.role)}

    app = _app(written)
    assert (
        f"tables unlocked: {app} may not write public.t yet; their owner or a superuser may "
        f'GRANT INSERT, TRUNCATE ON "public"."t" TO "{app}";\n'
        f'GRANT UPDATE ON "public"."t" TO "{app}" WITH GRANT OPTION'
    ) in told
    assert (
        f"tables unlocked: {app} had DELETE on public.u, and one of them is not there any more"
    ) in told
    assert {
        f"tables unlocked: {app} may write what {written.role} makes again",
        f"tables unlocked: PUBLIC may write what {written.role} makes again",
    } == {what for what, statement in told.items() if statement is not None}
    written.cdc("remove", "-r", "r1", "--yes", "r1")


def test_another_stream_s_position_stays(stream: Stream) -> None:
    """Where a replica follows two streams, only what is of this one goes."""
    stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.cdc("setup")
    for name in ("other", stream.name):
        stream.sql(
            "r1",
            "INSERT INTO cdc.tables (stream, schema_name, table_name, state)"
            " VALUES (%s, 'public', 't', 'registered')",
            [name],
        )

    done = stream.cdc("remove", "-r", "r1", "--yes", "r1")

    assert f"schema cdc: emptied of {stream.name}; it stays for other" in done.stdout
    assert [("other",)] == stream.sql("r1", "SELECT stream FROM cdc.tables")
