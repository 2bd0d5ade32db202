"""SIGKILL of what is between primary and replica: the daemons stay, and catch up."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import compare
import harness
import psycopg
import pytest
from harness import Stack, Stream

WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO t SELECT i, md5(i::text) FROM generate_series(%(first)s::int, %(first)s + 99) i",
    "UPDATE t SET v = v || '+' WHERE id %% 3 = 0 AND id < %(first)s",
    "DELETE FROM t WHERE id %% 7 = 0 AND id < %(first)s",
)


def kill(stack: Stack, component: str) -> None:
    folder = stack.config.parent
    said = harness.run("local", "status", "--json", "--dir", folder, cwd=folder.parent).stdout
    os.kill(json.loads(said)["pids"][component], signal.SIGKILL)


def restore(stack: Stack) -> None:
    folder = stack.config.parent
    harness.run("local", "up", "--dir", folder, cwd=folder.parent)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Give a stack of its own: other tests use the shared one meanwhile."""
    folder = tmp_path / "stack"
    try:
        harness.run("local", "up", "--dir", folder, "--replicas", "1", cwd=tmp_path, timeout=600)
        yield Stack.at(folder)
    finally:
        harness.run("local", "down", "--purge", "--dir", folder, cwd=tmp_path, check=False)


@pytest.mark.long
def test_every_component_is_killed_while_rows_are_written(stream: Stream, stack: Stack) -> None:
    """A killed Connect, replica server or Kafka ends no daemon; all catch up when it is back."""
    stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
    daemons = {replica: stream.start("run", "-r", replica) for replica in stream.replicas}
    for number, component in enumerate(("connect", "r1", "kafka")):
        for part in range(5):
            first = number * 1000 + part * 100
            with psycopg.connect(stream.primary) as primary:
                for statement in WRITES:
                    primary.execute(statement, {"first": first})
            if part == 1:
                kill(stack, component)
            if part == 3:
                restore(stack)
        for replica, daemon in daemons.items():
            waited = stream.cdc(
                "wait", "-r", replica, "--now", "--timeout", "120s", check=False, timeout=150
            )
            assert waited.returncode == 0, component + waited.stderr + stream.log(daemon)
            assert daemon.poll() is None, component + stream.log(daemon)
        nodes = {"primary": stream.primary, **stream.replicas}
        assert compare.differences(nodes, ["t"]) == [], component
