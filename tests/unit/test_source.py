"""Reading the topic when Kafka does not answer, or answers late."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from cdc import source as sources
from cdc import topic
from cdc.config import Config, Connect, Kafka, Primary, Replica
from cdc.errors import PositionLost, Unreachable
from cdc.position import Position
from cdc.source import Source
from cdc.topic import TopicInfo

POSITION = Position("app", "cdc.app", "id", 5, None, 1000, "one", 1, (), 0)


@pytest.fixture
def silent() -> Iterator[Source]:
    """Give a source whose broker refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening: connections are refused
        servers = f"127.0.0.1:{bound.getsockname()[1]}"
        config = Config(
            name="app",
            primary=Primary(dsn=""),
            kafka=Kafka(bootstrap_servers=servers),
            connect=Connect(url="http://127.0.0.1:1"),
            replicas={"r1": Replica(dsn="")},
        )
        with contextlib.closing(Source(config, "g", lambda _what: None)) as source:
            yield source


def looked() -> None:
    """Wait until the look in the background has ended."""
    for thread in threading.enumerate():
        if thread.name == "topic":
            thread.join()


def test_looking_ahead_gives_up_when_kafka_is_silent(
    silent: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no broker the log has no end to be found: an error that is tried again, not a hang."""
    monkeypatch.setattr(topic, "TIMEOUT", 0.2)

    with pytest.raises(Unreachable, match="does not answer"):
        next(silent.ahead(0))


def test_a_look_that_waits_for_kafka_holds_nothing_up(
    silent: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon goes on with what it has; what the look finds is judged at the next occasion."""
    answer = threading.Event()

    def describe(_config: Config) -> TopicInfo:
        assert answer.wait(60)
        return TopicInfo("cdc.app", "another", 1)

    monkeypatch.setattr(topic, "describe", describe)
    monkeypatch.setattr(sources, "_CHECK_EVERY", 0.0)
    for _ in range(3):
        silent.watch(POSITION)
    assert [t.name for t in threading.enumerate()].count("topic") == 1

    answer.set()
    looked()
    with pytest.raises(PositionLost, match="made anew"):
        silent.watch(POSITION)


def test_a_turn_ends_when_kafka_is_silent_for_long(
    silent: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At first it is only said; after a while another daemon must have its chance."""
    monkeypatch.setattr(topic, "TIMEOUT", 0.2)
    monkeypatch.setattr(sources, "_CHECK_EVERY", 0.0)
    silent.watch(POSITION)
    looked()
    silent.watch(POSITION)
    assert "does not answer" in str(silent.silent)

    monkeypatch.setattr(sources, "PATIENCE", -1.0)
    with pytest.raises(Unreachable, match="does not answer"):
        silent.watch(POSITION)
    looked()


@pytest.mark.parametrize(
    ("code", "doubted", "told"),
    [
        (KafkaError.GROUP_AUTHORIZATION_FAILED, False, False),
        (KafkaError._TRANSPORT, True, False),
        (KafkaError._ALL_BROKERS_DOWN, True, True),
    ],
)
def test_only_trouble_with_the_topic_casts_doubt_on_it(
    silent: Source, code: int, doubted: bool, told: bool
) -> None:
    """A group that we may not commit to costs nothing: lag tools show less, rows are read on."""
    silent._client_trouble(KafkaError(code))

    assert (doubted, told) == (silent._doubted, silent.silent is not None)
