"""What a Kafka client tells by itself, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from confluent_kafka import KafkaError

from cdc import brokers, config
from cdc.brokers import Said
from cdc.config import Config
from cdc.errors import ConfigError

PLAIN = config.decode(
    {
        "name": "app",
        "primary": {"dsn": "host=p"},
        "kafka": {"bootstrap_servers": "k:9092", "options": {"log_level": 7, "group.id": "theirs"}},
        "connect": {"url": "http://c:8083"},
        "replicas": {"r1": {"dsn": "host=r1"}},
    },
    Path("/etc/cdc/cdc.toml"),
)

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
CUT = KafkaError(
    KafkaError._TRANSPORT,
    "k:9092/bootstrap: Connect to k failed: refused (after 2ms in state CONNECT)",
)
LOGIN = KafkaError(
    KafkaError._AUTHENTICATION,
    "sasl_ssl://k:9092/bootstrap: SASL authentication error: no (after 268ms in state AUTH_REQ)",
)
ALERT = KafkaError(
    KafkaError._TRANSPORT,
    "ssl://k:9092/bootstrap: Receive failed: SSL routines::ssl/tls alert bad certificate (after 0ms in state X)",
)  # fmt: skip


def heard(*errors: KafkaError) -> Said:
    """Return what is known after a client has said all of `errors`."""
    said = Said()
    for error in errors:
        said(error)
    return said


@pytest.mark.parametrize(
    ("errors", "final", "what", "next_step"),
    [
        ((), False, "does not answer: nothing came", "that a broker runs"),
        ((CUT, DOWN), False, "does not answer: k:9092/bootstrap: Connect to k failed: refused", "that a broker runs"),
        ((LOGIN,), False, "does not let us in: sasl_ssl://k:9092/bootstrap: SASL", "sasl.password"),
        ((LOGIN, DOWN), True, "SASL authentication error: no", "sasl.password"),
        ((ALERT, DOWN, CUT), True, "alert bad certificate", "ssl.certificate.location"),
    ],
)  # fmt: skip
def test_the_reason_behind_a_silence(
    errors: tuple[KafkaError, ...], final: bool, what: str, next_step: str
) -> None:
    """A refusal outweighs a broken connection; it is final when no broker is left."""
    said = heard(*errors)
    error = brokers.unreachable(PLAIN, said, "nothing came")

    assert final == said.final
    assert error.what.startswith("Kafka at k:9092 does not ")
    assert what in error.what
    assert next_step in error.next
    assert " (after " not in error.what


def test_the_same_trouble_is_told_in_the_same_words() -> None:
    """What a client says has the milliseconds in it: left in, no log line would be like another."""
    again = KafkaError(KafkaError._AUTHENTICATION, LOGIN.str().replace("268ms", "312ms"))

    assert brokers.told(LOGIN) == brokers.told(again)


def test_options_give_way_to_what_correctness_rests_on() -> None:
    """kafka.options lie over defaults and below what is fixed."""
    found = brokers.settings(PLAIN, Said(), {"group.id": "ours"}, {"log_level": 1, "linger.ms": 5})

    assert (7, "ours", 5, "k:9092") == tuple(
        found[key] for key in ("log_level", "group.id", "linger.ms", "bootstrap.servers")
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [("sasl.mechanisms", "NONE"), ("ssl.ca.location", "/nowhere"), ("no.such", 1)],
)
def test_options_that_cannot_be_used_are_a_usage_error(option: str, value: str | int) -> None:
    """What librdkafka refuses is told as kafka.options, exit code 2, not as a broker that is silent."""
    options: dict[str, str | int | float | bool] = {
        "security.protocol": "SASL_SSL",
        "sasl.password": "s3cret",
        option: value,
    }

    with pytest.raises(ConfigError, match=r"kafka.options cannot be used: .*") as raised:
        brokers.Admin(_with(options))

    assert "s3cret" not in str(raised.value)


def _with(options: dict[str, str | int | float | bool]) -> Config:
    kafka = msgspec.structs.replace(PLAIN.kafka, options=options)
    return msgspec.structs.replace(PLAIN, kafka=kafka)


class Queue:
    """A consumer in whose queue messages of these sizes lie; it takes no more at once than it is told to."""

    def __init__(self, *sizes: int) -> None:
        self.left = [Sized(size) for size in sizes]

    def poll(self, _timeout: float) -> Sized | None:
        return self.left.pop(0) if self.left else None

    def consume(self, most: int, timeout: float) -> list[Sized]:
        assert timeout == 0
        found, self.left = self.left[:most], self.left[most:]
        return found


class Sized:
    def __init__(self, size: int) -> None:
        self.size = size

    def value(self) -> bytes:
        return bytes(self.size)


def test_a_large_record_is_taken_alone() -> None:
    """Many large ones are never in memory together; small ones come as many as there are, up to a number."""
    consumer = cast("Any", Queue(10, 20, 2 << 20, 3 << 20, 5))
    taken = [[m.size for m in brokers.taken(consumer, 2, 0.1)] for _ in range(5)]  # type: ignore[attr-defined]  # ours

    assert [[10, 20], [2 << 20], [3 << 20], [5], []] == taken
