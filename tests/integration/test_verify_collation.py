"""`cdc-verify` where text keys sort by other rules on one replica."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
from harness import Stream
from psycopg import sql
from verifying import verified

LOCALES = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        "en_US.utf8" not in LOCALES.split(),
        reason="this system has no locale en_US.UTF-8: make beside",
    ),
]

#: Order by bytes and order by language disagree on most of these: case, accents, punctuation.
TABLES: LiteralString = """
    CREATE TABLE words (word text PRIMARY KEY, n int);
    INSERT INTO words
    SELECT (ARRAY['a', 'B', 'c', 'Ä', 'z', '-', 'É', '_', 'Z', '~'])[1 + g % 10]
           || (ARRAY['', ' ', '-', 'x', 'X'])[1 + g / 10 % 5] || g, g
      FROM generate_series(1, 12000) AS g;
    CREATE TABLE parts (n int, word varchar(20), v text, PRIMARY KEY (n, word));
    INSERT INTO parts SELECT n % 3, word, 'v' FROM words;
    CREATE TABLE named (word text COLLATE "C" PRIMARY KEY, n int);
    INSERT INTO named SELECT * FROM words;
"""


@pytest.fixture(scope="module")
def pair(stack: harness.Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give a stream whose r2 sorts as English speakers do, the others by bytes."""
    with harness.stream(stack, tmp_path_factory.mktemp("collation")) as stream:
        name = sql.Identifier(stream.name)
        server = stack.ends["r2"]
        harness.rows(server, sql.SQL("DROP DATABASE {}").format(name))
        harness.rows(
            server,
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 LOCALE 'en_US.UTF-8'").format(
                name, sql.Identifier("postgres" if stream.least else stream.role)
            ),
        )
        stream.running(TABLES)
        yield stream


def test_the_orders_differ(pair: Stream) -> None:
    """The first and the last keys are others on r2: the module would show nothing otherwise."""
    ends: LiteralString = "SELECT min(word), max(word) FROM words"

    assert pair.sql("primary", ends) == pair.sql("r1", ends) != pair.sql("r2", ends)


def test_keys_that_sort_otherwise_are_proven_equal(pair: Stream) -> None:
    """No row is accused, or even a candidate; that the order differs is a note."""
    code, report = verified(pair)
    r2 = report["replicas"][1]["tables"]

    assert 0 == code, report
    assert {"public.words": 12000, "public.parts": 12000, "public.named": 12000} == {
        t["table"]: t["rows"] for t in r2
    }
    assert [0, 0, 0] == [t["candidates"] for t in r2]
    assert {"public.words": 1, "public.parts": 2, "public.named": 0} == {
        t["table"]: sum(m["weight"] == "note" for m in t["mismatches"]) for t in r2
    }


def test_nothing_is_missed_where_keys_sort_otherwise(pair: Stream) -> None:
    """Rows missing, too many and different are found wherever they stand in either order, and mended."""
    chance = random.Random(5)
    keys = [word for (word,) in pair.sql("primary", "SELECT word FROM words ORDER BY word")]
    there = [word for (word,) in pair.sql("r2", "SELECT word FROM words ORDER BY word")]
    ends = list(dict.fromkeys([keys[0], keys[-1], there[0], there[-1]]))
    spoilt = [*ends, *chance.sample(sorted({*keys} - {*ends}), 36)]
    new = ["", "!", "zzz", "ÿ", "B-3", "Z~", "\U0001f600"]
    with psycopg.connect(pair.dsn("r2"), autocommit=True) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("DELETE FROM words WHERE word = ANY (%s)", [spoilt[::2]])
        conn.execute("UPDATE words SET n = -n WHERE word = ANY (%s)", [spoilt[1::2]])
        conn.execute("INSERT INTO words SELECT unnest(%s::text[]), 0", [new])
        conn.execute("UPDATE parts SET v = 'V' WHERE word = ANY (%s)", [spoilt])
    expected = {("missing", word) for word in spoilt[::2]}
    expected |= {("different", word) for word in spoilt[1::2]}
    expected |= {("extra", word) for word in new}

    code, report = verified(pair)
    words = [
        (f["kind"], f["key"]["word"]) for f in report["findings"] if f["table"] == "public.words"
    ]
    parts = [f["key"]["word"] for f in report["findings"] if f["table"] == "public.parts"]

    assert (1, sorted(expected), sorted(spoilt)) == (code, sorted(words), sorted(parts))
    assert 0 == verified(pair, "--repair", "apply")[0]
    nodes = {"primary": pair.primary, **pair.replicas}
    assert compare.differences(nodes, ["words", "parts", "named"]) == []
