"""A mark read back from the topic.

It proves slot, connector, topic and permissions in one step, and names the offset where
the stream stands after it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import psycopg
from confluent_kafka import Message as Received
from confluent_kafka import TopicPartition

from cdc import brokers, connectors, marks, source, stock
from cdc.brokers import Reader
from cdc.config import Config
from cdc.connect import Connect
from cdc.connectors import Health
from cdc.errors import CdcError, ConnectRefused, MalformedRecord, NotReady, Unreachable
from cdc.events import End, Event, Heartbeat, Message
from cdc.marks import Mark
from cdc.source import PARTITION

#: Seconds without any transaction in the topic after which the barrier is given up.
SILENCE = 60.0

#: Seconds between two lines that say what is waited for.
_SAY_EVERY = 5.0

_SAFE = "nothing was copied and no table was emptied"


def _consumer(config: Config) -> Reader:
    return Reader(config, {"group.id": "cdc-barrier"}, _SAFE)


def _bounds(consumer: Reader, config: Config) -> tuple[int, int]:
    return consumer.ends(TopicPartition(config.topic, PARTITION), 15)


def bounds(config: Config) -> tuple[int, int]:
    """Return the topic's first offset and the one its next record will get."""
    with contextlib.closing(_consumer(config)) as consumer:
        return _bounds(consumer, config)


class Watch:
    """Reads the topic from its end at the time of construction on, until a barrier has passed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._decode = stock.reader(config)
        self._consumer = _consumer(config)
        try:
            _low, high = _bounds(self._consumer, config)
        except Unreachable:
            self.close()
            raise
        self._consumer.assign([TopicPartition(config.topic, PARTITION, high)])

    def close(self) -> None:
        self._consumer.close()

    def until(self, mark: Mark, note: Callable[[str], None], silence: float = SILENCE) -> End:
        """Return the END of the barrier's transaction, however many are before it.

        Raises ConnectRefused, NotReady or Unreachable, saying which part is probably at fault,
        when no transaction comes for `silence` seconds, or one that committed so much later.
        """
        wanted = mark.token.encode()
        txid: int | None = None
        seen = 0
        heard_at = said_at = time.monotonic()
        while (now := time.monotonic()) - heard_at < silence:
            if seen and now - said_at >= _SAY_EVERY:
                said_at = now
                note(f"the connector is behind: {seen:,} records before the barrier so far")
            for message in brokers.taken(self._consumer, 500, 0.5):
                event = self._event(message)
                # Heartbeats without a transaction go on when nothing else does.
                if event is not None and not isinstance(event, Heartbeat):
                    heard_at = now
                    seen += 1
                if isinstance(event, Message) and event.content == wanted:
                    txid = event.txid
                if isinstance(event, End) and event.txid == txid:
                    return event
                if isinstance(event, End) and event.commit_ms / 1000 > mark.at + silence:
                    raise _passed(self._config)
        raise diagnose(self._config, silence, seen)

    def _event(self, message: Received) -> Event | None:
        """Return the event; None for what only the daemon has to judge."""
        error = message.error()
        if error is not None:
            raise Unreachable(
                f"the topic cannot be read: {error.str()}",
                safe=_SAFE,
                next="check that the topic exists and may be read, then run the command again",
                topic=self._config.topic,
            )
        try:
            return self._decode(source.record(message, self._config.topic))
        except MalformedRecord:
            return None


def pass_through(
    config: Config, primary: psycopg.Connection[Any], note: Callable[[str], None]
) -> End:
    """Write a barrier, wait until it was read from the topic, return its transaction's END."""
    with contextlib.closing(Watch(config)) as watch:
        return watch.until(marks.emit(primary, config), note)


def _passed(config: Config) -> NotReady:
    """Return the error for a stream that goes on without the barrier."""
    return NotReady(
        "a barrier written on the primary did not reach the topic, though transactions that "
        "committed long after it did: the connector reads another database or server than primary.dsn",
        safe=_SAFE,
        next="make primary.dsn and [connect.database] name the same server and database, run `cdc "
        "connectors apply`, then this command again",
        topic=config.topic,
    )


def connector(config: Config) -> Health:
    """Ask Kafka Connect how the connector is; ConnectRefused when it failed, NotReady when absent."""
    name = config.connector
    status = Connect(config.connect, patience=10).status(name)
    if status is None:
        raise NotReady(
            f"the connector {name} does not exist in Kafka Connect",
            safe=_SAFE,
            next="run `cdc connectors apply`, then this command again",
        )
    health = connectors.health(status)
    if health.failed:
        raise ConnectRefused(
            f"the connector {name} has failed: {'; '.join(health.traces) or health}",
            safe=_SAFE,
            next="mend what the trace says, run `cdc connectors restart`, then this command again",
        )
    return health


def diagnose(config: Config, silence: float, records: int) -> CdcError:
    """Return why a barrier probably did not arrive, after asking Kafka Connect."""
    what = "a barrier written on the primary did not reach the topic"
    try:
        health = connector(config)
    except CdcError as error:
        return type(error)(f"{what}: {error.what}", safe=_SAFE, next=error.next)
    said = (
        f"after {records:,} other records nothing came for {silence:g} s"
        if records
        else f"nothing came for {silence:g} s"
    )
    return NotReady(
        f"{what}, though Kafka Connect says of the connector: {health}; {said}",
        safe=_SAFE,
        next=f"see the worker's log, that the slot {config.slot} is active (pg_replication_slots) "
        f"and that the connector writes to the topic {config.topic}; then run this command again",
        topic=config.topic,
    )
