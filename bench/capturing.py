"""How fast the connector fills the topic, and how soon: the shipped definition beside Debezium's own defaults.

Run it by `make bench-road`. For how fast, each connector is stopped while the changes are written, then resumed alone, by
turns; the time runs from its first new record in Kafka to the last. For how soon, each runs alone while transactions
of one row are written at a steady rate; the time runs from when a row was written to when its record was read from Kafka.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import contestants
import harness
import psycopg
import requests
from cells import Cell
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from harness import Stack, Stream
from progress import say
from psycopg import sql
from ticks import Ticks, figures

#: Seconds without a record after which a connector has sent all. The shipped one's heartbeats come more seldom.
_QUIET = 1.5

#: One-row transactions that each sends as fast as it can before its first turn, and the seconds at the steady rate
#: before each; neither is counted.
WARM = 20_000
BEFORE = 2.0

#: Seconds in which what was written must have come.
_MOST = 300.0

#: How a reader of records asks for them: again and again, and for whatever there is.
_READER: dict[str, str | int | bool] = {
    "group.id": "bench",
    "enable.auto.commit": False,
    "fetch.min.bytes": 1,
    "fetch.wait.max.ms": 5,
}

#: Debezium's and Kafka Connect's defaults, with and without the schema in each record.
PEERS: dict[str, dict[str, str]] = {
    "defaults": {},
    "defaults without schemas": {
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    },
}

#: Beside these, for how soon: they wait half a second for more records; the shipped definition does not.
POLLED: dict[str, dict[str, str]] = {
    "defaults without schemas, polled": PEERS["defaults without schemas"]
    | {"poll.interval.ms": "10"},
}

#: What is said of a topic that is not there.
_NO_TOPIC = {
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 -- named so by the library
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    KafkaError.UNKNOWN_TOPIC_OR_PART,
}


class Connector:
    """A connector of the worker that writes the changes of one table to one topic."""

    def __init__(self, stream: Stream, name: str, topic: str) -> None:
        self._stream, self.name, self._topic = stream, name, topic
        self._url = f"{stream.connect}/connectors/{name}"

    def ask(self, what: str) -> None:
        requests.put(f"{self._url}/{what}", timeout=60).raise_for_status()

    def stop(self) -> None:
        """End its task; the slot keeps what comes."""
        self.ask("stop")
        harness.wait_until(
            lambda: not requests.get(f"{self._url}/status", timeout=30).json()["tasks"],
            f"{self.name} stops", timeout=120,
        )  # fmt: skip

    def drained(self) -> None:
        """Wait until nothing more comes from it."""
        with self._ends() as end:
            harness.wait_until(lambda: end() > 0, f"{self.name} has sent something", timeout=120)
            last, since = end(), time.monotonic()
            while time.monotonic() - since < _QUIET:
                time.sleep(0.2)
                if (now := end()) != last:
                    last, since = now, time.monotonic()

    @contextlib.contextmanager
    def _ends(self) -> Iterator[Callable[[], int]]:
        """Give what tells how many records its topic has."""
        consumer = Consumer({"bootstrap.servers": self._stream.kafka, "group.id": "bench"})
        place = TopicPartition(self._topic, 0)
        try:
            yield lambda: _end(consumer, place)
        finally:
            consumer.close()

    def taken(self, rows: int) -> float:
        """Resume it; return the seconds in which `rows` records came, and stop it when there are no more."""
        with self._ends() as end:
            before = end()
            self.ask("resume")
            harness.wait_until(lambda: end() > before + 1000, "it sends", timeout=120)
            began, first = time.monotonic(), end()
            harness.wait_until(lambda: end() >= before + rows, "all is captured", timeout=900)
            took = (time.monotonic() - began) / (before + rows - first) * rows
        self.drained()
        self.stop()
        return took

    @contextlib.contextmanager
    def reader(self) -> Iterator[Consumer]:
        """Give a consumer of what comes into its topic from now on."""
        consumer = Consumer({"bootstrap.servers": self._stream.kafka, **_READER})
        try:
            place = TopicPartition(self._topic, 0)
            place.offset = _end(consumer, place)
            consumer.assign([place])
            yield consumer
        finally:
            consumer.close()


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """Return how many records a topic has, 0 where it is not made yet."""
    try:
        return int(consumer.get_watermark_offsets(place, timeout=30)[1])
    except KafkaException as error:
        if error.args[0].code() not in _NO_TOPIC:
            raise
        return 0


@contextlib.contextmanager
def _connectors(
    stream: Stream, table: str, peers: dict[str, dict[str, str]]
) -> Iterator[dict[str, Connector]]:
    """Start the connector of the stream and its peers for one table; take the peers away afterwards."""
    stream.cdc("setup")
    stream.cdc("connectors", "apply")
    found = {"cdc": Connector(stream, f"cdc_{stream.name}", stream.topic)}
    names = {name: f"peer{number}_{stream.name}" for number, name in enumerate(peers)}
    try:
        for name, settings in peers.items():
            contestants.start_stock(stream, names[name], settings)
            found[name] = Connector(stream, names[name], f"{names[name]}.public.{table}")
        yield found
    finally:
        for peer in names.values():
            requests.delete(f"{stream.connect}/connectors/{peer}", timeout=60)


def _turns(found: dict[str, Connector], run: int) -> list[tuple[str, Connector]]:
    """Return them all, another one first in each run."""
    turn = run % len(found)
    return [*found.items()][turn:] + [*found.items()][:turn]


def _write(stream: Stream, table: Cell) -> None:
    with psycopg.connect(stream.primary, autocommit=True) as conn:
        table.write(conn)
        conn.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table.table)))


def capture(stack: Stack, folder: Path, rows: int, runs: int) -> dict[str, Any]:
    """Return the seconds that each connector took for the same rows, in each run; the first is not counted."""
    table = Cell("wide", "insert", "large", rows)
    with harness.stream(stack, folder) as stream:
        stream.sql("primary", table.create)
        with _connectors(stream, table.table, PEERS) as found:
            took: dict[str, list[float]] = {name: [] for name in found}
            _write(stream, table)  # makes the topics
            _stop(found)
            for run in range(runs + 1):
                _write(stream, table)
                for name, one in _turns(found, run):
                    seconds = one.taken(rows)
                    if run:  # Java's code is compiled as it runs
                        took[name].append(seconds)
    return {"rows": rows, "seconds": took}


def latency(stack: Stack, folder: Path, rate: float, seconds: float, runs: int) -> dict[str, Any]:
    """Return what each connector's records took into Kafka, in each run, each connector alone at the same load."""
    with harness.stream(stack, folder) as stream:
        ticks = Ticks(stream)
        with _connectors(stream, "ticks", PEERS | POLLED) as found:
            took: dict[str, list[dict[str, float]]] = {name: [] for name in found}
            ticks.write(1)  # makes the topics
            _stop(found)
            for run in range(runs):
                for name, one in _turns(found, run):
                    one.ask("resume")
                    with one.reader() as reader:
                        if not run:  # Java's code is compiled as it runs
                            _sent(reader, ticks, WARM, 0)
                        _sent(reader, ticks, max(1, int(rate * BEFORE)), rate)
                        told = _sent(reader, ticks, int(rate * seconds), rate)
                    one.stop()
                    took[name].append(told)
                    say(name, told)
    return {"rate": rate, "runs": took}


def _stop(found: dict[str, Connector]) -> None:
    """Stop all, once they have sent what there is."""
    for one in found.values():
        one.drained()
        one.stop()


def _sent(reader: Consumer, ticks: Ticks, number: int, rate: float) -> dict[str, float]:
    """Write transactions of one row; return what these took until their records were read."""
    first, took = ticks.last, list[float]()
    with ticks.writing(number, rate):
        began = time.monotonic()
        deadline = began + _MOST
        while len(took) < number:
            assert time.monotonic() < deadline, f"{len(took)} of {number} rows have come"
            message = reader.poll(1)
            if message is None:
                continue
            now, value = time.time(), message.value()
            if message.error() or value is None:
                raise KafkaException(message.error())
            if (row := _row(value)) and int(row["id"]) > first:
                took.append(now - dt.datetime.fromisoformat(row["at"]).timestamp())
        lasted = time.monotonic() - began
    return figures(took, rate, lasted)


def _row(value: bytes) -> dict[str, str] | None:
    """Return the row after a change, None of what is no change; a record may have its schema around it."""
    record = json.loads(value)
    record = record.get("payload", record)
    row = record.get("after")
    return None if row is None else dict(row)
