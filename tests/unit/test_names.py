"""Names of tables in Python, in SQL and for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc import names
from cdc.names import TableName

IDENTIFIERS = st.text(
    st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), min_size=1
)


@given(IDENTIFIERS, IDENTIFIERS)
def test_a_name_reads_back(schema: str, table: str) -> None:
    """Whatever a table is called, what is shown to people names the same table when read."""
    name = TableName(schema, table)

    assert name == names.parse(str(name))


def test_bare_parts_are_folded_as_in_sql() -> None:
    """Unquoted parts are lower-cased, quoted ones are taken as they are."""
    assert TableName("app", 'Ord.er"s') == names.parse('APP."Ord.er""s"')


def test_sql_quotes_both_parts() -> None:
    """In a statement both parts are quoted, so that no name can be read as SQL."""
    assert '"a"."B""; drop"' == TableName("a", 'B"; drop').sql.as_string()


@pytest.mark.parametrize(
    "text", ["", "app", "a.b.c", ".b", "a.", 'a."b', 'a."b"c', "a b.c", 'a.""']
)
def test_other_forms_are_refused(text: str) -> None:
    """What is not schema.table is refused, not guessed."""
    with pytest.raises(ValueError, match="not a"):
        names.parse(text)
