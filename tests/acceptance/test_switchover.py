"""A planned switchover with a failover slot: nothing is lost, and nothing halts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import compare
import harness
import pytest
import standby
from harness import Stack, Stream

VERSION = os.environ.get("CDC_PG_VERSION", "16")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Give a stack of its own, whose primary is replaced."""
    with harness.own_stack(tmp_path / "stack", "--replicas", "1") as own:
        yield own


@pytest.mark.long
@pytest.mark.skipif(
    int(VERSION) < 17, reason="failover slots came with PostgreSQL 17: make test-on-17"
)
def test_a_switchover_with_a_failover_slot_is_followed(stream: Stream, stack: Stack) -> None:
    """The connector goes on at the standby's copy of its slot, the daemon on the new timeline."""
    slot = f"cdc_{stream.name}"
    stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
    daemon = stream.start("run", "-r", "r1")
    with standby.of(stack) as copy:
        copy.copy(slot="standby")
        copy.settings("sync_replication_slots = on\nhot_standby_feedback = on\n")
        copy.start()
        for statement in (
            "ALTER SYSTEM SET synchronized_standby_slots = 'standby'",
            "SELECT pg_reload_conf()",
        ):
            harness.rows(stack.primary, statement)
        for number in range(20):
            stream.sql("primary", "INSERT INTO t VALUES (%s, repeat('x', 100))", [number])
        stream.cdc("wait", "-r", "r1", "--now", "--timeout", "120s", timeout=150)
        harness.wait_until(
            lambda: (
                [(True,)]
                == harness.rows(
                    copy.dsn,
                    "SELECT synced AND NOT temporary FROM pg_replication_slots WHERE slot_name = %s",
                    [slot],
                )
            ),
            "the standby has the connector's slot",
            180,
        )
        standby.shut_down_primary(stack)
        copy.take_over()
    for number in range(20, 40):
        stream.sql("primary", "INSERT INTO t VALUES (%s, 'after')", [number])
    stream.sql("primary", "UPDATE t SET v = v || '+' WHERE id % 3 = 0")
    # Its task fails where it met the server before it was promoted; it goes on where it was.
    stream.cdc("connectors", "restart", check=False)

    waited = stream.cdc("wait", "-r", "r1", "--now", "--timeout", "180s", check=False, timeout=210)

    assert waited.returncode == 0, waited.stderr + stream.log(daemon)
    assert daemon.poll() is None, stream.log(daemon)
    assert "nothing of timeline 1 was lost" in stream.log(daemon)
    assert [(2,)] == stream.sql("r1", "SELECT timeline FROM cdc.position")
    assert compare.differences({"primary": stream.primary, **stream.replicas}, ["t"]) == []
