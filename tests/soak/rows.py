"""The tables that a soak writes and spoils: which of their rows are written, and which lie still.

A row's number `g` is ten times something plus a digit. Digit 0 lies still: only a fault changes it.
1 to 3 belong to one writer each, 4 to 6 are where it moves them by a change of key, 7 to 9 are gaps.

Imports nothing of the package under test.
"""

from __future__ import annotations

import dataclasses
import hashlib
import uuid
from collections.abc import Callable
from typing import LiteralString

#: Tens of every keyed table but `pairs`, and tens of `pairs` and of `lines`.
TENS, FEW = 6_000, 200

#: Copies of each row of `lines` that lies still.
COPIES = 5

#: A row of number g, by table. `mod` and not the operator, whose sign a parameter's would be.
WIDE: LiteralString = """
    g, mod(g, 1000)::int, 'payé', round(g / 100.0, 2), 'ab',
    '2024-02-29 12:00+00'::timestamptz + g * interval '1 ms',
    '0044-03-15 12:00 BC'::timestamp + g * interval '1 us',
    CASE mod(g / 10, 4) WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'note ' || g END,
    jsonb_build_object('a', g, 'b', 1), mod(g, 3) = 0, md5('t' || g)::uuid,
    CASE mod(g / 10, 4) WHEN 0 THEN 0 ELSE g / 7.0 END::float8, ARRAY['x', NULL, g::text]
"""
UUID: LiteralString = "md5(g::text)::uuid, 'v' || g, '2024-01-01 UTC'::timestamptz"
WORD: LiteralString = (
    "chr(97 + mod(g, 26)::int), 'w' || g, round(g / 4.0, 2), json_build_object('g', g)"
)

TABLES: LiteralString = (
    """
    CREATE SCHEMA s;
    CREATE TABLE s.wide (
        id bigint PRIMARY KEY, n int, status text, amount numeric, code char(3), at timestamptz,
        changed timestamp, note text, doc jsonb, flag boolean, token uuid, f float8, tags text[]);
    CREATE TABLE s.uuids (id uuid PRIMARY KEY, v text, at timestamptz);
    CREATE TABLE s.words (a text, b text, c numeric, d json, PRIMARY KEY (a, b));
    CREATE TABLE s.pairs (id int PRIMARY KEY, v text UNIQUE);
    CREATE TABLE s.lines (a int, b text, c numeric);
    ALTER TABLE s.lines REPLICA IDENTITY FULL;
    CREATE TABLE s.counter (id int PRIMARY KEY, n bigint);
    INSERT INTO s.counter VALUES (1, 0);
    """
    f"CREATE VIEW s.number AS SELECT k * 10 + d AS g, k, d"
    f" FROM generate_series(1::bigint, {TENS}) AS k, generate_series(0, 3) AS d;"
    f"INSERT INTO s.wide SELECT {WIDE} FROM s.number;"
    # The last of all lies still, too; so do the first and last of the other keys.
    f"INSERT INTO s.wide SELECT {WIDE} FROM (SELECT {TENS * 10 + 10}::bigint AS g) AS o;"
    f"INSERT INTO s.uuids SELECT {UUID} FROM s.number;"
    "INSERT INTO s.uuids VALUES ('00000000-0000-0000-0000-000000000010', 'first', '2024-01-01 UTC'),"
    " ('ffffffff-ffff-ffff-ffff-ffffffffffef', 'last', '2024-01-01 UTC');"
    f"INSERT INTO s.words SELECT {WORD} FROM s.number;"
    "INSERT INTO s.words VALUES ('', ' ', 1.50, '{}'), ('~', '~', 1.50, '{}');"
    f"INSERT INTO s.pairs SELECT g, 'v' || g FROM s.number WHERE k <= {FEW};"
    f"INSERT INTO s.lines SELECT g, 'same ' || g, 1.50 FROM s.number, generate_series(1, {COPIES})"
    f" WHERE k <= {FEW} AND d = 0;"
    "DROP VIEW s.number;"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """A keyed table; keys are texts, in the order of the columns `key`.

    `of` gives the key of row g. `still` are the first and the last row, which lie still; nobody has
    the keys `beyond` them.
    """

    name: LiteralString
    key: tuple[str, ...]
    of: Callable[[int], tuple[str, ...]]
    still: tuple[tuple[str, ...], tuple[str, ...]]
    beyond: tuple[tuple[str, ...], tuple[str, ...]]


def _uuid(g: int) -> tuple[str]:
    return (str(uuid.UUID(hashlib.md5(str(g).encode()).hexdigest())),)


def _word(g: int) -> tuple[str, str]:
    return chr(97 + g % 26), f"w{g}"


KEYED = (
    Table(
        "s.wide", ("id",), lambda g: (str(g),),
        (("10",), (f"{TENS * 10 + 10}",)), (("-5",), (f"{TENS * 10 + 99}",)),
    ),
    Table(
        "s.uuids", ("id",), _uuid,
        (("00000000-0000-0000-0000-000000000010",), ("ffffffff-ffff-ffff-ffff-ffffffffffef",)),
        (("00000000-0000-0000-0000-000000000001",), ("ffffffff-ffff-ffff-ffff-ffffffffffff",)),
    ),
    Table("s.words", ("a", "b"), _word, (("", " "), ("~", "~")), (("", ""), ("~", "~~"))),
)  # fmt: skip

#: Every table.
NAMES = ("s.wide", "s.uuids", "s.words", "s.pairs", "s.lines", "s.counter")
