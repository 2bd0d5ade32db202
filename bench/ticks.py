"""A table whose rows tell when they were written, who writes it, and how long its rows take to a replica."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from typing import LiteralString

import harness
import psycopg
from confluent_kafka import Consumer, TopicPartition
from harness import Stream

#: Seconds between two looks at the replica: a latency is too long by half of it on average.
LOOK = 0.002

TICKS: LiteralString = """
    CREATE TABLE ticks (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text NOT NULL);
"""

#: Transactions of one row, `rate` a second as long as the server keeps up with it (0: as fast as it can).
WRITE: LiteralString = """
    CREATE OR REPLACE PROCEDURE write(base bigint, number bigint, rate float8) LANGUAGE plpgsql AS $$
    DECLARE began CONSTANT timestamptz := clock_timestamp(); early float8;
    BEGIN
        FOR i IN 1 .. number LOOP
            INSERT INTO ticks VALUES (base + i, clock_timestamp(), 'note ' || i);
            COMMIT;
            IF rate > 0 THEN
                early := i / rate - extract(epoch FROM clock_timestamp() - began);
                IF early > 0 THEN PERFORM pg_sleep(early); END IF;
            END IF;
        END LOOP;
    END $$
"""


class Ticks:
    """The table on a stream's primary; every write goes on with the numbers of the one before, up to `last`."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.last = stream, 0
        stream.sql("primary", TICKS)
        stream.sql("primary", WRITE)

    def write(self, number: int, rate: float = 0) -> None:
        """Write `number` transactions."""
        with self.writing(number, rate, flushed=False):
            pass

    @contextlib.contextmanager
    def writing(self, number: int, rate: float, *, flushed: bool = True) -> Iterator[None]:
        """Write `number` transactions beside the block, and end with it where it fails.

        Unless `flushed`, a commit does not wait for its log: what is not flushed is not sent either.
        """
        base, self.last = self.last, self.last + number
        with psycopg.connect(self.stream.primary, autocommit=True) as conn:
            if not flushed:
                conn.execute("SET synchronous_commit = off")

            def write() -> None:
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    conn.execute("CALL write(%s, %s, %s)", [base, number, rate])

            writer = threading.Thread(target=write)
            writer.start()
            try:
                yield
            except BaseException:
                conn.cancel_safe()
                raise
            finally:
                writer.join()

    def capacity(self, number: int) -> float:
        """Return how many one-row transactions a second come into the topic, written as fast as they can be."""
        consumer = Consumer({"bootstrap.servers": self.stream.kafka, "group.id": "bench"})
        place = TopicPartition(self.stream.topic, 0)

        def end() -> int:
            return int(consumer.get_watermark_offsets(place, timeout=30)[1])

        try:
            before, began = end(), time.monotonic()
            self.write(number)
            harness.wait_until(lambda: end() >= before + 3 * number, "all is captured", timeout=600)
            return number / (time.monotonic() - began)
        finally:
            consumer.close()

    def measured(
        self, dsn: str, rate: float, seconds: float, *, flushed: bool = True
    ) -> dict[str, float]:
        """Return what transactions at `rate` took from their row's time to where it was seen at `dsn`, in seconds."""
        number, first = int(rate * seconds), self.last
        took: list[float] = []
        statement: LiteralString = (
            "SELECT id, extract(epoch FROM at)::float8 FROM ticks WHERE id > %s ORDER BY id"
        )
        with (
            psycopg.connect(dsn, autocommit=True) as conn,
            self.writing(number, rate, flushed=flushed),
        ):
            began, seen = time.monotonic(), first
            while seen < first + number and time.monotonic() < began + 20 * seconds:
                rows, now = conn.execute(statement, [seen]).fetchall(), time.time()
                took += [now - at for _, at in rows]
                seen = rows[-1][0] if rows else seen
                time.sleep(LOOK)
            lasted = time.monotonic() - began
        assert len(took) == seen - first, (
            "rows were seen in another order than they were written in"
        )
        return figures(took, rate, lasted)


def figures(took: Sequence[float], asked: float, lasted: float) -> dict[str, float]:
    """Return what is told of latencies in seconds, of rows that were all there after `lasted` seconds."""
    cut = statistics.quantiles(took, n=100)
    return {
        "asked": round(asked), "rate": round(len(took) / lasted), "number": len(took),
        "p50": cut[49], "p95": cut[94], "p99": cut[98], "most": max(took),
    }  # fmt: skip
