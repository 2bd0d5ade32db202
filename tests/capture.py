"""A connector of its own on a running stack, and what it has written into its topic."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import secrets
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, LiteralString

import harness
import msgspec
import psycopg
import requests
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import Stack, rows, wait_until
from psycopg import conninfo, sql

from cdc import resources

EXACT = "cdc.capture.ExactConnector"
STOCK = "io.debezium.connector.postgresql.PostgresConnector"
UNCHANGED = "\u0001"

#: What values' text depends on, as the connector's role must have it.
PINNED = {
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
}


class Source(msgspec.Struct):
    """Where an event is from; `sequence` is JSON text: last END LSN, own LSN."""

    schema: str
    table: str
    sequence: str | None = None


class Block(msgspec.Struct):
    id: str
    total_order: int


class Event(msgspec.Struct):
    """A record's value: a marker (`status`), a change (`op`) or a heartbeat (neither)."""

    status: str | None = None
    id: str | None = None
    event_count: int | None = None
    op: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    source: Source | None = None
    transaction: Block | None = None
    message: dict[str, Any] | None = None
    key: dict[str, str] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Whole:
    """A transaction that is in the topic from BEGIN to END, with all its events."""

    txid: int
    end: int
    events: tuple[Event, ...]

    def of(self, table: str) -> list[Event]:
        return [e for e in self.events if e.source and e.source.table == table]


def whole(events: Iterable[Event]) -> list[Whole]:
    """Return each transaction that is complete, as often as it is there.

    BEGIN of an open transaction starts it again. Complete means that the number of events is what
    END says and that they are numbered 1, 2, 3 …
    """
    found = []
    open_: dict[int, list[Event]] = {}
    for event in events:
        if event.status == "BEGIN" and event.id:
            open_[int(event.id.split(":")[0])] = []
        elif event.status == "END" and event.id:
            txid, end = map(int, event.id.split(":"))
            got = open_.pop(txid, None)
            if got is not None and [e.transaction and e.transaction.total_order for e in got] == [
                *range(1, (event.event_count or 0) + 1)
            ]:
                found.append(Whole(txid, end, tuple(got)))
        elif event.transaction:
            open_.get(int(event.transaction.id.split(":")[0]), []).append(event)
    return found


@dataclasses.dataclass(slots=True)
class Capture:
    """A database, a role, a publication, a topic and a connector, all named alike."""

    stack: Stack
    name: str = dataclasses.field(default_factory=lambda: f"p{secrets.token_hex(4)}")
    password: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))

    @property
    def connector(self) -> str:
        return f"cdc_{self.name}"

    @property
    def topic(self) -> str:
        return f"cdc.{self.name}"

    @property
    def dsn(self) -> str:
        return conninfo.make_conninfo(self.stack.primary, dbname=self.name)

    @property
    def url(self) -> str:
        return f"{self.stack.connect}/connectors/{self.connector}"

    def sql(self, statement: LiteralString | sql.Composed, *params: Any) -> list[tuple[Any, ...]]:
        return rows(self.dsn, statement, params)

    def create(self) -> None:
        """Make everything but the connector."""
        name = sql.Identifier(self.name)
        rows(self.stack.primary, sql.SQL("CREATE DATABASE {}").format(name))
        self.sql(
            sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}").format(name, self.password)
        )
        for setting, value in PINNED.items():
            self.sql(
                sql.SQL("ALTER ROLE {0} IN DATABASE {0} SET {1} = {2}").format(
                    name, sql.Identifier(setting), value
                )
            )
        self.sql(
            sql.SQL("CREATE PUBLICATION {} FOR ALL TABLES").format(sql.Identifier(self.connector))
        )
        admin = AdminClient({"bootstrap.servers": self.stack.kafka})
        admin.create_topics([NewTopic(self.topic, 1, 1)])[self.topic].result(timeout=30)

    def config(self, **changed: str | None) -> dict[str, str]:
        """Return the shipped definition for this place; `__` in a name stands for a dot.

        A key given as None is left out, as is what only other places need.
        """
        server = conninfo.conninfo_to_dict(self.stack.primary)
        place = {
            "name": self.name,
            "connector": self.connector,
            "database.host": server["host"],
            "database.port": server["port"],
            "database.name": self.name,
            "database.user": self.name,
            "database.password": self.password,
            "topic": self.topic,
            "topic.prefix": self.name,
            "topic.prefix.quoted": self.name,
            "topic.max_message_bytes": 20 << 20,
            "producer.buffer": 64 << 20,
            "slot": self.connector,
            "publication": self.connector,
            "heartbeat.ms": 1000,
        }
        text = resources.text("connectors/postgres.json")
        for key, value in place.items():
            text = text.replace(f"${{{key}}}", str(value))
        filled: dict[str, str] = json.loads(text)["config"]
        given = {key.replace("__", "."): value for key, value in changed.items()}
        merged = {**filled, **given}
        return {k: v for k, v in merged.items() if v is not None and not v.startswith("${")}

    def put(self, **changed: str | None) -> requests.Response:
        """Create or change the connector; Connect's answer."""
        return requests.put(f"{self.url}/config", json=self.config(**changed), timeout=60)

    def start(self, **changed: str | None) -> None:
        """Create or change the connector and wait until its task runs and the slot is read."""

        def taken() -> bool:
            answer = self.put(**changed)
            assert answer.status_code != requests.codes.bad_request, answer.text
            return answer.ok

        wait_until(taken, "the worker takes the connector")
        self.running()

    def states(self) -> list[str]:
        """Return the states of connector and tasks; empty when Connect does not know it."""
        with contextlib.suppress(requests.RequestException):
            answer = requests.get(f"{self.url}/status", timeout=30)
            if answer.ok:
                status = answer.json()
                return [part["state"] for part in (status["connector"], *status["tasks"])]
        return []

    def trace(self) -> str:
        """Return what the first failed task says."""
        tasks = requests.get(f"{self.url}/status", timeout=30).json()["tasks"]
        return "\n".join(task.get("trace", "") for task in tasks)

    def running(self) -> None:
        """Wait until the task runs and reads the slot."""
        active: LiteralString = "SELECT active FROM pg_replication_slots WHERE slot_name = %s"
        wait_until(
            lambda: (
                self.states() == ["RUNNING", "RUNNING"]
                and self.sql(active, self.connector) == [(True,)]
            ),
            f"{self.connector} streams",
        )

    def failed(self) -> str:
        """Wait until the task has failed; what it says."""
        wait_until(lambda: "FAILED" in self.states(), f"{self.connector} fails")
        return self.trace()

    def act(self, verb: str, path: str = "") -> None:
        """Do something to the connector over REST, again while the worker rebalances."""

        def done() -> bool:
            try:
                return requests.request(verb, self.url + path, timeout=60).ok
            except requests.RequestException:
                return False

        wait_until(done, f"{verb} {path} is accepted")

    def stored(self) -> dict[str, Any] | None:
        """Return the offset Connect has stored."""
        offsets = requests.get(f"{self.url}/offsets", timeout=30).json()["offsets"]
        return offsets[0]["offset"] if offsets else None

    def set_back(self, offset: dict[str, Any]) -> None:
        """Store `offset` for the stopped connector, as somebody does who restores old ones."""
        found = requests.get(f"{self.url}/offsets", timeout=30).json()["offsets"][0]["partition"]
        body = {"offsets": [{"partition": found, "offset": offset}]}
        requests.patch(f"{self.url}/offsets", json=body, timeout=60).raise_for_status()

    def records(self) -> int:
        """Return how many records the topic has, control records included."""
        with closing(self.consumer()) as consumer:
            return self._end(consumer)

    def reach(self, records: int) -> None:
        """Wait until the topic has so many records."""
        with closing(self.consumer()) as consumer:
            wait_until(lambda: self._end(consumer) >= records, f"{records} records are there")

    def consumer(self) -> Consumer:
        """Return a consumer of the topic, at no position yet."""
        return Consumer(
            {
                "bootstrap.servers": self.stack.kafka,
                "group.id": "none",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "check.crcs": True,
            }
        )

    def _end(self, consumer: Consumer) -> int:
        return int(consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=30)[1])

    def mark(self) -> str:
        """Emit a message into the stream; everything committed before stands before it."""
        token = secrets.token_hex(8)
        self.sql("SELECT pg_logical_emit_message(true, %s, '')", token)
        return token

    def drained(self, keys: bool = False) -> list[Event]:
        """Emit a message, and return all events up to where it stands in the topic."""
        return list(self.read(self.mark(), keys))

    def read(self, until: str, keys: bool = False) -> Iterator[Event]:
        """Give every event from the start of the topic to the message `until`."""
        decode = msgspec.json.Decoder(Event).decode
        with closing(self.consumer()) as consumer:
            consumer.assign([TopicPartition(self.topic, 0, OFFSET_BEGINNING)])
            idle = 0
            while True:
                messages = consumer.consume(10_000, timeout=1)
                idle = 0 if any(not m.error() for m in messages) else idle + 1
                for message in messages:
                    if message.error():
                        continue
                    event = decode(message.value() or b"{}")
                    if keys and event.op:
                        event.key = json.loads(message.key() or b"null")
                    yield event
                    if event.message and event.message["prefix"] == until:
                        return
                assert "FAILED" not in (self.states() if idle else ()), self.trace()
                assert idle < 60, "nothing arrived for a minute"

    def remove(self) -> None:
        """Take everything away."""
        with contextlib.suppress(requests.RequestException):
            requests.delete(self.url, timeout=60)
        harness.drop_slots(self.stack.primary, self.name)
        name = sql.Identifier(self.name)
        rows(self.stack.primary, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        rows(self.stack.primary, sql.SQL("DROP ROLE {}").format(name))
        admin = AdminClient({"bootstrap.servers": self.stack.kafka})
        admin.delete_topics([self.topic])[self.topic].result(timeout=30)


@contextlib.contextmanager
def capture(stack: Stack) -> Iterator[Capture]:
    """Give a fresh capture without a connector and take it away afterwards."""
    fresh = Capture(stack)
    fresh.create()
    try:
        yield fresh
    finally:
        fresh.remove()


def server(dsn: str) -> psycopg.Connection[tuple[Any, ...]]:
    """Open a session that prints values as the connector's does."""
    settings = {**PINNED, "timezone": "UTC", "datestyle": "ISO", "search_path": "public"}
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    return psycopg.connect(dsn, options=options)
