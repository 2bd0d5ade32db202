"""A row as one 64-bit hash, computed by the server; the same value on both ends.

Each column goes through PostgreSQL's 64-bit lookup3 hash with the hash of the column before it as its
seed, so that the result depends on every value and on its place: numbers, uuids and times as they are
stored, all others as PostgreSQL prints them, a NULL by a flag of its own. Where servers disagree on
that hash, and where it is asked for, it is sha256 over all values together. What each costs, and what
was not taken: docs/decisions.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, LiteralString

import psycopg
from psycopg import sql

Hash = Literal["lookup3", "sha256"]

#: Of the hash as it is made here: what a run has left open under another one cannot be gone on with.
VERSION = 2

#: How a column {0} is hashed with the seed {1}, by its type, where that costs less than to print it and
#: tells apart no two values that are printed alike. Of a bigint PostgreSQL's hash keeps 32 bits, so its
#: upper half is hashed as well.
_STORED: dict[str, LiteralString] = {
    "smallint": "hashint4extended(coalesce({0}::int4, 0), {1})",
    "integer": "hashint4extended(coalesce({0}, 0), {1})",
    "bigint": "hashint8extended(coalesce({0}, 0),"
    " hashint4extended(coalesce({0} >> 32, 0)::int4, {1}))",
    "boolean": "hashint4extended(coalesce({0}::int4, 0), {1})",
    "uuid": "uuid_hash_extended(coalesce({0}, '00000000-0000-0000-0000-000000000000'), {1})",
    "bytea": "hash_array_extended(ARRAY[coalesce({0}, '')], {1})",
    "date": "hash_array_extended(ARRAY[coalesce(date_send({0}), '')], {1})",
    "time": "hash_array_extended(ARRAY[coalesce(time_send({0}), '')], {1})",
    "timestamp": "hash_array_extended(ARRAY[coalesce(timestamp_send({0}), '')], {1})",
    "timestamptz": "hash_array_extended(ARRAY[coalesce(timestamptz_send({0}), '')], {1})",
    "text": "hashtextextended(coalesce({0}, '') COLLATE \"C\", {1})",
    "varchar": "hashtextextended(coalesce({0}, '') COLLATE \"C\", {1})",
}

#: Of every other type. concat prints as the stream does, by the type's output function, and NULL as '';
#: a cast to text may take something away: the blanks at the end of a char(n).
_PRINTED: LiteralString = 'hashtextextended(concat({0}) COLLATE "C", {1})'

#: Columns whose hashes lie one in another: an integer has a flag for each, and the server's stack is not
#: deep enough for the 1,600 columns that a table may have.
_DEEP = 30

#: A row `t` that all servers must hash alike which are compared by lookup3, and its columns.
_KNOWN: LiteralString = """(SELECT 1::int2 AS a, -2 AS b, -3000000000 AS c, true AS d,
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid AS e, '\\x00ff'::bytea AS f, '2024-02-29'::date AS g,
    '12:00'::time AS h, '2024-02-29 12:00'::timestamp AS i, '2024-02-29 12:00+00'::timestamptz AS j,
    'Grüße'::text AS k, NULL::varchar AS l, 1.50 AS m, 'NaN'::float8 AS n, '{1,NULL}'::int4[] AS o,
    '{"a": 1}'::jsonb AS p) AS t"""
_KINDS = (*_STORED, *["printed"] * 4)

#: As format_type prints them, without a precision.
_SHORT = {
    "character varying": "varchar",
    "time without time zone": "time",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
}


def of_row(columns: Sequence[tuple[str, str]], hashed: Hash) -> sql.Composed:
    """Return the hash of the row `t`, a bigint, from the names and types of its columns.

    The types are as format_type prints them; "" is one that is to be hashed as it is printed.
    """
    if hashed == "sha256":
        row = sql.SQL("ROW({})").format(sql.SQL(", ").join(_value(*c) for c in columns))
        return sql.SQL(
            "('x' || left(encode(sha256(record_send({})), 'hex'), 16))::bit(64)::bigint"
        ).format(row)
    if not columns:  # of rows without any, only the number counts
        return sql.SQL("0::bigint").format()
    parts = [_part(columns[at : at + _DEEP]) for at in range(0, len(columns), _DEEP)]
    if len(parts) == 1:
        return parts[0]
    return sql.SQL("hashtextextended(concat_ws(' ', {}) COLLATE \"C\", 0)").format(
        sql.SQL(", ").join(parts)
    )


def printed(name: str) -> sql.Composed:
    """Return a column of the row `t` as its type's output function prints it, NULL where it is NULL."""
    # IS NULL would also be true of a composite value that has nothing but NULLs.
    return sql.SQL("CASE WHEN num_nulls({0}) = 0 THEN concat({0}) END").format(_column(name))


def choose(ends: Sequence[psycopg.Connection[Any]]) -> Hash:
    """Return lookup3 where all servers hash a known row alike by it: it depends on byte order."""
    columns = [(chr(ord("a") + at), kind) for at, kind in enumerate(_KINDS)]
    probe = sql.SQL("SELECT {} FROM {}").format(of_row(columns, "lookup3"), sql.SQL(_KNOWN))
    return chosen([conn.execute(probe).fetchone() for conn in ends])


def chosen(answers: Collection[object]) -> Hash:
    """Return the hash to use after what each server made of the known row."""
    return "lookup3" if len(set(answers)) == 1 else "sha256"


def _part(columns: Sequence[tuple[str, str]]) -> sql.Composed:
    """Return the hash of some columns, each the seed of the next, the first one's their NULLs."""
    hashed = _nulls(columns)
    for name, kind in columns:
        hashed = sql.SQL(_STORED.get(_plain(kind), _PRINTED)).format(_column(name), hashed)
    return hashed


def _nulls(columns: Sequence[tuple[str, str]]) -> sql.Composed:
    """Return which of the columns are NULL, one bit of an integer each; most rows have few."""
    return sql.SQL("CASE WHEN num_nulls({}) = 0 THEN 0 ELSE {} END").format(
        sql.SQL(", ").join(_column(name) for name, _ in columns),
        # Where one end has a composite value and the other its text, IS NULL would not say the same.
        sql.SQL(" + ").join(
            sql.SQL("num_nulls({}) * {}").format(_column(name), sql.Literal(1 << at))
            for at, (name, _) in enumerate(columns)
        ),
    )


def _value(name: str, kind: str) -> sql.Composed:
    """Return a column as it is where its binary form is one for each that is printed, else printed."""
    return _column(name) if _plain(kind) in _STORED else printed(name)


def _column(name: str) -> sql.Composed:
    return sql.SQL("t.{}").format(sql.Identifier(name))


def _plain(kind: str) -> str:
    """Return a type without its precision: timestamp(3) with time zone is timestamptz."""
    before, _, after = kind.partition("(")
    name = before + after.partition(")")[2] if after else kind
    return _SHORT.get(name, name)
