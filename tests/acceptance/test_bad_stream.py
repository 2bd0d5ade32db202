"""A stream that must not be applied, on the real stack: wrong connectors, records and topics.

Each case halts the daemon before it applies anything, and says where. The later tests of this
module wear the stream out: they run in the order of the file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compare
import harness
import pytest
import refusals
import requests
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from harness import Stack
from refusals import Witness

from cdc.events import LINK

TABLES = """
    CREATE SCHEMA app;
    CREATE TABLE app.t (id int PRIMARY KEY, a int DEFAULT 5);
    INSERT INTO app.t SELECT i, i FROM generate_series(1, 9) i;
"""

#: A transaction number and a place in the primary's log that the stack never reaches.
TXID, AHEAD = 4_000_000_000, 1 << 59


@pytest.fixture(scope="module")
def witness(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """Give a stream whose replica r1 is filled and has caught up."""
    with refusals.filled(stack, tmp_path_factory.mktemp("stream"), TABLES) as found:
        yield found


def test_passwords_stay_in_their_files(witness: Witness, stack: Stack) -> None:
    """Connect's REST answers and topics, command lines and logs hold no password of the stack."""
    stream = witness.stream
    daemon = stream.start("run", "-vv", "-r", "r1")
    stream.sql("primary", "INSERT INTO app.t VALUES (10, NULL)")
    stream.cdc("wait", "-r", "r1", "--now")
    connector = f"{stream.connect}/connectors/cdc_{stream.name}"
    asked = [f"{stream.connect}/connectors?expand=info&expand=status", f"{connector}/config"]
    told = {url: requests.get(url, timeout=30).text for url in (*asked, f"{connector}/status")}
    told |= {
        f"topic {name}": "\n".join(_texts(stream.kafka, name)) for name in _inner(stream.kafka)
    }
    told["command lines"] = "\n".join(
        path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if _readable(path)
    )
    logs = stack.config.parent / "logs"
    told |= {str(log): log.read_text(errors="replace") for log in logs.glob("*") if log.is_file()}
    daemon.terminate()
    assert daemon.wait(30) == 0
    told["the daemon's log"] = stream.log(daemon)

    assert "database.password" in told[f"{connector}/config"]
    assert any("database.password" in text for name, text in told.items() if "topic" in name)
    assert str(stream.config) in told["command lines"] or not Path("/proc").exists()
    assert {} == {
        name: secret[:3]
        for name, text in told.items()
        for secret in witness.hidden
        if secret in text
    }
    private = [stack.config.parent / "pgpass", stack.config.parent / "connect-secrets.properties"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in private if path.exists())


def test_a_connector_that_loses_values_is_refused(witness: Witness) -> None:
    """The daemon names every lossy setting that somebody has put into Connect; apply takes it back."""
    stream = witness.stream
    _put(
        witness,
        {"value.converter.schemas.enable": "true", "table.exclude.list": "app.u"},
        without=["value.converter.replace.null.with.default"],
    )
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1")

    assert f"the connector cdc_{stream.name} loses rows or values" in said.what
    for line in (
        "value.converter.replace.null.with.default is not set, must be false",
        "value.converter.schemas.enable is true, must be false",
        "table.exclude.list is app.u, must not be set",
    ):
        assert line in said.what
    assert "replica=r1" in said.at
    assert said.data.startswith("nothing is applied from here on")
    assert "`cdc connectors apply`" in said.next
    assert "replace.null.with.default" in witness.run("status", "-r", "r1").stdout
    stream.cdc("connectors", "apply")
    stream.sql("primary", "INSERT INTO app.t VALUES (11, NULL)")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == _differences(witness)


def test_a_stock_connector_is_refused(witness: Witness) -> None:
    """Debezium's own connector is refused; where Connect cannot be asked, its first BEGIN halts."""
    stream = witness.stream
    _put(
        witness,
        {"connector.class": "io.debezium.connector.postgresql.PostgresConnector"},
        without=["converters", "exact.type", "include.unknown.datatypes", "skipped.operations"],
    )
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1")
    assert (
        "connector.class is io.debezium.connector.postgresql.PostgresConnector, "
        "must be cdc.capture.ExactConnector"
    ) in said.what
    assert "converters is not set, must be exact" in said.what
    assert "`cdc connectors delete --offsets`" in said.next

    end = _end(witness)
    stream.sql("primary", "INSERT INTO app.t VALUES (12, 7)")
    harness.wait_until(lambda: _end(witness) >= end + 3, "the row is in the topic")
    dead = witness.variant((stream.connect, f"http://127.0.0.1:{refusals.closed_port()}"))
    with witness.unmoved():
        done = witness.run("run", "-r", "r1", config=dead)
        said = refusals.parse(done.stderr)
    assert done.returncode == 1
    assert "the connector's settings cannot be checked: Kafka Connect at" in done.stderr
    assert "the connector that wrote it is not the shipped one" in said.what
    assert f"topic={stream.topic} partition=0 offset={end}" in said.at
    assert said.data.startswith("nothing of it was applied, and nothing after it")
    assert "`cdc connectors status`" in said.next

    # Its offsets are not at commits, so the plugin does not go on from them.
    stream.cdc("connectors", "delete", "--offsets")
    stream.cdc("connectors", "apply")
    stream.cdc("bootstrap", "-r", "r1", "--overwrite")
    stream.cdc("run", "-r", "r1", "--until-caught-up")
    assert [] == _differences(witness)


def test_an_absent_connector_does_not_stop_the_daemon(witness: Witness) -> None:
    """What the topic holds is applied without a connector; the daemon says that there is none."""
    stream, end = witness.stream, _end(witness)
    stream.sql("primary", "INSERT INTO app.t VALUES (13, NULL)")
    harness.wait_until(lambda: _end(witness) >= end + 3, "the row is in the topic")
    stream.cdc("connectors", "delete")
    daemon = stream.start("run", "-r", "r1")
    harness.wait_until(lambda: [] == _differences(witness), "the row arrives")
    daemon.terminate()

    assert daemon.wait(30) == 0
    assert f"has no connector cdc_{stream.name}; applying" in stream.log(daemon)
    # What is missing is waited for where there is no connector: the tests below need one.
    stream.cdc("connectors", "apply")
    stream.cdc("run", "-r", "r1", "--until-caught-up")


@pytest.mark.parametrize(
    ("case", "what"),
    [
        ("garbage", "a record of the topic cannot be read: "),
        ("another shape", "neither a change event, a transaction boundary nor a heartbeat"),
        ("schema inside", "neither a change event, a transaction boundary nor a heartbeat"),
        ("a number", "a record of the topic cannot be read: Expected `str | null`, got `int`"),
        ("a snapshot row", "snapshot events (op r) do not come from commits"),
        ("no beginning", f"an event of transaction {TXID} comes without the transaction's beginning"),
        ("wrong counts", f"transaction {TXID} is not whole in the topic: its END counts 2 events, 1"),
        ("a repeated event", f"transaction {TXID} is not whole in the topic: event 1 came where 2 was due"),
        ("a gap", "transactions are missing: transaction"),
        ("an unknown column", "the replica lacks ghost"),
    ],
)  # fmt: skip
def test_a_malformed_record_halts(witness: Witness, case: str, what: str) -> None:
    """A record no connector of ours writes halts the daemon with its offset, in status too."""
    begin, row, end = _transaction(witness)
    image = {"id": "99", "a": "1"}
    bad: dict[str, tuple[int, list[Any]]] = {
        "garbage": (0, [b"\x00\x07 not JSON"]),
        "another shape": (0, [{"order": 4711, "customer": "somebody"}]),
        "schema inside": (0, [{"schema": {"type": "struct"}, "payload": row}]),
        "a number": (1, [begin, row | {"after": {"id": 99, "a": 1}}, end]),
        "a snapshot row": (1, [begin, row | {"op": "r"}, end]),
        "no beginning": (0, [row, end]),
        "wrong counts": (2, [begin, row, end | {"event_count": 2}]),
        "a repeated event": (3, [begin, row, row, end | {"event_count": 2}]),
        "a gap": (0, [begin | {LINK: AHEAD}, row, end]),
        "an unknown column": (1, [begin, row | {"after": image | {"ghost": "1"}}, end]),
    }
    at, records = bad[case]
    offset = _end(witness) + at
    _produce(witness, records)
    try:
        with witness.unmoved():
            said = witness.refused("run", "-r", "r1")
            status = witness.run("status", "-r", "r1")
            again = witness.refused("run", "-r", "r1")
    finally:
        _step_over(witness)

    assert what in said.what
    place = f"topic={witness.stream.topic} partition=0 offset={offset}"
    assert place in said.at
    assert said.data.startswith("nothing of")
    assert "cdc " in said.next or "start again" in said.next
    assert status.returncode == 1
    assert said.what in status.stdout
    assert place in status.stdout
    assert said == again


def test_a_log_cut_behind_the_position_halts(witness: Witness) -> None:
    """Records deleted before they were read are a lost position, never a jump."""
    _produce(witness, [None, None])
    cut = TopicPartition(witness.stream.topic, 0, _end(witness))
    kafka = _admin(witness)
    kafka.delete_records([cut])[cut].result(30)
    with witness.unmoved():
        said = witness.refused("run", "-r", "r1")

    assert "the topic does not hold the next record any more" in said.what
    assert f"topic={witness.stream.topic} partition=0" in said.at
    assert said.data.startswith("nothing was skipped")
    assert "`cdc bootstrap --overwrite`" in said.next
    _step_over(witness)


def test_a_topic_made_anew_halts(witness: Witness) -> None:
    """A topic deleted and made anew halts the running daemon, and one that starts on it."""
    stream, kafka = witness.stream, _admin(witness)
    daemon = stream.start("run", "-r", "r1")
    harness.wait_until(lambda: "applying from offset" in stream.log(daemon), "the daemon reads")
    with witness.unmoved():
        kafka.delete_topics([stream.topic])[stream.topic].result(30)
        running = witness.halted(daemon)
        gone = witness.refused("run", "-r", "r1")
        stream.cdc("setup")
        anew = witness.refused("run", "-r", "r1")

    assert running.what == gone.what == f"the topic {stream.topic} does not exist"
    assert gone.data == "nothing was changed"
    assert anew.what == "the topic was deleted and made anew since this replica was filled"
    assert anew.data.startswith("nothing was skipped")
    for said in (running, gone, anew):
        assert f"topic={stream.topic}" in said.at
        assert "`cdc bootstrap --overwrite`" in said.next


def test_a_topic_that_got_a_second_partition_halts(witness: Witness) -> None:
    """A partition added to the topic stops setup, bootstrap and daemon: order is lost."""
    stream, kafka = witness.stream, _admin(witness)
    kafka.create_partitions([NewPartitions(stream.topic, 2)])[stream.topic].result(30)
    with witness.unmoved():
        daemon = witness.refused("run", "-r", "r1")
        setup = witness.refused("setup")

    assert "the topic has 2 partitions; order across partitions is lost" in daemon.what
    assert f"the topic {stream.topic} has 2 partitions" in setup.what
    for said in (daemon, setup):
        assert f"topic={stream.topic}" in said.at
        assert "cdc setup" in said.next


def _put(witness: Witness, changed: dict[str, str], without: list[str]) -> None:
    """Change the stored connector as a foreign hand would, and wait until it runs."""
    url = f"{witness.stream.connect}/connectors/cdc_{witness.stream.name}"
    config = requests.get(f"{url}/config", timeout=30).json() | changed
    for key in without:
        del config[key]
    requests.put(f"{url}/config", json=config, timeout=60).raise_for_status()

    def runs() -> bool:
        found = requests.get(f"{url}/status", timeout=30).json()
        return [task["state"] for task in found.get("tasks", ())] == ["RUNNING"]

    harness.wait_until(runs, "the changed connector runs")


def _differences(witness: Witness) -> list[str]:
    nodes = {"primary": witness.stream.primary, "r1": witness.stream.replicas["r1"]}
    return compare.differences(nodes, ["app.t"])


def _admin(witness: Witness) -> AdminClient:
    return AdminClient({"bootstrap.servers": witness.stream.kafka})


@contextlib.contextmanager
def _consumer(kafka: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "a-test", "enable.auto.commit": False}
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _end(witness: Witness) -> int:
    with _consumer(witness.stream.kafka) as consumer:
        found = consumer.get_watermark_offsets(TopicPartition(witness.stream.topic, 0), timeout=30)
        return int(found[1])


def _texts(kafka: str, topic: str) -> Iterator[str]:
    """Yield everything a one-partition topic holds, as text."""
    with _consumer(kafka) as consumer:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
        consumer.assign([TopicPartition(topic, 0, low)])
        while low < high:
            for message in consumer.consume(500, 5.0):
                low = (message.offset() or 0) + 1
                yield f"{message.key()!r} {(message.value() or b'').decode(errors='replace')}"


def _inner(kafka: str) -> list[str]:
    """Return Connect's own topics, of which its configuration has one partition."""
    found = AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=30).topics
    return [
        name for name, topic in found.items() if "config" in name and len(topic.partitions) == 1
    ]


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:  # a process that has ended meanwhile
        return False


def _transaction(witness: Witness) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the records of a transaction that would come next: BEGIN, one row, END."""
    ((applied,),) = harness.rows(
        witness.stream.replicas["r1"], "SELECT applied_lsn - '0/0' FROM cdc.position"
    )
    begin = {
        "status": "BEGIN",
        "id": f"{TXID}:{AHEAD}",
        "event_count": None,
        "ts_ms": 1,
        LINK: int(applied),
    }
    row = {
        "before": None,
        "after": {"id": "99", "a": "1"},
        "source": {"schema": "app", "table": "t", "txId": TXID, "lsn": AHEAD},
        "transaction": {"id": f"{TXID}:{AHEAD}", "total_order": 1, "data_collection_order": 1},
        "op": "c",
        "ts_ms": 1,
    }
    counts = [{"data_collection": "app.t", "event_count": 1}]
    end = begin | {"status": "END", "event_count": 1, "data_collections": counts}
    return begin, row, end


def _produce(witness: Witness, records: list[Any]) -> None:
    """Write records; what a dictionary has under LINK becomes the header of that name."""
    producer = Producer({"bootstrap.servers": witness.stream.kafka, "acks": "all"})
    for record in records:
        link = record.get(LINK) if isinstance(record, dict) else None
        value = _text(record).encode() if isinstance(record, dict) else record
        headers: list[tuple[str, str | bytes | None]] = [] if link is None else [(LINK, str(link))]
        producer.produce(witness.stream.topic, value, partition=0, headers=headers)
    assert producer.flush(30) == 0


def _text(record: dict[str, Any]) -> str:
    """Write it as Connect's converter does, without a blank."""
    return json.dumps({k: v for k, v in record.items() if k != LINK}, separators=(",", ":"))


def _step_over(witness: Witness) -> None:
    """Move the replica behind what a test wrote: only a test knows that nothing is lost by it."""
    witness.stream.sql("r1", "UPDATE cdc.position SET next_offset = %s", [_end(witness)])
