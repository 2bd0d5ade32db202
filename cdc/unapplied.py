"""What lies in the topic that a replica has not applied: how much, and since when."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from cdc import brokers, events, source, stock
from cdc.brokers import Reader
from cdc.config import Config
from cdc.errors import MalformedRecord, Unreachable
from cdc.events import Begin, Change, End, Event
from cdc.lag import Cut, First
from cdc.readings import PATIENCE
from cdc.source import PARTITION

#: Records looked at in one go for the first that is not applied; the next look goes on.
_RECORDS = 20_000

#: How many of the topic's last offsets are looked through for a record of a transaction, again and again:
#: behind it may stand the connector's own heartbeats, and markers of Kafka's own transactions.
_WINDOWS = (4, 64, 1024, 16384)


class Log:
    """The stream's topic: where it ends, and which transaction a replica has to apply next."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._read = stock.reader(config)
        self._consumer: Reader | None = None
        self._at = TopicPartition(config.topic, PARTITION)
        self._looked: dict[str, tuple[int, int, First | None]] = {}
        self._last: tuple[int, Cut | None] = (0, None)  # known up to there

    def end(self) -> int:
        """Return the offset that the topic's next record will get; Unreachable."""
        with self._errors():
            _low, high = self._open().ends(self._at, PATIENCE)
        return high

    def first(self, replica: str, next_offset: int, applied_lsn: int, end: int) -> First | None:
        """Return the first transaction at or behind `next_offset` that was not applied; Unreachable.

        None where there is none before `end`, or where so much comes twice that it is not found yet.
        """
        start, upto, found = self._looked.get(replica, (next_offset, next_offset, None))
        if start <= next_offset and found is not None and found.offset >= next_offset:
            return found
        if found is not None or start > next_offset or upto < next_offset:
            upto = next_offset
        found = None
        if upto < end:
            with self._errors():
                upto, found = self._search(upto, end, applied_lsn)
        self._looked[replica] = (next_offset, upto, found)
        return found

    def cut(self, first: First, end: int) -> Cut | None:
        """Return the last record of a transaction before `end`, None where it is its END; Unreachable.

        `first` is not applied. A connector that meets a value it cannot read has sent the transaction
        up to there.
        """
        if self._last[0] > end:  # another topic by the same name
            self._last = (0, None)
        floor = max(first.offset, self._last[0])
        for size in _WINDOWS:
            start = max(floor, end - size)
            if start < end and (found := self._tail(start, end)) is not None:
                self._last = found
                break
            if start == floor:
                break
        return self._last[1]

    def _tail(self, start: int, end: int) -> tuple[int, Cut | None] | None:
        """Return the last record of a transaction from `start` to `end`: what follows it, and the cut."""
        found = None
        with self._errors():
            for message in self._records(start, end):
                offset, appended_ms = message.offset() or 0, source.appended_ms(message)
                match self._event(message):
                    case Begin() | Change() | events.Message(txid=int()):
                        cut = None if appended_ms is None else Cut(offset, appended_ms / 1000)
                        found = (offset + 1, cut)
                    case End():
                        found = (offset + 1, None)
        return found

    def _search(self, offset: int, end: int, applied_lsn: int) -> tuple[int, First | None]:
        """Return where the search stands, and the first BEGIN that names no earlier commit than ours."""
        begun = None
        for message in self._records(offset, end):
            offset = (message.offset() or 0) + 1
            if begun is not None:
                return begun.offset, _captured(begun, message)
            begun = self._begun(message, applied_lsn)
        return (offset, None) if begun is None else (begun.offset, begun)

    def _event(self, message: Message) -> Event | None:
        """Return what a record carries, None where it cannot be read: the daemon halts at it and says why."""
        try:
            return self._read(source.record(message, self._config.topic))
        except MalformedRecord:
            return None

    def _begun(self, message: Message, applied_lsn: int) -> First | None:
        """Return what a BEGIN tells, None for any other record and for a transaction that comes twice."""
        if not stock.is_boundary(message.value()):
            return None
        event = self._event(message)
        if not isinstance(event, Begin) or event.commit_ms is None:
            return None
        if event.previous is not None and event.previous < applied_lsn:
            return None
        appended_ms = source.appended_ms(message)
        return First(
            event.offset,
            event.commit_ms / 1000,
            appended=None if appended_ms is None else appended_ms / 1000,
        )

    def _records(self, offset: int, end: int) -> Iterator[Message]:
        """Yield the records from `offset` to `end`, as many as a look may take."""
        consumer = self._open()
        consumer.assign([TopicPartition(self._config.topic, PARTITION, offset)])
        deadline, taken = time.monotonic() + PATIENCE, 0
        try:
            while offset < end and taken < _RECORDS and time.monotonic() < deadline:
                for message in brokers.taken(consumer, 100, 0.2):
                    if (error := message.error()) is not None:
                        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 -- the library's spelling of a public code
                            return
                        raise consumer.trouble(error.str())
                    taken, offset = taken + 1, (message.offset() or 0) + 1
                    yield message
        finally:
            consumer.unassign()  # or it would go on fetching what nobody reads

    def _open(self) -> Reader:
        if self._consumer is None:
            self._consumer = Reader(
                self._config,
                {
                    "group.id": "cdc-look",
                    "enable.partition.eof": True,
                    "fetch.wait.max.ms": 50,
                    "session.timeout.ms": 1000,  # never in a group: only what closing may take
                    "queued.max.messages.kbytes": 2048,
                },
            )
        return self._consumer

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the client's errors into ours; the next look begins with a fresh client."""
        consumer = self._open()
        try:
            yield
        except KafkaException as error:
            self.close()
            raise consumer.trouble(error.args[0].str()) from error
        except Unreachable:
            self.close()
            raise

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()
        self._consumer = None


class _Times(msgspec.Struct):
    """When the connector made a record out of a row or message."""

    op: str | None = None
    ts_ms: int | None = None


def _captured(begun: First, message: Message) -> First:
    """Add when the connector read the first row, which the record behind BEGIN tells."""
    try:
        times = msgspec.json.decode(message.value() or b"{}", type=_Times)
    except msgspec.MsgspecError:
        return begun
    if times.op is None or times.ts_ms is None:
        return begun
    return dataclasses.replace(begun, captured=times.ts_ms / 1000)
