"""The primary dies and a standby that lacks its last commits takes its place."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import compare
import harness
import pytest
import standby
from harness import Stack, Stream
from standby import Standby

from cdc import lsn as lsns


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Give a stack of its own, whose primary may die."""
    with harness.own_stack(tmp_path_factory.mktemp("failover") / "stack") as own:
        yield own


@pytest.fixture(scope="module")
def stream(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Give one stream, followed by two replicas."""
    with harness.stream(stack, tmp_path_factory.mktemp("stream")) as made:
        made.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield made


@pytest.fixture
def copy(stack: Stack) -> Iterator[Standby]:
    with standby.of(stack) as made:
        yield made


def insert(stream: Stream, first: int, count: int) -> list[int]:
    """Commit `count` rows, each in a transaction of its own; return their transactions' ids."""
    return [
        int(txid)
        for number in range(first, first + count)
        for (txid,) in stream.sql(
            "primary", "INSERT INTO t VALUES (%s, 'x') RETURNING pg_current_xact_id()", [number]
        )
    ]


def run(stream: Stream) -> dict[str, subprocess.Popen[bytes]]:
    return {replica: stream.start("run", "-r", replica) for replica in stream.replicas}


def caught_up(stream: Stream) -> None:
    for replica in stream.replicas:
        stream.cdc("wait", "-r", replica, "--now", "--timeout", "120s", timeout=150)


def lose(stream: Stream, copy: Standby, first: int) -> tuple[list[int], str]:
    """Let the standby miss three commits that both replicas have, then take the primary's place.

    Returns the transactions' ids and where the log of the primary that died had come to.
    """
    insert(stream, first, 3)
    copy.copy()
    daemons = run(stream)
    lost = insert(stream, first + 3, 3)
    caught_up(stream)
    for daemon in daemons.values():
        daemon.terminate()
    for daemon in daemons.values():
        assert daemon.wait(60) == 0, stream.log(daemon)
    reached = standby.position(stream.primary)
    standby.kill_primary(stream.stack)
    copy.take_over()
    return lost, reached


def overtake(stream: Stream, reached: str, first: int) -> None:
    """Commit on the new primary until its LSNs have passed all that the old one has given."""
    number = first
    while lsns.parse(standby.position(stream.primary)) <= lsns.parse(reached):
        stream.sql("primary", "SELECT pg_switch_wal()")
        insert(stream, number, 1)
        number += 1
    insert(stream, number, 3)


def held(stream: Stream) -> list[compare.Contents]:
    return [compare.contents(dsn, "t") for dsn in stream.replicas.values()]


def halts(stream: Stream, lost: list[int]) -> None:
    """Every replica halts naming what the new primary lacks, and so do the commands."""
    before = held(stream)
    for daemon in run(stream).values():
        assert daemon.wait(120) == 1, stream.log(daemon)
        said = stream.log(daemon)
        assert "the primary was failed over to a server that lacks" in said
        assert [] == [txid for txid in lost if f"transaction {txid} at " not in said], said
    assert before == held(stream)
    status = stream.cdc("status", check=False)
    waited = stream.cdc("wait", "-r", "r1", "--now", check=False)
    assert (1, 1) == (status.returncode, waited.returncode)
    assert 2 == len(re.findall(r"^r\d +diverged +halted", status.stdout, re.MULTILINE)), status
    for text in (status.stdout, waited.stderr):
        assert f"transaction {lost[-1]} at " in text


def bring_back(stream: Stream) -> None:
    """Do what the error says, no more."""
    stream.cdc("connectors", "delete", "--offsets")
    stream.cdc("connectors", "apply")
    for replica in stream.replicas:
        stream.cdc("bootstrap", "-r", replica, "--overwrite")
    daemons = run(stream)
    insert(stream, 1_000_000 + len(stream.daemons), 1)
    caught_up(stream)
    assert compare.differences({"primary": stream.primary, **stream.replicas}, ["t"]) == []
    for daemon in daemons.values():
        daemon.terminate()
        assert daemon.wait(60) == 0, stream.log(daemon)


def slot_by_hand(stream: Stream) -> None:
    """Make the replication slot that a standby before PostgreSQL 17 does not have."""
    stream.sql(
        "primary",
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput') WHERE NOT EXISTS"
        " (SELECT FROM pg_replication_slots WHERE slot_name = %s)",
        [f"cdc_{stream.name}", f"cdc_{stream.name}"],
    )


@pytest.mark.long
def test_lost_commits_are_named_whatever_the_connector_does(stream: Stream, copy: Standby) -> None:
    """With its offsets kept the connector may send nothing, or what passes for the next link."""
    lost, reached = lose(stream, copy, 100)
    slot_by_hand(stream)
    overtake(stream, reached, 200)
    stream.cdc("connectors", "restart", check=False)
    halts(stream, lost)
    bring_back(stream)


@pytest.mark.long
def test_lost_commits_are_named_after_the_offsets_were_deleted(
    stream: Stream, copy: Standby
) -> None:
    """A connector that begins anew sends the new history; nothing of it is applied."""
    lost, reached = lose(stream, copy, 300)
    stream.cdc("connectors", "delete", "--offsets")
    stream.cdc("connectors", "apply")
    overtake(stream, reached, 400)
    halts(stream, lost)
