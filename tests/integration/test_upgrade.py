"""The schema cdc is brought forward beside running daemons: they go on, or stop by name."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from harness import Stream, wait_until
from psycopg import sql

from cdc import position, resources, state

pytestmark = pytest.mark.stack

#: Everything that makes up the schema, in words; names of constraints are part of it.
CATALOG = """
SELECT 'column', c.relname::text, a.attnum::text || ' ' || a.attname, format_type(a.atttypid, a.atttypmod)
       || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || coalesce(' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), '')
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relnamespace = 'cdc'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'v')
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname::text, pg_get_constraintdef(oid)
  FROM pg_constraint WHERE connamespace = 'cdc'::regnamespace
UNION ALL
SELECT 'view', oid::regclass::text, '', pg_get_viewdef(oid)
  FROM pg_class WHERE relnamespace = 'cdc'::regnamespace AND relkind = 'v'
UNION ALL
SELECT 'function', proname::text, '', pg_get_functiondef(oid)
  FROM pg_proc WHERE pronamespace = 'cdc'::regnamespace
UNION ALL
SELECT 'right', relname::text, pg_get_userbyid(relowner)::text, relacl::text
  FROM pg_class WHERE relnamespace = 'cdc'::regnamespace
UNION ALL
SELECT 'schema', '', nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'cdc'
UNION ALL
SELECT 'comment', pg_describe_object(classoid, objoid, objsubid), '', description
  FROM pg_description WHERE pg_describe_object(classoid, objoid, objsubid) LIKE '%cdc.%'
"""

#: Rows as the first release has left them, in every table it has.
FIRST = """
INSERT INTO cdc.position (stream, topic, topic_id, next_offset, leader_epoch, applied_lsn, applied_txid,
  applied_at, heartbeat_at, heartbeat_lsn, system_id, timeline, ring, rows_applied, updated_at)
VALUES ('app', 'cdc.app', 'Zm9v', 4711, 0, '0/ABCDEF0', 815, '2026-01-02 03:04:05.678+00',
  '2026-01-02 03:04:06+00', '0/ABCDF00', '7000000000000000001', 1, '[[815, 180150000]]', 99, now());
INSERT INTO cdc.tables (stream, schema_name, table_name, state, snapshot_lsn, columns, rows, bytes)
VALUES ('app', 'shop', 'Großes "Lager"', 'copied', '0/ABC0000', '[["id", "integer"]]', 12, 34),
       ('app', 'shop', 'new', 'registered', NULL, NULL, NULL, NULL);
INSERT INTO cdc.daemon (stream, pid, host, state, error) VALUES ('app', 42, 'db2', 'halted', 'it said why');
INSERT INTO cdc.schema_load (stream, section) VALUES ('app', 'pre-data');
"""


def _installed(stream: Stream, version: int) -> psycopg.Connection[Any]:
    """Make the schema as a release that knew this version did; give a session of its daemon's role."""
    stream.sql("r1", "DROP SCHEMA IF EXISTS cdc CASCADE")
    role = sql.Identifier(stream.role)
    stream.sql("r1", sql.SQL("CREATE SCHEMA cdc AUTHORIZATION {}").format(role))
    daemon = psycopg.connect(stream.dsn("r1"), autocommit=True)
    daemon.execute(sql.SQL("SET ROLE {}").format(role))
    for number in range(1, version + 1):
        daemon.execute(sql.SQL(resources.text(state._file(number))))
    daemon.execute(FIRST)
    return daemon


def _rows(stream: Stream) -> dict[str, list[tuple[Any, ...]]]:
    tables = (
        "position",
        "tables",
        "daemon",
        "schema_load",
    )  # a column that was added is NULL in them
    query = sql.SQL("SELECT jsonb_strip_nulls(to_jsonb(t)) FROM {} t ORDER BY t::text")
    return {t: stream.sql("r1", query.format(sql.Identifier("cdc", t))) for t in tables}


def test_every_version_is_brought_forward_under_an_old_daemons_session(stream: Stream) -> None:
    """From each version on, with rows in it and a daemon's lock and transaction open all the while,
    setup comes to the schema of a fresh replica and changes no row; the daemon's transaction commits.
    """
    stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.cdc("setup")
    fresh = sorted(stream.sql("r2", CATALOG))

    for version in range(1, state.VERSION):
        with _installed(stream, version) as daemon:
            before = _rows(stream)
            assert position.try_lock(daemon, "app")
            with daemon.transaction():
                daemon.execute(
                    "UPDATE cdc.position SET next_offset = 4712 WHERE stream = 'app'"
                    " AND next_offset = 4711 AND generation = 0"
                )
                done = stream.cdc("setup", "-r", "r1")  # waits for nothing, or gives up after 10 s

                made = f"r1: schema cdc: tables of version {version + 1} created"
                assert stream.least or made in done.stderr  # else by the DBA, before
                assert f"version {version} created" not in done.stderr
                assert fresh == sorted(stream.sql("r1", CATALOG))
                assert before == _rows(stream)
            assert [(4712,)] == stream.sql("r1", "SELECT next_offset FROM cdc.position")


def test_what_a_version_adds_takes_nothing_away(stream: Stream) -> None:
    """Whatever a program of one version finds in the schema, it finds in the next one that lets it write."""
    stream.sql("r1", "CREATE SCHEMA cdc")
    seen: set[tuple[str, ...]] = set()
    for number in range(1, state.VERSION + 1):
        stream.sql("r1", sql.SQL(resources.text(state._file(number))).format())
        now = {
            row
            for row in stream.sql("r1", CATALOG)
            if row[0] in ("column", "constraint", "function")
        }
        (oldest,) = stream.sql(
            "r1", "SELECT max((to_jsonb(v) ->> 'oldest')::int) FROM cdc.version v"
        )[0]
        if (oldest or 1) < number:
            assert set() == seen - now, f"version {number} changes what older programs use"
        seen = now


def test_an_older_daemon_goes_on_or_stops_by_name(stream: Stream) -> None:
    """Beside a newer schema that lets it write a daemon goes on, also in a new session; one that does
    not lets nothing more of it in and stops it by name, and so it does a bootstrap.
    """
    stream.ready("CREATE TABLE t (id int PRIMARY KEY)")
    daemon = stream.start("run", "-r", "r1")
    stream.sql("primary", "INSERT INTO t VALUES (1)")
    stream.cdc("wait", "-r", "r1", "--now")

    stream.sql("r1", "INSERT INTO cdc.version (version, oldest) VALUES (98, %s)", [state.VERSION])
    apply = f"cdc-{stream.name}/r1/apply"
    stream.sql("r1", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", [apply])  # fmt: skip
    stream.sql("primary", "INSERT INTO t VALUES (2)")
    stream.cdc("wait", "-r", "r1", "--now")
    assert "brought to version 98 by a newer release" in stream.log(daemon)

    stream.sql(
        "r1",
        "INSERT INTO cdc.version (version, oldest) VALUES (99, 99);"
        "UPDATE cdc.position SET generation = generation + 1",
    )
    stream.sql("primary", "INSERT INTO t VALUES (3)")
    wait_until(lambda: daemon.poll() is not None, "the daemon has stopped")

    assert 1 == daemon.returncode
    assert "no program older than version 99 may write beside it" in stream.log(daemon)
    assert [(1,), (2,)] == stream.sql("r1", "SELECT id FROM t ORDER BY id")
    for command in (("run", "-r", "r1"), ("bootstrap", "-r", "r1"), ("setup", "-r", "r1")):
        done = stream.cdc(*command, check=False)
        assert 1 == done.returncode, command
        assert "version 99" in done.stderr, command
        assert "newer release" in done.stderr, command

    # A program newer than the schema is told what to run first.
    stream.sql("r1", "DELETE FROM cdc.version WHERE version >= 4")
    assert "next: run `cdc setup`" in stream.cdc("run", "-r", "r1", check=False).stderr
