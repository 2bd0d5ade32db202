"""The schema of a newer primary on a replica of an older version of PostgreSQL."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import harness
import other_version
import psycopg
import pytest
from harness import Stream

from cdc import clients, schema_load
from cdc.errors import SchemaMismatch

pytestmark = pytest.mark.stack

SCHEMA: LiteralString = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.things (id int PRIMARY KEY, v text NOT NULL, n numeric CHECK (n > 0));
    CREATE INDEX ON shop.things (lower(v));
    CREATE FUNCTION shop.f() RETURNS text LANGUAGE plpgsql
        AS E'BEGIN\\r\\n\\nSET transaction_timeout = 0;\\nRETURN ''a''; END';
    CREATE VIEW shop.seen AS SELECT id, shop.f() FROM shop.things;
"""

#: What there is, as each server prints it.
FOUND: LiteralString = """
SELECT attrelid::regclass::text, attname::text, format_type(atttypid, atttypmod), attnotnull::text
  FROM pg_attribute WHERE attrelid IN ('shop.things'::regclass, 'shop.seen'::regclass) AND attnum > 0
UNION ALL SELECT 'index', pg_get_indexdef(indexrelid), '', '' FROM pg_index
 WHERE indrelid = 'shop.things'::regclass
UNION ALL SELECT 'constraint', conname::text, pg_get_constraintdef(oid), '' FROM pg_constraint
 WHERE conrelid = 'shop.things'::regclass AND contype <> 'n'
UNION ALL SELECT 'function', prosrc, '', '' FROM pg_proc WHERE oid = 'shop.f'::regproc
 ORDER BY 1, 2
"""


def test_an_older_replica_takes_the_schema(stream: Stream, tmp_path: Path) -> None:
    """What an older server knows it gets byte for byte, in one transaction; what it refuses is told."""
    ((ours,),) = stream.sql("primary", "SHOW server_version_num")
    other_is_newer = int(ours) < 180_000
    with other_version.server(tmp_path / "other", "18" if other_is_newer else "16") as other:
        ends = (other.dsn("postgres"), stream.dsn("r1"))
        newer, older = ends if other_is_newer else (stream.primary, other.dsn("postgres"))
        harness.rows(newer, SCHEMA)
        ((version,),) = harness.rows(newer, "SELECT current_setting('server_version_num')::int")
        with (
            psycopg.connect(older, autocommit=True) as replica,
            schema_load.dumped(clients.find(version), newer, None, replica) as archive,
        ):
            for section in ("pre-data", "post-data"):
                schema_load.restore(archive, archive.entries, older, section)
            assert harness.rows(newer, FOUND) == harness.rows(older, FOUND)

            harness.rows(older, "DROP TABLE shop.things CASCADE")
            with pytest.raises(SchemaMismatch) as refused:
                schema_load.restore(archive, archive.entries, older, "pre-data")
            assert (
                'refuses a part of the schema (pre-data): ERROR: schema "shop" already exists'
                in (" ".join(refused.value.what.split()))
            )
            assert [(None,)] == harness.rows(older, "SELECT to_regclass('shop.things')")
