"""The hash of a row, on a real server: as fine as what PostgreSQL prints, and no finer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import type_cases
from harness import Stack
from psycopg import sql
from type_cases import Case, Session, lacks, printed

from cdc import postgres
from cdc.verify import hashing
from cdc.verify.hashing import Hash

pytestmark = [pytest.mark.stack, pytest.mark.parametrize("hashed", ["lookup3", "sha256"])]


@pytest.fixture
def session(stack: Stack) -> Iterator[Session]:
    """Give a session with the settings of `cdc-verify`; what it makes goes with it."""
    with closing(postgres.connect(stack.primary, "test")) as conn:
        conn.prepare_threshold = None  # the same statements meet tables of other types
        conn.execute("CREATE SCHEMA hashed")
        conn.execute("SET LOCAL search_path = hashed, public, pg_catalog")
        yield conn
        conn.rollback()


def hashes(session: Session, rows: str, *kinds: str, hashed: Hash) -> list[object]:
    """Return the hash of each row of a VALUES list whose columns are c0, c1 and so on."""
    columns = [(f"c{at}", kind) for at, kind in enumerate(kinds)]
    query = sql.SQL("SELECT {} FROM (VALUES {}) AS t ({})").format(
        hashing.of_row(columns, hashed),
        sql.SQL(rows),
        sql.SQL(", ").join(sql.Identifier(name) for name, _ in columns),
    )
    return [row[0] for row in session.execute(query)]


def told_apart(session: Session, case: Case, hashed: Hash) -> list[tuple[str | None, ...]]:
    """Return each value as PostgreSQL prints it, with its hash and what is told of it; NULL is one of them."""
    session.execute(f"CREATE TEMPORARY TABLE v (v {case.type})".encode())
    for value in (*case.values, "NULL"):
        session.execute(f"INSERT INTO v SELECT ({value})::{case.type}".encode())
    session.execute("SET LOCAL search_path = pg_catalog")
    ((kind,),) = session.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = 'pg_temp.v'::regclass AND attname = 'v'"
    )
    query = sql.SQL("SELECT v, {}, {} FROM pg_temp.v AS t").format(
        hashing.of_row([("v", str(kind))], hashed), hashing.printed("v")
    )
    found = printed(session, query.as_string())
    session.execute("DROP TABLE pg_temp.v")
    session.execute("SET LOCAL search_path = hashed, public, pg_catalog")
    return found


def test_values_have_one_hash_each_as_they_are_printed(session: Session, hashed: Hash) -> None:
    """Of every type: two values have the same hash if, and only if, PostgreSQL prints the same."""
    session.execute(type_cases.PRELUDE.encode())
    seen = 0
    for case in type_cases.expanded():
        if lacks(session, case.needs):
            continue
        found = told_apart(session, case, hashed)
        seen += len(found)
        assert [value for value, _, _ in found] == [told for _, _, told in found]
        texts, sums = {value for value, _, _ in found}, {value for _, value, _ in found}
        assert len(texts) == len(sums) == len({(v, h) for v, h, _ in found}), (case.type, found)
    assert seen > 500


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ("(NULL, ''), ('', NULL), ('', ''), (NULL, NULL)", ("text", "text")),
        ("('a', 'b'), ('b', 'a'), ('ab', ''), ('', 'ab')", ("text", "character varying(9)")),
        ("(0, NULL), (NULL, 0), (0, 0), (NULL, NULL)", ("integer", "integer")),
        ("(1::int8), (4294967296), (-1), (-4294967297), (0), (4294967297)", ("bigint",)),
        ("('a'::bpchar), ('a '), ('a  ')", ("bpchar",)),
        ("(1.0, 1.00), (1.00, 1.0), (1.0, 1.0)", ("numeric", "numeric")),
        ("(true, false), (false, true), (NULL, false)", ("boolean", "boolean")),
    ],
)
def test_each_value_counts_in_its_place(
    session: Session, hashed: Hash, rows: str, kinds: tuple[str, ...]
) -> None:
    """Values that changed places, moved over a border, became NULL or differ in a high half differ."""
    found = hashes(session, rows, *kinds, hashed=hashed)

    assert len(set(found)) == len(found) > 1


def test_a_row_may_have_as_many_columns_as_a_table(session: Session, hashed: Hash) -> None:
    """Of 1,600 columns each one counts, the last as the first."""
    columns = [(f"c{at}", "text" if at % 2 else "smallint") for at in range(1600)]
    listed = ", ".join(f"{name} {kind}" for name, kind in columns)
    session.execute(f"CREATE TEMPORARY TABLE broad ({listed})".encode())
    query = sql.SQL("SELECT {} FROM broad AS t").format(hashing.of_row(columns, hashed))
    found = []
    for name, value in ((None, ""), ("c0", "1"), ("c1599", "'x'"), ("c800", "2")):
        insert = (
            f"INSERT INTO broad ({name}) VALUES ({value})"
            if name
            else "INSERT INTO broad DEFAULT VALUES"
        )
        session.execute(insert.encode())
        found += [row[0] for row in session.execute(query)]
        session.execute("TRUNCATE broad")

    assert 4 == len(set(found))


def test_a_composite_value_and_its_text_have_one_hash(session: Session, hashed: Hash) -> None:
    """Where a column is of another type at one end, what is printed alike is alike, NULLs within too."""
    composite = hashes(
        session, "(ROW(NULL::int, NULL::int), NULL::int)", "", "integer", hashed=hashed
    )
    text = hashes(session, "('(,)'::text, NULL::int)", "", "integer", hashed=hashed)

    assert composite == text
