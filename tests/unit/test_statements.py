"""The SQL that writes rows, as text."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from cdc import shadow, statements
from cdc.catalog import Table
from cdc.names import TableName

TABLE = Table(TableName("s", 'T"q'), ("a", "b%", "c", "n"), ("a", "b%"), frozenset({"n"}))
STAGE = sql.Identifier("pg_temp", "stage")


def test_rows_are_deleted_by_the_whole_key() -> None:
    """A staged delete joins on every key column and never reaches inheritance children."""
    assert (
        'DELETE FROM ONLY "s"."T""q" AS t USING "pg_temp"."stage" AS s'
        ' WHERE t."a" = s."a" AND t."b%" = s."b%"'
    ) == statements.delete_staged(TABLE, STAGE).as_string()


def test_a_key_is_compared_by_its_index_s_operator() -> None:
    """A type whose `=` lies outside pg_catalog (citext) is found by its index, not as text."""
    table = dataclasses.replace(TABLE, key=("a",), equality={"a": ("my ext", "=")})

    assert (
        'DELETE FROM ONLY "s"."T""q" AS t USING "pg_temp"."stage" AS s'
        ' WHERE t."a" OPERATOR("my ext".=) s."a"'
    ) == statements.delete_staged(table, STAGE).as_string()
    assert (
        'DELETE FROM ONLY "s"."T""q" WHERE "a" OPERATOR("my ext".=) $1'
    ) == statements.delete_one(table).as_string()


def test_rows_without_a_key_are_found_by_their_text() -> None:
    """As many rows of an image go as are staged; an index on columns never null leads to them."""
    table = dataclasses.replace(TABLE, columns=("a", "c"), key=(), lookup=("c",))

    assert (
        'WITH asked AS (SELECT ROW("s"."a", "s"."c")::text, s."c", count(*)'
        ' FROM "pg_temp"."stage" AS s GROUP BY ROW("s"."a", "s"."c")::text, s."c"),'
        " numbered (number, image, k0, times) AS (SELECT row_number() OVER (), asked.* FROM asked)"
        ' DELETE FROM ONLY "s"."T""q" WHERE ctid = ANY (ARRAY('
        "SELECT place FROM (SELECT t.ctid AS place, a.times,"
        " row_number() OVER (PARTITION BY a.number) AS nth"
        ' FROM ONLY "s"."T""q" AS t JOIN numbered AS a'
        ' ON ROW("t"."a", "t"."c")::text = a.image AND t."c" = a.k0) AS f WHERE nth <= times))'
    ) == statements.delete_images(table, STAGE, ("a", "c")).as_string()


def test_an_update_sets_what_it_may() -> None:
    """A staged update leaves the key and GENERATED ALWAYS identity columns alone."""
    assert (
        'UPDATE ONLY "s"."T""q" AS t SET "c" = s."c" FROM "pg_temp"."stage" AS s'
        ' WHERE t."a" = s."a" AND t."b%" = s."b%"'
    ) == statements.update_staged(TABLE, STAGE, TABLE.columns).as_string()


def test_a_row_of_key_columns_alone_is_still_rewritten() -> None:
    """Where nothing but the key is given, the key is what an update sets: the row gets a version."""
    assert ["a", "b%"] == statements.updatable(TABLE, ["a", "b%"])


def test_identity_values_are_written_as_they_are() -> None:
    """An insert brings the primary's identity values."""
    assert (
        'INSERT INTO "s"."T""q" ("a", "b%", "c", "n") OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4)'
    ) == statements.insert_one(TABLE).as_string()


def test_a_row_is_replaced_with_what_is_kept() -> None:
    """Replacing a row takes the values that are not given from the row it replaces."""
    assert (
        'WITH old AS (DELETE FROM ONLY "s"."T""q" WHERE "a" = $2 AND "b%" = $3 RETURNING *)'
        ' INSERT INTO "s"."T""q" ("a", "b%", "c", "n") OVERRIDING SYSTEM VALUE'
        ' SELECT old."a", old."b%", old."c", $1 FROM old'
    ) == statements.rewrite_one(TABLE, ["n"]).as_string()


SHADOW = TableName("cdc", "refill")


def test_rows_that_differ_are_exchanged_by_key() -> None:
    """What the shadow has not exactly so goes, then what is lacking comes, identity values as they are."""
    assert (
        'DELETE FROM ONLY "s"."T""q" AS t WHERE NOT EXISTS (SELECT FROM "cdc"."refill" AS s'
        ' WHERE t."a" = s."a" AND t."b%" = s."b%"'
        ' AND ROW("t"."a", "t"."b%", "t"."c", "t"."n")::record'
        ' *= ROW("s"."a", "s"."b%", "s"."c", "s"."n")::record)'
    ) == shadow.delete_differing(TABLE, SHADOW).as_string()
    assert (
        'INSERT INTO "s"."T""q" ("a", "b%", "c", "n") OVERRIDING SYSTEM VALUE'
        ' SELECT "a", "b%", "c", "n" FROM "cdc"."refill" AS s'
        ' WHERE NOT EXISTS (SELECT FROM ONLY "s"."T""q" AS t WHERE t."a" = s."a" AND t."b%" = s."b%")'
    ) == shadow.insert_lacking(TABLE, SHADOW).as_string()


def test_rows_without_a_key_are_exchanged_whole() -> None:
    """Where nothing tells which row is which, all go and all come."""
    keyless = dataclasses.replace(TABLE, key=())

    assert 'DELETE FROM ONLY "s"."T""q"' == shadow.delete_differing(keyless, SHADOW).as_string()
    assert " WHERE " not in shadow.insert_lacking(keyless, SHADOW).as_string()


def test_truncated_tables_go_in_one_statement() -> None:
    """Tables that refer to each other are emptied together, without their children."""
    names = [TableName("s", "a"), TableName("s", "b")]

    assert 'TRUNCATE ONLY "s"."a", ONLY "s"."b"' == statements.truncate(names).as_string()


def read_copy_text(data: bytes) -> list[list[str | None]]:
    """Read COPY's text format as the PostgreSQL manual describes it, independently of its writer."""
    escapes = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    rows: list[list[str | None]] = []
    for line in data.decode().split("\n")[:-1]:
        row: list[str | None] = []
        for field in line.split("\t"):
            if field == "\\N":
                row.append(None)
                continue
            parts, at = [], 0
            while at < len(field):
                if field[at] == "\\":
                    parts.append(escapes[field[at + 1]])
                    at += 2
                else:
                    parts.append(field[at])
                    at += 1
            row.append("".join(parts))
        rows.append(row)
    return rows


values = st.none() | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1))
def test_copy_text_reads_back_as_written(rows: list[list[str | None]]) -> None:
    """Every text, NULL and empty string comes back from COPY's format as it was."""
    assert rows == read_copy_text(b"".join(statements.copy_text(rows)))


def test_large_values_are_escaped_as_small_ones_are() -> None:
    """Rows of any size, in any order, come back as they were."""
    large = "\\N\n\r\t\U0001f600" * 20_000
    rows: list[list[str | None]] = [
        ["a", None],
        [large, None],
        [None, "\\"],
        *[["b", None]] * 500,
        ["", large],
    ]

    assert rows == read_copy_text(b"".join(statements.copy_text(rows)))
