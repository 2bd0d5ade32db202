"""`cdc-verify` where a replica runs another version of PostgreSQL than the primary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import LiteralString

import compare
import harness
import other_version
import pytest
from harness import Stack, Stream
from psycopg import conninfo
from verifying import verified

pytestmark = [pytest.mark.stack, pytest.mark.administrator]

TABLES: LiteralString = """
    CREATE TYPE mood AS ENUM ('bad', 'good');
    CREATE TABLE things (
        id bigint PRIMARY KEY, n numeric(12, 2), c char(3), at timestamptz, span interval, note text,
        doc jsonb, f float8, tags text[], mood mood, net inet, part int4range, raw bytea,
        twice numeric GENERATED ALWAYS AS (n * 2) STORED
    );
    CREATE UNIQUE INDEX noted ON things (lower(note), id DESC) INCLUDE (n) WHERE id > 5;
    INSERT INTO things
    SELECT g, g, 'ab', '2024-02-29 12:00+00'::timestamptz + g * interval '1 s', g * interval '1 h',
           'note ' || g, jsonb_build_object('a', g), g / 3.0, ARRAY['x', NULL, g::text], 'good',
           '10.0.0.1', int4range(g, g + 1), decode(md5(g::text), 'hex')
      FROM generate_series(1, 20000) AS g;
    CREATE TABLE bags (f float8, v text);
    ALTER TABLE bags REPLICA IDENTITY FULL;
    INSERT INTO bags SELECT g % 50, 'v' FROM generate_series(1, 500) AS g;
"""


@pytest.fixture(scope="module")
def pair(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream with two running daemons whose r2 is of another version than the others."""
    ((ours,),) = harness.rows(stack.primary, "SHOW server_version_num")
    version = "16" if int(ours) >= 180_000 else "18"
    folder = tmp_path_factory.mktemp("versions")
    with other_version.server(folder / "other", version) as other:
        mixed = dataclasses.replace(stack, replicas={**stack.replicas, "r2": other.dsn("postgres")})
        with harness.stream(mixed, folder / "stream") as stream:
            dsn, admin = (
                conninfo.make_conninfo(other.dsn(user), dbname=stream.name)
                for user in ("cdc", "postgres")
            )
            harness.edit(
                stream,
                r"(?<=\[replicas\.r2\]\n)dsn = .*\nadmin_dsn = .*",
                f'dsn = "{dsn}"\nadmin_dsn = "{admin}"',
            )
            stream.running(TABLES)
            yield stream


def test_another_version_is_compared_as_any(pair: Stream) -> None:
    """Equal rows are proven equal, catalog included; a fault is named and mended, and no other row."""
    ((ours,), (theirs,)) = (
        pair.sql(end, "SELECT current_setting('server_version_num')::int / 10000")[0]
        for end in ("primary", "r2")
    )
    assert ours != theirs
    code, report = verified(pair)
    assert (0, "lookup3") == (code, report["hash"]), report

    pair.sql("r2", "UPDATE things SET note = note || ' ' WHERE id = 7")
    pair.sql("r2", "DELETE FROM bags WHERE ctid = (SELECT min(ctid) FROM bags WHERE f = 5)")
    code, report = verified(pair, "--repair", "apply")
    assert {("different", "7"), ("missing", "5")} == {
        (f["kind"], f["key"].get("id") or f["key"]["f"]) for f in report["findings"]
    }
    assert 0 == code, report
    nodes = {"primary": pair.primary, **pair.replicas}
    assert compare.differences(nodes, ["things", "bags"]) == []
