"""The statements that are sent, as the document prints them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from psycopg import sql

from cdc.names import TableName
from cdc.verify import sets
from cdc.verify.encoding import layout
from cdc.verify.hashing import chosen
from cdc.verify.ranges import Range
from cdc.verify.reading import Statements
from cdc.verify.shape import Column, Shape

DOCUMENT = Path(__file__).parents[2] / "docs" / "verify.md"
ID = Column("id", "bigint", not_null=True)
STATE = Column("state", "app.state")
NOTE = Column("note", "text", collation="c C")
SHAPE = Shape(TableName("app", "orders"), (ID, STATE, NOTE), ("id",))


def printed() -> str:
    """Return the document's statements on one line, with the hash that it prints once."""
    blocks = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    hashed, *statements = [" ".join(block.split()) for block in blocks]
    return " ".join(statements).replace("<hash>", hashed)


def test_the_document_prints_what_is_sent() -> None:
    """Each statement in docs/verify.md is the one that a run sends."""
    keyed = layout(SHAPE, [SHAPE], "lookup3")
    whole = layout(dataclasses.replace(SHAPE, key=()), [], "lookup3")
    statements, within = Statements(keyed), Range(("7",), ("9",))
    sent: list[sql.Composed] = [
        statements.next_key(("7",), 10_000),
        statements.checksum(within),
        statements.parts(within),
        statements.hashes(within, some=True),
        statements.images(),
        sets.buckets(whole, 16384),
    ]

    assert [] == [s.as_string() for s in sent if s.as_string() not in printed()]
    assert len(sent) == printed().count("FROM ONLY") + printed().count("JOIN ONLY")


def test_a_column_of_two_types_is_hashed_as_printed() -> None:
    """An integer that is a text on a replica has the same hash there."""
    there = dataclasses.replace(SHAPE, columns=(dataclasses.replace(ID, type="text"), STATE, NOTE))
    mixed = layout(SHAPE, [SHAPE, there], "lookup3").row_hash.as_string()

    assert 'hashtextextended(concat(t."id")' in mixed
    assert "hashint8extended" not in mixed


def test_a_key_that_sorts_otherwise_somewhere_is_crossed() -> None:
    """Only the collation or labels of a key's column count, and only if they are others."""
    other = dataclasses.replace(NOTE, collation="i en-US 153.14")
    texts = dataclasses.replace(SHAPE, key=("note",))
    there = dataclasses.replace(texts, columns=(ID, STATE, other))

    assert layout(texts, [texts, there], "lookup3").crossed
    assert not layout(texts, [texts], "lookup3").crossed
    moods = dataclasses.replace(SHAPE, key=("state",))
    more = dataclasses.replace(
        moods, columns=(ID, dataclasses.replace(STATE, labels=("new",)), NOTE)
    )
    assert layout(moods, [more], "lookup3").crossed
    assert not layout(SHAPE, [dataclasses.replace(there, key=("id",))], "lookup3").crossed


def test_servers_that_disagree_on_the_fast_hash_get_sha256() -> None:
    """One answer for all servers is lookup3, two are sha256."""
    assert "lookup3" == chosen([(5,), (5,), (5,)])
    assert "sha256" == chosen([(5,), (5,), (6,)])
