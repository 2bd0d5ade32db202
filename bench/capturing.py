"""How fast the connector fills the topic: the shipped definition beside Debezium's own defaults.

Run it by `make bench-road`. Each connector is stopped while the changes are written, then resumed alone, by turns;
the time runs from its first new record in Kafka to the last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import contestants
import harness
import psycopg
import requests
from cells import Cell
from confluent_kafka import Consumer, TopicPartition
from harness import Stack, Stream
from psycopg import sql

#: Seconds without a record after which a connector has sent all. The shipped one's heartbeats come more seldom.
_QUIET = 1.5

#: Debezium's and Kafka Connect's defaults, with and without the schema in each record.
PEERS: dict[str, dict[str, str]] = {
    "defaults": {},
    "defaults without schemas": {
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
    },
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
            yield lambda: int(consumer.get_watermark_offsets(place, timeout=30)[1])
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


def _peer(stream: Stream, table: Cell, name: str, settings: dict[str, str]) -> Connector:
    contestants.start_stock(stream, name, settings)
    return Connector(stream, name, f"{name}.public.{table.table}")


def _write(stream: Stream, table: Cell) -> None:
    with psycopg.connect(stream.primary, autocommit=True) as conn:
        table.write(conn)
        conn.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table.table)))


def capture(stack: Stack, folder: Path, rows: int, runs: int) -> dict[str, object]:
    """Return the seconds that each connector took for the same rows, in each run; the first is not counted."""
    table = Cell("wide", "insert", "large", rows)
    with harness.stream(stack, folder) as stream:
        stream.sql("primary", table.create)
        stream.cdc("setup")
        stream.cdc("connectors", "apply")
        found = {"cdc": Connector(stream, f"cdc_{stream.name}", stream.topic)}
        for number, (name, settings) in enumerate(PEERS.items()):
            found[name] = _peer(stream, table, f"peer{number}_{stream.name}", settings)
        took: dict[str, list[float]] = {name: [] for name in found}
        try:
            _write(stream, table)  # makes the topics
            for one in found.values():
                one.drained()
                one.stop()
            for run in range(runs + 1):
                _write(stream, table)
                turn = run % len(found)
                for name, one in [*found.items()][turn:] + [*found.items()][:turn]:
                    seconds = one.taken(rows)
                    if run:  # Java's code is compiled as it runs
                        took[name].append(seconds)
        finally:
            for name in list(found)[1:]:
                requests.delete(f"{stream.connect}/connectors/{found[name].name}", timeout=60)
    return {"rows": rows, "seconds": took}
