"""Records out of the stream's topic, from exactly where the replica is.

The consumer is assigned, never subscribed: the position lives on the replica, and Kafka's own group
commit is done only so that ordinary lag tools show something.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from cdc import brokers, events, origins, stock, topic
from cdc.config import Config
from cdc.errors import CdcError, PositionLost, Unreachable
from cdc.events import Record
from cdc.position import Fenced, Position

#: The stream's topic has one partition: only that keeps the order of commits.
PARTITION = 0

#: Seconds between group commits; they carry no meaning for correctness.
_GROUP_COMMIT_EVERY = 5.0

#: Seconds between two looks whether the topic is still the one the position was taken from: the
#: consumer does not tell. It says nothing of a topic that was deleted, and reads on in a new one.
_CHECK_EVERY = 10.0

#: Seconds without Kafka after which the turn is given up: another daemon may reach it.
PATIENCE = 30.0

#: Seconds that one wait inside the client takes at most: signals are answered between two.
_SLICE = 0.5

_LOST = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001 -- the library's spelling of a public code
        KafkaError._LOG_TRUNCATION,  # noqa: SLF001 -- as above
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 -- as above
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 -- as above
    }
)

#: Trouble with the group commit alone: it carries no meaning.
_GROUP = frozenset(
    {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError._WAIT_COORD,  # noqa: SLF001 -- as above
    }
)

_SAFE = "nothing was skipped; the replica is consistent as of its position"
_AGAIN = "fill the replica anew: `cdc bootstrap --overwrite`"


class _Look:
    """A look at the topic in the background, since Kafka may take its time to answer."""

    def __init__(self, config: Config) -> None:
        self.found: topic.TopicInfo | CdcError | None = None
        self._config = config
        threading.Thread(target=self._run, name="topic", daemon=True).start()

    def _run(self) -> None:
        try:
            self.found = topic.describe(self._config)
        except CdcError as error:
            self.found = error


class Source:
    """Reads the topic of `config` for the consumer group `group`; says trouble to `on_trouble`."""

    def __init__(self, config: Config, group: str, on_trouble: Callable[[str], None]) -> None:
        self._config = config
        self._on_trouble = on_trouble
        self._rows = config.connect.profile == "stock"
        self._said = brokers.Said()
        with brokers.checked():
            self._consumer = Consumer(
                brokers.settings(config, self._client_trouble, _fixed(group), brokers.AHEAD)
            )
        self._committed_at = 0.0
        self._checked_at = 0.0
        self._look: _Look | None = None
        self._silent: tuple[str, float] | None = None
        self._doubted = False

    @property
    def silent(self) -> str | None:
        """Say why nothing can come out of Kafka now, None while it answers."""
        silent = self._silent  # another thread may read meanwhile, and hear something
        return None if silent is None else silent[0]

    def seek(self, position: Position) -> None:
        """Go to the position; PositionLost if the topic is not the one it was taken from."""
        self._look, self._checked_at = None, time.monotonic()
        self._judge(topic.describe(self._config), position)
        self._assign(position.next_offset, position.leader_epoch)

    def watch(self, position: Position) -> None:
        """Judge the last look at the topic as `seek` does, and begin another when it is time.

        Raises Unreachable when Kafka has not answered for so long that a turn should end.
        """
        now = time.monotonic()
        if self._look is not None and (found := self._look.found) is not None:
            self._look = None
            if isinstance(found, Unreachable):
                self._say_silent(found.what)
            elif isinstance(found, CdcError):
                raise found
            else:
                self._judge(found, position)
        silent = self._silent
        if silent is not None and now - silent[1] > PATIENCE:
            raise self._unreachable(silent[0])
        if self._look is None and now - self._checked_at >= _CHECK_EVERY:
            self._checked_at = now
            self._look = _Look(self._config)

    def _judge(self, found: topic.TopicInfo, position: Position) -> None:
        self._silent = None
        if found.partitions != 1:
            raise self._lost(
                f"the topic has {found.partitions} partitions; order across partitions is lost",
                "make the topic anew with one partition (`cdc setup`) and fill the replicas again",
            )
        if found.topic_id != position.topic_id:
            raise self._lost(
                "the topic was deleted and made anew since this replica was filled", _AGAIN
            )

    def rewind(self, offset: int) -> None:
        """Go back (or on) to `offset` of the same log."""
        self._assign(offset, None)

    def _assign(self, offset: int, epoch: int | None) -> None:
        at = TopicPartition(
            self._config.topic, PARTITION, offset, leader_epoch=-1 if epoch is None else epoch
        )
        self._consumer.assign([at])

    def read(self, most: int, timeout: float) -> list[Record]:
        """Return up to `most` records: what is there, waiting `timeout` seconds for the first.

        Raises PositionLost when the log no longer holds the next record, Fenced when the first
        records come after trouble: only `seek` sees whether the topic is still the same.
        """
        found = [
            record(m, self._config.topic, rows=self._rows)
            for m in brokers.taken(self._consumer, most, timeout)
            if m.error() is None or self._trouble(m)
        ]
        if found:
            self._silent = None
            if self._doubted:
                self._doubted = False
                raise Fenced("after trouble with Kafka the topic may be another one")
        return found

    def _trouble(self, message: Message) -> bool:
        error = message.error()
        if error is not None and error.code() in _LOST:
            raise self._lost(
                f"the topic does not hold the next record any more: {error.str()}",
                f"it was kept too short (kafka.topic.retention) or cut; {_AGAIN}",
                offset=message.offset(),
            )
        self._doubted = True
        self._on_trouble(f"Kafka: {error.str() if error else 'unknown trouble'}")
        return False

    def _client_trouble(self, error: KafkaError) -> None:
        """Take what the client says by itself, while it is polled."""
        self._on_trouble(f"Kafka: {brokers.told(error)}")
        if error.code() in _GROUP:
            return
        self._doubted = True
        self._said(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 -- as above
            why = f": {self._said.why}" if self._said.why else ""
            self._say_silent(
                f"Kafka at {self._config.kafka.bootstrap_servers} does not answer{why}"
            )

    def _say_silent(self, what: str) -> None:
        self._doubted = True
        if self._silent is None:
            self._silent = (what, time.monotonic())
            self._on_trouble(what)

    def ahead(self, offset: int) -> Iterator[Record]:
        """Yield the records from `offset` to the log's present end, through a consumer of its own.

        Raises Unreachable when Kafka falls silent before that end.
        """
        with_end = _fixed("cdc-lookahead") | {"enable.partition.eof": True}
        consumer = Consumer(
            brokers.settings(self._config, lambda _error: None, with_end, brokers.AHEAD)
        )
        asked = TopicPartition(self._config.topic, PARTITION, offset)
        try:
            # Where records keep coming, librdkafka never says that it has reached the end.
            _low, end = consumer.get_watermark_offsets(asked, timeout=topic.TIMEOUT)
            consumer.assign([asked])
            heard_at = time.monotonic()
            cut = offset > end  # then reading is what tells that the log was lost
            while cut or offset < end:
                if time.monotonic() - heard_at >= topic.TIMEOUT:
                    raise self._silent_ahead()
                for message in brokers.taken(consumer, 500, min(_SLICE, topic.TIMEOUT)):
                    heard_at = time.monotonic()
                    error = message.error()
                    if error is None:
                        offset = (message.offset() or 0) + 1
                        yield record(message, self._config.topic, rows=self._rows)
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- as above
                        return  # before `end` where markers of Kafka's own transactions stand last
                    else:
                        self._trouble(message)
        except KafkaException as error:
            raise self._silent_ahead() from error
        finally:
            consumer.close()

    def _silent_ahead(self) -> Unreachable:
        servers = self._config.kafka.bootstrap_servers
        return self._unreachable(f"Kafka at {servers} does not answer while the log is read ahead")

    def acknowledge(self, next_offset: int) -> None:
        """Tell Kafka's group where we are, now and then, for ordinary lag tools."""
        now = time.monotonic()
        if now - self._committed_at < _GROUP_COMMIT_EVERY:
            return
        self._committed_at = now
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._config.topic, PARTITION, next_offset)],
                asynchronous=True,
            )
        except KafkaException as error:
            self._on_trouble(f"Kafka refuses the group commit: {error}")

    def close(self) -> None:
        self._consumer.close()

    def _unreachable(self, what: str) -> Unreachable:
        return Unreachable(
            what, safe=_SAFE, next="check that a broker runs", topic=self._config.topic
        )

    def _lost(self, what: str, next_step: str, offset: int | None = None) -> PositionLost:
        return PositionLost(
            what,
            safe=_SAFE,
            next=next_step,
            topic=self._config.topic,
            partition=PARTITION,
            offset=offset,
        )


def record(message: Message, topic_name: str, *, rows: bool = False) -> Record:
    """Return what the client gave, in our words; `message` carries no error.

    Unless `rows`, what only boundaries are asked for is left out of others: the list of headers above all
    would cost more than the rest.
    """
    offset, value = message.offset() or 0, message.value()
    boundary = stock.is_boundary(value) if rows else events.is_boundary(value)
    if not (boundary or rows):
        return Record(topic_name, PARTITION, offset, None, value)
    epoch, headers = message.leader_epoch(), dict(message.headers() or ())
    return Record(
        topic_name,
        PARTITION,
        offset,
        None if epoch is None or epoch < 0 else epoch,
        value,
        _bytes(headers.get(events.LINK)),
        _bytes(headers.get(origins.HEADER)),
        appended_ms(message) if boundary else None,
        _bytes(headers.get(stock.RUN)),
    )


def appended_ms(message: Message) -> int | None:
    """Return when the record was made for the topic, in ms since 1970; None where it does not say."""
    stamp = message.timestamp()[1]
    return stamp if stamp > 0 else None


def _bytes(header: str | bytes | None) -> bytes | None:
    return header if isinstance(header, bytes) else None


def _fixed(group: str) -> dict[str, Any]:
    """Return the settings that correctness rests on; the configuration cannot change them."""
    return {
        **brokers.READING,
        "group.id": group,
        "enable.auto.offset.store": False,
        "check.crcs": True,
        # Never in a group, so this is only how long `close` waits for a group commit without Kafka.
        "session.timeout.ms": 1000,
    }
