"""What the live table shows, read where it is true: the replicas' own tables and the topic's end."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from types import TracebackType
from typing import Any, Self

import msgspec
import psycopg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from cdc import lsn as lsns
from cdc.config import Config


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One replica at one moment.

    `behind` is the age in seconds of the newest transfer that a reader sees there: while the shop
    is busy that is the lag, overstated by the pause since the last transfer. `backlog` counts
    records in the topic that are not applied.
    """

    at: float
    transactions: int
    rows: int
    behind: float
    backlog: int
    applied_lsn: int
    next_offset: int


@dataclasses.dataclass(frozen=True, slots=True)
class Twice:
    """What the topic holds, against what a replica applied since it was filled."""

    sent: int
    distinct: int
    applied: int


class _End(msgspec.Struct):
    status: str | None = None
    id: str | None = None


class Gauges:
    """Sessions on the replicas and on Kafka, kept open while the demo runs."""

    def __init__(self, config: Config, replicas: dict[str, str]) -> None:
        self._config = config
        self._open = contextlib.ExitStack()
        self._consumer = Consumer(
            {
                "bootstrap.servers": config.kafka.bootstrap_servers,
                "group.id": "cdc-demo",
                "enable.auto.commit": False,
                "log_level": 2,
                "error_cb": lambda _error: None,
            }
        )
        self._open.callback(self._consumer.close)
        self._replicas: dict[str, psycopg.Connection[Any]] = {
            name: self._open.enter_context(
                contextlib.closing(psycopg.connect(dsn, autocommit=True))
            )
            for name, dsn in replicas.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def read(self) -> dict[str, Reading]:
        _low, end = self._consumer.get_watermark_offsets(
            TopicPartition(self._config.topic, 0), timeout=15
        )
        return {name: self._reading(name, end) for name in self._replicas}

    def _reading(self, name: str, end: int) -> Reading:
        row = self._replicas[name].execute(
            "SELECT p.transactions_applied, p.rows_applied,"
            " extract(epoch FROM clock_timestamp() - (SELECT moved_at FROM shop.transfers"
            " ORDER BY transfer_id DESC LIMIT 1))::float8,"
            " p.next_offset, p.applied_lsn - '0/0' FROM cdc.position p WHERE p.stream = %s",
            [self._config.name],
        ).fetchone()  # fmt: skip
        assert row is not None
        transactions, rows, behind, offset, applied = row
        return Reading(
            time.monotonic(), transactions, rows, behind or 0.0, end - offset, int(applied), offset
        )

    def twice(self, name: str) -> Twice:
        """Count every transaction in the topic between the replica's copy and its position."""
        row = self._replicas[name].execute(
            "SELECT p.transactions_applied, p.applied_lsn - '0/0', (SELECT min(t.snapshot_lsn) - '0/0'"
            " FROM cdc.tables t WHERE t.stream = p.stream) FROM cdc.position p WHERE p.stream = %s",
            [self._config.name],
        ).fetchone()  # fmt: skip
        assert row is not None
        applied, upto, since = int(row[0]), int(row[1]), int(row[2])
        partition = TopicPartition(self._config.topic, 0)
        low, high = self._consumer.get_watermark_offsets(partition, timeout=15)
        self._consumer.assign([TopicPartition(self._config.topic, 0, low)])
        decode = msgspec.json.Decoder(_End).decode
        sent, distinct, offset = 0, set(), low
        while offset < high:
            for record in self._consumer.consume(5_000, 1.0):
                if (error := record.error()) is not None:
                    raise KafkaException(error)
                offset = (record.offset() or 0) + 1
                end = decode(record.value() or b"{}")
                if end.status == "END" and end.id and since < _lsn(end.id) <= upto:
                    sent += 1
                    distinct.add(end.id)
        self._consumer.unassign()
        return Twice(sent, len(distinct), applied)


def _lsn(end_id: str) -> int:
    return int(end_id.partition(":")[2])


def place(reading: Reading) -> str:
    """Return where a replica is, as the daemon says it in its log."""
    return f"from offset {reading.next_offset}, after LSN {lsns.show(reading.applied_lsn)}"
