"""Which tables the configured patterns select."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import pytest

from cdc import patterns, tables
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import ConfigError
from cdc.names import TableName
from cdc.tables import Column, Selection, Table


def column(name: str = "id") -> Column:
    return Column(name, "integer", not_null=True, identity="", generated="")


def table(name: str, **other: Any) -> Table:
    given: dict[str, Any] = {
        "oid": 1, "name": TableName(*name.split(".")), "kind": "r", "persistence": "p",
        "replica_identity": "d", "row_security": False, "parent": None, "key": ("id",),
        "key_immediate": True, "index": (), "columns": (column(),),
    }  # fmt: skip
    return Table(**{**given, **other})


def config(
    *include: str, exclude: tuple[str, ...] = (), profile: Literal["exact", "stock"] = "exact"
) -> Config:
    return Config(
        name="app",
        primary=Primary(dsn="dbname=app", tables=include, exclude=exclude),
        kafka=Kafka(bootstrap_servers="localhost:1"),
        connect=Connect(url="http://localhost:1", profile=profile),
        replicas={"r1": Replica(dsn="dbname=app")},
    )


def published(found: Selection) -> list[str]:
    return [str(t.name) for t in found.published]


PARTITIONED = (
    table("app.p", kind="p"),
    table("app.p_a", kind="p", parent=TableName("app", "p")),
    table("app.p_a1", parent=TableName("app", "p_a")),
    table("app.p_b", parent=TableName("app", "p")),
)


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("app.*", "app.t", True),
        ("app.*", "apple.t", False),
        ("APP.T_?", "app.t_1", True),
        ("app.t_?", "app.t_12", False),
        ("app.t_[ab]", "app.t_b", True),
        ('"App".*', "App.t", True),
        ('"App".*', "app.t", False),
        ('app."T*"', "app.T*", True),
        ('app."T*"', "app.Tx", False),
        ('app."T"*', "app.Tx", True),
        ("app.[a-z]*", "app.T", False),
    ],
)
def test_patterns_are_shell_patterns_quoted_as_in_sql(
    pattern: str, name: str, matches: bool
) -> None:
    """Wildcards count outside quotes only, and what is not quoted is lower case."""
    assert matches == patterns.pattern(pattern).matches(TableName(*name.split(".")))


@pytest.mark.parametrize("text", ["", "app", "a.b.c", 'a."b', "a.", ".b", "*"])
def test_a_malformed_pattern_is_refused(text: str) -> None:
    """What is not schema.table is a configuration error that shows how to write it."""
    with pytest.raises(ConfigError, match="not a table pattern") as raised:
        patterns.pattern(text)

    assert "schema.table" in raised.value.next


def test_excluded_tables_are_left_out() -> None:
    """A table that both tables and exclude match is not replicated."""
    catalog = (table("app.keep"), table("app.tmp_1"), table("other.t"))

    found = tables.select(config("app.*", exclude=("app.tmp_*",)), catalog)

    assert ["app.keep"] == published(found)


def test_a_partitioned_table_brings_its_partitions() -> None:
    """The root stands for its whole tree in the publication; the leaves carry the rows."""
    found = tables.select(config("app.p"), PARTITIONED)

    assert ["app.p"] == published(found)
    assert ["app.p_a1", "app.p_b"] == [str(t.name) for t in found.rows]
    assert ["app.p", "app.p_a"] == [str(t.name) for t in found.partitioned]


def test_a_middle_partition_brings_what_is_below_it_only() -> None:
    """A pattern that matches a partition carries that branch and not its siblings."""
    found = tables.select(config("app.p_a"), PARTITIONED)

    assert ["app.p_a"] == published(found)
    assert ["app.p_a1"] == [str(t.name) for t in found.rows]


def test_a_partition_of_a_replicated_table_cannot_be_excluded() -> None:
    """The publication carries the tree whole, so such an exclusion would be untrue."""
    found = tables.select(config("app.*", exclude=("app.p_b",)), PARTITIONED)

    assert ["app.p_b"] == [str(c.table) for c in found.refused]
    assert "app.p" in found.refused[0].fix


#: A key column that every server computes by itself.
GENERATED = dataclasses.replace(column("id"), generated="s")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"key": ()}, "no primary key nor REPLICA IDENTITY FULL"),
        ({"key_immediate": False}, "deferrable primary key and not REPLICA IDENTITY FULL"),
        ({"replica_identity": "n"}, "REPLICA IDENTITY NOTHING"),
        ({"replica_identity": "i"}, "USING INDEX of an index that is gone"),
        (
            {"columns": (GENERATED, column("a"))},
            "is identified by the generated column id, which the log does not have, and not",
        ),
        (
            {
                "columns": (column("id"), dataclasses.replace(column("g"), generated="s")),
                "replica_identity": "f",
                "generated_refused": True,
            },
            "the generated column g in its replica identity",
        ),
    ],
)
def test_tables_that_cannot_be_carried_are_refused(fault: dict[str, Any], says: str) -> None:
    """Each is named with what is wrong and what to do about it."""
    found = tables.select(config("app.*"), (table("app.t", **fault), table("app.good")))

    assert [TableName("app", "t")] == [c.table for c in found.refused]
    assert says in found.refused[0].what
    assert "exclude it" in found.refused[0].fix


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ({"columns": (), "key": (), "replica_identity": "f"}, "no column that is in the log"),
        ({"columns": (GENERATED,), "replica_identity": "f"}, "no column that is in the log"),
        ({"columns": (column("id"), column("Ab"), column("aB"))}, "differ only by case, Ab and aB"),
        ({"name": TableName("app", "Spatial_Ref_Sys")}, "leaves out every table"),
        ({"name": TableName("app", "it''s")}, "reads otherwise than it writes it"),
        ({"name": TableName("app", '"q')}, "reads otherwise than it writes it"),
    ],
)
def test_tables_that_debezium_mistakes_are_refused_without_the_plugin(
    what: dict[str, Any], says: str
) -> None:
    """Columns that differ only by case, or none that is in the log, where Debezium reads alone: the stock profile."""
    mistaken = dataclasses.replace(table("app.t"), **what)
    catalog = (mistaken, table("app.good"))
    found = tables.select(config("app.*", profile="stock"), catalog)

    assert [mistaken.name] == [c.table for c in found.refused]
    assert says in found.refused[0].what
    assert () == tables.select(config("app.*"), catalog).refused


def test_tables_that_read_alike_with_their_schema_are_refused_without_the_plugin() -> None:
    """Two tables whose schema and name, joined by a dot, are the same text, in the stock profile."""
    twins = [
        dataclasses.replace(table("app.t"), name=TableName("a", "b.c")),
        dataclasses.replace(table("app.t"), name=TableName("a.b", "c")),
    ]
    found = tables.select(config("*.*", '"a.b".*', profile="stock"), twins)

    assert [TableName("a.b", "c")] == [c.table for c in found.refused]
    assert () == tables.select(config("a.*", profile="stock"), twins).refused
    assert () == tables.select(config("*.*", '"a.b".*'), twins).refused


@pytest.mark.parametrize(
    ("what", "address"),
    [
        ({}, ("id",)),
        ({"replica_identity": "f"}, ("id",)),
        ({"replica_identity": "f", "key_immediate": False}, ()),
        ({"replica_identity": "f", "key": ()}, ()),
        ({"replica_identity": "f", "columns": (GENERATED, column("a"))}, ()),
        ({"replica_identity": "i", "index": ("a", "b")}, ("a", "b")),
        ({"replica_identity": "i", "index": ("a",), "key": (), "key_immediate": False}, ("a",)),
    ],
)
def test_what_addresses_a_row(what: dict[str, Any], address: tuple[str, ...]) -> None:
    """The replica identity decides: the index it names, the key, or the whole old row."""
    good = table("app.t", **what)

    assert address == good.address
    assert () == tables.select(config("app.*"), (good,)).refused


@pytest.mark.parametrize("what", [{"kind": "f"}, {"persistence": "u"}])
def test_tables_that_are_never_logged_are_left_out(what: dict[str, Any]) -> None:
    """Foreign and unlogged tables are a warning: their rows are in no log."""
    found = tables.select(config("app.*"), (table("app.t", **what), table("app.good")))

    assert ["app.good"] == published(found)
    assert [TableName("app", "t")] == [c.table for c in found.left_out]
    assert () == found.refused


def test_a_pattern_that_matches_nothing_is_named() -> None:
    """A misspelt pattern does not go unnoticed, be it in tables or in exclude."""
    found = tables.select(config("app.*", "ap.*", exclude=("app.tpm_*",)), (table("app.t"),))

    assert ("ap.*", "app.tpm_*") == found.idle_patterns
