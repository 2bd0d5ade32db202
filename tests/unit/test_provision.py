"""What setup decides from what it finds: roles, rights, publication."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from test_tables import config, table

from cdc import provision, roles, tables
from cdc.errors import NotReady
from cdc.names import TableName
from cdc.provision import Publication, Server
from cdc.roles import Login, Role
from cdc.steps import Step


def statements(steps: list[Step]) -> list[str]:
    return [step.statement.as_string() for step in steps if step.statement is not None]


def server(**other: Any) -> Server:
    given: dict[str, Any] = {
        "wal_level": "logical", "version_num": 160004, "version": "16.4", "encoding": "UTF8",
        "standby": False, "database": "app", "system_id": "1", "max_slots": 10, "others": 0, "needed": 2,
    }  # fmt: skip
    return Server(**{**given, **other})


def publication(members: dict[TableName, bool], **other: Any) -> Publication:
    given: dict[str, Any] = {"all_tables": False, "whole": True, "generated": False, "schemas": ()}
    return Publication(members=members, **{**given, **other})


A, B = TableName("app", "a"), TableName("app", "B")
WANTED = tables.select(config("app.*"), (table("app.B"), table("app.a")))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"wal_level": "replica"}, "wal_level = replica"),
        ({"version_num": 140012, "version": "14.12"}, "PostgreSQL 14.12"),
        ({"encoding": "SQL_ASCII"}, "encoding SQL_ASCII"),
        ({"standby": True}, "is a standby"),
        ({"others": 9}, "1 replication slots left"),
        ({"others": 7, "needed": 4}, "3 replication slots left.* the replicas 2 that stay"),
    ],
)
def test_an_unfit_primary_is_refused(fault: dict[str, Any], says: str) -> None:
    """Each thing that would stop or falsify capture is named, with how to mend it."""
    with pytest.raises(NotReady, match=says) as raised:
        provision.check_server(server(**fault), where="the primary", primary=True)

    assert "nothing was changed" == raised.value.safe


def test_a_replica_needs_no_logical_log() -> None:
    """wal_level and slots matter on the primary only; encoding matters everywhere."""
    provision.check_server(server(wal_level="replica", others=10), where="r1", primary=False)

    with pytest.raises(NotReady, match="encoding"):
        provision.check_server(server(encoding="LATIN1"), where="r1", primary=False)


def test_a_publication_is_created_with_exactly_the_tables() -> None:
    """Tables stand one by one, without what inherits from them, with every operation."""
    assert [
        (
            'CREATE PUBLICATION "cdc_app" FOR TABLE ONLY "app"."B", ONLY "app"."a" WITH '
            "(publish = 'insert, update, delete, truncate', publish_via_partition_root = false)"
        )
    ] == statements(provision.publication_steps(config("app.*"), None, WANTED))


def test_a_right_publication_is_left_alone() -> None:
    """What is there already needs no statement and is told all the same."""
    found = provision.publication_steps(config("app.*"), publication({A: False, B: False}), WANTED)

    assert [] == statements(found)
    assert ["publication cdc_app: already there with 2 tables"] == [step.what for step in found]


def test_a_drifted_publication_is_mended() -> None:
    """Foreign members, whole schemas, row filters and left-out operations are undone."""
    drifted = publication({A: True, TableName("x", "y"): False}, whole=False, schemas=("x",))

    assert [
        'ALTER PUBLICATION "cdc_app" DROP TABLES IN SCHEMA "x"',
        'ALTER PUBLICATION "cdc_app" DROP TABLE ONLY "app"."a", ONLY "x"."y"',
        'ALTER PUBLICATION "cdc_app" ADD TABLE ONLY "app"."B", ONLY "app"."a"',
        (
            "ALTER PUBLICATION \"cdc_app\" SET (publish = 'insert, update, delete, truncate', "
            "publish_via_partition_root = false)"
        ),
    ] == statements(provision.publication_steps(config("app.*"), drifted, WANTED))


def test_a_publication_leaves_generated_columns_out() -> None:
    """PostgreSQL 18 can publish them; every server computes its own."""
    drifted = publication({A: False, B: False}, generated=True)

    assert ['ALTER PUBLICATION "cdc_app" SET (publish_generated_columns = none)'] == statements(
        provision.publication_steps(config("app.*"), drifted, WANTED)
    )


def test_a_publication_for_all_tables_is_refused() -> None:
    """It cannot be turned into a list; the message offers another name or DROP."""
    with pytest.raises(NotReady, match="FOR ALL TABLES") as raised:
        provision.publication_steps(config("app.*"), publication({}, all_tables=True), WANTED)

    assert "primary.publication" in raised.value.next


def test_rights_are_granted_by_kind() -> None:
    """One statement per kind of object, names quoted, functions with their arguments."""
    lacking = (
        ("SCHEMA", None, "Odd one"),
        ("TABLE", "app", "a"),
        ("TABLE", "app", "B"),
        ("FUNCTION", None, "pg_logical_emit_message(boolean,text,text)"),
    )

    assert [
        'GRANT USAGE ON SCHEMA "Odd one" TO "cdc"',
        'GRANT SELECT ON TABLE "app"."a", "app"."B" TO "cdc"',
        'GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean,text,text) TO "cdc"',
    ] == statements(provision.grant_steps("cdc", lacking))


def test_a_role_is_created_with_password_and_settings() -> None:
    """The password goes as its SCRAM verifier, and not at all where the steps are printed."""
    found = roles.role_steps(
        Login("c", known=True, verifier="SCRAM-SHA-256$x"), None,
        replication=True, settings={"intervalstyle": "postgres"}, database="app",
    )  # fmt: skip

    assert [
        'CREATE ROLE "c" LOGIN REPLICATION;\nCOMMENT ON ROLE "c" IS \'made by cdc setup\'',
        "ALTER ROLE \"c\" PASSWORD 'SCRAM-SHA-256$x'",
        'ALTER ROLE "c" IN DATABASE "app" SET "intervalstyle" TO \'postgres\'',
    ] == statements(found)
    assert [None, '\\password "c"', None] == [step.printed for step in found]


def test_only_what_a_role_lacks_is_mended() -> None:
    """Attributes and settings that are right are left alone, drifted ones are set again."""
    role = Role("c", superuser=False, login=True, replication=False, bypass_row_security=False,
                settings={"intervalstyle": "iso_8601", "bytea_output": "hex"})  # fmt: skip

    assert [
        'ALTER ROLE "c" REPLICATION BYPASSRLS',
        'ALTER ROLE "c" IN DATABASE "app" SET "intervalstyle" TO \'postgres\'',
    ] == statements(
        roles.role_steps(
            Login("c", known=True),
            role,
            replication=True,
            bypass_row_security=True,
            settings={"intervalstyle": "postgres", "bytea_output": "hex"},
            database="app",
        )
    )


def test_where_nobody_may_give_replication_a_membership_stands_for_it() -> None:
    """On Amazon's servers a role becomes a member of rds_replication, once."""
    role = Role("c", superuser=False, login=True, replication=False, bypass_row_security=False,
                settings={})  # fmt: skip
    login = Login("c", known=True)

    def told(found: Role | None) -> list[str]:
        return statements(
            roles.role_steps(login, found, replication=True, by_member_of="rds_replication")
        )

    granted = 'GRANT "rds_replication" TO "c"'
    assert [
        'CREATE ROLE "c" LOGIN;\nCOMMENT ON ROLE "c" IS \'made by cdc setup\'', granted,
    ] == told(None)  # fmt: skip
    assert [granted] == told(role)
    assert [] == told(dataclasses.replace(role, replication=True))


def test_a_password_file_is_read_as_java_reads_it() -> None:
    """Comments, blanks, both separators and escapes."""
    text = "# no\n! no\n\n a = b\\=c\nd:e\\u0021\\\\\n  f   g h\nk\\:ey=\\ v\n"

    assert {"a": "b=c", "d": "e!\\", "f": "g h", "k:ey": " v"} == roles.properties(text)
