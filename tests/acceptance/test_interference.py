"""Somebody else on the replica: what would alter replicated rows is refused, what did is noticed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import LiteralString

import compare
import least
import pytest
import refusals
from harness import Stack, Stream
from psycopg import sql
from refusals import Witness

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.t (id int PRIMARY KEY, v text, big text);
    ALTER TABLE app.t ALTER big SET STORAGE EXTERNAL;
    INSERT INTO app.t SELECT i, 'row ' || i, repeat('big', 4000) FROM generate_series(1, 30) i;
    CREATE TABLE app.bare (v text, n int);
    ALTER TABLE app.bare REPLICA IDENTITY FULL;
    INSERT INTO app.bare SELECT 'bare', i % 3 FROM generate_series(1, 9) i;
    CREATE TABLE app.loud (id int PRIMARY KEY, v text);
    CREATE FUNCTION app.shout() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN NEW.v := coalesce(NEW.v, '') || '!'; RETURN NEW; END $$;
    CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON app.loud FOR EACH ROW EXECUTE FUNCTION app.shout();
    ALTER TABLE app.loud ENABLE ALWAYS TRIGGER shout;
    CREATE RULE also AS ON INSERT TO app.loud DO ALSO INSERT INTO app.bare VALUES ('by rule', 0);
    ALTER TABLE app.loud ENABLE ALWAYS RULE also;
    INSERT INTO app.loud VALUES (1, 'one');
    CREATE TABLE app.hidden (id int PRIMARY KEY, v text);
    ALTER TABLE app.hidden ENABLE ROW LEVEL SECURITY;
    CREATE POLICY even ON app.hidden USING (id % 2 = 0);
    INSERT INTO app.hidden SELECT i, 'row' FROM generate_series(1, 10) i;
"""
#: How a trigger of the primary is kept quiet: as it is, in a replica's session, or disabled.
QUIET = "D" if least.TRIGGERS == "disabled" else "O"

NAMES = ["app.t", "app.bare", "app.loud", "app.hidden"]


@pytest.fixture(scope="module")
def witness(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up; r2 is set up only.

    `cdc setup` lets its daemon's role see what row security hides: that must be no role of others.
    """
    folder = tmp_path_factory.mktemp("interference")
    with refusals.filled(stack, folder, TABLES, least_roles=True) as found:
        yield found


def differences(stream: Stream, replica: str = "r1") -> list[str]:
    return compare.differences({"primary": stream.primary, replica: stream.dsn(replica)}, NAMES)


def catch_up(witness: Witness) -> None:
    witness.stream.cdc("run", "-r", "r1", "--until-caught-up")


def unmatched(stream: Stream) -> tuple[int, int]:
    found = stream.sql("r1", "SELECT unmatched_updates, unmatched_deletes FROM cdc.position")
    return found[0][0], found[0][1]


def test_what_always_fires_on_the_primary_is_quiet_on_the_replica(witness: Witness) -> None:
    """Triggers and rules that are ENABLE ALWAYS fire on the primary only; row security hides nothing."""
    stream = witness.stream
    assert [] == differences(stream)
    stream.sql("primary", "INSERT INTO app.loud VALUES (2, 'two'), (3, NULL)")
    stream.sql("primary", "UPDATE app.loud SET v = 'three' WHERE id = 3")
    stream.sql("primary", "UPDATE app.hidden SET v = 'x' WHERE id < 6")
    catch_up(witness)

    assert [] == differences(stream)
    assert [(QUIET,)] == stream.sql(
        "r1", "SELECT tgenabled::text FROM pg_trigger WHERE tgname = 'shout'"
    )


@pytest.mark.parametrize(
    ("meddling", "says"),
    [
        ("ENABLE ALWAYS TRIGGER shout", "has the trigger shout, which fires on replicated rows"),
        pytest.param(
            "ENABLE REPLICA TRIGGER shout",
            "has the trigger shout, which fires on replicated rows",
            marks=pytest.mark.skipif(
                QUIET == "D", reason="the daemon is no replica's session there"
            ),
        ),
        ("ENABLE ALWAYS RULE also", "has the rule also, which rewrites"),
        (
            "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
            "has row security that applies to {role}: rows would be hidden",
        ),
        ("OWNER TO postgres, ENABLE ROW LEVEL SECURITY", "has row security that applies to {role}"),
    ],
)
def test_what_would_alter_rows_is_refused(
    witness: Witness, meddling: LiteralString, says: str
) -> None:
    """The daemon names trigger, rule or row security, and the statement it gives mends it."""
    stream = witness.stream
    stream.sql("r1", sql.SQL("ALTER TABLE app.loud {}").format(sql.SQL(meddling)))
    stream.sql("r1", f"GRANT ALL ON app.loud TO {stream.role}")
    stream.sql("primary", "UPDATE app.loud SET v = v || 'x'")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")
        again = witness.refused("bootstrap", "-r", "r1", "--table", "app.loud", "--overwrite")

    for refused in (said, again):
        assert says.format(role=stream.role) in refused.what
        assert "table=app.loud" in refused.at
    assert said.data.startswith("nothing of this batch was applied")
    mend = re.fullmatch(r"on the replica: (ALTER [^;]+); then start again", said.next)
    assert mend, said.next
    assert mend[1] in again.next
    stream.sql("r1", mend[1])
    catch_up(witness)
    assert [] == differences(stream)
    stream.sql(
        "r1", f"ALTER ROLE {stream.role} NOBYPASSRLS; ALTER TABLE app.loud OWNER TO {stream.role}"
    )
    stream.sql("r1", "ALTER TABLE app.loud DISABLE ROW LEVEL SECURITY")


def test_a_complete_row_that_is_missing_is_written_and_counted(witness: Witness) -> None:
    """A changed row that somebody deleted comes back, a deleted one stays away; status tells of both."""
    stream = witness.stream
    before = unmatched(stream)
    stream.sql("r1", "DELETE FROM app.t WHERE id IN (1, 2)")
    stream.sql("primary", "UPDATE app.t SET v = 'x', big = 'now small' WHERE id = 1")
    stream.sql("primary", "DELETE FROM app.t WHERE id = 2")
    catch_up(witness)

    assert [] == differences(stream)
    assert (before[0] + 1, before[1] + 1) == unmatched(stream)
    told = json.loads(stream.cdc("status", "-r", "r1", "--json", check=False).stdout)
    assert sum(before) + 2 == told["replicas"]["r1"]["unmatched"]


def test_an_incomplete_row_that_is_missing_halts(witness: Witness) -> None:
    """A changed row that somebody deleted and the stream brings in part only is never made up."""
    stream = witness.stream
    stream.sql("r1", "DELETE FROM app.t WHERE id = 3")
    stream.sql("primary", "UPDATE app.t SET v = 'x' WHERE id = 3")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")

    assert said.what == "an update found 0 rows instead of one"
    assert "table=app.t key=id='3'" in said.at
    assert "`cdc bootstrap --table app.t --overwrite`" in said.next
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.t", "--overwrite")
    catch_up(witness)
    assert [] == differences(stream)


@pytest.mark.parametrize(
    "change", ["UPDATE app.bare SET v = 'x' WHERE n = 1", "DELETE FROM app.bare WHERE n = 1"]
)
def test_a_row_without_key_that_was_changed_halts(witness: Witness, change: LiteralString) -> None:
    """Where only its old values address a row, another row in its place halts also a delete."""
    stream = witness.stream
    stream.sql("primary", "INSERT INTO app.bare VALUES ('again', 1)")
    catch_up(witness)
    stream.sql("r1", "UPDATE app.bare SET n = 5 WHERE v = 'again'")
    stream.sql("primary", change)
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1", "--until-caught-up")

    assert said.what == "0 rows were found that are as the old row was, instead of one"
    assert "table=app.bare" in said.at
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.bare", "--overwrite")
    catch_up(witness)
    assert [] == differences(stream)


def test_row_security_never_thins_a_copy(witness: Witness) -> None:
    """A role that row security would hide rows from copies nothing rather than less."""
    stream = witness.stream
    stream.sql("primary", f"ALTER ROLE {stream.role} NOBYPASSRLS")
    said = witness.refused("bootstrap", "-r", "r1", "--table", "app.hidden", "--overwrite")

    assert "row-level security" in said.what
    assert "hidden" in said.what + said.at
    stream.cdc("setup")
    stream.cdc("bootstrap", "-r", "r1", "--table", "app.hidden", "--overwrite")
    catch_up(witness)
    assert [] == differences(stream)
