"""Tables of many shapes and random transactions on them.

Imports nothing of the package under test.
"""

from __future__ import annotations

import json
from typing import LiteralString

from writer import WRITERS, Kind, Writer

TABLES: LiteralString = """
    CREATE TABLE w.docs (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, writer int NOT NULL, title text UNIQUE,
        body text, tags text[], data jsonb, length int GENERATED ALWAYS AS (length(body)) STORED);
    ALTER TABLE w.docs ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE w.heavy (id bigint PRIMARY KEY, body text, note text);
    ALTER TABLE w.heavy ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE w.events (id int, region text, v numeric, PRIMARY KEY (id, region))
        PARTITION BY LIST (region);
    CREATE TABLE w.events_a PARTITION OF w.events FOR VALUES IN ('a');
    CREATE TABLE w.events_b PARTITION OF w.events FOR VALUES IN ('b');
    CREATE TABLE w.events_rest PARTITION OF w.events DEFAULT PARTITION BY HASH (id);
    CREATE TABLE w.events_rest_0 PARTITION OF w.events_rest
        FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE w.events_rest_1 PARTITION OF w.events_rest
        FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE w."Order Lines" ("order" int, line int, "the text" text, PRIMARY KEY ("order", line));
    ALTER TABLE w."Order Lines" REPLICA IDENTITY FULL;
    CREATE TABLE w.parents (id bigint PRIMARY KEY, v text);
    CREATE TABLE w.children (
        parent bigint REFERENCES w.parents ON DELETE CASCADE ON UPDATE CASCADE, line int, v text,
        PRIMARY KEY (parent, line));
    CREATE TYPE w.mood AS ENUM ('sad', 'it''s ok', 'happy');
    CREATE TYPE w.pair AS (a int, b text);
    CREATE DOMAIN w.percent AS numeric CHECK (VALUE BETWEEN 0 AND 100);
    CREATE TABLE w.values (
        id uuid PRIMARY KEY, writer int NOT NULL, ranges int4multirange, data jsonb DEFAULT '{"d": 1}',
        grid int[], mood w.mood, pair w.pair, share w.percent, at timestamptz, took interval,
        bits varbit, raw bytea, addr inet, ratio float8, num numeric DEFAULT 7, words text[],
        twice numeric GENERATED ALWAYS AS (num * 2) STORED);
    CREATE SCHEMA "we.ird ""Schéma"" 🐘";
    CREATE TABLE "we.ird ""Schéma"" 🐘"."select" (
        "from" int, "a.b" text, "ünï ""q"" %" text, PRIMARY KEY ("from", "a.b"));
"""

#: Every table that holds rows.
NAMES = (
    "w.docs", "w.heavy", "w.events_a", "w.events_b", "w.events_rest_0", "w.events_rest_1",
    'w."Order Lines"', "w.parents", "w.children", "w.values",
    '"we.ird ""Schéma"" 🐘"."select"',
)  # fmt: skip

#: Characters in a large row at most; PostgreSQL makes them, 32 at a time.
_HEAVY = 10_000_000


def documents(w: Writer) -> None:
    match w.below(5):
        case 0 | 1:
            w.do(
                "INSERT INTO w.docs (writer, title, body, tags, data) VALUES (%s, %s, %s, %s, %s)",
                w.number, w.text(16), w.text(w.random.choice((0, 50, 9000))),
                [w.text(3), None], json.dumps({"n": w.random.random()}),
            )  # fmt: skip
        case 2:  # a large body stays as it is
            w.do(
                "UPDATE w.docs SET tags = array_append(tags, %s), data = NULL"
                " WHERE writer = %s AND id %% 5 = %s",
                w.text(4), w.number, w.below(5),
            )  # fmt: skip
        case 3:
            w.do(
                "UPDATE w.docs SET body = %s WHERE writer = %s AND id %% 7 = %s",
                w.text(5000), w.number, w.below(7),
            )  # fmt: skip
        case _:
            w.do(
                "DELETE FROM w.docs WHERE writer = %s AND id %% 3 = %s", w.number, w.below(3)
            )  # fmt: skip


def heavy(w: Writer) -> None:
    """Write a row of up to 10 MB; of older ones change a small column, delete or move some."""
    w.do("UPDATE w.heavy SET note = %s WHERE id %% 5 = %s", w.text(9), w.number)
    w.do(
        "DELETE FROM w.heavy WHERE id IN (SELECT id FROM w.heavy WHERE id %% 5 = %s"
        " ORDER BY id OFFSET 1)", w.number,
    )  # fmt: skip
    w.do(
        "INSERT INTO w.heavy SELECT %s, string_agg(md5(i::text), ''), NULL"
        " FROM generate_series(1, %s) i",
        w.below(1 << 50) * WRITERS + w.number, w.below(_HEAVY // 32) + 1,
    )  # fmt: skip


def events(w: Writer) -> None:
    """Rows of a partitioned table, some of which move to another partition."""
    key = w.below(100) * WRITERS + w.number
    match w.below(3):
        case 0:
            w.do(
                "INSERT INTO w.events VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                key, w.random.choice("abcde"), w.below(10**9) / 100,
            )  # fmt: skip
        case 1:
            region = w.random.choice("abcde")
            w.do("DELETE FROM w.events WHERE id = %s AND region = %s", key, region)
            w.do(
                "UPDATE w.events SET region = %s WHERE (id, region) = (SELECT id, region"
                " FROM w.events WHERE id %% 5 = %s ORDER BY id LIMIT 1) AND NOT EXISTS"
                " (SELECT FROM w.events AS e WHERE e.id = events.id AND e.region = %s)",
                region, w.number, region,
            )  # fmt: skip
        case _:
            w.do("UPDATE w.events SET v = v + 1 WHERE id %% 5 = %s AND id < 40", w.number)


def order_lines(w: Writer) -> None:
    order = w.below(30) * WRITERS + w.number
    w.do('DELETE FROM w."Order Lines" WHERE "order" = %s AND line > 3', order)
    for line in range(1 + w.below(5)):
        w.do(
            'INSERT INTO w."Order Lines" VALUES (%s, %s, %s)'
            ' ON CONFLICT ("order", line) DO UPDATE SET "the text" = excluded."the text"',
            order, line, w.text(10),
        )  # fmt: skip


def family(w: Writer) -> None:
    """Foreign keys whose actions change rows that the statement does not name."""
    parent = w.below(40) * WRITERS + w.number
    match w.below(4):
        case 0 | 1:
            w.do(
                "INSERT INTO w.parents VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
                parent, w.text(5),
            )  # fmt: skip
            w.do(
                "INSERT INTO w.children SELECT %s, i, %s FROM generate_series(1, %s) i"
                " ON CONFLICT DO NOTHING", parent, w.text(5), 1 + w.below(6),
            )  # fmt: skip
        case 2:
            w.do(
                "UPDATE w.parents SET id = %s WHERE id = %s AND NOT EXISTS"
                " (SELECT FROM w.parents WHERE id = %s)",
                parent + 1000 * WRITERS, parent, parent + 1000 * WRITERS,
            )  # fmt: skip
        case _:
            w.do(
                "DELETE FROM w.parents WHERE id IN (%s, %s)", parent, parent + 1000 * WRITERS
            )  # fmt: skip


def empty_family(w: Writer) -> None:
    """Truncate two tables, the second because of its foreign key, or both by name."""
    if w.below(2):
        w.do("TRUNCATE w.parents CASCADE")
    else:
        w.do("TRUNCATE w.children, w.parents")
    family(w)


def typed_values(w: Writer) -> None:
    match w.below(4):
        case 0 | 1:
            low = w.below(1000)
            w.do(
                "INSERT INTO w.values (id, writer, ranges, data, grid, mood, pair, share, at, took,"
                " bits, raw, addr, ratio, num, words) VALUES (gen_random_uuid(), %s,"
                " int4multirange(int4range(%s, %s), int4range(%s, NULL)), %s, '[2:3][-1:0]={{1,2},{3,NULL}}',"
                " %s, ROW(%s, %s), %s, now(), make_interval(months => %s, secs => %s), %s, %s,"
                " '2001:db8::1/64', %s, %s, %s)",
                w.number, low, low + 5, low + 9, json.dumps({"k": w.text(5), "n": [1.50, None]}),
                w.random.choice(("sad", "it's ok", "happy", None)), low, w.text(4), low / 10,
                low - 500, low / 7, format(low, "b"), w.random.randbytes(w.below(40)),
                w.random.choice((0.1 + 0.2, float("inf"), float("nan"), -0.0)),
                w.random.choice((f"{low}.10", "NaN", None, f"{low}e-20")), [w.text(3), None, "", "NULL"],
            )  # fmt: skip
        case 2:
            w.do(
                "UPDATE w.values SET data = NULL, num = NULL, ranges = '{}', pair = ROW(NULL, NULL),"
                " words = '{}' WHERE writer = %s AND get_byte(uuid_send(id), 0) %% 4 = %s",
                w.number, w.below(4),
            )  # fmt: skip
        case _:
            w.do(
                "DELETE FROM w.values WHERE writer = %s AND get_byte(uuid_send(id), 1) %% 3 = %s",
                w.number, w.below(3),
            )  # fmt: skip


def nasty_names(w: Writer) -> None:
    key = w.below(20) * WRITERS + w.number
    w.do(
        'INSERT INTO "we.ird ""Schéma"" 🐘"."select" VALUES (%s, %s, %s) ON CONFLICT ("from", "a.b")'
        ' DO UPDATE SET "ünï ""q"" %%" = excluded."ünï ""q"" %%"', key, w.text(1), w.text(3),
    )  # fmt: skip
    w.do(
        'DELETE FROM "we.ird ""Schéma"" 🐘"."select" WHERE "from" = %s AND "a.b" = %s',
        key, w.text(1),
    )  # fmt: skip


def messages(w: Writer) -> None:
    """Logical messages among rows, inside the transaction or not; some of it is rolled back."""
    w.do("SELECT pg_logical_emit_message(%s, 'app', %s)", bool(w.below(2)), w.text(20))
    documents(w)
    w.do("SELECT pg_logical_emit_message(%s, 'app', %s)", bool(w.below(2)), w.text(20))
    if w.below(3) == 0:
        w.rollback()


def temporary(w: Writer) -> None:
    """Use a temporary table, which is nobody else's business."""
    w.do("CREATE TEMPORARY TABLE mine (id int PRIMARY KEY, v text) ON COMMIT DROP")
    w.do("INSERT INTO mine SELECT i, %s FROM generate_series(1, 20) i", w.text(4))
    documents(w)


#: What is done how often, in thousandths together with the other modules'.
KINDS: dict[Kind, int] = {
    documents: 90,
    heavy: 1,
    events: 70,
    order_lines: 70,
    family: 35,
    empty_family: 2,
    typed_values: 40,
    nasty_names: 30,
    messages: 15,
    temporary: 3,
}
