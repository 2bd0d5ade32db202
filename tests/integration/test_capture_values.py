"""Values through real Connect: what arrives is what PostgreSQL prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import psycopg
import pytest
import type_cases
from capture import UNCHANGED, Capture, Event, capture, server
from harness import Stack
from type_cases import Case, Session, lacks, printed

pytestmark = pytest.mark.stack

CASES = [*type_cases.expanded()]


def label(case: Case) -> str:
    return case.type + (f" ({case.needs})" if case.needs else "")


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the primary printed and what arrived, by table.

    `expected` holds (id, text) as the type's output function prints it; `absent` says why a case
    could not be tried on this server.
    """

    expected: dict[str, list[tuple[str | None, ...]]]
    keyed: dict[str, list[str | None]]
    toasted: dict[str, bool]
    events: dict[str, list[Event]]
    absent: dict[str, str]


@pytest.fixture(scope="module")
def exact(stack: Stack) -> Iterator[Capture]:
    with capture(stack) as fresh:
        yield fresh


def values(case: Case) -> str:
    return ", ".join(f"({n}, ({v})::{case.type})" for n, v in enumerate(case.values, 1))


@pytest.fixture(scope="module")
def seen(exact: Capture) -> Seen:
    """Insert, update and delete every value, in a table for each type; wait for it all."""
    found = Seen({}, {}, {}, {}, {})
    with server(exact.dsn) as session:
        session.autocommit = True
        session.execute(type_cases.PRELUDE.encode())
        for number, case in enumerate(CASES):
            if reason := lacks(session, case.needs):
                found.absent[f"t{number}"] = reason
            else:
                make_tables(session, number, case, found)
    exact.start()
    with server(exact.dsn) as session:
        session.autocommit = True
        for number, case in enumerate(CASES):
            if f"t{number}" not in found.absent:
                change_rows(session, number, case, found)
    for event in exact.drained(keys=True):
        if event.source and event.op != "m":
            found.events.setdefault(event.source.table, []).append(event)
    return found


def make_tables(session: Session, number: int, case: Case, found: Seen) -> None:
    """Make t for all values, b for the one out of line, k with the type as key."""
    session.execute(
        f"CREATE TABLE t{number} (id int PRIMARY KEY, v {case.type}, n int);"
        f"ALTER TABLE t{number} REPLICA IDENTITY FULL".encode()
    )
    if case.big:
        session.execute(
            f"CREATE TABLE b{number} (id int PRIMARY KEY, n int, v {case.type});"
            f"ALTER TABLE b{number} ALTER v SET STORAGE EXTERNAL".encode()
        )
    try:
        with session.transaction():
            session.execute(f"CREATE TABLE k{number} (v {case.type} PRIMARY KEY)".encode())
            value = f"({case.values[-1]})::{case.type}"
            session.execute(f"SELECT {value} < {value}".encode())
    except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedFunction):
        return  # a type without an order cannot be a key
    found.keyed[f"k{number}"] = []


def change_rows(session: Session, number: int, case: Case, found: Seen) -> None:
    table = f"t{number}"
    session.execute(f"INSERT INTO {table} VALUES {values(case)}, (99, NULL)".encode())
    found.expected[table] = printed(session, f"SELECT id, v FROM {table}")
    session.execute(f"UPDATE {table} SET n = 1".encode())
    session.execute(f"DELETE FROM {table}".encode())
    if case.big:
        toast(session, number, case, found)
    if f"k{number}" in found.keyed:
        insert_keys(session, number, case, found)


def toast(session: Session, number: int, case: Case, found: Seen) -> None:
    """Update a row beside its big value, one whose value is NULL, and one whose value changes."""
    session.execute(
        f"INSERT INTO b{number} VALUES (1, 0, ({case.big})::{case.type}), (2, 0, NULL)".encode()
    )
    size = "SELECT pg_relation_size(nullif(reltoastrelid, 0)) > 0 FROM pg_class WHERE oid = %s::regclass"
    row = session.execute(size.encode(), [f"b{number}"]).fetchone()
    found.toasted[f"b{number}"] = row == (True,)
    session.execute(f"UPDATE b{number} SET n = 1".encode())
    session.execute(f"UPDATE b{number} SET v = NULL WHERE id = 1".encode())


def insert_keys(session: Session, number: int, case: Case, found: Seen) -> None:
    session.execute(
        f"INSERT INTO k{number} SELECT v FROM (VALUES {values(case)}) AS given(n, v)"
        " WHERE v IS NOT NULL ON CONFLICT DO NOTHING".encode()
    )
    found.keyed[f"k{number}"] = [row[0] for row in printed(session, f"SELECT v FROM k{number}")]
    session.execute(f"DELETE FROM k{number}".encode())


def wire(text: str | None) -> str | None:
    return UNCHANGED + text if text and text.startswith(UNCHANGED) else text


def rows_of(events: list[Event], op: str, image: str) -> list[tuple[str | None, str | None]]:
    images = (getattr(e, image) for e in events if e.op == op)
    return sorted((i["id"], i["v"]) for i in images)


@pytest.mark.parametrize("number", range(len(CASES)), ids=[label(c) for c in CASES])
def test_values_arrive_as_printed(seen: Seen, number: int) -> None:
    """Every value of a type arrives as PostgreSQL prints it, in every image and in keys."""
    table = f"t{number}"
    if reason := seen.absent.get(table):
        pytest.skip(reason)
    events = seen.events[table]
    expected = sorted((str(n), wire(text)) for n, text in seen.expected[table])

    assert expected == rows_of(events, "c", "after")
    assert expected == rows_of(events, "u", "before")
    assert expected == rows_of(events, "u", "after")
    assert expected == rows_of(events, "d", "before")
    if f"k{number}" in seen.keyed:
        keyed = [wire(text) for text in seen.keyed[f"k{number}"]]
        for op, image in (("c", "after"), ("d", "before")):
            found = [e for e in seen.events.get(f"k{number}", []) if e.op == op]
            assert sorted(keyed, key=str) == sorted((e.key["v"] for e in found if e.key), key=str)
            assert [e.key for e in found] == [getattr(e, image) for e in found]


@pytest.mark.parametrize(
    "number",
    [n for n, case in enumerate(CASES) if case.big],
    ids=[label(case) for case in CASES if case.big],
)
def test_unchanged_values_are_marked(seen: Seen, number: int) -> None:
    """A value out of line that an update leaves alone is U+0001, and NULL stays NULL."""
    if reason := seen.absent.get(f"t{number}"):
        pytest.skip(reason)
    changes = [
        (e.after["id"], e.after["v"]) for e in seen.events[f"b{number}"] if e.op == "u" and e.after
    ]

    assert seen.toasted[f"b{number}"]
    assert [("1", UNCHANGED), ("2", None), ("1", None)] == changes


def test_every_type_has_a_case(exact: Capture, seen: Seen) -> None:
    """The cases name each type of pg_catalog that a column can have."""
    every = """
        SELECT typname FROM pg_type
        WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm')
          AND typcategory <> 'A' AND typname <> ALL (%s)"""
    tried = "SELECT DISTINCT typname FROM pg_type WHERE oid = ANY (%s::regtype[])"
    types = [c.type for n, c in enumerate(CASES) if f"t{n}" not in seen.absent or c.type == "xml"]
    vectors = {"oidvector", "int2vector"}

    missing = {name for (name,) in exact.sql(every, list(type_cases.NOT_STORABLE))} - {
        name for (name,) in exact.sql(tried, types)
    }

    assert vectors <= {c.type for c in CASES}
    assert not missing


#: Types that can be stored out of line but whose values never grow that large.
BOUNDED = {
    "char(6)", "cidr", "daterange", "domdom", "inet", "int4range", "int8range", "moneydom",
    "numdom", "numeric(10,2)", "numeric(3,6)", "numeric(5,-2)", "spandom", "tsrange", "tstzrange",
    "varbit(10)", "varchar(20)", "bit(1)", "bit(12)", "vector(3)", "halfvec(3)", "sparsevec(5)",
}  # fmt: skip


def test_every_storable_type_has_a_big_value(exact: Capture, seen: Seen) -> None:
    """Each type that can be stored out of line has a value that is, or cannot have one."""
    storage = (
        "SELECT format_type(oid, NULL) FROM pg_type WHERE oid = %s::regtype AND typstorage <> 'p'"
    )
    small = {
        case.type
        for number, case in enumerate(CASES)
        if not case.big and f"t{number}" not in seen.absent and exact.sql(storage, case.type)
    }

    assert small <= BOUNDED


@pytest.mark.usefixtures("seen")
def test_null_is_not_the_default(exact: Capture) -> None:
    """NULL stays NULL in columns with a DEFAULT, even if Connect is told to write defaults."""
    exact.sql(
        "CREATE TABLE defaults (id int PRIMARY KEY DEFAULT 7, a int DEFAULT 5, b text DEFAULT 'x',"
        " c numeric DEFAULT 1.5, d timestamptz DEFAULT now(), e boolean NOT NULL DEFAULT true,"
        " f timetz DEFAULT '12:00+02', g interval DEFAULT '1 day', h int[] DEFAULT '{1}')"
    )
    exact.start(value__converter__replace__null__with__default="true")
    exact.sql("INSERT INTO defaults VALUES (1, NULL, NULL, NULL, NULL, false, NULL, NULL, NULL)")
    exact.sql("INSERT INTO defaults (d) VALUES ('infinity')")
    exact.sql("UPDATE defaults SET a = NULL, b = NULL, h = NULL WHERE id = 7")

    images = [e.after for e in exact.drained() if e.source and e.source.table == "defaults"]

    empty = dict.fromkeys("abcdfgh")
    given = {"c": "1.5", "d": "infinity", "e": "t", "f": "12:00:00+02", "g": "1 day"}
    assert images == [
        {"id": "1", **empty, "e": "f"},
        {"id": "7", **given, "a": "5", "b": "x", "h": "{1}"},
        {"id": "7", **given, "a": None, "b": None, "h": None},
    ]
