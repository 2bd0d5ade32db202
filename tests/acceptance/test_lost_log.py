"""A broker that lost records it had acknowledged: a stack of its own, whose log is cut on disk."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import compare
import harness
import pytest
import refusals
import requests
from confluent_kafka import Consumer, TopicPartition
from harness import Stream, wait_until

from cdc import lsn as lsns


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stream]:
    """Give a stream on a stack whose broker may be hurt."""
    with (
        harness.own_stack(tmp_path / "stack") as stack,
        harness.stream(stack, tmp_path / "stream") as stream,
    ):
        harness.edit(stream, r"\Z", '\n[apply]\nmissing_timeout = "1s"\n')
        stream.ready("CREATE TABLE t (id int PRIMARY KEY, v text)")
        yield stream


def log_end(stream: Stream) -> int:
    """Return the offset that the topic's next record will get."""
    consumer = Consumer({"bootstrap.servers": stream.kafka, "group.id": "test-lost-log"})
    try:
        return int(consumer.get_watermark_offsets(TopicPartition(stream.topic, 0), timeout=30)[1])
    finally:
        consumer.close()


def segment(stream: Stream) -> Path:
    """Return the file that holds the topic's records."""
    (found,) = (stream.stack.config.parent / "data" / "kafka" / f"{stream.topic}-0").glob("*.log")
    return found


def stored(stream: Stream) -> int:
    """Return the END LSN at which the connector would go on."""
    said = requests.get(f"{stream.connect}/connectors/cdc_{stream.name}/offsets", timeout=60).json()
    return max((int(o["offset"]["lsn"]) for o in said.get("offsets", [])), default=0)


def write(stream: Stream, first: int, text: str) -> int:
    """Commit ten rows; return an LSN behind their END."""
    stream.sql(
        "primary",
        "INSERT INTO t SELECT i, %s FROM generate_series(%s::int, %s::int) i",
        [text, first, first + 9],
    )
    return lsns.parse(stream.sql("primary", "SELECT pg_current_wal_insert_lsn()::text")[0][0])


def break_broker(stream: Stream, size: int) -> None:
    """Kill the broker, cut its log of the topic to `size` bytes, start it again."""
    folder = stream.stack.config.parent
    said = harness.run("local", "status", "--json", "--dir", folder, cwd=folder.parent).stdout
    pid = json.loads(said)["pids"]["kafka"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not (Path("/proc") / str(pid) / "exe").exists(), "the broker is dead")
    os.truncate(segment(stream), size)
    harness.run("local", "up", "--dir", folder, cwd=folder.parent, timeout=300)


def caught_up(stream: Stream) -> None:
    for replica in stream.replicas:
        stream.cdc("wait", "-r", replica, "--now", "--timeout", "120s")
    nodes = {"primary": stream.primary, **stream.replicas}
    assert [] == compare.differences(nodes, ["t"])


def stop(stream: Stream) -> None:
    for daemon in stream.daemons:
        daemon.terminate()
        assert 0 == daemon.wait(60)
    stream.daemons.clear()


@pytest.mark.long
def test_a_log_that_lost_its_tail_and_grew_again_halts(own: Stream) -> None:
    """Whether a replica had applied what the broker lost or not, it halts; bootstrap leads out."""
    for replica in own.replicas:
        own.start("run", "-r", replica)
    write(own, 0, "kept")
    caught_up(own)
    own.daemons[1].terminate()
    own.daemons[1].wait(60)
    kept = segment(own).stat().st_size
    lost = write(own, 100, "lost")
    own.cdc("wait", "-r", "r1", "--now")
    own.daemons[0].terminate()
    own.daemons[0].wait(60)
    own.daemons.clear()
    wait_until(lambda: stored(own) >= lost, "the connector would go on behind what is lost", 120)
    ((position,),) = own.sql("r1", "SELECT next_offset FROM cdc.position")

    break_broker(own, kept)
    assert position > log_end(own)
    own.cdc("connectors", "restart")
    for number in range(200, 3_000, 10):  # the log grows past the place where r1 stopped
        write(own, number, "after")
    wait_until(lambda: log_end(own) > position + 100, "the log is longer than before", 120)

    halts = {}
    for replica in own.replicas:
        done = own.cdc("run", "-r", replica, check=False)
        assert 1 == done.returncode, done.stderr
        halts[replica] = refusals.parse(done.stderr)
    assert "the topic does not hold the next record any more" in halts["r1"].what
    assert "transactions are missing" in halts["r2"].what
    assert [(20, 0)] == own.sql("r1", "SELECT count(*), count(*) FILTER (WHERE v = 'after') FROM t")
    assert [(10, 0)] == own.sql("r2", "SELECT count(*), count(*) FILTER (WHERE v <> 'kept') FROM t")
    for replica in own.replicas:
        assert "cdc bootstrap --overwrite" in halts[replica].next
        own.cdc("bootstrap", "-r", replica, "--overwrite")
        own.start("run", "-r", replica)
    caught_up(own)
    stop(own)
