"""Reading ahead in a real topic, without the position moving."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from harness import Stream, wait_until

from cdc import config
from cdc.source import Source

pytestmark = pytest.mark.stack


@pytest.fixture
def written(stream: Stream) -> Iterator[Stream]:
    """Give a stream whose topic somebody writes to, faster than a fetch waits, without end."""
    stream.sql("primary", "CREATE TABLE t (id int PRIMARY KEY)")
    stream.cdc("setup")
    producer, stop = (
        Producer({"bootstrap.servers": stream.kafka, "linger.ms": 0}),
        threading.Event(),
    )

    def write() -> None:
        while not stop.wait(0.02):
            producer.produce(stream.topic, b"{}", partition=0)
            producer.poll(0)

    writing = threading.Thread(target=write)
    writing.start()
    yield stream
    stop.set()
    writing.join()
    producer.flush(10)


def test_the_end_is_where_it_was_when_it_was_asked_for(written: Stream) -> None:
    """However fast records keep coming, looking ahead comes to an end."""
    source = Source(config.load(written.config), "test", lambda _trouble: None)
    seen: list[int] = []

    def look() -> None:
        seen.append(sum(1 for _ in source.ahead(0)))

    try:
        wait_until(lambda: any(True for _ in source.ahead(0)), "the topic has records")
        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(60)
        assert seen
        assert seen[0] > 0
    finally:
        source.close()
