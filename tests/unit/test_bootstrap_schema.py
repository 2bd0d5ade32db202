"""How an archive's table of contents is read, and what a table needs of it."""

from __future__ import annotations

import pytest

from cdc import counterparts, schema_load
from cdc.names import TableName
from cdc.tables import Column, Table

#: As pg_restore 15 prints it, shortened.
LISTING = """\
;
; Archive created at 2026-11-22 19:23:46 UTC
;     dbname: app
;
3426; 0 0 ENCODING - ENCODING
3429; 1262 16385 DATABASE - app cdc
6; 2615 16399 SCHEMA - Mixed Case cdc
854; 1247 16401 TYPE Mixed Case mood cdc
;\tdepends on: 6
228; 1255 16451 FUNCTION public f() cdc
220; 1259 16417 TABLE Mixed Case T 1 cdc
;\tdepends on: 6 854
3430; 0 0 COMMENT Mixed Case TABLE "T 1" cdc
;\tdepends on: 220
219; 1259 16416 SEQUENCE Mixed Case T 1_s_seq cdc
;\tdepends on: 6 220
3431; 0 0 SEQUENCE OWNED BY Mixed Case T 1_s_seq cdc
;\tdepends on: 219
215; 1259 16386 TABLE public big cdc
221; 1259 16433 TABLE public ev cdc
222; 1259 16438 TABLE public ev1 cdc
;\tdepends on: 221
3244; 0 0 TABLE ATTACH public ev1 cdc
;\tdepends on: 222 221
3257; 2606 16426 CONSTRAINT Mixed Case T 1 T 1_pkey cdc
;\tdepends on: 220
3262; 1259 16449 INDEX public ev1_d_idx cdc
;\tdepends on: 222 3261 222
3261; 1259 16448 INDEX public evi cdc
;\tdepends on: 221
3271; 0 0 INDEX ATTACH public ev1_d_idx cdc
;\tdepends on: 3262 3261 222 221
3277; 2620 16452 TRIGGER public big tr cdc
;\tdepends on: 228 215
3276; 2606 16427 FK CONSTRAINT Mixed Case T 1 T 1_p_fkey cdc
;\tdepends on: 220
3432; 0 0 COMMENT Mixed Case CONSTRAINT "T 1_p_fkey" ON "T 1" cdc
;\tdepends on: 3276
3433; 0 0 COMMENT - EXTENSION citext
3440; 6104 16480 PUBLICATION - pp cdc
3441; 3466 16490 EVENT TRIGGER - e cdc
3442; 1418 16491 USER MAPPING - USER MAPPING cdc SERVER s cdc
"""


def test_contents_are_read_with_kinds_oids_and_dependencies() -> None:
    """Kinds of several words, names with spaces and dependencies come out whole."""
    by_number = {e.number: e for e in schema_load.parse(LISTING)}

    assert ("INDEX ATTACH", 0, (3262, 3261, 222, 221)) == (
        by_number[3271].kind, by_number[3271].oid, by_number[3271].depends,
    )  # fmt: skip
    assert ("TABLE", 1259, 16417) == (
        by_number[220].kind, by_number[220].catalog, by_number[220].oid,
    )  # fmt: skip


def test_what_must_not_be_restored_is_left_out() -> None:
    """Publications, event triggers, user mappings, foreign keys and comments on them stay away."""
    kinds = {e.kind for e in schema_load.parse(LISTING)}
    numbers = {e.number for e in schema_load.parse(LISTING)}

    assert not kinds & {
        "DATABASE", "EVENT TRIGGER", "FK CONSTRAINT", "PUBLICATION", "USER MAPPING",
    }  # fmt: skip
    assert not numbers & {3432, 3433}
    assert 3430 in numbers


@pytest.mark.parametrize(
    ("oids", "expected"),
    [
        ({16417}, {6, 854, 220, 3430, 219, 3431, 3257}),
        ({16386}, {228, 215, 3277}),
        ({16438, 16433}, {221, 222, 3244, 3262, 3261, 3271}),
    ],
)
def test_a_table_brings_its_parts_and_what_they_need(oids: set[int], expected: set[int]) -> None:
    """Types, schemas, sequences, indexes and trigger functions come along, other tables do not."""
    found = schema_load.for_tables(schema_load.parse(LISTING), oids)

    assert expected == {e.number for e in found}


def _table(
    *columns: tuple[str, str, str], key: tuple[str, ...] = ("id",), kind: str = "r"
) -> Table:
    return Table(
        oid=1,
        name=TableName("public", "t"),
        kind=kind,  # type: ignore[arg-type]  # one of the three letters
        persistence="p",
        replica_identity="d",
        row_security=False,
        parent=None,
        key=key,
        key_immediate=True,
        index=(),
        columns=tuple(
            Column(n, t, not_null=False, identity="", generated=g) for n, t, g in columns
        ),
    )


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (None, ["it does not exist there"]),
        (_table(("b", "text", ""), ("id", "integer", "")), []),
        (_table(("id", "bigint", ""), ("b", "text", "")), ["the column id is bigint, not integer"]),
        (_table(("id", "integer", "")), ["the column b is missing"]),
        (
            _table(("id", "integer", ""), ("b", "text", "s")),
            ["the column b is generated on one end only"],
        ),
        (
            _table(("id", "integer", ""), ("b", "text", ""), ("c", "text", "")),
            ["the column c is there only"],
        ),
        (
            _table(("id", "integer", ""), ("b", "text", ""), key=("b",)),
            ["its rows are known by the key (b), not by the key (id)"],
        ),
    ],
)
def test_differences_between_tables_are_named(here: Table | None, expected: list[str]) -> None:
    """A replica's table that cannot take the rows is described column by column."""
    there = _table(("id", "integer", ""), ("b", "text", ""))

    assert expected == counterparts.differences(there, here, with_key=True)


def test_a_server_is_not_told_of_settings_that_it_does_not_have() -> None:
    """Only the head of a script is about the session; what stands in a function is the function's."""
    head = (
        b"--\n-- PostgreSQL database dump\n--\n\n\\restrict x\n\nSET statement_timeout = 0;\n"
        b"SET transaction_timeout = 0;\nSELECT pg_catalog.set_config('search_path', '', false);\n\n"
    )
    body = b"CREATE FUNCTION f() AS $$\r\n\nSET transaction_timeout = 0;\n$$;\n\n\\unrestrict x\n"
    without = head.replace(b"SET transaction_timeout = 0;\n", b"")

    assert without + body == schema_load.understood(head + body, {"statement_timeout"})
    both = {"statement_timeout", "transaction_timeout"}
    assert head + body == schema_load.understood(head + body, both)
