"""What is done to replicas behind their daemons' backs, and what a verification must say of it.

A seed draws everything. Imports nothing of the package under test.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

import psycopg
from rows import FEW, KEYED, TENS, Table

#: A finding's replica, table, kind, key (column and text) and number of rows.
Found = tuple[str, str, str, tuple[tuple[str, str | None], ...], int]


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """Statements for one replica, each of which changes one row, and the findings they make.

    `expected` maps each finding to the columns that differ, none for a missing or extra row. `places` are
    the rows that are touched: no other fault may be there.
    """

    what: str
    replica: str
    statements: tuple[tuple[LiteralString, Mapping[str, Any]], ...]
    expected: Mapping[Found, frozenset[str]]
    places: frozenset[tuple[str, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Change:
    """A column changed by the least that its type knows.

    `tens` of a row, modulo four, say where its value is one that can be changed so.
    """

    what: str
    table: Table
    column: LiteralString
    value: LiteralString
    tens: tuple[int, ...] = (0, 1, 2, 3)


_WIDE, _UUIDS, _WORDS = KEYED

CHANGES = (
    _Change("trailing space", _WIDE, "note", "note || ' '", (2, 3)),
    _Change("empty for NULL", _WIDE, "note", "''", (0,)),
    _Change("NULL for empty", _WIDE, "note", "NULL", (1,)),
    _Change("one more", _WIDE, "n", "n + 1"),
    _Change("upper case", _WIDE, "status", "upper(status)"),
    _Change("another normal form", _WIDE, "status", "normalize(status, NFD)"),
    _Change("a digit of scale", _WIDE, "amount", "(amount::text || '0')::numeric"),
    _Change("a cent", _WIDE, "amount", "amount + 0.01"),
    _Change("a letter", _WIDE, "code", "'ac'"),
    _Change("a microsecond", _WIDE, "at", "at + interval '1 us'"),
    _Change("a microsecond less", _WIDE, "changed", "changed - interval '1 us'"),
    _Change("a key more", _WIDE, "doc", """doc || '{"c": null}'"""),
    _Change("a key less", _WIDE, "doc", "doc - 'b'"),
    _Change("a number's scale within", _WIDE, "doc", "jsonb_set(doc, '{b}', '1.0')"),
    _Change("the other truth", _WIDE, "flag", "NOT flag"),
    _Change("a digit", _WIDE, "token", "translate(token::text, '0123456789', '1234567890')::uuid"),
    _Change("negative zero", _WIDE, "f", "'-0'", (0,)),
    _Change("the next double", _WIDE, "f", "f * (1 + 2.220446049250313e-16::float8)", (1, 2, 3)),
    _Change("NULL's name", _WIDE, "tags", "ARRAY['x', 'NULL', tags[3]]"),
    _Change("an array's bounds", _WIDE, "tags", "('[0:2]=' || tags::text)::text[]"),
    _Change("trailing space by uuid", _UUIDS, "v", "v || ' '"),
    _Change("a microsecond by uuid", _UUIDS, "at", "at + interval '1 us'"),
    _Change("a digit of scale by words", _WORDS, "c", "(c::text || '0')::numeric"),
    _Change("a blank in json", _WORDS, "d", "(d::text || ' ')::json"),
)

_WHERE: Mapping[str, LiteralString] = {
    "s.wide": " WHERE id = %(id)s::bigint",
    "s.uuids": " WHERE id = %(id)s::uuid",
    "s.words": " WHERE (a, b) = (%(a)s, %(b)s)",
}

#: Rows that the primary never had.
_SURPLUS: Mapping[str, LiteralString] = {
    "s.wide": "INSERT INTO s.wide (id) VALUES (%(id)s::bigint)",
    "s.uuids": "INSERT INTO s.uuids VALUES (%(id)s::uuid)",
    "s.words": "INSERT INTO s.words VALUES (%(a)s, %(b)s)",
}


def batches(seed: int, replicas: Sequence[str], count: int, size: int) -> Iterator[list[Fault]]:
    """Yield `count` faults, `size` at a time, no two of a batch at the same place.

    Every kind comes before any comes again.
    """
    chance = random.Random(seed)
    deck: list[str] = []
    while count > 0:
        batch: list[Fault] = []
        taken: set[tuple[str, ...]] = set()
        while len(batch) < min(size, count):
            if not deck:
                deck = chance.sample(list(KINDS), len(KINDS))
            what = deck.pop()
            fault = KINDS[what](what, chance, chance.choice(replicas))
            if fault.places & taken:
                deck.insert(0, what)
                continue
            taken |= fault.places
            batch.append(fault)
        count -= len(batch)
        yield batch


def inject(conn: psycopg.Connection[Any], fault: Fault) -> None:
    """Spoil a replica as somebody might who should not; all of its statements must hit one row."""
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        for statement, given in fault.statements:
            done = conn.execute(statement, given).rowcount
            assert done == 1, f"{fault.what}: {statement} {given} changed {done} rows"


def _changed(change: _Change, what: str, chance: random.Random, replica: str) -> Fault:
    tens = chance.randrange(TENS // 4) * 4 + chance.choice(change.tens)
    return _different(change, what, replica, change.table.of(10 * (tens or 4)))


def _changed_at(change: _Change, end: int, what: str, _: random.Random, replica: str) -> Fault:
    return _different(change, what, replica, change.table.still[end])


def _different(change: _Change, what: str, replica: str, key: tuple[str, ...]) -> Fault:
    table = change.table
    statement = f"UPDATE {table.name} SET {change.column} = {change.value}" + _WHERE[table.name]
    return _keyed(
        what, replica, table, "different", key=key, statement=statement, columns={change.column}
    )


def _missing(
    table: Table, end: int | None, what: str, chance: random.Random, replica: str
) -> Fault:
    key = table.of(_still(chance)) if end is None else table.still[end]
    statement = f"DELETE FROM {table.name}" + _WHERE[table.name]
    return _keyed(what, replica, table, "missing", key=key, statement=statement)


def _extra(table: Table, end: int | None, what: str, chance: random.Random, replica: str) -> Fault:
    key = table.of(_still(chance) + 7) if end is None else table.beyond[end]
    return _keyed(what, replica, table, "extra", key=key, statement=_SURPLUS[table.name])


def _keyed(
    what: str,
    replica: str,
    table: Table,
    kind: str,
    *,
    key: tuple[str, ...],
    statement: LiteralString,
    columns: Collection[str] = (),
) -> Fault:
    given = dict(zip(table.key, key, strict=True))
    return Fault(
        what,
        replica,
        ((statement, given),),
        {(replica, table.name, kind, tuple(given.items()), 1): frozenset(columns)},
        frozenset({(replica, table.name, *key)}),
    )


def _swap(what: str, chance: random.Random, replica: str) -> Fault:
    table, tens = ("s.pairs", FEW) if what == SWAPS[2] else ("s.wide", TENS)
    one, other = (10 * k for k in chance.sample(range(2, tens), 2))
    given = {"one": one, "other": other}
    statements: tuple[LiteralString, ...]
    match what:
        case "two values swapped":
            columns = {"token"}
            statements = tuple(
                f"UPDATE s.wide SET token = md5('t' || %({theirs})s::int)::uuid WHERE id = %({mine})s"
                for mine, theirs in (("one", "other"), ("other", "one"))
            )
        case "two rows swapped":
            columns = {"n", "amount", "at", "changed", "note", "doc", "flag", "token", "f", "tags"}
            # Two neighbours whose other columns all differ.
            one = chance.randrange(TENS // 12) * 120 + 20
            other = one + 10
            given = {"one": one, "other": other}
            statements = (
                "UPDATE s.wide SET id = -1 WHERE id = %(one)s",
                "UPDATE s.wide SET id = %(one)s WHERE id = %(other)s",
                "UPDATE s.wide SET id = %(other)s WHERE id = -1",
            )
        case _:
            columns = {"v"}
            statements = (
                "UPDATE s.pairs SET v = 'none' WHERE id = %(one)s",
                "UPDATE s.pairs SET v = 'v' || %(one)s::int WHERE id = %(other)s",
                "UPDATE s.pairs SET v = 'v' || %(other)s::int WHERE id = %(one)s",
            )
    return Fault(
        what,
        replica,
        tuple((statement, given) for statement in statements),
        {
            (replica, table, "different", (("id", str(g)),), 1): frozenset(columns)
            for g in (one, other)
        },
        frozenset((replica, table, str(g)) for g in (one, other)),
    )


def _lines(what: str, chance: random.Random, replica: str) -> Fault:
    g = chance.randrange(1, FEW + 1) * 10
    row = {"a": str(g), "b": f"same {g}", "c": "1.50"}
    one_of_them: LiteralString = (
        " WHERE ctid = (SELECT min(ctid) FROM s.lines WHERE a = %(a)s::int AND b = %(b)s)"
    )
    missing = (replica, "s.lines", "missing", tuple(row.items()), 1)
    expected: tuple[Found, ...]
    statement: LiteralString
    match what:
        case "a row too many of several":
            statement = "INSERT INTO s.lines VALUES (%(a)s::int, %(b)s, 1.50)"
            expected = ((replica, "s.lines", "extra", tuple(row.items()), 1),)
        case "a row too few of several":
            statement = "DELETE FROM s.lines" + one_of_them
            expected = (missing,)
        case _:
            statement = "UPDATE s.lines SET c = 1.500" + one_of_them
            changed = row | {"c": "1.500"}
            expected = (missing, (replica, "s.lines", "extra", tuple(changed.items()), 1))
    return Fault(
        what,
        replica,
        ((statement, row),),
        dict.fromkeys(expected, frozenset()),
        frozenset({(replica, "s.lines", str(g))}),
    )


def _still(chance: random.Random) -> int:
    return chance.randrange(2, TENS) * 10


SWAPS = ("two values swapped", "two rows swapped", "two unique values swapped")
LINES = ("a row too many of several", "a row too few of several", "one of several otherwise")

#: Changes that fit every row of their table.
_ANYWHERE = [
    change
    for change in CHANGES
    if change.what in ("the other truth", "trailing space by uuid", "a digit of scale by words")
]

_ENDS = {"somewhere": None, "first": 0, "last": 1}

#: Every kind there is: what draws one for a replica.
KINDS: dict[str, Callable[[str, random.Random, str], Fault]] = {
    **{change.what: partial(_changed, change) for change in CHANGES},
    **{
        f"{kind} {place} {table.name}": partial(draw, table, end)
        for kind, draw in (("missing", _missing), ("extra", _extra))
        for table in KEYED
        for place, end in _ENDS.items()
    },
    **{
        f"{change.what} {place}": partial(_changed_at, change, end)
        for change in _ANYWHERE
        for place, end in _ENDS.items()
        if end is not None
    },
    **dict.fromkeys(SWAPS, _swap),
    **dict.fromkeys(LINES, _lines),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Judgement:
    """What a verification said against what is true: everything is empty where it was right.

    `missed` faults were not told, `false` findings are no faults, `wrong` ones name other columns.
    """

    missed: tuple[str, ...]
    false: tuple[Found, ...]
    wrong: tuple[Found, ...]


def judge(
    findings: Collection[Mapping[str, Any]], faults: Sequence[Fault], optional: Collection[Found]
) -> Judgement:
    """Compare the findings of a report with the faults; `optional` ones may have been healed."""
    said = {found(one): frozenset(one["columns"]) for one in findings}
    true = {key: columns for fault in faults for key, columns in fault.expected.items()}
    assert len(true) == sum(len(fault.expected) for fault in faults)
    return Judgement(
        tuple(
            f"{fault.what}: {key}" for fault in faults for key in fault.expected if key not in said
        ),
        tuple(key for key in said if key not in true and key not in optional),
        tuple(
            key
            for key, columns in true.items()
            if key[2] == "different" and said.get(key, columns) != columns
        ),
    )


def found(finding: Mapping[str, Any]) -> Found:
    """Return what a finding of the report is about."""
    key = tuple(finding["key"].items())
    return finding["replica"], finding["table"], finding["kind"], key, finding["count"]
