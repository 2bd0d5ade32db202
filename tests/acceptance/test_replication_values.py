"""Values: what stands in a column on the primary stands there, to the character, on the replicas."""

from __future__ import annotations

from road import Road, given


@given("""
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN note AS text CHECK (value <> 'bad');
    CREATE TABLE t (id int PRIMARY KEY, v int, a text, b bytea, c jsonb, d text[], e numeric[], f float8[],
        g pair[], h note, i tsvector, j numeric);
    ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL,
        ALTER d SET STORAGE EXTERNAL, ALTER e SET STORAGE EXTERNAL, ALTER f SET STORAGE EXTERNAL,
        ALTER g SET STORAGE EXTERNAL, ALTER h SET STORAGE EXTERNAL, ALTER i SET STORAGE EXTERNAL;
    INSERT INTO t SELECT i, i, repeat('a', 3000), decode(repeat('00ff', 3000), 'hex'),
        to_jsonb(repeat('c', 3000)), array_fill('x'::text, ARRAY[900]), array_fill(1.50, ARRAY[900]),
        array_fill('NaN'::float8, ARRAY[900]), array_fill((1, 'x')::pair, ARRAY[200]), repeat('h', 3000),
        (SELECT string_agg('w' || n, ' ')::tsvector FROM generate_series(1, 900) n), NULL
    FROM generate_series(1, 12) i
""")
def test_unchanged_large_values(road: Road) -> None:
    """Large values of any type that an update leaves alone stay; changed and emptied ones follow."""
    road.replay(
        "UPDATE t SET v = v + 1",
        "UPDATE t SET a = 'short' WHERE id = 1; UPDATE t SET v = 100 WHERE id = 1",
        "UPDATE t SET a = NULL, d = NULL WHERE id = 2; UPDATE t SET b = '' WHERE id = 3",
        "UPDATE t SET f = NULL, e = '{}' WHERE id = 4; UPDATE t SET v = 101 WHERE id = 4",
        "UPDATE t SET a = repeat('new', 3000) WHERE id = 5; UPDATE t SET c = '1' WHERE id = 5; UPDATE t SET v = 0 WHERE id = 5",
        "DELETE FROM t WHERE id = 6; INSERT INTO t (id, a) VALUES (6, repeat('again', 3000)); UPDATE t SET v = 9 WHERE id = 6",
        "UPDATE t SET a = E'\\x01' WHERE id = 7; UPDATE t SET a = E'\\x01\\x01', h = E'\\x01x' WHERE id = 8",
        "UPDATE t SET id = id + 100, g = NULL WHERE id > 10",
        "UPDATE t SET a = a, b = b WHERE id = 9; DELETE FROM t WHERE id = 10",
    )


@given("CREATE TABLE t (id int PRIMARY KEY, v text, w varchar(9), c char(5))")
def test_text_that_copy_escapes(road: Road) -> None:
    """Backslashes, tabs, line breaks, blanks, empty strings and COPY's own marks are only text."""
    road.replay(
        r"""INSERT INTO t (id, v, w, c) VALUES (1, '', '', ''), (2, ' ', ' ', ' a '), (3, E'\t', E'\t', E'\t'),
            (4, E'\n', E'\n', E'\n'), (5, E'\r\n', E'\r', E'\r'), (6, E'\\', E'\\', E'\\'), (7, E'\\.', E'\\.', E'\\.'),
            (8, E'\\N', E'\\N', E'\\N'), (9, 'NULL', 'null', NULL), (10, E'a\\\tb\\\nc\\', E'\\t\\n', E'\\\t'),
            (11, E'\x01', E'\x01', E'\x01'), (12, E'\x02\x7f\u0085\u2028\ufeff', E'\b\f\v', '🐘'),
            (13, '__debezium_unavailable_value', '{}', '""'), (14, repeat(E'\\\t\n', 5000), NULL, NULL),
            (15, 'é vs é', 'ﷺ', 'ß'), (16, E'\U0010FFFF', '%s %% %', '$1')""",
        r"UPDATE t SET v = v || v || E'\\', c = w::char(5)",
        r"UPDATE t SET w = right(v, 9) WHERE id < 10; DELETE FROM t WHERE v = E'\\'",
    )


@given("""
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s "ok"');
    CREATE TYPE address AS (street text, "no" int, tags text[]);
    CREATE DOMAIN positive AS int NOT NULL DEFAULT 1 CHECK (value > 0);
    CREATE DOMAIN addresses AS address[];
    CREATE TYPE span AS RANGE (subtype = float8);
    CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], a address, az address[], p positive, ds addresses,
        s span, mr int4multirange, i inet, iv bit varying(9), x int[][], n numeric(8, 2), ts timestamptz[], tm time,
        b bool[], pt point, j json, jb jsonb, by bytea[], mo money, l pg_lsn, tq tsquery, u uuid[], d date);
    CREATE TABLE enum_key (m mood, p positive, PRIMARY KEY (m, p));
    INSERT INTO t (id, p) VALUES (1, 5), (2, 6), (3, 7)
""")
def test_types(road: Road) -> None:
    """Enums, composites, domains, arrays, ranges and the rest keep their exact text."""
    road.replay(
        "INSERT INTO t VALUES (10, 'it''s \"ok\"', '{sad,NULL,\"so so\"}',"
        " ROW(E'a \"b\", (c)\\\\ ', NULL, ARRAY['x', NULL, '']),"
        " ARRAY[ROW('', 1, NULL)::address, NULL], 3, ARRAY[ROW('é', 2, '{}')::address],"
        " '[1.5,Infinity)', '{[1,3),[5,8)}', '10.0.0.1/8', B'00010', '{{1,2},{3,NULL}}', -0.5,"
        " '{infinity,\"0044-03-15 00:00:00+00 BC\",NULL}', '24:00:00', '{t,f,NULL}', '(-0,1e-300)',"
        ' \'{"b": 1,  "a":[1.10, 1e400]}\', \'{"b": 1, "a": "\\\\u0001"}\', \'{"\\\\\\\\x00ff",NULL}\', \'-1.23\', \'16/B374D848\','
        " '''a b'' & !c:*', '{00000000-0000-0000-0000-000000000000}', '0001-01-01 BC')",
        "UPDATE t SET m = 'sad', a = NULL, x = '[0:1]={7,8}', n = NULL, d = 'infinity' WHERE id = 10",
        "UPDATE t SET m = 'so so', p = p + 1 WHERE id < 3; DELETE FROM t WHERE id = 3",
        "INSERT INTO enum_key VALUES ('sad', 1), ('so so', 2), ('it''s \"ok\"', DEFAULT); UPDATE enum_key SET p = 9 WHERE m = 'sad';"
        " DELETE FROM enum_key WHERE m = 'so so'",
    )


@given("""
    CREATE DOMAIN required AS text NOT NULL CHECK (length(value) > 0);
    CREATE TABLE t (id int PRIMARY KEY, a required, b required DEFAULT 'b', big text, v int,
        CHECK (v < 1000), CONSTRAINT differ CHECK (a <> b));
    ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
    INSERT INTO t SELECT i, 'a' || i, 'b' || i, repeat('x', 9000), i FROM generate_series(1, 20) i
""")
def test_domains_that_refuse_null(road: Road) -> None:
    """A domain that is NOT NULL stands in the way of neither a delete nor a partial update."""
    road.replay(
        "DELETE FROM t WHERE id < 5",
        "UPDATE t SET v = 0 WHERE id < 10",
        "UPDATE t SET a = 'c', big = NULL WHERE id = 12; UPDATE t SET id = 113 WHERE id = 13",
        "INSERT INTO t VALUES (30, 'x', 'y', NULL, 1)",
    )


@given("""
    DO $$ BEGIN EXECUTE 'CREATE TABLE t (id int PRIMARY KEY, ' ||
        (SELECT string_agg('c' || i || (ARRAY[' int', ' text', ' numeric DEFAULT 1', ' bool'])[i % 4 + 1], ', ')
           FROM generate_series(1, 1000) i) || ')'; END $$;
    INSERT INTO t (id) VALUES (1), (2)
""")
def test_a_thousand_columns(road: Road) -> None:
    """A table with 1,001 columns is replicated like a narrow one."""
    road.replay(
        "INSERT INTO t (id, c4, c1000, c999, c1) SELECT i, i, i, true, 'x' FROM generate_series(10, 40) i",
        "UPDATE t SET c2 = 1.0 WHERE id = 1; UPDATE t SET c1000 = NULL WHERE id = 12; DELETE FROM t WHERE id = 2",
        "UPDATE t SET id = 100 WHERE id = 11",
    )


@given(
    "CREATE TABLE t (id int PRIMARY KEY, v text, w text, x bytea); INSERT INTO t VALUES (1, 'small')"
)
def test_wide_rows(road: Road) -> None:
    """A row of several megabytes arrives, alone and between small ones."""
    road.replay(
        "UPDATE t SET v = repeat('wide ', 500000), w = repeat(E'\\\\', 300000) WHERE id = 1",
        "INSERT INTO t SELECT i, repeat(chr(64 + i), 100000 * i), NULL, decode(repeat('00ff', 50000), 'hex') FROM generate_series(2, 9) i",
        "UPDATE t SET w = 'narrow' WHERE id = 1; INSERT INTO t VALUES (10)",
    )


@given("CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE u (id int PRIMARY KEY, v int)")
def test_many_transactions_in_one_batch(road: Road) -> None:
    """Hundreds of transactions over the same rows end as they did on the primary."""
    road.replay(
        "INSERT INTO t SELECT i, 0 FROM generate_series(1, 40) i; INSERT INTO u SELECT i, 0 FROM generate_series(1, 40) i",
        *(
            "UPDATE t SET v = v + 1 WHERE id % 7 = 3; UPDATE u SET v = v - 1 WHERE id % 5 = 1",
            "DELETE FROM t WHERE id % 11 = 4; UPDATE u SET v = 5 WHERE id = 2",
            "INSERT INTO t SELECT i, -1 FROM generate_series(1, 40) i ON CONFLICT (id) DO UPDATE SET v = t.v % 1000 * 2 + 1",
        )
        * 30,
    )
