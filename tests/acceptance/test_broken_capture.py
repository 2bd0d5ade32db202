"""What capture can suffer, on the real stack: offsets and slots that are gone, records that are refused.

Either nothing is missing, and then nothing comes twice at the replica; or the daemon halts, says what
may be missing, and the way out that it names leads out. The tests run in the order of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import compare
import pytest
import refusals
import requests
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from harness import Stack, wait_until
from refusals import Witness

pytestmark = [pytest.mark.stack, pytest.mark.long]

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.t (id int PRIMARY KEY, v text);
    INSERT INTO app.t SELECT i, 'v' FROM generate_series(1, 9) i;
"""


@pytest.fixture(scope="module")
def witness(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up."""
    with refusals.filled(stack, tmp_path_factory.mktemp("stream"), TABLES) as found:
        yield found


def test_a_record_that_comes_late_is_applied_in_its_place(witness: Witness) -> None:
    """Hazard 5: a transaction without one of its rows, later ones, then all of them again, whole."""
    stream = witness.stream
    start = witness.stream.records()
    stream.sql("primary", "INSERT INTO app.t VALUES (100, 'torn'), (101, 'torn')")
    stream.sql("primary", "UPDATE app.t SET v = 'after' WHERE id = 101")
    wait_until(lambda: witness.stream.records() >= start + 7, "both transactions are in the topic")
    whole = _records(witness, start)
    torn = [m for m in whole if b'"id":"100"' not in (m.value() or b"")]
    assert len(torn) == len(whole) - 1
    forged = witness.stream.records()
    _produce(witness, [*torn, *whole])
    stream.sql("r1", "UPDATE cdc.position SET next_offset = %s", [forged])

    said = witness.run("run", "-v", "-r", "r1", "--until-caught-up")

    assert said.returncode == 0, said.stderr
    assert f"comes again whole from offset {forged + len(torn)}" in said.stderr
    _equal(witness)


def test_old_offsets_put_back_apply_nothing_twice(witness: Witness) -> None:
    """Behind the slot's place the server begins at that place, or Debezium refuses: then delete them."""
    stream, old = witness.stream, _offsets(witness)
    _write(witness, 200)
    before = _applied(witness)
    passed = (
        "SELECT confirmed_flush_lsn - '0/0' > %s FROM pg_replication_slots WHERE slot_name = %s"
    )
    place = [old[0]["offset"]["lsn"], f"cdc_{stream.name}"]
    wait_until(lambda: stream.sql("primary", passed, place) == [(True,)], "the slot has passed it")
    _act(witness, "PUT", "/stop")
    _act(witness, "PATCH", "/offsets", {"offsets": old})
    _act(witness, "PUT", "/resume")
    active = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
    wait_until(
        lambda: (
            "FAILED" in _states(witness) or stream.sql("primary", active, place[1:]) == [(True,)]
        ),
        "the connector streams or fails",
        timeout=120,
    )
    # Which of both depends on whether the slot's restart_lsn has passed the old offset as well.
    if "FAILED" in _states(witness):
        assert "no longer available on the server" in witness.run("connectors", "status").stdout
        stream.cdc("connectors", "delete", "--offsets")
        stream.cdc("connectors", "apply")
    _write(witness, 210)

    # Ten transactions and the barrier of the command: nothing twice.
    assert 11 == _applied(witness) - before
    _equal(witness)


def test_deleted_offsets_leave_nothing_out(witness: Witness) -> None:
    """Connect forgets where it was, by our command or by another hand: it begins where the slot is."""
    _write(witness, 300)
    witness.stream.cdc("connectors", "delete", "--offsets")
    witness.stream.sql("primary", "INSERT INTO app.t VALUES (399, 'while there was no connector')")
    witness.stream.cdc("connectors", "apply")
    _write(witness, 310)
    _equal(witness)

    _act(witness, "PUT", "/stop")
    _act(witness, "DELETE", "/offsets")
    witness.stream.sql("primary", "INSERT INTO app.t VALUES (398, 'while it was stopped')")
    _act(witness, "PUT", "/resume")
    _write(witness, 320)
    _equal(witness)


def test_a_record_that_the_broker_refuses_is_never_passed_over(witness: Witness) -> None:
    """A row larger than the topic allows fails the connector; once allowed, its transaction comes."""
    stream = witness.stream
    _limit(witness, 100_000)
    with witness.unmoved():
        stream.sql(
            "primary",
            "INSERT INTO app.t SELECT 400 + i, CASE i WHEN 5 THEN string_agg(md5(i::text || n::text),"
            " '') ELSE 'small' END FROM generate_series(0, 9) i, generate_series(1, 10000) n GROUP BY i",
        )
        wait_until(lambda: "FAILED" in _states(witness), "the connector fails", timeout=120)
        failed = witness.run("connectors", "status")
        assert failed.returncode == 1
        assert "RecordTooLarge" in failed.stdout
    _limit(witness, 20 << 20)
    stream.cdc("connectors", "restart")
    stream.cdc("run", "-r", "r1", "--until-caught-up")

    _equal(witness)


def test_a_slot_made_anew_halts(witness: Witness) -> None:
    """A slot dropped while the primary goes on: halted between the commits where something is missing."""
    stream = witness.stream
    _act(witness, "PUT", "/stop")
    wait_until(lambda: _states(witness) == ["STOPPED"], "the connector is stopped")
    stream.sql("primary", "SELECT pg_drop_replication_slot(%s)", [f"cdc_{stream.name}"])
    stream.sql("primary", "INSERT INTO app.t VALUES (500, 'never captured')")
    stream.cdc("setup")
    _act(witness, "PUT", "/resume")
    wait_until(lambda: "FAILED" in _states(witness), "the connector fails", timeout=120)
    stream.cdc("connectors", "delete", "--offsets")
    stream.cdc("connectors", "apply")
    end = witness.stream.records()
    stream.sql("primary", "INSERT INTO app.t VALUES (501, 'captured again')")
    wait_until(lambda: witness.stream.records() >= end + 3, "the row is in the topic")
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1")

    assert "transactions are missing: transaction" in said.what
    assert "what comes next is not further on in the topic either" in said.what
    assert said.data.startswith("nothing of it was applied")
    assert "`cdc bootstrap --overwrite`" in said.next
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    _write(witness, 510)
    _equal(witness)


def _write(witness: Witness, first: int) -> None:
    """Commit ten transactions and apply them."""
    for key in range(first, first + 10):
        witness.stream.sql("primary", "INSERT INTO app.t VALUES (%s, 'v')", [key])
    witness.stream.cdc("run", "-r", "r1", "--until-caught-up")


def _equal(witness: Witness) -> None:
    nodes = {"primary": witness.stream.primary, "r1": witness.stream.replicas["r1"]}
    assert [] == compare.differences(nodes, ["app.t"])
    unmatched = "SELECT unmatched_updates + unmatched_deletes FROM cdc.position"
    assert [(0,)] == witness.stream.sql("r1", unmatched)


def _applied(witness: Witness) -> int:
    return int(witness.stream.sql("r1", "SELECT transactions_applied FROM cdc.position")[0][0])


def _url(witness: Witness) -> str:
    return f"{witness.stream.connect}/connectors/cdc_{witness.stream.name}"


def _states(witness: Witness) -> list[str]:
    answer = requests.get(f"{_url(witness)}/status", timeout=60)
    if not answer.ok:
        return []
    status = answer.json()
    return [part["state"] for part in (status["connector"], *status["tasks"])]


def _offsets(witness: Witness) -> list[dict[str, Any]]:
    """Return what Connect has stored, once it has."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = requests.get(f"{_url(witness)}/offsets", timeout=60).json()["offsets"]
        return bool(found)

    wait_until(there, "Connect has stored an offset")
    return found


def _act(witness: Witness, verb: str, path: str, body: object = None) -> None:
    """Ask Connect by another hand than ours, again while it is busy."""
    wait_until(
        lambda: requests.request(verb, _url(witness) + path, json=body, timeout=60).ok,
        f"{verb} {path} is done",
    )


def _limit(witness: Witness, size: int) -> None:
    """Change how large a record of the topic may be."""
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, witness.stream.topic, incremental_configs=[entry])
    kafka = AdminClient({"bootstrap.servers": witness.stream.kafka})
    kafka.incremental_alter_configs([topic])[topic].result(30)


def _consumer(witness: Witness) -> Consumer:
    servers = {"bootstrap.servers": witness.stream.kafka}
    return Consumer(servers | {"group.id": "a-test", "enable.auto.commit": False})


def _records(witness: Witness, first: int) -> list[Message]:
    """Return the topic's records from an offset to its end."""
    end, found = witness.stream.records(), list[Message]()
    with closing(_consumer(witness)) as consumer:
        consumer.assign([TopicPartition(witness.stream.topic, 0, first)])
        while not found or (found[-1].offset() or 0) < end - 1:
            found += consumer.consume(end - first, 1.0)
    return found


def _produce(witness: Witness, records: list[Message]) -> None:
    """Write records once more, headers included."""
    producer = Producer({"bootstrap.servers": witness.stream.kafka, "acks": "all"})
    for record in records:
        producer.produce(
            witness.stream.topic, record.value(), record.key(), 0, headers=record.headers()
        )
    assert producer.flush(30) == 0
